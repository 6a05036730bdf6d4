"""Mixup (Zhang et al., ICLR 2018) on the host: a batch and its own rows in another order, blended.

In:  a Batch, the Beta distribution's parameter, seed, epoch, step.
Out: a Batch. A pure function: the same on every backend and for any number of devices.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trainer.records import AuxiliaryHead, Batch

_STREAM = 0x313C


def mixed(batch: Batch, alpha: float, key: tuple[int, int, int], heads: tuple[AuxiliaryHead, ...]) -> Batch:
    """Blend each row with another of weight > 0; `key` is (seed, epoch, step), and alpha 0 changes nothing.

    Labels are blended too; a class number cannot be, so that one of a head with more than two classes is
    unknown where the two rows differ. Unknown stays unknown.
    """
    real = np.flatnonzero(batch.weights > 0)
    if not alpha or len(real) < 2:
        return batch
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([_STREAM, *key])))
    keep = np.float32(rng.beta(alpha, alpha))
    partner = np.arange(len(batch.weights))
    partner[real] = real[rng.permutation(len(real))]
    labels = keep * batch.labels + (1 - keep) * batch.labels[partner]
    for column, head in enumerate(heads, start=1):
        if head.logits > 1:
            same = batch.labels[:, column] == batch.labels[partner, column]
            labels[:, column] = np.where(same, batch.labels[:, column], np.nan)
    images = keep * batch.images
    images += (1 - keep) * batch.images[partner]
    return replace(batch, images=images, labels=labels.astype(np.float32, copy=False))
