from __future__ import annotations

import math

import keras
import numpy as np
import pytest

from trainer import models
from trainer.config import ModelConfig, OptimizationConfig, OptimizerName
from trainer.optimizers import (
    GroupedAdam,
    Phase,
    WarmupCosine,
    averaged,
    layer_scales,
    make_optimizer,
    phase_at,
    set_phase,
)

TINY = ModelConfig(model="resnet_tiny", weights="none", head_filters=16)


@pytest.fixture
def model() -> keras.Model:
    keras.utils.set_random_seed(1)
    return models.build(TINY, (32, 32))


def value(variable: keras.Variable) -> np.ndarray:
    return np.array(variable.numpy())


def values(variables: list[keras.Variable]) -> list[np.ndarray]:
    return [value(variable) for variable in variables]


def zeros(variables: list[keras.Variable]) -> list[object]:
    return [keras.ops.zeros(variable.shape) for variable in variables]


def test_weight_decay_shrinks_kernels_and_nothing_else(model: keras.Model) -> None:
    optimizer = GroupedAdam(0.1, decay=0.5)
    before = values(model.trainable_variables)
    optimizer.build(model.trainable_variables)
    optimizer.apply(zeros(model.trainable_variables), model.trainable_variables)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        factor = 0.95 if len(variable.shape) > 1 else 1.0
        np.testing.assert_allclose(value(variable), factor * old, rtol=1e-6, err_msg=variable.path)
    assert any(len(variable.shape) < 2 and np.any(old) for variable, old in
               zip(model.trainable_variables, before, strict=True))  # fmt: skip


def test_a_layer_scale_never_decays_whatever_its_name() -> None:
    scale = keras.Variable(np.full(8, 1e-6, np.float32), name="layer_scale_gamma")
    kernel = keras.Variable(np.ones((3, 3, 1, 8), np.float32), name="depthwise_kernel")
    optimizer = GroupedAdam(0.1, decay=0.5)
    optimizer.build([scale, kernel])
    optimizer.apply(zeros([scale, kernel]), [scale, kernel])
    np.testing.assert_array_equal(value(scale), np.full(8, 1e-6, np.float32))
    np.testing.assert_allclose(value(kernel), 0.95, rtol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_without_groups_it_is_kerass_adam(decay: float) -> None:
    rng = np.random.default_rng(0)
    start = rng.normal(size=(4, 3)).astype(np.float32)
    ours, theirs = keras.Variable(start), keras.Variable(start)
    reference = keras.optimizers.AdamW(0.01, weight_decay=decay)
    optimizer = GroupedAdam(0.01, decay=decay)
    optimizer.build([ours])
    for _ in range(5):
        gradient = keras.ops.convert_to_tensor(rng.normal(size=(4, 3)).astype(np.float32))
        optimizer.apply([gradient], [ours])
        reference.apply([gradient], [theirs])
    np.testing.assert_allclose(value(ours), value(theirs), rtol=1e-5, atol=1e-7)


def test_scales_are_factors_of_the_learning_rate() -> None:
    first, second = keras.Variable(np.ones((2, 2))), keras.Variable(np.ones((2, 2)))
    optimizer = GroupedAdam(0.01, scales=[1.0, 0.25])
    optimizer.build([first, second])
    gradient = keras.ops.ones((2, 2))
    optimizer.apply([gradient, gradient], [first, second])
    assert 1 - value(second)[0, 0] == pytest.approx(0.25 * (1 - value(first)[0, 0]), rel=1e-4)
    with pytest.raises(ValueError, match="1 scales for 2"):
        GroupedAdam(0.01, scales=[1.0]).build([first, second])


def test_layer_decay_falls_from_output_to_input(model: keras.Model) -> None:
    scales = dict(zip([v.path for v in model.trainable_variables], layer_scales(model, 0.5), strict=True))
    assert scales["head_logits/kernel"] == 1.0
    assert scales["block6_conv_1/kernel"] == 0.5
    assert scales["block0_conv_1/kernel"] == 0.5**7
    assert scales["stem_conv/kernel"] == 0.5**8
    assert set(layer_scales(model, 1.0)) == {1.0}


def test_the_schedule_warms_up_then_falls_like_a_cosine() -> None:
    schedule = WarmupCosine(2.0, 4, 12)
    rates = [float(schedule(step)) for step in range(13)]
    assert rates[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert rates[4:] == pytest.approx([1 + math.cos(math.pi * k / 8) for k in range(9)], abs=1e-6)
    again = WarmupCosine.from_config(schedule.get_config())
    assert float(again(7)) == rates[7]
    assert float(WarmupCosine(2.0, 0, 12)(0)) == 2.0


def test_the_average_follows_its_recurrence_and_swapping_is_exact(model: keras.Model) -> None:
    config = OptimizationConfig(ema=0.6, warmup_epochs=0, optimizer=OptimizerName.ADAM, learning_rate=0.01)
    optimizer = make_optimizer(config, model, 10)
    variables = model.trainable_variables
    expected = None
    for step in range(30):
        optimizer.apply([keras.ops.ones(v.shape) for v in variables], variables)
        keep = min(0.6, step / (step + 9))
        now = values(variables)
        expected = now if expected is None else [
            keep * old + (1 - keep) * new for old, new in zip(expected, now, strict=True)
        ]  # fmt: skip
    assert expected is not None
    with averaged(model, optimizer):
        for variable, expected_value in zip(variables, expected, strict=True):
            np.testing.assert_allclose(value(variable), expected_value, rtol=2e-5, atol=1e-6)
    for variable, expected_value in zip(variables, now, strict=True):
        np.testing.assert_array_equal(value(variable), expected_value)


def test_variables_are_the_whole_state(model: keras.Model) -> None:
    config = OptimizationConfig(ema=0.9, learning_rate=0.01)
    variables = model.trainable_variables
    first = make_optimizer(config, model, 5)
    first.apply([keras.ops.ones(v.shape) for v in variables], variables)
    weights, state = values(variables), values(first.variables)
    first.apply([keras.ops.ones(v.shape) for v in variables], variables)
    expected, expected_state = values(variables), values(first.variables)

    second = make_optimizer(config, model, 5)
    for variable, expected_value in zip([*variables, *second.variables], [*weights, *state], strict=True):
        variable.assign(expected_value)
    second.apply([keras.ops.ones(v.shape) for v in variables], variables)
    for variable, expected_value in zip(
        [*variables, *second.variables], [*expected, *expected_state], strict=True
    ):
        np.testing.assert_array_equal(value(variable), expected_value)


def test_the_first_phase_trains_the_head_only(model: keras.Model) -> None:
    config = OptimizationConfig(head_epochs=2, epochs=5, warmup_epochs=0, learning_rate=0.01)
    assert [phase_at(config, epoch) for epoch in range(4)] == [Phase.HEAD, Phase.HEAD, Phase.ALL, Phase.ALL]
    backbone = model.get_layer("backbone")
    set_phase(model, Phase.HEAD)
    optimizer = make_optimizer(config, model, 10, Phase.HEAD)
    before = values(backbone.variables)
    optimizer.apply([keras.ops.ones(v.shape) for v in model.trainable_variables], model.trainable_variables)
    for variable, expected_value in zip(backbone.variables, before, strict=True):
        np.testing.assert_array_equal(value(variable), expected_value)
    assert all(v.path.startswith("head") for v in model.trainable_variables)
    assert float(optimizer.learning_rate) == pytest.approx(0.01)

    set_phase(model, Phase.ALL)
    everything = make_optimizer(config, model, 10, Phase.ALL)
    assert len(model.trainable_variables) > len(backbone.trainable_variables) > 0
    assert float(everything.learning_rate) == pytest.approx(0.01)
    schedule = WarmupCosine(0.01, 0, 30)
    assert float(everything.learning_rate) == pytest.approx(float(schedule(0)))
