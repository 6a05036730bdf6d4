"""Which images each step of each epoch sees: a pure function of examples, config, seed and epoch.

In:  rows to learn from and their labels; or breasts, as bags of views.
Out: rows (steps, batch), or (steps, batch, V) with −1 where a bag has fewer views.

Nothing is remembered between epochs, so a run resumes anywhere without state. The only source of chance is
the raw stream of Philox4x64 under the key (seed, epoch), which is a published algorithm (Salmon et al., SC
2011); orders come from a stable sort of it, so that no library's way to shuffle is part of a result.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from preprocess.errors import UsageError
from preprocess.schema import InstanceRow
from trainer.config import BagPooling, DataConfig
from trainer.records import Rows
from trainer.targets import Labels

FILL = -1
_VIEW_ORDER = {"CC": 0, "MLO": 1}
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Sampler:
    """The order of training."""

    examples: tuple[Rows, ...] = field(repr=False)
    """Rows of each example: one, or the views of a breast."""
    positive: Mask = field(repr=False)
    """(n,): which examples are positive."""
    config: DataConfig
    seed: int
    epochs: int

    @property
    def steps_per_epoch(self) -> int:
        """As many batches as all examples fill once."""
        return -(-len(self.examples) // self.config.batch_size)

    def plan(self, epoch: int) -> Rows:
        """Rows of all steps of an epoch: (steps, batch), or (steps, batch, V)."""
        bits = np.random.Philox(key=[self.seed, epoch])
        if self.config.balance:
            order = balanced(self.positive, self._counts(epoch), self.config.batch_size, bits)
        else:
            size = self.steps_per_epoch * self.config.batch_size
            order = cycled(np.arange(len(self.examples)), size, bits)
            order = order.reshape(self.steps_per_epoch, self.config.batch_size)
        if self.config.bags is BagPooling.NONE:
            images: Rows = np.concatenate(self.examples)[order]
            return images
        return self._views(order, bits)

    def share(self, epoch: int) -> float:
        """Share of positives in an epoch's batches: linear from the first epoch's to the last's."""
        first, last = self.config.positive_share, self.config.positive_share_end
        if last is None or self.epochs < 2:
            return first
        return first + (last - first) * min(epoch, self.epochs - 1) / (self.epochs - 1)

    def _counts(self, epoch: int) -> Rows:
        """Positives of each step: the share, spread evenly; at least one, and at least one negative."""
        wanted = self.share(epoch) * self.config.batch_size * np.arange(self.steps_per_epoch + 1)
        # a millionth, so that 0.3 · 10 · 10 is not a little less than 30
        counts: Rows = np.diff(np.floor(wanted + 1e-6)).astype(np.int64)
        return np.clip(counts, 1, self.config.batch_size - 1)

    def _views(self, order: Rows, bits: np.random.Philox) -> Rows:
        """Views of each bag drawn: all, or as many as a bag holds, chosen anew each time."""
        views = self.config.bag_views
        out = np.full((*order.shape, views), FILL, np.int64)
        for place in np.ndindex(order.shape):
            rows = self.examples[order[place]]
            if len(rows) > views:
                rows = rows[np.sort(_order(len(rows), bits)[:views])]
            out[place][: len(rows)] = rows
        return out


def sampler(
    rows: Sequence[InstanceRow], labels: Labels, train: Rows, config: DataConfig, *, seed: int, epochs: int
) -> Sampler:
    """The sampler of a training.

    Raises:
        UsageError: balance is asked of one class, or of batches of one.
    """
    examples = examples_of(rows, train, config)
    positive = np.array([np.nanmax(labels.values[one, 0], initial=0) == 1 for one in examples])
    if config.balance and config.batch_size < 2:
        raise UsageError("--balance needs batches of at least 2: a positive and a negative")
    if config.balance and (positive.all() or not positive.any()):
        raise UsageError(f"{labels.target}: training has one class only")
    return Sampler(examples, positive, config, seed, epochs)


def examples_of(rows: Sequence[InstanceRow], some: Rows, config: DataConfig) -> tuple[Rows, ...]:
    """Each row alone; or the rows of each breast, in the order CC, MLO, others. Order of first appearance.

    An image of unknown laterality is a breast of its own.
    """
    if config.bags is BagPooling.NONE:
        return tuple(some[index : index + 1] for index in range(len(some)))
    breasts: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index in some.tolist():
        row = rows[index]
        side = row.laterality or f"?{index}"
        breasts[row.patient_id or row.source, side].append(index)
    for members in breasts.values():
        members.sort(key=lambda index: (_VIEW_ORDER.get(rows[index].view or "", len(_VIEW_ORDER)), index))
    return tuple(np.array(members, np.int64) for members in breasts.values())


def balanced(positive: Mask, counts: Rows, batch: int, bits: np.random.Philox) -> Rows:
    """Examples (steps, batch) with `counts` positives in each step, at places that chance decides."""
    mask = np.arange(batch) < counts[:, None]
    order = np.empty(mask.shape, np.int64)
    order[mask] = cycled(np.flatnonzero(positive), int(mask.sum()), bits)
    order[~mask] = cycled(np.flatnonzero(~positive), int((~mask).sum()), bits)
    places = np.argsort(bits.random_raw(order.size).reshape(order.shape), axis=1, kind="stable")
    return np.take_along_axis(order, places, axis=1)


def cycled(examples: Rows, size: int, bits: np.random.Philox) -> Rows:
    """`size` examples: each once in an order of chance, then again in another, and so on."""
    rounds = [examples[_order(len(examples), bits)] for _ in range(-(-size // len(examples)))]
    return np.concatenate(rounds)[:size] if rounds else np.empty(0, np.int64)


def _order(size: int, bits: np.random.Philox) -> Rows:
    return np.argsort(bits.random_raw(size), kind="stable")
