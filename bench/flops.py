"""How much arithmetic a model is, counted from its layers, and what devices could do at most.

In:  a Keras model; a device's name.
Out: floating-point operations, a multiplication and an addition each; operations a second.

Convolutions and matrix products only: what accelerators are built for, and more than 99 % of a network.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

TRAINING = 3
"""Forward, gradients by inputs, gradients by weights: the usual count of a step (Kaplan et al., 2020)."""

_BFLOAT16 = {
    "H200": 989.4e12, "H100 PCIE": 756e12, "H100 NVL": 835e12, "H100": 989.4e12, "A100": 312e12,
    "L40S": 362e12, "L4": 121e12, "A10": 125e12, "B200": 2250e12,
}  # fmt: skip
"""Operations a second of dense bfloat16, NVIDIA's data sheets; the first name that fits counts."""


def forward_flops(model: keras.Model) -> int:
    """Operations of one example's forward pass.

    Every layer with a kernel applies all of it at each place of its output.
    """
    total = 0
    for layer in model._flatten_layers(include_self=False, recursive=True):
        kernel = getattr(layer, "kernel", None)
        if kernel is None or not layer._inbound_nodes:
            continue
        places = math.prod(layer.output.shape[1:-1])
        total += 2 * math.prod(kernel.shape) * places
    return total


def peak_flops(device: str, precision: str) -> float | None:
    """Operations a second that a device is sold with; None where that is not known here."""
    if precision not in ("mixed_bfloat16", "mixed_float16"):
        return None
    return next((peak for name, peak in _BFLOAT16.items() if name in device.upper()), None)
