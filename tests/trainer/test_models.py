"""Each model: one train step, save → load → same output, exports that agree, the same on JAX.

`make test` does this for one model of each family; `make models` for all.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow
from scipy import ndimage

from preprocess.errors import UsageError
from trainer import models
from trainer.architectures import architectures
from trainer.config import BagPooling, ModelConfig, OptimizationConfig, Pooling
from trainer.export import Format, export_run
from trainer.losses import LossSpec, total_loss
from trainer.models.backbones import make_backbone
from trainer.models.convolutions import DetailBands, Maxima, StandardisedConv2D
from trainer.models.layers import TopCells
from trainer.optimizers import make_optimizer
from trainer.records import AuxiliaryHead

QUICK = ("resnet_tiny", "convnext_tiny", "efficientnet_b0")
LARGE = 50_000_000
"""Parameters; building them takes as long as all others together."""
NAMES = [
    pytest.param(each.name, marks=() if each.name in QUICK else pytest.mark.slow) for each in architectures()
]
SIZE = (64, 48)
HEADS = (AuxiliaryHead("density", ("A", "B", "C", "D")), AuxiliaryHead("invasive", ("0", "1")))
ON_JAX = """
import sys, pathlib, numpy as np
from trainer import models
for folder in sys.argv[1:]:
    model = models.load(pathlib.Path(folder, "model.keras"))
    np.save(pathlib.Path(folder, "jax.npy"), model(np.load(pathlib.Path(folder, "images.npy"))))
"""


def config(name: str, **changes: object) -> ModelConfig:
    return ModelConfig(model=name, weights="none", head_filters=16, **changes)


def pictures(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).random((*shape, 1), np.float32)


def damp(model: keras.Model) -> None:
    """Scale every BatchNorm down a little: untrained, EfficientNetV2-L makes 1e-6 of input 0.7 of a logit."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(np.full(layer.gamma.shape, 0.9, np.float32))


def after_a_step(model: keras.Model, images: np.ndarray) -> float:
    """The loss of one step, which moves the weights away from where they were."""
    spec = LossSpec(heads=HEADS, auxiliary_weight=0.1)
    labels = np.array([[1, 2, np.nan], [0, np.nan, 1]], np.float32)
    optimizer = make_optimizer(OptimizationConfig(learning_rate=1e-3, warmup_epochs=0), model, 10)
    with tensorflow.GradientTape() as tape:
        loss = total_loss(model(images, training=True), labels, np.ones(2, np.float32), spec)
    variables = model.trainable_variables
    optimizer.apply(tape.gradient(loss, [variable.value for variable in variables]), variables)
    return float(loss)


@pytest.fixture(scope="module", params=NAMES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run's folder with one stepped model, its pictures and its logits; it is forgotten afterwards."""
    keras.utils.set_random_seed(3)
    folder = tmp_path_factory.mktemp(request.param)
    pooling = Pooling.TOP if request.param == "resnet_tiny" else Pooling.GEM
    model = models.build(config(request.param, drop_path=0.1, pooling=pooling), SIZE, HEADS)
    damp(model)
    images = pictures(2, *SIZE)
    assert np.isfinite(after_a_step(model, images))
    np.save(folder / "images.npy", images)
    np.save(folder / "logits.npy", np.asarray(model(images)))
    models.save(model, folder / "fold=0" / "model.keras")
    models.save(model, folder / "model.keras")
    (folder / "preprocessing.json").write_text('{"height": 64, "width": 48}')
    del model
    yield folder
    keras.backend.clear_session()


def test_a_saved_model_gives_the_same_logits(run: Path) -> None:
    model = models.load(run / "model.keras")
    logits = np.asarray(model(np.load(run / "images.npy")))
    assert logits.shape == (2, 6)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, np.load(run / "logits.npy"))
    assert models.heads_of(model) == HEADS
    assert models.size_of(model) == SIZE
    assert models.views_of(model) is None
    assert model.get_layer(models.FEATURES).output.shape[-1] == 16


@pytest.mark.parametrize("fmt", Format)
def test_exports_agree_with_the_model(run: Path, fmt: Format, tmp_path: Path) -> None:
    report = export_run(run, 0, fmt, tmp_path / f"model.{fmt}")
    print(f"{report.path.name}: max abs difference {report.max_abs_difference:.2g}")  # noqa: T201
    assert report.max_abs_difference <= 1e-5
    assert report.bytes > 100_000
    assert os.listdir(tmp_path) == [f"model.{fmt}"]


def test_jax_gives_the_same_logits(run: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ON_JAX, str(run)],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(run / "jax.npy"), np.load(run / "logits.npy"), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(each, id=each.name, marks=pytest.mark.slow if each.parameters > LARGE else ())
        for each in architectures()
    ],
)
def test_the_table_of_parameters_is_right(architecture: models.Architecture) -> None:
    with keras.StatelessScope():
        assert make_backbone(architecture, (32, 32), 1, 0.0).count_params() == architecture.parameters


def test_drop_path_grows_with_depth_on_every_family() -> None:
    for name in QUICK:
        with keras.StatelessScope():
            backbone = make_backbone(models.architecture_of(name), (32, 32), 1, 0.3)
        layers = [layer for part in backbone.layers for layer in getattr(part, "layers", [part])]
        rates = [layer.rate for layer in layers if isinstance(layer, keras.layers.Dropout)]
        assert len(rates) >= 6, name
        assert rates == sorted(rates), name
        assert 0.25 < rates[-1] <= 0.3 + 1e-9, name
        shapes = {layer.noise_shape for layer in layers if isinstance(layer, keras.layers.Dropout)}
        assert shapes == {(None, 1, 1, 1)}, name


def test_what_resnet_tiny_sees_in_a_place_depends_on_what_is_near() -> None:
    """No norm looks at the whole picture: features of a window are those of the image, but for its border."""
    backbone = make_backbone(models.architecture_of("resnet_tiny"), (640, 640), 1, 0.0)
    part = make_backbone(models.architecture_of("resnet_tiny"), (480, 480), 1, 0.0)
    part.set_weights(backbone.get_weights())
    image = np.random.default_rng(0).normal(size=(1, 640, 640, 1)).astype(np.float32)
    whole, window = np.asarray(backbone(image)), np.asarray(part(image[:, 160:, 160:]))
    border = 12  # cells
    inner = np.s_[:, border:-border, border:-border]
    np.testing.assert_allclose(window[inner], whole[:, 10:, 10:][inner], rtol=1e-4, atol=1e-4)
    brighter = np.asarray(backbone(np.pad(image[:, :-32], ((0, 0), (0, 32), (0, 0), (0, 0)))))
    np.testing.assert_allclose(brighter[:, :20], whole[:, :20], rtol=1e-4, atol=1e-4)
    assert np.abs(brighter[:, -2:] - whole[:, -2:]).max() > 0.01


@pytest.mark.parametrize("shape", [(8, 6), (7, 5)])
def test_maxima_are_the_same_on_every_backend(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    features = np.random.default_rng(0).random((2, *shape, 3), np.float32)
    layer = Maxima()
    native = np.asarray(layer(features))
    monkeypatch.setattr(keras.backend, "backend", lambda: "another")
    np.testing.assert_array_equal(native, np.asarray(layer.call(keras.ops.convert_to_tensor(features))))
    assert native.shape == layer.compute_output_shape(features.shape)
    assert native[0, 0, 0, 0] == features[0, :2, :2, 0].max()
    assert (
        native[1, -1, -1, 2] == features[1, 2 * ((shape[0] - 1) // 2) :, 2 * ((shape[1] - 1) // 2) :, 2].max()
    )


def test_bands_are_differences_of_gaussians_on_every_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    image = pictures(1, 48, 40)[..., :1]
    layer = DetailBands()
    native = np.asarray(layer(image))
    fine, coarse = (
        ndimage.gaussian_filter(image[0, ..., 0], sigma, mode="mirror", truncate=2.5)
        for sigma in layer.SIGMAS
    )
    np.testing.assert_array_equal(native[..., :1], image)
    np.testing.assert_allclose(native[0, ..., 1], 2 * (image[0, ..., 0] - fine), atol=1e-5)
    np.testing.assert_allclose(native[0, ..., 2], 2 * (fine - coarse), atol=1e-5)
    monkeypatch.setattr(keras.backend, "backend", lambda: "another")
    other = np.asarray(layer.call(keras.ops.convert_to_tensor(image)))
    np.testing.assert_allclose(other, native, atol=1e-6)
    assert np.abs(native[..., 1:]).max() < layer.LIMIT


def test_standardised_kernels_do_not_know_their_scale() -> None:
    layer = StandardisedConv2D(4, 3, 2, gain=1.5)
    features = pictures(2, 9, 8)
    before = np.asarray(layer(features))
    kernel = np.asarray(layer.kernel)
    assert before.shape == layer.compute_output_shape((2, 9, 8, 1)) == (2, 5, 4, 4)
    layer.kernel.assign(7 * kernel + 3)
    np.testing.assert_allclose(np.asarray(layer(features)), before, rtol=1e-4, atol=1e-5)
    centred = (kernel - kernel.mean((0, 1, 2))) / (kernel.std((0, 1, 2)) * 3) * 1.5
    expected = np.asarray(keras.ops.conv(features, centred, 2, padding="same"))
    np.testing.assert_allclose(before, expected, rtol=1e-4, atol=1e-5)


def test_top_is_the_mean_of_the_highest_cells() -> None:
    cells = np.random.default_rng(0).normal(size=(2, 3, 4, 2)).astype(np.float32)
    found = np.asarray(TopCells(4)(cells))
    expected = np.sort(cells.reshape(2, 12, 2), axis=1)[:, -4:].mean(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    few = np.asarray(TopCells(100)(cells))
    np.testing.assert_allclose(few, cells.mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)


def test_top_has_no_vectors_for_attention() -> None:
    top = config("resnet_tiny", pooling=Pooling.TOP, head_blocks=0)
    with pytest.raises(UsageError, match="--bags attention"):
        models.build(top, (32, 32), (), BagPooling.ATTENTION, 2)
    model = models.build(top, (48, 32), HEADS, BagPooling.MAX, 2)
    assert model.output_shape == (None, 6)
    assert (np.asarray(model(pictures(3, 96, 32).reshape(3, 2, 48, 32, 1)))[:, 0] < -2).all()


@pytest.mark.parametrize("pooling", Pooling)
def test_every_pooling_and_no_head_blocks_build(pooling: Pooling) -> None:
    model = models.build(config("resnet_tiny", pooling=pooling, head_blocks=0), (40, 56))
    assert np.isfinite(np.asarray(model(pictures(1, 40, 56)))).all()


def test_statistics_of_the_dataset_normalise_models_that_start_from_nothing() -> None:
    statistics = models.PixelStatistics(0.25, 0.125)
    model = models.build(config("resnet_tiny"), (32, 32), statistics=statistics)
    images = pictures(1, 32, 32)
    np.testing.assert_allclose(model.get_layer("normalise")(images), (images - 0.25) / 0.125, rtol=1e-6)


def test_half_precision_keeps_pixels_and_logits_in_float32() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = models.build(config("resnet_tiny"), (32, 32), HEADS)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("normalise").compute_dtype == "float32"
    assert model.get_layer("backbone").get_layer("stem_conv").compute_dtype == "bfloat16"
    logits = model(pictures(1, 32, 32))
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"


def test_bad_requests_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose from resnet_tiny, convnext_tiny"):
        models.build(config("resnet_huge"), (64, 64))
    with pytest.raises(UsageError, match="at least 32x32"):
        models.build(config("resnet_tiny"), (64, 16))
    with pytest.raises(UsageError, match="is not a model"):
        models.load(tmp_path / "nothing.keras")
    (tmp_path / "broken.keras").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(UsageError, match="is not a model"):
        models.load(tmp_path / "broken.keras")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    with pytest.raises(UsageError, match="no layer says"):
        models.load(tmp_path / "other.keras")


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.keras"
    model = models.build(config("resnet_tiny"), (32, 32))
    models.save(model, path)
    old = path.read_bytes()

    def half(aside: Path) -> None:
        aside.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "save", half)
    with pytest.raises(Exception, match="ENOSPC") as caught:
        models.save(model, path)
    assert caught.type.__name__ == "RunAborted"
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["model.keras"]


@pytest.mark.parametrize("pooling", [each for each in BagPooling if each is not BagPooling.NONE])
def test_bags_use_the_views_that_are_there(pooling: BagPooling, tmp_path: Path) -> None:
    keras.utils.set_random_seed(5)
    single = models.build(config("resnet_tiny"), (32, 32), HEADS)
    model = models.build(config("resnet_tiny"), (32, 32), HEADS, pooling, 3)
    views = pictures(3, 32, 32)
    absent = np.zeros_like(views[:1])
    alone = np.concatenate([views[:1], absent, absent])
    if pooling is not BagPooling.ATTENTION:
        model.set_weights(single.get_weights())
        np.testing.assert_allclose(model(alone[None]), single(views[:1]), rtol=1e-4, atol=1e-5)
    bags = np.stack([views, views[[2, 0, 1]], alone, alone[[1, 0, 2]], -np.ones_like(views)])
    logits = np.asarray(model(bags))
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits[2], logits[3], rtol=1e-4, atol=1e-5)
    assert np.abs(logits[0] - logits[2]).max() > 1e-4
    assert np.isfinite(logits[4]).all()
    assert models.views_of(model) == 3
    models.save(model, tmp_path / "bags.keras")
    np.testing.assert_array_equal(np.asarray(models.load(tmp_path / "bags.keras")(bags)), logits)


@pytest.mark.parametrize("fmt", Format)
def test_bags_export_with_their_absent_views(fmt: Format, tmp_path: Path) -> None:
    model = models.build(config("resnet_tiny"), (32, 32), HEADS, BagPooling.NOISY_OR, 3)
    models.save(model, tmp_path / "run" / "fold=1" / "model.keras")
    (tmp_path / "run" / "preprocessing.json").write_text('{"height": 32, "width": 32}')
    report = export_run(tmp_path / "run", 1, fmt, tmp_path / f"out.{fmt}")
    assert report.max_abs_difference <= 1e-5
