from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from preprocess.errors import UsageError
from trainer.attribution import Explainer, Method, enlarge
from trainer.config import BagPooling, ModelConfig, Pooling
from trainer.models import build

SIZE = (64, 48)


def picture() -> np.ndarray:
    rows, columns = np.indices(SIZE)
    return (0.2 + 0.7 * np.exp(-((rows - 20) ** 2 + (columns - 30) ** 2) / 30)).astype(np.float32)


def test_integrated_gradients_add_up_to_the_change_of_the_logit() -> None:
    import keras

    keras.utils.set_random_seed(5)
    images = keras.Input((*SIZE, 1))
    features = keras.layers.Conv2D(4, 3, activation="gelu", name="features")(images)
    vector = keras.layers.GlobalAveragePooling2D()(features)
    logits = keras.layers.Dense(1)(keras.layers.Dense(8, activation="tanh")(vector * 20.0))
    one = Explainer(keras.Model(images, logits))
    seen = one.explain(picture(), Method.INTEGRATED_GRADIENTS)
    black = one.explain(np.zeros(SIZE, np.float32), Method.INTEGRATED_GRADIENTS)
    assert seen.map.shape == SIZE
    assert abs(seen.logit - black.logit) > 0.05
    assert float(seen.map.sum()) == pytest.approx(seen.logit - black.logit, rel=0.01)
    assert not black.map.any()


def test_gradcam_of_a_known_model_is_the_weighted_feature_map() -> None:
    """One feature, global mean, weight 3: the map is 3/(h·w) times the positive part of the feature."""
    import keras

    images = keras.Input((8, 6, 1))
    features = keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones", name="before")(images)
    features = keras.layers.Activation("linear", name="features")(features)
    mean = keras.layers.GlobalAveragePooling2D()(features)
    logits = keras.layers.Dense(1, kernel_initializer=keras.initializers.Constant(3.0))(mean)
    seen = Explainer(keras.Model(images, logits)).explain(
        np.linspace(0, 1, 48, dtype=np.float32).reshape(8, 6), Method.GRADCAM
    )
    expected = 3 / 48 * np.linspace(0, 1, 48).reshape(8, 6)
    np.testing.assert_allclose(seen.map, expected, atol=1e-6)
    assert seen.logit == pytest.approx(1.5, abs=1e-5)


def test_a_model_of_breasts_is_explained_by_its_pixels_only() -> None:
    import keras

    keras.utils.set_random_seed(5)
    config = ModelConfig(model="resnet_tiny", weights="none", head_filters=16)
    bags = Explainer(build(config, SIZE, bags=BagPooling.MEAN, views=2))
    assert bags.explain(picture(), Method.INTEGRATED_GRADIENTS).map.shape == SIZE
    with pytest.raises(UsageError, match="integrated_gradients"):
        bags.explain(picture(), Method.GRADCAM)


def test_cells_are_what_the_image_is_judged_by() -> None:
    import keras

    keras.utils.set_random_seed(5)
    config = ModelConfig(model="resnet_tiny", weights="none", head_blocks=0, pooling=Pooling.TOP)
    one = Explainer(build(config, (96, 64)))
    image = np.random.default_rng(0).random((96, 64), np.float32)
    seen = one.explain(image, one.usual)
    assert one.usual is Method.CELLS
    middles = seen.map.reshape(6, 16, 4, 16)[:, 7:9, :, 7:9].mean(axis=(1, 3))  # of cells of 16 pixels
    logits = np.sort(np.log(middles / (1 - middles)).ravel())
    assert seen.logit == pytest.approx(logits[-4:].mean(), abs=0.05)
    assert 0 < seen.map.min() < seen.map.max() < 1
    bags = Explainer(build(config, (96, 64), bags=BagPooling.MAX, views=2))
    assert bags.explain(image, Method.CELLS).map.shape == (96, 64)
    other = Explainer(build(config.model_copy(update={"pooling": Pooling.MAX}), (96, 64)))
    assert other.usual is Method.GRADCAM
    with pytest.raises(UsageError, match="--pooling top"):
        other.explain(image, Method.CELLS)


def test_another_program_s_model_is_refused() -> None:
    import keras

    with pytest.raises(UsageError, match="features"):
        Explainer(keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(1)]))


def test_enlarging_keeps_constants_and_middles() -> None:
    assert (enlarge(np.full((3, 2), 7, np.float32), (9, 8)) == 7).all()
    ramp = enlarge(np.array([[0.0, 1.0]], np.float32), (1, 4))
    assert ramp[0].tolist() == [0, 0.25, 0.75, 1]


def test_jax_explains_as_tensorflow_does() -> None:
    code = (
        "from tests.trainer import test_attribution as these\n"
        "these.test_gradcam_of_a_known_model_is_the_weighted_feature_map()\n"
        "these.test_integrated_gradients_add_up_to_the_change_of_the_logit()\n"
        "import keras; print(keras.backend.backend())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "jax"
