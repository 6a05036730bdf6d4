"""The example in docs/export.md runs as it stands; what cannot be exported says why and leaves nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest

from preprocess.config import ResultConfig
from preprocess.decode import CpuDecoder
from preprocess.errors import RunAborted, UsageError
from preprocess.inspection import source_of
from preprocess.pipeline import prepare
from preprocess.records import Prepared
from trainer import export, models
from trainer.config import ModelConfig
from trainer.export import Format, export_run

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ResultConfig(height=64, width=48)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    keras.utils.set_random_seed(2)
    model = models.build(ModelConfig(model="resnet_tiny", weights="none", head_filters=16), (64, 48))
    models.save(model, folder / "fold=0" / "model.keras")
    (folder / "preprocessing.json").write_text(CONFIG.model_dump_json())
    return folder


def test_the_example_goes_from_dicom_to_the_models_probability(
    run: Path, phantoms: Path, tmp_path: Path
) -> None:
    export_run(run, 0, Format.ONNX, tmp_path / "model.onnx")
    page = (ROOT / "docs" / "export.md").read_text("utf-8")
    example = re.search(r"with onnxruntime\n\n((?:    .*\n|\n)+)", page)
    assert example is not None
    (tmp_path / "serve.py").write_text(textwrap.dedent(example[1]))
    files = sorted(str(path) for path in phantoms.rglob("*.dcm"))[:3]
    done = subprocess.run([sys.executable, "serve.py", *files], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    model = models.with_probabilities(models.load(run / "fold=0" / "model.keras"))
    for line, file in zip(done.stdout.split(), files, strict=True):
        prepared = prepare(source_of(file), CONFIG, CpuDecoder())
        assert isinstance(prepared, Prepared)
        images = prepared.pixels[None, :, :, None] / np.float32(65535)
        assert float(line) == pytest.approx(np.asarray(model(images)).item(), abs=1e-5)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_onnx_is_float32_whatever_the_training_was(tmp_path: Path, precision: str) -> None:
    keras.utils.set_random_seed(3)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        spec = ModelConfig(model="resnet_tiny", weights="none", head_filters=16)
        model = models.build(spec, (64, 48))
    finally:
        keras.config.set_dtype_policy(before)
    models.save(model, tmp_path / "fold=0" / "model.keras")
    (tmp_path / "preprocessing.json").write_text(CONFIG.model_dump_json())
    assert export_run(tmp_path, 0, Format.ONNX, tmp_path / "model.onnx").max_abs_difference < 1e-5
    plain = models.in_float32(model)
    assert {layer.dtype_policy.name for layer in plain.layers} == {"float32"}
    images = np.random.default_rng(0).random((2, 64, 48, 1), np.float32)
    exact, mixed = (np.asarray(each(images)) for each in (plain, model))
    assert 0 < np.abs(exact - mixed).max() < 0.1


def test_a_savedmodel_carries_its_preprocessing(run: Path, tmp_path: Path) -> None:
    export_run(run, 0, Format.SAVEDMODEL, tmp_path / "saved")
    extra = tmp_path / "saved" / "assets.extra"
    assert ResultConfig.model_validate_json((extra / "preprocessing.json").read_text()) == CONFIG
    assert '"target"' in (extra / "model.json").read_text()


def test_what_cannot_be_exported_says_why(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fold 4 has no finished model"):
        export_run(run, 4, Format.ONNX, tmp_path / "out")
    with pytest.raises(UsageError, match=r"ends in \.onnx"):
        export_run(run, 0, Format.ONNX, tmp_path / "out")
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="exists"):
        export_run(run, 0, Format.SAVEDMODEL, tmp_path / "there")
    (tmp_path / "fold=0").mkdir()
    (tmp_path / "fold=0" / "model.keras").write_bytes((run / "fold=0" / "model.keras").read_bytes())
    with pytest.raises(UsageError, match=r"preprocessing\.json: No such file"):
        export_run(tmp_path, 0, Format.SAVEDMODEL, tmp_path / "out")
    (tmp_path / "preprocessing.json").write_text(CONFIG.model_copy(update={"width": 96}).model_dump_json())
    with pytest.raises(UsageError, match="takes 64x48, images of its dataset are 64x96: it was"):
        export_run(tmp_path, 0, Format.SAVEDMODEL, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["fold=0", "preprocessing.json", "there"]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_single_answer_that_is_no_number_is_no_agreement(at: int) -> None:
    model = models.with_probabilities(
        models.build(ModelConfig(model="resnet_tiny", weights="none", head_filters=16), (64, 48))
    )
    asked = iter(range(100))

    def other(pictures: np.ndarray) -> np.ndarray:
        answer = np.asarray(model(pictures)).copy()
        return np.full_like(answer, np.nan) if next(asked) == at else answer

    assert np.isnan(export._difference(model, other))


def test_an_export_that_disagrees_is_not_kept(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_difference", lambda *_: float("nan"))
    with pytest.raises(RunAborted, match="off by nan: nothing was kept"):
        export_run(run, 0, Format.SAVEDMODEL, tmp_path / "saved")
    assert os.listdir(tmp_path) == []
