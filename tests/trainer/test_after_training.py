"""From a finished run to what it is worth: evaluate, predict, explain, report, from the command line."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from preprocess.cli import main as prep
from preprocess.exits import INTERRUPTS
from trainer import explain
from trainer.cli import main as train
from trainer.evaluate import evaluate
from trainer.predictions import Level, Predictions
from trainer.run import open_run


def call(program: object, *arguments: object) -> Result:
    result = CliRunner().invoke(program, [str(one) for one in arguments])  # type: ignore[arg-type]
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def dataset(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("after") / "dataset"
    result = call(prep, phantoms, "--out", out, "--size", "64x32", "--folds", 2, "--workers", 1)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both folds of a small model, one epoch each."""
    out = tmp_path_factory.mktemp("after-run") / "run"
    result = call(
        train, "fit", dataset, "--out", out, "--model", "resnet_tiny", "--weights", "none", "--epochs", 1,
        "--batch-size", 8, "--fold", "all", "--augment", "none",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return out


def test_fit_ends_with_a_whole_page_that_needs_no_network(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    for part in ("Scores", "Curves", "Training", "Best and worst cases", "Slices", "Augmentation", "Config"):
        assert f"<h2>{part}</h2>" in page
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert links
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert "<script" not in page


def test_every_image_is_held_out_once_and_the_test_split_is_predicted_by_all_models(run: Path) -> None:
    found = Predictions.read(run / "evaluation" / "predictions.parquet")
    assert len(found) == 44  # ten patients and a test patient, four images each
    assert sorted(set(found.fold.tolist())) == [-1, 0, 1]
    assert (found.fold == -1).sum() == 4
    for fold in (0, 1):
        of_fit = Predictions.read(run / f"fold={fold}" / "predictions.parquet")
        mine = found.where(found.fold == fold)
        assert mine.source.tolist() == of_fit.source.tolist()
        np.testing.assert_allclose(mine.probability, of_fit.probability, atol=1e-6)


def test_metrics_are_written_for_machines_and_curves_for_eyes(run: Path) -> None:
    told = json.loads((run / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    assert [one["level"] for one in told["held_out"]["levels"]] == [level.value for level in Level]
    assert told["held_out"]["images"] == 40
    assert told["test"] is None  # its label is not known
    assert ElementTree.parse(run / "evaluation" / "roc.svg").getroot().tag.endswith("svg")


def test_predict_from_dicom_equals_evaluate_to_the_last_bit(
    run: Path, phantoms: Path, tmp_path: Path
) -> None:
    """Of the test split both average the same models."""
    result = call(
        train, "predict", run, phantoms / "test_images", "--out", tmp_path / "p.csv", "--workers", 1
    )
    assert result.exit_code == 0, result.output
    with (tmp_path / "p.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    known = Predictions.read(run / "evaluation" / "predictions.parquet")
    by_image = dict(zip(known.image_id.tolist(), known.probability.tolist(), strict=True))
    assert len(rows) == 4
    assert [float(row["probability"]) for row in rows] == [by_image[row["image_id"]] for row in rows]
    assert not list(tmp_path.glob(".bcd-predict-*"))


def test_an_input_that_cannot_be_read_has_its_row_and_its_breast_a_guess(
    run: Path, phantoms: Path, tmp_path: Path
) -> None:
    inputs = tmp_path / "in"
    shutil.copytree(phantoms / "test_images", inputs / "test_images")
    shutil.copy(phantoms / "test.csv", inputs / "test.csv")
    with (inputs / "test.csv").open(encoding="utf-8") as file:
        left = [row for row in csv.DictReader(file) if row["laterality"] == "L"]
    for row in left:
        path = inputs / "test_images" / row["patient_id"] / f"{row['image_id']}.dcm"
        path.write_bytes(path.read_bytes()[:2000])
    told = call(train, "predict", run, inputs, "--out", tmp_path / "p.csv", "--max-rejected", "100%")
    assert told.exit_code == 0, told.output
    with (tmp_path / "p.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["status"] for row in rows) == ["prepared", "prepared", "rejected", "rejected"]
    assert all(bool(row["probability"]) == (row["status"] == "prepared") for row in rows)
    assert all(bool(row["reject_code"]) == (row["status"] == "rejected") for row in rows)
    asked = call(train, "predict", run, inputs, "--out", tmp_path / "s.csv", "--submission")
    assert asked.exit_code == 3, asked.output  # half of the inputs
    with (tmp_path / "s.csv").open(encoding="utf-8") as file:
        breasts = {row["prediction_id"]: float(row["cancer"]) for row in csv.DictReader(file)}
    patient = left[0]["patient_id"]
    assert breasts.keys() == {f"{patient}_L", f"{patient}_R"}
    assert breasts[f"{patient}_L"] == open_run(run).positive_share


def test_explanations_lie_over_the_original(run: Path, phantoms: Path, tmp_path: Path) -> None:
    with (phantoms / "lesions.csv").open(encoding="utf-8") as file:
        ill = next(row for row in csv.DictReader(file) if row["malignant"] in ("1", "True"))
    path = phantoms / "train_images" / ill["patient_id"] / f"{ill['image_id']}.dcm"
    out = tmp_path / "maps"
    told = call(
        train, "explain", run, path.parent, "--out", out, "--dicom", "--lesions", phantoms / "lesions.csv"
    )
    assert told.exit_code == 0, told.output
    assert re.search(r"peaks in a true lesion in \d of \d images", told.output)
    with (out / "explanations.csv").open(encoding="utf-8") as file:
        rows = {row["image_id"]: row for row in csv.DictReader(file)}
    assert len(rows) == 4
    header = pydicom.dcmread(path)
    row = rows[ill["image_id"]]
    assert row["lesion"] == "1"
    [array] = out.glob(f"*{ill['image_id']}*.npy")
    if np.load(array).any():
        assert 0 <= int(row["peak_row"]) < header.Rows
        assert 0 <= int(row["peak_column"]) < header.Columns
    else:  # nothing speaks for cancer, and no place is made up
        assert (row["peak_row"], row["peak_column"], row["hit"]) == ("", "", "0")
        assert "maps are empty" in told.output
    step = -(-max(header.Rows, header.Columns) // 1024)
    assert np.load(array).shape == (-(-header.Rows // step), -(-header.Columns // step))
    with Image.open(array.with_suffix(".png")) as picture:
        assert picture.mode == "RGB"
        assert picture.size == np.load(array).shape[::-1]
    assert pydicom.dcmread(array.with_suffix(".dcm")).pixel_array.shape == (*np.load(array).shape, 3)


def test_an_interrupted_explanation_has_its_table(
    run: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = explain._write

    def twice(*arguments: Any) -> None:
        if len(list(tmp_path.glob("maps/*.npy"))) == 2:
            raise KeyboardInterrupt
        written(*arguments)

    monkeypatch.setattr(explain, "_write", twice)
    before = {number: signal.getsignal(number) for number in INTERRUPTS}
    result = call(train, "explain", run, phantoms / "train_images", "--out", tmp_path / "maps")
    for number, handler in before.items():  # a program that was interrupted ignores further signals
        signal.signal(number, handler)
    assert result.exit_code == 130
    table = (tmp_path / "maps" / "explanations.csv").read_text(encoding="utf-8").splitlines()
    assert len(list(csv.DictReader(table))) == 2


def test_another_dataset_is_scored_by_all_models(run: Path, phantoms: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    words = ("--size", "64x32", "--folds", 3, "--read", "needed", "--workers", 1)
    assert call(prep, phantoms, "--out", other, *words).exit_code == 0
    told = call(train, "evaluate", run, other, "--tta", "vertical")
    assert told.exit_code == 0, told.output
    found = Predictions.read(run / "evaluation-elsewhere" / "predictions.parquet")
    assert len(found) == 44
    assert set(found.fold.tolist()) == {-1}
    assert "11 patients are in the dataset that was trained on, too" in told.output
    shutil.rmtree(run / "evaluation-elsewhere")


def test_a_copy_of_the_runs_dataset_is_its_own(run: Path, dataset: Path, tmp_path: Path) -> None:
    """Nobody gets scores of images that a model was trained on by naming their dataset."""
    shutil.copytree(dataset, tmp_path / "elsewhere")
    told, own = (call(train, "evaluate", run, *named) for named in ([tmp_path / "elsewhere"], []))
    assert told.exit_code == 0, told.output
    assert told.output == own.output
    assert not (run / "evaluation-elsewhere").exists()


def test_breasts_with_more_views_than_a_bag_holds_are_answered(
    dataset: Path, phantoms: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = call(
        train, "fit", dataset, "--out", out, "--model", "resnet_tiny", "--weights", "none", "--epochs", 1,
        "--batch-size", 4, "--augment", "none", "--bags", "max", "--bag-views", 1,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    held = Predictions.read(out / "fold=0" / "predictions.parquet")
    scored = Predictions.read(out / "evaluation" / "predictions.parquet")
    assert len(scored.where(scored.fold == 0)) == len(held)
    expected = dict(zip(held.source, held.probability, strict=True))
    assert not np.isnan(scored.probability).any()
    for source, value in zip(scored.source, scored.probability, strict=True):
        assert value == pytest.approx(expected.get(source, value), abs=1e-5)
    assert "there is no map of one image" in (out / "report.html").read_text(encoding="utf-8")
    target = tmp_path / "submission.csv"
    result = call(train, "predict", out, phantoms / "test_images", "--out", target, "--submission")
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(target.read_text(encoding="utf-8").splitlines()))
    assert rows
    assert all(0 < float(row["cancer"]) < 1 for row in rows)


def test_a_run_is_evaluated_from_any_folder(
    run: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    shutil.copytree(run, tmp_path / "here")
    place = json.loads((run / "dataset.json").read_text())["place"]
    assert Path(place).is_absolute()
    for folder in ("one", "two"):
        other = tmp_path / folder / "set"
        options = ("--size", "64x32", "--modality", "MG", "--limit", 12 if folder == "one" else 8)
        assert call(prep, phantoms, "--out", other, *options, "--workers", 1).exit_code == 0
        result = call(train, "evaluate", tmp_path / "here", other)
        assert result.exit_code == 0, result.output
        assert "patients are in the dataset that was trained on, too" in result.output
    kept = sorted(path.name for path in (tmp_path / "here").glob("evaluation-*"))
    assert kept[0] == "evaluation-set"
    assert re.fullmatch("evaluation-set-[0-9a-f]{8}", kept[1])
    metrics = json.loads((tmp_path / "here" / "evaluation-set" / "metrics.json").read_text())
    assert metrics["patients_trained_on"] > 0
    document = json.loads((tmp_path / "here" / "dataset.json").read_text())
    document["place"] = str(tmp_path / "gone")
    (tmp_path / "here" / "dataset.json").write_text(json.dumps(document))
    result = call(train, "evaluate", tmp_path / "here", tmp_path / "one" / "set")
    assert "who was trained on cannot be told" in result.output


def test_the_answer_may_lie_among_the_inputs(run: Path, phantoms: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    shutil.copytree(phantoms / "test_images", inputs / "test_images")
    before = {path for path in inputs.rglob("*")}
    result = call(train, "predict", run, inputs, "--out", inputs / "predictions.csv")
    assert result.exit_code == 0, result.output
    assert {path for path in inputs.rglob("*")} - before == {inputs / "predictions.csv"}


def test_a_submission_needs_sides_before_any_model_is_asked(
    run: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = pydicom.dcmread(next((phantoms / "test_images").rglob("*.dcm")))
    del file.ImageLaterality
    (tmp_path / "flat").mkdir()
    file.save_as(tmp_path / "flat" / "one.dcm")
    monkeypatch.setattr("trainer.predict._predictions", lambda *_: pytest.fail("too late"))
    result = call(train, "predict", run, tmp_path / "flat", "--out", tmp_path / "s.csv", "--submission")
    assert result.exit_code == 2, result.output
    assert "--submission needs the laterality of every image; 1 have none" in result.output


def test_predict_leaves_nothing_behind_when_it_is_stopped(run: Path, phantoms: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer.cli", "predict", run, phantoms, "--out", tmp_path / "p.csv"]
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".bcd-predict-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert list(tmp_path.iterdir()) == []


def test_lesions_of_other_images_are_told(run: Path, phantoms: Path, tmp_path: Path) -> None:
    table = tmp_path / "lesions.csv"
    table.write_text("image_id,row,column,rows,columns\nnobody,1,1,5,5\n")
    image = next((phantoms / "test_images").rglob("*.dcm"))
    result = call(train, "explain", run, image, "--out", tmp_path / "maps", "--lesions", table)
    assert "no image has a lesion in lesions.csv" in result.output
    result = call(train, "explain", run, image, "--out", tmp_path / "maps", "--lesion-rule", "malignant==1")
    assert result.exit_code == 2
    assert "--lesion-rule needs --lesions" in result.output


def test_a_dataset_prepared_otherwise_is_refused(run: Path, phantoms: Path, tmp_path: Path) -> None:
    call(prep, phantoms / "test_images", "--out", tmp_path / "other", "--size", "96x48", "--workers", 1)
    told = call(train, "evaluate", run, tmp_path / "other")
    assert told.exit_code == 2
    assert "height" in told.output


def test_evaluation_is_repeatable(run: Path) -> None:
    before = (run / "evaluation" / "metrics.json").read_bytes()
    evaluate(open_run(run))
    assert (run / "evaluation" / "metrics.json").read_bytes() == before


def test_a_run_of_the_other_backend_is_used_in_a_process_of_its_own(
    run: Path, phantoms: Path, tmp_path: Path
) -> None:
    """The run decides which backend Keras has, whatever is imported for maps; so it is with `report`."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    config = (copy / "config.yaml").read_text(encoding="utf-8")
    (copy / "config.yaml").write_text(config.replace("backend: tensorflow", "backend: jax"), encoding="utf-8")
    [scan, *_] = sorted(map(str, phantoms.glob("test_images/*/*.dcm")))
    clean = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    own, on_jax = tmp_path / "own", tmp_path / "on_jax"
    assert call(train, "explain", run, scan, "--out", own).exit_code == 0
    command = [sys.executable, "-m", "trainer.cli", "explain", str(copy), scan, "--out", str(on_jax)]
    done = subprocess.run(command, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [there], [here] = on_jax.glob("*.npy"), own.glob("*.npy")
    np.testing.assert_allclose(np.load(there), np.load(here), atol=1e-4)


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_what_is_no_run_is_told(command: str, tmp_path: Path) -> None:
    told = call(train, command, tmp_path)
    assert told.exit_code == 2
    assert "no run of bcd-train" in told.output
