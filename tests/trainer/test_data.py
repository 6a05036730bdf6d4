"""Batches: the same for any number of threads and from any step on; what is corrupt is told."""

from __future__ import annotations

import errno
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from preprocess.errors import DatasetDamaged, DatasetUnreadable
from preprocess.images import encode
from tests.trainer.sets import make
from trainer.config import BagPooling, DataConfig, OnCorrupt, OptimizationConfig, TrainConfig
from trainer.data import evaluation_batches, train_batches
from trainer.dataset import Dataset, open_dataset
from trainer.folds import split
from trainer.records import Batch
from trainer.targets import Labels, labels_of

CONFIG = TrainConfig(
    data=DataConfig(batch_size=5, augment="heavy", soft_positive=0.9, positive_share=0.3),
    optimization=OptimizationConfig(epochs=3, seed=11),
)
BAGS = DataConfig(batch_size=3, bags=BagPooling.MEAN, bag_views=3)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make(tmp_path_factory.mktemp("set") / "OUT")


@pytest.fixture(scope="module")
def labels(dataset: Dataset) -> Labels:
    return labels_of(dataset.rows, DataConfig(), ("density", "view"))


def assert_same(ours: Batch, theirs: Batch) -> None:
    for name in ("images", "labels", "weights", "rows"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)


def damaged(dataset: Dataset, out: Path, *indices: int) -> Dataset:
    """A copy in which these images fail their CRC."""
    shutil.copytree(Path(str(dataset.place)), out)
    for index in indices:
        name = f"{dataset.rows[index].shard}.tfrecord"
        data = bytearray((out / name).read_bytes())
        encoded = encode(dataset.pixels(index), dataset.manifest.config.encoding)
        data[data.index(encoded) + 99] ^= 1
        (out / name).write_bytes(data)
    return open_dataset(out)


def test_any_number_of_threads_gives_the_same_batches(dataset: Dataset, labels: Labels) -> None:
    train = split(dataset, labels, 0).train
    alone = train_batches(dataset, labels, train, CONFIG, workers=1)
    expected = [alone.batch(1, step) for step in range(alone.steps_per_epoch)]
    for workers in (1, 2, 8):
        loader = train_batches(dataset, labels, train, CONFIG, workers)
        found = list(loader.iterate(1))
        assert len(found) == loader.steps_per_epoch == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert_same(ours, theirs)


def test_an_epoch_goes_on_in_its_middle(dataset: Dataset, labels: Labels) -> None:
    train = split(dataset, labels, 0).train
    whole = list(train_batches(dataset, labels, train, CONFIG, 2).iterate(2))
    rest = list(train_batches(dataset, labels, train, CONFIG, 3).iterate(2, start_step=3))
    assert len(rest) == len(whole) - 3 > 0
    for ours, theirs in zip(rest, whole[3:], strict=True):
        assert_same(ours, theirs)


def test_epochs_and_seeds_differ(dataset: Dataset, labels: Labels) -> None:
    train = split(dataset, labels, 0).train
    loader = train_batches(dataset, labels, train, CONFIG, 1)
    other = CONFIG.model_copy(update={"optimization": OptimizationConfig(epochs=3, seed=12)})
    rows = [loader.batch(0, 0).rows, loader.batch(1, 0).rows]
    rows.append(train_batches(dataset, labels, train, other, 1).batch(0, 0).rows)
    assert len({tuple(one.tolist()) for one in rows}) == 3


def test_a_training_batch_holds_what_was_stored(dataset: Dataset, labels: Labels) -> None:
    plain = TrainConfig(data=DataConfig(batch_size=6, augment="none", soft_positive=0.8))
    train = split(dataset, labels, 1).train
    for batch in train_batches(dataset, labels, train, plain, 2).iterate(0):
        assert batch.images.shape == (6, 32, 16, 1)
        assert batch.images.dtype == batch.labels.dtype == batch.weights.dtype == np.float32
        assert batch.rows.dtype == np.int64
        assert set(batch.rows) <= set(train)
        for place, row in enumerate(batch.rows):
            stored = dataset.pixels(int(row))
            np.testing.assert_array_equal(np.rint(batch.images[place, ..., 0] * 65535), stored)
            assert batch.labels[place, 0] == np.float32(0.8 if labels.values[row, 0] else 0)
            np.testing.assert_array_equal(batch.labels[place, 1:], labels.values[row, 1:])
        assert (batch.weights == 1).all()
        assert (batch.labels[:, 0] > 0).any()


def test_evaluation_gives_every_row_once_in_order(dataset: Dataset, labels: Labels) -> None:
    rows = split(dataset, labels, 0).validation
    loader = evaluation_batches(dataset, labels, rows, DataConfig(batch_size=7, soft_positive=0.8), 3)
    batches = list(loader.iterate())
    assert len(batches) == loader.steps
    assert all(len(batch.images) == 7 for batch in batches)
    real = np.concatenate([batch.rows[batch.weights > 0] for batch in batches])
    np.testing.assert_array_equal(real, rows)
    last = batches[-1]
    fill = last.weights == 0
    assert fill.sum() == 7 * len(batches) - len(rows) > 0
    assert (last.rows[fill] == -1).all()
    assert (last.labels[fill, 0] == 0).all()
    assert np.isnan(last.labels[fill, 1:]).all()
    assert (np.concatenate([one.labels[:, 0] for one in batches]) <= 1).all()
    assert max(one.labels[:, 0].max() for one in batches) == 1
    assert_same(loader.batch(0), batches[0])


def test_a_bag_holds_the_views_of_one_breast(dataset: Dataset, labels: Labels) -> None:
    rows = split(dataset, labels, 0).validation
    plain = labels_of(dataset.rows, BAGS)
    seen: list[int] = []
    for batch in evaluation_batches(dataset, plain, rows, BAGS, 2).iterate():
        assert batch.images.shape == (3, 3, 32, 16, 1)
        assert batch.rows.shape == (3, 3)
        for place, bag in enumerate(batch.rows):
            members = bag[bag >= 0].tolist()
            assert batch.weights[place] == bool(members)
            assert not batch.images[place, len(members) :].any()
            breasts = {(dataset.rows[i].patient_id, dataset.rows[i].laterality) for i in members}
            assert len(breasts) == bool(members)
            assert [dataset.rows[i].view for i in members] == ["CC", "MLO"][: len(members)]
            seen += members
    assert sorted(seen) == rows.tolist()


def test_bags_train_with_a_positive_in_each_batch(dataset: Dataset) -> None:
    config = TrainConfig(data=BAGS, optimization=OptimizationConfig(epochs=2))
    labels = labels_of(dataset.rows, BAGS)
    loader = train_batches(dataset, labels, split(dataset, labels, 0).train, config, 2)
    assert loader.steps_per_epoch == 4  # 12 breasts in batches of 3
    for batch in loader.iterate(0):
        assert batch.labels.shape == (3, 1)
        assert batch.labels.max() == 1
        assert (batch.weights == 1).all()


@pytest.mark.parametrize("workers", [1, 4])
def test_a_corrupt_record_ends_a_run_that_says_fail(
    dataset: Dataset, labels: Labels, tmp_path: Path, workers: int
) -> None:
    rows = split(dataset, labels, 0).train
    broken = damaged(dataset, tmp_path / "OUT", int(rows[3]))
    loader = evaluation_batches(broken, labels, rows, DataConfig(batch_size=2), workers)
    with pytest.raises(DatasetDamaged, match=rf"{broken.rows[rows[3]].shard}: row \d+: .*CRC"):
        list(loader.iterate())
    assert not [one for one in threading.enumerate() if one.name.startswith("bcd-data")]


def test_a_corrupt_record_is_left_out_counted_and_told(
    dataset: Dataset, labels: Labels, tmp_path: Path
) -> None:
    rows = split(dataset, labels, 0).validation
    bad = [int(rows[0]), int(rows[4])]
    broken = damaged(dataset, tmp_path / "OUT", *bad)
    config = DataConfig(batch_size=4, on_corrupt=OnCorrupt.SKIP)
    loader = evaluation_batches(broken, labels, rows, config, 2)
    whole = list(evaluation_batches(dataset, labels, rows, config, 2).iterate())
    for ours, theirs in zip(loader.iterate(), whole, strict=True):
        good = ours.weights > 0
        np.testing.assert_array_equal(~good, np.isin(theirs.rows, bad) | (theirs.rows < 0))
        np.testing.assert_array_equal(ours.images[good], theirs.images[good])
        for place in np.flatnonzero(~good):  # lent pixels, no label, no row
            assert any(np.array_equal(ours.images[place], image) for image in ours.images[good])
            assert ours.rows[place] == -1
            assert ours.labels[place, 0] == 0
    assert [one.row for one in loader.corrupt] == bad
    assert all("CRC" in one.message for one in loader.corrupt)
    list(loader.iterate())
    assert len(loader.corrupt) == 2  # each once


def test_a_disk_that_is_gone_is_no_corrupt_record(
    dataset: Dataset, labels: Labels, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(shard: str, number: int) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(dataset._shards, "read", gone)
    rows = split(dataset, labels, 0).validation
    config = DataConfig(batch_size=4, on_corrupt=OnCorrupt.SKIP)
    with pytest.raises(DatasetUnreadable, match="row 0: cannot be read: No such file"):
        list(evaluation_batches(dataset, labels, rows, config, 2).iterate())


def test_views_beyond_a_bag_are_told(dataset: Dataset) -> None:
    config = BAGS.model_copy(update={"bag_views": 1})
    labels = labels_of(dataset.rows, config)
    rows = split(dataset, labels, 0).validation
    left_out = list(evaluation_batches(dataset, labels, rows, config, 1).left_out())
    assert left_out
    for shown, rest in left_out:
        both = [dataset.rows[row] for row in (*shown, *rest)]
        assert len(shown) == 1
        assert len({(row.patient_id, row.laterality) for row in both}) == 1


def test_corrupt_records_of_training_are_the_same_for_any_threads(
    dataset: Dataset, labels: Labels, tmp_path: Path
) -> None:
    rows = split(dataset, labels, 0).train
    broken = damaged(dataset, tmp_path / "OUT", int(rows[1]), int(rows[2]))
    data = CONFIG.data.model_copy(update={"on_corrupt": OnCorrupt.SKIP})
    config = CONFIG.model_copy(update={"data": data})
    ones, eights = (list(train_batches(broken, labels, rows, config, n).iterate(0)) for n in (1, 8))
    for ours, theirs in zip(ones, eights, strict=True):
        assert_same(ours, theirs)
    assert sum(int((one.weights == 0).sum()) for one in ones) >= 2


def test_a_corrupt_view_leaves_its_bag(dataset: Dataset, tmp_path: Path) -> None:
    config = BAGS.model_copy(update={"on_corrupt": OnCorrupt.SKIP})
    labels = labels_of(dataset.rows, config)
    rows = split(dataset, labels, 0).validation
    broken = damaged(dataset, tmp_path / "OUT", int(rows[0]))
    batch = evaluation_batches(broken, labels, rows, config, 1).batch(0)
    assert batch.rows[0, 0] == -1
    assert batch.rows[0, 1] >= 0
    assert not batch.images[0, 0].any()
    assert batch.weights[0] == 1


def test_waiting_is_counted_and_an_unread_iterator_lets_its_threads_go(
    dataset: Dataset, labels: Labels
) -> None:
    rows = split(dataset, labels, 0).train
    loader = train_batches(dataset, labels, rows, CONFIG, 2)
    batches = loader.iterate(0)
    next(batches)
    assert loader.waited_s > 0
    batches.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("bcd-data")]


def test_only_a_few_batches_are_in_work(
    dataset: Dataset, labels: Labels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory stays bounded however slow the consumer is."""
    rows = split(dataset, labels, 0).train
    loader = evaluation_batches(dataset, labels, rows, DataConfig(batch_size=2), 4)
    begun: list[int] = []
    step = loader._step
    monkeypatch.setattr(loader, "_step", lambda number: begun.append(number) or step(number))
    batches = loader.iterate()
    next(batches)
    assert len(begun) == 2 + 2
    batches.close()
