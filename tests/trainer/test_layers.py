from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trainer.config import BagPooling
from trainer.models.layers import GeneralisedMean, PoolLogits, PresentViews, Probabilities

# TensorFlow takes numbers below the smallest normal one for 0.
_LOGIT = st.floats(-20, 20, width=32, allow_subnormal=False)
logits_of_views = hnp.arrays(np.float32, (2, 3, 6), elements=_LOGIT)
masks = hnp.arrays(np.bool_, (2, 3)).map(lambda mask: np.concatenate([np.ones((2, 1), bool), mask[:, 1:]], 1))
WIDTHS = (4, 1)


@pytest.mark.parametrize("exponent", [1.0, 3.0, 7.5])
def test_generalised_mean_is_its_formula(exponent: float) -> None:
    features = np.random.default_rng(0).random((2, 5, 4, 3), np.float32) * 40
    expected = (features.astype(np.float64) ** exponent).mean(axis=(1, 2)) ** (1 / exponent)
    np.testing.assert_allclose(GeneralisedMean(exponent)(features), expected, rtol=1e-4)


def test_generalised_mean_lives_with_zeros_and_negatives() -> None:
    features = np.zeros((1, 2, 2, 2), np.float32)
    features[..., 1] = -3
    pooled = np.asarray(GeneralisedMean()(features))
    assert np.all(pooled >= 0)
    assert np.all(pooled < 1e-5)


@settings(deadline=None, max_examples=30)
@given(logits_of_views, masks)
def test_noisy_or_is_one_minus_the_product(logits: np.ndarray, present: np.ndarray) -> None:
    layer = PoolLogits(BagPooling.NOISY_OR, WIDTHS)
    pooled = np.asarray(layer(logits, present.astype(np.float32)), np.float64)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    log_none = (np.log1p(-p) * present[:, :, None]).sum(axis=1)
    for column in (0, 5):
        np.testing.assert_allclose(
            -np.logaddexp(0, pooled[:, column]), log_none[:, column], rtol=1e-3, atol=1e-5
        )


@settings(deadline=None, max_examples=30)
@given(logits_of_views, masks)
def test_max_and_mean_leave_absent_views_out(logits: np.ndarray, present: np.ndarray) -> None:
    mask = present.astype(np.float32)
    masked = np.where(present[:, :, None], logits, np.nan)
    mean = np.asarray(PoolLogits(BagPooling.MEAN, WIDTHS)(logits, mask))
    highest = np.asarray(PoolLogits(BagPooling.MAX, WIDTHS)(logits, mask))
    np.testing.assert_allclose(mean, np.nanmean(masked, axis=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(highest[:, [0, 5]], np.nanmax(masked, axis=1)[:, [0, 5]])
    np.testing.assert_array_equal(highest[:, 1:5], mean[:, 1:5])


def test_a_view_without_a_bright_pixel_is_absent() -> None:
    images = np.zeros((1, 4, 2, 2, 1), np.float32)
    images[0, 1, 1, 0] = 1 / 65535
    images[0, 2] = -1
    images[0, 3] = 1
    assert np.asarray(PresentViews()(images)).tolist() == [[0, 1, 0, 1]]


def test_probabilities_are_sigmoid_or_softmax_by_head() -> None:
    logits = np.array([[0.0, 1.0, 1.0, 1.0, 1.0, -2.0]], np.float32)
    expected = [[0.5, 0.25, 0.25, 0.25, 0.25, 1 / (1 + np.exp(2))]]
    np.testing.assert_allclose(Probabilities(WIDTHS)(logits), expected, rtol=1e-6)
