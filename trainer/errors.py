"""What can go wrong in a training, as branches of `preprocess.errors`' tree.

RunAborted            exit 1
├── Diverged          diverged        loss or gradients are no longer numbers
└── OutOfMemory       out_of_memory   a device or the host has too little memory for a step
"""

from __future__ import annotations

from preprocess.errors import RunAborted


class Diverged(RunAborted):
    """Loss or gradients are no longer finite numbers; the message names step and learning rate."""

    code = "diverged"


class OutOfMemory(RunAborted):
    """A step needs more memory than there is; the message says what to change."""

    code = "out_of_memory"
