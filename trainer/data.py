"""Batches: read, verified, augmented and put together by threads, in order, ahead of who uses them.

In:  dataset, labels, rows, the training's config.
Out: TrainBatches: `batch(epoch, step)` is a pure function, `iterate` gives the same batches sooner;
     EvaluationBatches: every row once, in order, the last batch filled up with weight 0.

Nothing here depends on a Keras backend, and any number of threads gives the same batches: what an image
becomes is decided by (seed, epoch, its place in the epoch), not by who works on it when.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial

import numpy as np

from preprocess.errors import DatasetDamaged, DatasetUnreadable
from trainer.augment import Augmenter
from trainer.config import BagPooling, DataConfig, OnCorrupt, TrainConfig
from trainer.dataset import Dataset
from trainer.memory import keep_freed_memory
from trainer.records import Batch, Floats, Mask, Rows
from trainer.sampler import FILL, Sampler, examples_of, sampler
from trainer.targets import Labels
from trainer.windows import NO_MARKS, Marks

_MOST_THREADS = 16
_AHEAD = 2
"""Batches in work beyond those that keep all threads busy."""


@dataclass(frozen=True, slots=True)
class CorruptRecord:
    """A record that was left out (--on-corrupt skip)."""

    row: int
    """Its place in `Dataset.rows`."""
    message: str


Job = Callable[[], bool]
"""Puts one image into its place; False if its record is corrupt and was left out."""
Change = Callable[[Floats, Mask | None, int], tuple[Floats, Mask | None]]
"""(pixels, lesion mask, seed) → both, augmented."""


@dataclass(frozen=True, slots=True)
class _Draft:
    """A batch whose images are on their way."""

    images: Floats = field(repr=False)
    cells: Floats | None = field(repr=False)
    """(B, h, w) or (B, V, h, w): lesion maps, where they are learned."""
    rows: Rows
    places: tuple[tuple[int, ...], ...]
    jobs: tuple[Job, ...] = field(repr=False)


class Loader:
    """Turns rows into batches, with threads that it starts for each iteration."""

    def __init__(
        self,
        dataset: Dataset,
        labels: Labels,
        config: DataConfig,
        workers: int = 0,
        marks: Marks = NO_MARKS,
    ) -> None:
        self._dataset = dataset
        self._lesions, self._windows = marks.lesions, marks.windows
        self._labels = labels
        self._config = config
        self._workers = workers or min(len(os.sched_getaffinity(0)), _MOST_THREADS)
        keep_freed_memory()
        self._lock = threading.Lock()
        self._corrupt: dict[int, CorruptRecord] = {}
        self.waited_s = 0.0
        """Seconds that users of `iterate` have waited for a batch so far."""

    @property
    def corrupt(self) -> tuple[CorruptRecord, ...]:
        """Records that were left out so far, each once, by row."""
        with self._lock:
            return tuple(self._corrupt[row] for row in sorted(self._corrupt))

    def _draft(self, rows: Rows, change: Change | None, seed: Callable[[int], int]) -> _Draft:
        """Begin a batch; `seed` is of a place in the batch, counted over bags' views."""
        size = (self._dataset.height, self._dataset.width)
        if self._windows is not None:
            size = (self._windows.size, self._windows.size)
        images = np.empty((*rows.shape, *size, 1), np.float32)
        cells = None
        if self._lesions is not None:
            cells = np.full((*rows.shape, *self._lesions.grid), np.nan, np.float32)
        places, jobs = [], []
        for number, place in enumerate(np.ndindex(rows.shape)):
            if rows[place] == FILL:
                images[place] = 0
                continue
            places.append(place)
            out = (images[place], None if cells is None else cells[place])
            jobs.append(partial(self._load, out, int(rows[place]), seed(number), change))
        return _Draft(images, cells, rows.copy(), tuple(places), tuple(jobs))

    def _load(self, out: tuple[Floats, Floats | None], row: int, seed: int, change: Change | None) -> bool:
        """Fill the views `out` of a batch's images and lesion maps."""
        try:
            stored = self._dataset.pixels(row)
        except DatasetUnreadable:  # no record's fault: --on-corrupt skip would leave out all there is
            raise
        except DatasetDamaged as error:
            if self._config.on_corrupt is OnCorrupt.FAIL:
                raise
            with self._lock:
                self._corrupt.setdefault(row, CorruptRecord(row, str(error)))
            return False
        image, cells = out
        mask = None if self._lesions is None else self._lesions.mask(row, stored.shape)
        if self._windows is not None:
            window = self._windows.place(row, seed, stored)
            stored, mask = stored[window], None if mask is None else mask[window]
        pixels = np.divide(stored, np.float32((1 << self._dataset.bits) - 1), dtype=np.float32)
        if change is not None:
            pixels, mask = change(pixels, mask, seed)
        image[..., 0] = pixels
        if cells is not None and self._lesions is not None:
            cells[:] = self._lesions.cells(row, mask)
        return True

    def _finish(self, draft: _Draft, loaded: list[bool]) -> Batch:
        for place, good in zip(draft.places, loaded, strict=True):
            if not good:
                draft.rows[place] = FILL
                draft.images[place] = 0
        if draft.rows.ndim == 1:
            _lend_pixels(draft.images, draft.rows)
        weights = (draft.rows != FILL).reshape(len(draft.rows), -1).any(axis=1).astype(np.float32)
        labels = self._label(draft.rows, weights)
        if draft.cells is not None:
            labels = np.concatenate([labels, draft.cells.reshape(len(labels), -1)], axis=1)
        return Batch(draft.images, labels, weights, draft.rows)

    def _label(self, rows: Rows, weights: Floats) -> Floats:
        """Labels of images, or the largest known ones of a bag's views; 0 and unknown for what only fills."""
        values = self._labels.values[rows]
        values[rows == FILL] = np.nan
        if rows.ndim == 2:
            known = ~np.isnan(values)
            largest = np.where(known, values, -1).max(axis=1)
            values = np.where(known.any(axis=1), largest, np.nan).astype(np.float32)
        values[weights == 0, 0] = 0
        return values

    def _inline(self, draft: _Draft) -> Batch:
        return self._finish(draft, [job() for job in draft.jobs])

    def _ahead(self, drafts: Iterator[_Draft], batch: int) -> Generator[Batch, None, None]:
        """Finished batches in order; a bounded number of them in work."""
        deep = _AHEAD + -(-self._workers // batch)
        waiting: deque[tuple[_Draft, list[Future[bool]]]] = deque()
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="bcd-data")
        try:
            for draft in drafts:
                waiting.append((draft, [pool.submit(job) for job in draft.jobs]))
                if len(waiting) >= deep:
                    yield self._wait(*waiting.popleft())
            while waiting:
                yield self._wait(*waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _wait(self, draft: _Draft, futures: list[Future[bool]]) -> Batch:
        start = time.perf_counter()
        try:
            return self._finish(draft, [future.result() for future in futures])
        finally:
            self.waited_s += time.perf_counter() - start


class TrainBatches(Loader):
    """Augmented batches of a training."""

    def __init__(
        self,
        dataset: Dataset,
        labels: Labels,
        order: Sampler,
        augmenter: Augmenter,
        workers: int = 0,
        marks: Marks = NO_MARKS,
    ) -> None:
        super().__init__(dataset, labels, order.config, workers, marks)
        self.sampler = order
        self.augmenter = augmenter
        self._plan = lru_cache(maxsize=2)(order.plan)

    @property
    def steps_per_epoch(self) -> int:
        """The same in every epoch."""
        return self.sampler.steps_per_epoch

    def batch(self, epoch: int, step: int) -> Batch:
        """One batch, made by the calling thread. Raises DatasetDamaged."""
        return self._inline(self._step(epoch, step))

    def iterate(self, epoch: int, start_step: int = 0) -> Generator[Batch, None, None]:
        """Batches of an epoch from a step on, made ahead by threads. Raises DatasetDamaged.

        Close the iterator, or read it to its end, to let its threads go.
        """
        steps = range(start_step, self.steps_per_epoch)
        return self._ahead((self._step(epoch, step) for step in steps), self._config.batch_size)

    def _step(self, epoch: int, step: int) -> _Draft:
        rows = self._plan(epoch)[step]
        first = step * rows.size
        return self._draft(
            rows, self.augmenter.apply_both, lambda number: seed_of(self.sampler.seed, epoch, first + number)
        )

    def _label(self, rows: Rows, weights: Floats) -> Floats:
        values = super()._label(rows, weights)
        values[values[:, 0] == 1, 0] = self._config.soft_positive
        return values


class EvaluationBatches(Loader):
    """Every image or bag once, as stored, in the order of the rows given."""

    def __init__(
        self,
        dataset: Dataset,
        labels: Labels,
        rows: Rows,
        config: DataConfig,
        workers: int = 0,
        marks: Marks = NO_MARKS,
    ) -> None:
        super().__init__(dataset, labels, config, workers, Marks(windows=marks.windows))
        self.examples = examples_of(dataset.rows, rows, config)

    def left_out(self) -> Iterator[tuple[Rows, Rows]]:
        """Of each breast with more views than a bag holds: the rows in the bag, and the rest."""
        views = self._config.bag_views
        for members in self.examples:
            if len(members) > views:
                yield members[:views], members[views:]

    @property
    def steps(self) -> int:
        """Batches, the last of them filled up."""
        return -(-len(self.examples) // self._config.batch_size)

    def batch(self, step: int) -> Batch:
        """One batch, made by the calling thread. Raises DatasetDamaged."""
        return self._inline(self._step(step))

    def iterate(self, start_step: int = 0) -> Generator[Batch, None, None]:
        """All batches from a step on, made ahead by threads. Raises DatasetDamaged."""
        return self._ahead(
            (self._step(step) for step in range(start_step, self.steps)), self._config.batch_size
        )

    def _step(self, step: int) -> _Draft:
        size = self._config.batch_size
        some = self.examples[step * size : (step + 1) * size]
        views = self._config.bag_views
        rows = np.full((size, views), FILL, np.int64)
        for place, members in enumerate(some):
            rows[place, : len(members)] = members[:views]
        return self._draft(rows[:, 0] if self._config.bags is BagPooling.NONE else rows, None, lambda _: 0)


def train_batches(
    dataset: Dataset,
    labels: Labels,
    rows: Rows,
    config: TrainConfig,
    workers: int = 0,
    marks: Marks = NO_MARKS,
    augmenter: Augmenter | None = None,
) -> TrainBatches:
    """Batches to train on `rows`: sampled, augmented; soft positives and cells of lesion maps in the labels.

    augmenter: None: the one that the config names, read now.

    Raises:
        UsageError: the augmentation cannot be read, or balance is asked of one class.
    """
    optimization = config.optimization
    order = sampler(
        dataset.rows, labels, rows, config.data, seed=optimization.seed, epochs=optimization.epochs
    )
    augmenter = augmenter or Augmenter.named(config.data.augment)
    return TrainBatches(dataset, labels, order, augmenter, workers, marks)


def evaluation_batches(
    dataset: Dataset,
    labels: Labels,
    rows: Rows,
    config: DataConfig,
    workers: int = 0,
    marks: Marks = NO_MARKS,
) -> EvaluationBatches:
    """Batches to evaluate `rows` on. Of a breast with more views than a bag holds the first are taken."""
    return EvaluationBatches(dataset, labels, rows, config, workers, marks)


def seed_of(seed: int, epoch: int, place: int) -> int:
    """The augmentation's seed of one place of one epoch: 32 bits of a hash."""
    digest = hashlib.blake2b(struct.pack("<QQQ", seed, epoch, place), digest_size=4)
    return int.from_bytes(digest.digest())


def _lend_pixels(images: Floats, rows: Rows) -> None:
    """Give the places that count for nothing another image's pixels: zeros would spoil batch statistics."""
    good = np.flatnonzero(rows != FILL)
    for place in np.flatnonzero(rows == FILL) if good.size else ():
        images[place] = images[good[np.searchsorted(good, place) % good.size]]
