from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from preprocess.errors import UsageError
from trainer.config import ClassWeights, DataConfig, Loss, OptimizationConfig, TrainConfig
from trainer.losses import LossSpec, class_weights, loss_spec, per_example, total_loss
from trainer.records import AuxiliaryHead

HEADS = (AuxiliaryHead("density", ("A", "B", "C")), AuxiliaryHead("invasive", ("0", "1")))
WIDTH = 5

floats = st.floats(-30, 30, width=32)
examples = st.integers(1, 6).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.float32, (n, WIDTH), elements=floats),
        st.lists(
            st.tuples(
                st.sampled_from([0.0, 1.0, 0.25, np.nan]),
                st.sampled_from([0.0, 1.0, 2.0, np.nan]),
                st.sampled_from([0.0, 1.0, np.nan]),
            ),
            min_size=n,
            max_size=n,
        ).map(lambda rows: np.array(rows, np.float32)),
    )
)
specs = st.builds(
    LossSpec,
    loss=st.sampled_from(Loss),
    gamma=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    alpha=st.sampled_from([None, 0.25]),
    negative_weight=st.sampled_from([1.0, 0.5]),
    positive_weight=st.sampled_from([1.0, 20.0]),
    soft_positive=st.sampled_from([1.0, 0.9]),
    smoothing=st.sampled_from([0.0, 0.1]),
    heads=st.just(HEADS),
    auxiliary_weight=st.sampled_from([0.0, 0.3]),
)


def numpy_bce(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, z) - y * z


def numpy_loss(logits: np.ndarray, labels: np.ndarray, spec: LossSpec) -> np.ndarray:
    """The same in float64, label by label."""
    out = []
    for z, y in zip(logits.astype(np.float64), labels.astype(np.float64), strict=True):
        loss = 0.0
        if not np.isnan(y[0]):
            aim = y[0] * spec.soft_positive * (1 - spec.smoothing) + spec.smoothing / 2
            weight = spec.positive_weight * y[0] + spec.negative_weight * (1 - y[0])
            loss = weight * numpy_bce(z[0], aim)
            if spec.loss is Loss.FOCAL:
                p = 1 / (1 + np.exp(-z[0]))
                loss *= max(aim * (1 - p) + (1 - aim) * p, 1e-7) ** spec.gamma
                if spec.alpha is not None:
                    loss *= aim * spec.alpha + (1 - aim) * (1 - spec.alpha)
        if not np.isnan(y[1]):
            loss += spec.auxiliary_weight * (np.logaddexp.reduce(z[1:4]) - z[1 + int(y[1])])
        if not np.isnan(y[2]):
            loss += spec.auxiliary_weight * numpy_bce(z[4], y[2])
        out.append(loss)
    return np.array(out)


@settings(deadline=None, max_examples=40)
@given(examples, specs)
def test_losses_equal_a_float64_reference(example: tuple[np.ndarray, np.ndarray], spec: LossSpec) -> None:
    logits, labels = example
    ours = np.asarray(per_example(logits, labels, spec))
    np.testing.assert_allclose(ours, numpy_loss(logits, labels, spec), rtol=2e-4, atol=2e-5)


@settings(deadline=None, max_examples=20)
@given(examples)
def test_focal_loss_without_focus_is_binary_cross_entropy(example: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = example
    focal = per_example(logits, labels, LossSpec(Loss.FOCAL, gamma=0.0, heads=HEADS))
    plain = per_example(logits, labels, LossSpec(Loss.BCE, heads=HEADS))
    np.testing.assert_array_equal(np.asarray(focal), np.asarray(plain))


@settings(deadline=None, max_examples=20)
@given(examples, specs)
def test_a_batch_is_the_weighted_mean_of_its_parts(
    example: tuple[np.ndarray, np.ndarray], spec: LossSpec
) -> None:
    logits, labels = (np.concatenate([array, array[::-1]]) for array in example)
    weights = np.arange(len(logits), dtype=np.float32)
    whole = float(total_loss(logits, labels, weights, spec))
    parts = [
        float(total_loss(logits[part], labels[part], weights[part], spec)) * weights[part].sum()
        for part in (slice(0, len(logits) // 2), slice(len(logits) // 2, None))
    ]
    assert whole == pytest.approx(sum(parts) / weights.sum(), rel=1e-4, abs=1e-5)


def test_rows_that_only_fill_a_batch_add_nothing() -> None:
    logits = np.array([[0.3], [9.0]], np.float32)
    labels = np.array([[1.0], [0.0]], np.float32)
    filled = total_loss(logits, labels, np.array([1.0, 0.0], np.float32), LossSpec())
    alone = total_loss(logits[:1], labels[:1], np.ones(1, np.float32), LossSpec())
    assert float(filled) == float(alone)
    assert float(total_loss(logits, labels, np.zeros(2, np.float32), LossSpec())) == 0.0


def test_unknown_labels_give_no_gradient_and_logits_of_zero_the_right_one() -> None:
    tf = pytest.importorskip("tensorflow")
    logits = tf.Variable([[0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 2.0, 3.0, 4.0]])
    labels = np.array([[np.nan, np.nan, np.nan], [1.0, 2.0, 0.0]], np.float32)
    spec = LossSpec(Loss.BCE, heads=HEADS, auxiliary_weight=1.0)
    with tf.GradientTape() as tape:
        loss = total_loss(logits, labels, np.ones(2, np.float32), spec)
    gradient = tape.gradient(loss, logits).numpy()
    assert np.all(gradient[0] == 0)
    assert gradient[1, 0] == pytest.approx(-0.25)
    assert gradient[1, 1:4].sum() == pytest.approx(0.0, abs=1e-6)


def test_a_soft_positive_has_the_whole_weight_of_its_class() -> None:
    logits, soft, hard = (np.array([[value]], np.float32) for value in (0.3, 0.9, 1.0))
    one = np.ones(1, np.float32)
    batches = LossSpec(negative_weight=0.5, positive_weight=25.0, positive_label=0.9)
    whole = LossSpec(negative_weight=0.5, positive_weight=25.0, soft_positive=0.9)
    expected = 25 * numpy_bce(np.array(0.3), np.array(0.9))
    assert float(total_loss(logits, soft, one, batches)) == pytest.approx(expected, rel=1e-6)
    assert float(total_loss(logits, hard, one, whole)) == pytest.approx(expected, rel=1e-6)


def test_class_weights_are_their_formulas() -> None:
    assert class_weights(ClassWeights.NONE, 90, 10) == (1.0, 1.0)
    assert class_weights(ClassWeights.BALANCED, 90, 10) == pytest.approx((100 / 180, 100 / 20))
    negative, positive = class_weights(ClassWeights.EFFECTIVE, 9000, 10)
    assert negative + positive == pytest.approx(2)
    assert positive / negative == pytest.approx((1 - 0.999**9000) / (1 - 0.999**10))
    with pytest.raises(UsageError, match="both classes"):
        class_weights(ClassWeights.BALANCED, 90, 0)


def test_the_config_decides_the_loss() -> None:
    config = TrainConfig(
        data=DataConfig(soft_positive=0.9),
        optimization=OptimizationConfig(
            loss=Loss.FOCAL, focal_gamma=1.5, focal_alpha=0.3, label_smoothing=0.1,
            class_weights=ClassWeights.BALANCED,
        ),
    )  # fmt: skip
    spec = loss_spec(config, HEADS, 90, 10)
    assert spec == LossSpec(Loss.FOCAL, 1.5, 0.3, 100 / 180, 5.0, 0.9, 0.1, HEADS, 0.1)
