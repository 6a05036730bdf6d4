from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from preprocess.errors import RunAborted
from trainer.inference import Tta, probabilities, sigmoid, with_left_out_views
from trainer.records import Batch, Floats


class Corner:
    """A model whose logit is the picture's first pixel."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self.sizes: set[int] = set()

    def predict_on_batch(self, x: Floats) -> Floats:
        self.sizes.add(len(x))
        return self.scale * x[..., 0, 0, :].reshape(len(x), -1)


def batches(images: Floats, rows: list[list[int]]) -> Iterator[Batch]:
    for some in rows:
        index = np.array(some, np.int64)
        weights = (index >= 0).astype(np.float32)
        yield Batch(images[np.maximum(index, 0)], np.zeros((len(some), 1), np.float32), weights, index)


IMAGES = np.arange(5 * 2 * 2, dtype=np.float32).reshape(5, 2, 2, 1)


def test_every_row_gets_its_own_probability_and_fill_gets_none() -> None:
    found = probabilities([Corner()], batches(IMAGES, [[3, 0], [2, -1]]), 5)
    assert found[[3, 0, 2]] == pytest.approx(sigmoid(np.array([12.0, 0.0, 8.0])))
    assert np.isnan(found[[1, 4]]).all()


def test_an_ensemble_is_the_mean_of_probabilities() -> None:
    found = probabilities([Corner(1), Corner(-1), Corner(0)], batches(IMAGES, [[1, 4]]), 5)
    assert found[[1, 4]] == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(("tta", "corners"), [(Tta.VERTICAL, [0, 2]), (Tta.FLIPS, [0, 1, 2, 3])])
def test_mirrored_pictures_are_averaged(tta: Tta, corners: list[int]) -> None:
    found = probabilities([Corner(0.1)], batches(IMAGES, [[4]]), 5, tta)
    assert found[4] == pytest.approx(np.mean(sigmoid(0.1 * (16 + np.array(corners)))))


def test_all_views_of_a_bag_share_its_probability() -> None:
    bag = Batch(
        IMAGES[None, :3], np.zeros((1, 1), np.float32), np.ones(1, np.float32), np.array([[0, 2, -1]])
    )

    class Bags:
        def predict_on_batch(self, x: Floats) -> Floats:
            assert x.shape == (1, 3, 2, 2, 1)
            return np.zeros((1, 1), np.float32)

    found = probabilities([Bags()], [bag], 4)
    assert found[[0, 2]].tolist() == [0.5, 0.5]
    assert np.isnan(found[[1, 3]]).all()


def test_views_that_a_bag_had_no_place_for_get_its_probability() -> None:
    found = np.array([0.25, 0.25, np.nan, np.nan, np.nan])
    left_out = [(np.array([0, 1]), np.array([2])), (np.array([3]), np.array([4]))]
    spread = with_left_out_views(found, left_out)
    assert spread[:3].tolist() == [0.25] * 3
    assert np.isnan(spread[3:]).all(), "nobody could read any of that breast"
    assert np.isnan(found[2])


def test_an_answer_that_is_no_number_ends_it() -> None:
    images = IMAGES.copy()
    images[2] = np.nan
    assert np.isfinite(probabilities([Corner()], batches(images, [[0, 1]]), 5)[:2]).all()
    with pytest.raises(RunAborted, match="no number"):
        probabilities([Corner()], batches(images, [[0, 2]]), 5)


def test_sigmoid_does_not_overflow() -> None:
    assert sigmoid(np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]
