"""The values that pass between the trainer's stages: frozen, slotted, typed.

Dataset ─targets→ Labels ─split→ Split ─sampler→ rows ─data→ Batch ─model→ logits ─evaluate→ predictions
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step sees, on the host. B images, or B bags of V views.

    Pixels are stored values divided by 2^bits − 1 (float32 holds 16 bits). Normalisation is the model's.
    """

    images: Floats = field(repr=False)
    """(B, H, W, 1), or (B, V, H, W, 1) for bags, in [0, 1]."""
    labels: Floats
    """(B, 1 + A + C): the target, then the auxiliary ones in the config's order; NaN where unknown.

    Classes of a categorical label are whole numbers from 0. With --lesions, training batches have C cells
    more: each view's lesion map (h, w) in raster order, in [0, 1].
    """
    weights: Floats
    """(B,): 0 for rows that only fill the batch."""
    rows: Rows
    """(B,) or (B, V): places in `Dataset.rows`; −1 for fill."""


@dataclass(frozen=True, slots=True)
class AuxiliaryHead:
    """An extra output of the model: one logit for a binary label, one per class otherwise."""

    name: str
    classes: tuple[str, ...]
    """Values in the order of their numbers in `Batch.labels`; two for a binary label."""

    @property
    def logits(self) -> int:
        """Columns that it takes in the model's output."""
        return 1 if len(self.classes) == 2 else len(self.classes)


@dataclass(frozen=True, slots=True)
class Split:
    """Training and validation rows of one fold: patient-disjoint, ascending."""

    fold: int
    train: Rows
    validation: Rows
