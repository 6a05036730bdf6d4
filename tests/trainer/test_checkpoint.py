from __future__ import annotations

import errno
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from preprocess.errors import RunAborted
from trainer.backends.base import Outcome
from trainer.checkpoint import Checkpoint, Checkpoints
from trainer.config import Monitor
from trainer.metrics import Scores, scores
from trainer.position import EpochRow, Position, Tally, chosen_by

RNG = np.random.default_rng(0)
ARRAYS = (
    ("model/0000", RNG.random((3, 4), dtype=np.float32)),
    ("model/0001", np.array(7, np.uint32)),
    ("optimizer/0000", np.array([np.nan, -0.0, np.inf], np.float32)),
)


def some(seed: int) -> Scores:
    rng = np.random.default_rng(seed)
    return scores(np.arange(10) % 2, rng.random(10))


def none() -> Scores:
    return scores(np.empty(0), np.empty(0))


def row(epoch: int, image: Scores | None = None) -> EpochRow:
    tally = Tally().add(Outcome(0.1, 1.0, 1e-3)).took(3.0, 0.1)
    return tally.row(epoch, 8, image or some(epoch), some(epoch + 50))


def position(epoch: int, steps: int = 0) -> Position:
    found = Position(parts=2)
    for number in range(epoch):
        found = found.after_epoch(row(number), Monitor.ROC_AUC)
    return replace(found, tally=Tally(steps=steps, loss=1 / 3))


def save(folder: Path, *places: Position) -> Checkpoints:
    checkpoints = Checkpoints(folder / "checkpoint")
    for place in places:
        if place.best_epoch:
            checkpoints.save_best(place.best_epoch, ARRAYS[:2], np.arange(3, dtype=np.float32))
        checkpoints.save(Checkpoint(place, ARRAYS), 10)
    return checkpoints


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def unheard(message: str) -> None:
    raise AssertionError(message)


def test_what_is_saved_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    place = position(2, 3)
    found = save(tmp_path, place).latest(unheard)
    assert found is not None
    assert found.position == place
    for (name, one), (known, other) in zip(found.arrays, ARRAYS, strict=True):
        assert (name, one.dtype, one.shape, one.tobytes()) == (
            known,
            other.dtype,
            other.shape,
            other.tobytes(),
        )


def test_a_position_without_scores_comes_back_too() -> None:
    place = Position().after_epoch(row(0, none()), Monitor.ROC_AUC)
    assert Position.from_json(place.to_json()) == place
    assert place.best_epoch == 1
    assert Position.from_json(Position().to_json()) == Position()


def test_the_newest_two_are_kept_and_the_best_weights_that_they_name(tmp_path: Path) -> None:
    first = replace(position(1), best_epoch=1)
    later = [replace(position(number), best_epoch=3) for number in (3, 4, 5)]
    checkpoints = save(tmp_path, first, later[0])
    assert names(checkpoints) == [
        "best-0001.npz", "best-0003.npz", "step-00000010.npz", "step-00000030.npz",
    ]  # fmt: skip
    checkpoints = save(tmp_path, *later)
    assert names(checkpoints) == ["best-0003.npz", "step-00000040.npz", "step-00000050.npz"]


@pytest.mark.parametrize("which", ["step", "best"])
def test_a_damaged_one_is_passed_over_and_told(tmp_path: Path, which: str) -> None:
    one, two = replace(position(1), best_epoch=1), replace(position(2), best_epoch=2)
    checkpoints = save(tmp_path, one, two)
    path = sorted(checkpoints.folder.glob(f"{which}-*"))[-1]
    data = bytearray(path.read_bytes())
    data[200] ^= 4
    path.write_bytes(data)
    told: list[str] = []
    found = checkpoints.latest(told.append)
    assert found is not None
    assert found.position == one
    assert len(told) == 1


def test_no_flipped_bit_is_taken_for_a_checkpoint_or_ends_the_training(tmp_path: Path) -> None:
    checkpoints = save(tmp_path, position(0, 3))
    [path] = checkpoints.folder.glob("step-*")
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    places = {
        *range(0, 300, 7),
        *range(len(whole) - 400, len(whole)),
        *rng.integers(0, len(whole), 300).tolist(),
    }
    passed_over = 0
    for place in sorted(places):
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        found = checkpoints.latest(lambda message: None)
        passed_over += found is None
        if found is not None:  # a bit that says nothing, such as a time in a header of the archive
            assert found.position == position(0, 3)
            for (name, one), (known, other) in zip(found.arrays, ARRAYS, strict=True):
                assert (name, one.tobytes()) == (known, other.tobytes())
    assert passed_over > 200


def test_what_is_damaged_never_crowds_out_what_is_saved_anew(tmp_path: Path) -> None:
    one, two = (replace(position(number), best_epoch=2) for number in (3, 4))
    checkpoints = save(tmp_path, one, two)
    [best] = checkpoints.folder.glob("best-*")
    best.write_bytes(best.read_bytes()[:-9])
    told: list[str] = []
    assert checkpoints.latest(told.append) is None
    assert told[-1] == "no checkpoint of this fold can be read: it starts over"
    for steps in (1, 2, 3):
        checkpoints = save(tmp_path, position(0, steps))
    found = checkpoints.latest(unheard)
    assert found is not None
    assert found.position == position(0, 3)


def test_a_disk_that_does_not_answer_costs_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = save(tmp_path, position(0, 3))

    def broken(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    def hungry(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("trainer.checkpoint._read", broken)
        with pytest.raises(RunAborted, match=r"step-00000003\.npz cannot be read: Input/output error"):
            checkpoints.latest(unheard)
    with monkeypatch.context() as patch:
        patch.setattr("trainer.checkpoint._array", hungry)
        with pytest.raises(MemoryError):
            checkpoints.latest(unheard)
    assert checkpoints.latest(unheard) is not None


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_cut_file_is_passed_over(tmp_path: Path, cut: int) -> None:
    checkpoints = save(tmp_path, position(0, 3))
    [path] = checkpoints.folder.glob("step-*")
    path.write_bytes(path.read_bytes()[:cut])
    told: list[str] = []
    assert checkpoints.latest(told.append) is None
    assert len(told) == 1


def test_missing_best_weights_are_told(tmp_path: Path) -> None:
    with pytest.raises(RunAborted, match=r"best-0004\.npz cannot be read"):
        Checkpoints(tmp_path).best(4)


def test_the_first_of_equal_scores_is_the_best_and_patience_counts_from_it() -> None:
    place, same = Position(), some(1)
    for epoch in range(3):
        place = place.after_epoch(replace(row(epoch), image=same), Monitor.ROC_AUC)
    assert place.best_epoch == 1
    assert place.is_over(10, patience=2)
    assert not place.is_over(10, patience=3)
    assert not place.is_over(10, patience=0)
    assert place.is_over(3, patience=0)


def test_every_monitor_is_a_score_and_larger_is_better() -> None:
    good = replace(row(0), image=scores([0, 1], [0.1, 0.9]), breast=scores([0, 1], [0.1, 0.9]))
    bad = replace(row(0), image=scores([0, 1], [0.9, 0.1]), breast=scores([0, 1], [0.9, 0.1]))
    for monitor in Monitor:
        better, worse = good.score(monitor), bad.score(monitor)
        assert better is not None
        assert worse is not None
        assert better > worse


@pytest.mark.parametrize("labels", [[], [0, 0, 0], [1, 1]])
def test_where_validation_has_not_both_classes_the_last_epoch_is_taken(labels: list[int]) -> None:
    """The log loss of negatives alone is best for the model that has learned nothing but to say no."""
    place = Position()
    for epoch in range(4):
        found = scores(np.array(labels), np.full(len(labels), 0.1 + 0.2 * epoch))
        place = place.after_epoch(replace(row(epoch), image=found, breast=found), Monitor.BREAST_PR_AUC)
    assert place.best_epoch == 4
    assert not place.is_over(9, patience=1)
    assert chosen_by("breast_pr_auc", place.best_score) == ("breast_pr_auc", None)
    assert Position.from_json(place.to_json()) == place


def test_a_tally_means_over_applied_steps() -> None:
    tally = Tally().add(Outcome(1.0, 2.0, 0.1)).add(Outcome(float("inf"), float("inf"), 0.2, applied=False))
    made = tally.add(Outcome(3.0, 4.0, 0.3)).took(2.0, 0.5).row(0, 10, some(0), some(1))
    assert (made.train_loss, made.gradient_norm, made.learning_rate, made.skipped_steps) == (2.0, 3.0, 0.3, 1)
    assert (made.images_per_second, made.wait_share) == (5.0, 0.25)
    assert len(made.cells()) == len(fields(EpochRow)) - 2 + 2 * len(Scores.names())
