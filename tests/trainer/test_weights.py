from __future__ import annotations

import csv
import hashlib
import io
import json
import urllib.error
from dataclasses import replace
from importlib import resources
from pathlib import Path

import keras
import numpy as np
import pytest
from keras.src.utils import file_utils

from bench.phantom import PhantomSpec, generate
from preprocess.config import ResultConfig
from preprocess.decode import CpuDecoder
from preprocess.errors import UsageError
from preprocess.inspection import source_of
from preprocess.pipeline import prepare
from preprocess.records import Prepared
from trainer import models
from trainer.architectures import Architecture, architecture_of, architectures
from trainer.config import ModelConfig, Pooling
from trainer.models.backbones import application
from trainer.models.pretrained import IMAGENET_MEAN, IMAGENET_STD, make_front
from trainer.models.weights import WeightsFile, WeightsRecord, open_weights, weights_folder
from trainer.records import AuxiliaryHead

SIZE = (64, 48)
FAMILIES = ("convnext_tiny", "efficientnet_b0", "efficientnetv2_b0", "efficientnetv2_s")


def pretrained_file(name: str, folder: Path) -> Path:
    """A file as Keras publishes them, with random content that leaves no weight at its usual start."""
    rng = np.random.default_rng(4)
    donor = application(architecture_of(name), (32, 32), 3)
    for layer in donor.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            layer.set_weights([np.array(IMAGENET_MEAN), np.array(IMAGENET_STD), np.array(0)])
        elif layer.weights:
            layer.set_weights([changed(weight, rng) for weight in layer.get_weights()])
    path = folder / f"{name}.weights.h5"
    donor.save_weights(path)
    return path


def changed(weight: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Kernels keep their gain; biases, scales and statistics move up."""
    if weight.ndim > 1:
        return weight * (1 + 0.1 * rng.standard_normal(weight.shape))
    return weight + rng.uniform(0, 0.05, weight.shape)


def file_of(path: Path) -> WeightsFile:
    return WeightsFile(path, WeightsRecord("file", path.name))


@pytest.mark.parametrize(
    "name", [FAMILIES[0], FAMILIES[1], FAMILIES[2], pytest.param(FAMILIES[3], marks=pytest.mark.slow)]
)
def test_one_channel_gives_the_features_of_three_copies(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pretrained_file(name, tmp_path)
    monkeypatch.setattr(file_utils, "get_file", lambda *_, **__: path)
    maker = getattr(keras.applications, architecture_of(name).application)
    three = maker(include_top=False, weights="imagenet", input_shape=(*SIZE, 3))

    front = make_front(architecture_of(name), SIZE, 0.0, file_of(path), None)
    images = np.random.default_rng(0).random((2, *SIZE, 1), np.float32)
    ours = np.asarray(front.backbone(front.normalise(images)))
    theirs = np.asarray(three(images.repeat(3, axis=-1) * 255))
    difference = np.abs(ours - theirs).max()
    assert difference < 2e-4 * np.abs(theirs).max()
    assert np.abs(theirs[0] - theirs[1]).max() > 20 * difference  # the pictures are seen
    stem = front.backbone.weights[0].shape[2]
    assert stem == (1 if architecture_of(name).folds else 3)


def test_torch_weights_give_what_kerass_give(tmp_path: Path) -> None:
    architecture = architecture_of("convnext_tiny")
    path = pretrained_file("convnext_tiny", tmp_path)
    donor = application(architecture, (32, 32), 3)
    donor.load_weights(path)
    timm, authors = torch_names(donor.get_weights())
    np.savez(tmp_path / "timm.npz", **timm)
    write_safetensors(tmp_path / "authors.safetensors", authors)
    expected = make_front(architecture, (32, 32), 0.0, file_of(path), None).backbone.get_weights()
    for name in ("timm.npz", "authors.safetensors"):
        front = make_front(architecture, (32, 32), 0.0, file_of(tmp_path / name), None)
        for ours, theirs in zip(front.backbone.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def torch_names(arrays: list[np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Keras's ConvNeXt-Tiny arrays under timm's and under the authors' names, in torch's axes."""
    rest = iter(arrays)
    timm, authors = {}, {}

    def take(first: str, second: str, axes: tuple[int, ...] | None = None) -> None:
        array = next(rest)
        timm[first] = authors[second] = np.ascontiguousarray(array.transpose(axes) if axes else array)

    def pair(first: str, second: str, axes: tuple[int, ...] | None = None) -> None:
        take(f"{first}.weight", f"{second}.weight", axes)
        take(f"{first}.bias", f"{second}.bias")

    conv = (3, 2, 0, 1)
    pair("stem.0", "downsample_layers.0.0", conv)
    pair("stem.1", "downsample_layers.0.1")
    for stage, depth in enumerate([3, 3, 9, 3]):
        if stage:
            pair(f"stages.{stage}.downsample.0", f"downsample_layers.{stage}.0")
            pair(f"stages.{stage}.downsample.1", f"downsample_layers.{stage}.1", conv)
        for block in range(depth):
            a, b = f"stages.{stage}.blocks.{block}", f"stages.{stage}.{block}"
            pair(f"{a}.conv_dw", f"{b}.dwconv", conv)
            pair(f"{a}.norm", f"{b}.norm")
            pair(f"{a}.mlp.fc1", f"{b}.pwconv1", (1, 0))
            pair(f"{a}.mlp.fc2", f"{b}.pwconv2", (1, 0))
            take(f"{a}.gamma", f"{b}.gamma")
    pair("head.norm", "norm")
    assert next(rest, None) is None
    return timm, authors


def write_safetensors(path: Path, state: dict[str, np.ndarray]) -> None:
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, array in state.items():
        data = array.astype("<f4").tobytes()
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": offsets}  # type: ignore[assignment]
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def test_an_earlier_runs_backbone_is_taken_over(tmp_path: Path) -> None:
    config = ModelConfig(model="resnet_tiny", weights="none", head_filters=16)
    first = models.build(config, (32, 32), statistics=models.PixelStatistics(0.3, 0.2))
    models.save(first, tmp_path / "first.keras")
    again = config.model_copy(update={"weights": str(tmp_path / "first.keras"), "head_filters": 24})
    second = models.build(again, (64, 32), statistics=models.PixelStatistics(0.9, 0.9))
    for ours, theirs in zip(
        second.get_layer("backbone").get_weights(), first.get_layer("backbone").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert second.get_layer("normalise").mean == [0.3]
    record = models.weights_record(again)
    assert record.source == "file"
    assert record.file == "first.keras"
    assert record.sha256 == hashlib.sha256((tmp_path / "first.keras").read_bytes()).hexdigest()
    assert models.weights_record(config) == WeightsRecord("none")


@pytest.mark.parametrize("pooling", [Pooling.TOP, Pooling.GEM])
def test_the_same_head_is_taken_over_too(pooling: Pooling, tmp_path: Path) -> None:
    config = ModelConfig(model="resnet_tiny", weights="none", head_filters=16, pooling=pooling)
    heads = (AuxiliaryHead("density", ("A", "B")),)
    first = models.build(config, (32, 32), heads)
    models.save(first, tmp_path / "first.keras")
    again = config.model_copy(update={"weights": str(tmp_path / "first.keras")})
    windows = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
    np.testing.assert_array_equal(
        np.asarray(models.build(again, (32, 32), heads)(windows)), np.asarray(first(windows))
    )
    larger = models.build(again, (96, 64), heads)
    for ours, theirs in zip(larger.weights, first.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    other = models.build(again, (32, 32), (AuxiliaryHead("density", ("A", "C")),))
    assert (np.asarray(other(windows)) != np.asarray(first(windows))).any(), "its columns mean something else"


def test_phantom_weights_come_with_the_package() -> None:
    config = ModelConfig(
        model="resnet_tiny", weights="phantoms", head_blocks=0, pooling=Pooling.TOP, dropout=0.0
    )
    model = models.build(config, (96, 64))
    record = models.weights_record(config)
    assert (record.source, record.file) == ("phantoms", "resnet_tiny_phantoms.keras")
    file = resources.files("trainer").joinpath("presets/resnet_tiny_phantoms.keras")
    assert record.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    with resources.as_file(file) as path:
        saved = models.load(path)
    for ours, theirs in zip(model.weights, saved.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    with pytest.raises(UsageError, match="phantoms are for resnet_tiny, not for efficientnet_b0"):
        open_weights(architecture_of("efficientnet_b0"), "phantoms")


def test_phantom_weights_tell_microcalcifications_from_round_ones(tmp_path: Path) -> None:
    """A breast with malignant specks, one with benign ones, two with nothing: four views of two patients."""
    spec = PhantomSpec(patients=2, test_patients=0, positive_rate=0.5, size_factor=0.5, seed=300)
    generate(tmp_path / "phantoms", spec)
    config = ModelConfig(
        model="resnet_tiny", weights="phantoms", head_blocks=0, pooling=Pooling.TOP, dropout=0.0
    )
    model, prepared = models.build(config, (1472, 768)), ResultConfig(height=1472, width=768)
    logits: dict[bool, list[float]] = {True: [], False: []}
    with (tmp_path / "phantoms" / "train.csv").open(encoding="utf-8") as table:
        for row in csv.DictReader(table):
            path = f"{tmp_path}/phantoms/train_images/{row['patient_id']}/{row['image_id']}.dcm"
            found = prepare(source_of(path), prepared, CpuDecoder())
            assert isinstance(found, Prepared)
            images = (found.pixels / np.float32(65535)).astype(np.float32)[None, ..., None]
            logits[row["cancer"] == "1"].append(float(np.asarray(model(images))[0, 0]))
    assert len(logits[True]) == 2
    assert min(logits[True]) > max(logits[False])


def small(content: bytes) -> Architecture:
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return replace(architecture_of("efficientnet_b0"), weights_hash=digest)


def test_offline_names_the_file_and_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(UsageError) as caught:
        open_weights(architecture_of("convnext_tiny"), "imagenet")
    assert architecture_of("convnext_tiny").url in str(caught.value)
    assert str(tmp_path / "models" / "convnext_tiny_notop.h5") in str(caught.value)
    assert "--weights PATH" in str(caught.value)


def test_downloads_are_checked_and_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: io.BytesIO(b"weights"))
    with pytest.raises(UsageError, match="gave another file"):
        open_weights(small(b"others"), "imagenet")
    assert not list(weights_folder().glob("*"))
    found = open_weights(small(b"weights"), "imagenet")
    assert found is not None
    assert found.path.read_bytes() == b"weights"
    assert found.record.sha256 == hashlib.sha256(b"weights").hexdigest()
    found.path.write_bytes(b"changed")
    with pytest.raises(UsageError, match="not the file that Keras publishes"):
        open_weights(small(b"weights"), "imagenet")


@pytest.mark.parametrize("name", ["w.h5", "w.keras", "w.npz", "w.safetensors"])
def test_unreadable_weights_are_a_usage_error(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\xff" * 64)
    config = ModelConfig(model="convnext_tiny", weights=str(tmp_path / name))
    with pytest.raises(UsageError, match="cannot be read as weights of convnext_tiny"):
        models.build(config, (32, 32))


def test_weights_that_cannot_be_meant(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        open_weights(architecture_of("convnext_tiny"), str(tmp_path / "absent.h5"))
    with pytest.raises(UsageError, match="no ImageNet weights for resnet_tiny"):
        open_weights(architecture_of("resnet_tiny"), "imagenet")
    config = ModelConfig(model="resnet_tiny", weights="none", head_filters=16)
    models.save(models.build(config, (32, 32)), tmp_path / "tiny.keras")
    with pytest.raises(UsageError, match="not weights of efficientnet_b0"):
        models.build(ModelConfig(model="efficientnet_b0", weights=str(tmp_path / "tiny.keras")), (32, 32))


def test_the_table_knows_kerass_files_and_hashes() -> None:
    from keras.src.applications import convnext, efficientnet, efficientnet_v2

    hashes = {
        entry[1]
        for module in (convnext, efficientnet, efficientnet_v2)
        for entry in module.WEIGHTS_HASHES.values()
    }
    for architecture in architectures()[1:]:
        assert architecture.weights_hash in hashes
        assert hasattr(keras.applications, architecture.application)
    assert architecture_of("efficientnetv2_s").url.endswith("efficientnet_v2/efficientnetv2-s_notop.h5")
    assert (
        architecture_of("efficientnet_b3").url == efficientnet.BASE_WEIGHTS_PATH + "efficientnetb3_notop.h5"
    )
    assert architecture_of("convnext_base").url == convnext.BASE_WEIGHTS_PATH + "convnext_base_notop.h5"
