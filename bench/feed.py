"""From shards to augmented batches: our loader beside tf.data with the same augmentation in numpy_function.

In:  a dataset with TFRecord shards of PNGs, the augmentation, a batch size, a number of cores.
Out: Works for `bench.measure`: one pass is one epoch of batches in host memory, shuffled.

Both read the same shards, verify CRCs, decode 16-bit PNG, give float32 in [0, 1] to the same Augmenter with a
seed per image, and put batches together ahead of a consumer, which may take `step_ms` a batch as a device
would. tf.data is as its guides have it: parallel reads, a shuffle buffer, parallel maps, prefetch, AUTOTUNE.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Self

import numpy as np

from bench.measure import Parts, Work
from preprocess.config import Encoding, Format
from preprocess.errors import UsageError
from preprocess.places import place
from trainer.augment import Augmenter
from trainer.config import DataConfig, TrainConfig
from trainer.data import seed_of, train_batches
from trainer.dataset import open_dataset
from trainer.records import Floats
from trainer.targets import Labels

OURS = "ours"
TF_DATA = "tf.data + numpy_function"
_SHUFFLED = 64


@dataclass(frozen=True, slots=True)
class Feed:
    """What both are asked for."""

    dataset: str
    augment: str
    batch_size: int
    step_ms: float
    images: int
    """Images of the dataset."""

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return -(-self.images // self.batch_size)


@dataclass(frozen=True, slots=True)
class OurFeed:
    """`trainer.data` with a thread per core."""

    feed: Feed
    name: str = OURS

    @property
    def items(self) -> int:
        """Images of a pass."""
        return self.feed.steps * self.feed.batch_size

    def share(self, index: int, of: int) -> Self:
        """All of it: threads of one process are what is measured."""
        return self

    def open(self) -> Callable[[], Parts]:
        """One pass is the next epoch."""
        feed, dataset = self.feed, open_dataset(self.feed.dataset)
        labels = Labels(np.zeros((len(dataset), 1), np.float32), (), "nothing")
        data = DataConfig(batch_size=feed.batch_size, augment=feed.augment, balance=False)
        loader = train_batches(dataset, labels, np.arange(len(dataset)), TrainConfig(data=data))
        epochs = count()
        return lambda: _consume((batch.images for batch in loader.iterate(next(epochs))), feed)


@dataclass(frozen=True, slots=True)
class TfDataFeed:
    """What a TensorFlow user writes today."""

    feed: Feed
    name: str = TF_DATA

    @property
    def items(self) -> int:
        """Images of a pass."""
        return self.feed.steps * self.feed.batch_size

    def share(self, index: int, of: int) -> Self:
        """All of it."""
        return self

    def open(self) -> Callable[[], Parts]:
        """One pass is an epoch, filled up to whole batches."""
        batches = tf_dataset(self.feed)
        return lambda: _consume(iter(batches), self.feed)


def feed_works(where: str, augment: str, batch_size: int, step_ms: float) -> tuple[Work, Work]:
    """Ours and theirs. Raises UsageError where the dataset is not what both can read."""
    dataset = open_dataset(where)
    local = isinstance(dataset.place, Path)
    if (
        not local
        or dataset.kind is not Format.TFRECORD
        or dataset.manifest.config.encoding is not Encoding.PNG
    ):
        raise UsageError("feed compares on TFRecord shards of PNGs in a folder of this machine")
    Augmenter.named(augment)  # a name that is none is told before anything is measured
    feed = Feed(where, augment, batch_size, step_ms, len(dataset))
    return OurFeed(feed), TfDataFeed(feed)


def tf_dataset(feed: Feed) -> Any:
    """The tf.data pipeline: eager tensors (B, H, W, 1)."""
    import tensorflow as tf

    dataset, augmenter = open_dataset(feed.dataset), Augmenter.named(feed.augment)
    folder = place(feed.dataset)
    files = [
        str(folder / file.path)
        for shard in dataset.manifest.shards
        for file in shard.files
        if file.format == Format.TFRECORD and file.rows
    ]
    largest = float((1 << dataset.bits) - 1)
    depth = tf.uint16 if dataset.bits == 16 else tf.uint8
    keys = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
    shape = (dataset.height, dataset.width, 1)

    def decode(number: Any, record: Any) -> Any:
        pixels = tf.io.decode_png(tf.io.parse_single_example(record, keys)["image/encoded"], 1, depth)
        return number, tf.cast(pixels, tf.float32) / largest

    def augment(number: Any, pixels: Any) -> Any:
        changed = tf.numpy_function(
            partial(_augmented, augmenter), (number, pixels), tf.float32, stateful=False
        )
        return tf.ensure_shape(changed, shape)

    data = tf.data.TFRecordDataset(files, num_parallel_reads=tf.data.AUTOTUNE).repeat().shuffle(_SHUFFLED)
    data = data.enumerate().map(decode, tf.data.AUTOTUNE).map(augment, tf.data.AUTOTUNE)
    return data.batch(feed.batch_size).take(feed.steps).prefetch(tf.data.AUTOTUNE)


def _augmented(augmenter: Augmenter, number: np.int64, pixels: Floats) -> Floats:
    return augmenter.apply(pixels[..., 0], seed_of(0, 0, int(number)))[..., None]


def _consume(batches: Iterator[Any], feed: Feed) -> Parts:
    """Take every batch and a little of its contents, as slowly as asked."""
    waited = 0.0
    for _ in range(feed.steps):
        start = time.perf_counter()
        images = np.asarray(next(batches))
        waited += time.perf_counter() - start
        if not np.isfinite(images[:, ::64, ::64]).all() or len(images) != feed.batch_size:
            raise ValueError("a batch is not what was asked for")
        time.sleep(feed.step_ms / 1000)
    return (("wait", waited),)
