"""`bcd-train fit` from the command line to the run folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

import trainer.train
from preprocess import atomic
from preprocess.tfrecord import read_records
from tests.trainer.runs import curve, everything, fit, make_small, one_line
from trainer.backends.base import PendingStep
from trainer.backends.tensorflow import TensorFlowLearner
from trainer.position import chosen_by
from trainer.predictions import Level, Predictions
from trainer.records import Batch
from trainer.runfolder import RunFolder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small(tmp_path_factory.mktemp("fit") / "dataset")


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of fold 0."""
    out = tmp_path_factory.mktemp("run") / "run"
    result = fit(dataset, out)
    assert result.exit_code == 0, result.output
    return out


def at_step(number: int, do: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let something happen at the n-th step from now."""
    steps, original = iter(range(1, 10**9)), TensorFlowLearner.step

    def step(self: TensorFlowLearner, batch: Batch) -> PendingStep:
        if next(steps) == number:
            do()
        return original(self, batch)

    monkeypatch.setattr(TensorFlowLearner, "step", step)


def test_the_run_folder_explains_itself(run: Path, dataset: Path) -> None:
    folder, manifest = RunFolder(run), json.loads((dataset / "manifest.json").read_bytes())
    config = folder.config()
    assert (config.model.model, config.optimization.epochs) == ("resnet_tiny", 2)
    assert yaml.safe_load((run / "config.yaml").read_text())["head_epochs"] == 1
    assert folder.preprocessing().model_dump(mode="json") == manifest["config"]
    documents = {
        name: json.loads((run / f"{name}.json").read_bytes()) for name in ("dataset", "run", "weights")
    }
    assert documents["dataset"]["images"] == 40
    assert documents["run"]["status"] == "finished"
    assert [fold["fold"] for fold in documents["run"]["folds"]] == [0]
    assert documents["weights"]["source"] == "none"
    environment = json.loads((run / "environment.json").read_bytes())
    assert environment["packages"]["keras"]
    assert "jax" not in environment["packages"]  # installed, but not what this was trained with
    assert environment["devices"]
    assert not (run / "fold=0" / "checkpoint").exists()


def test_predictions_are_of_the_validation_fold_and_from_the_best_epoch(run: Path) -> None:
    predictions, rows = Predictions.read(run / "fold=0" / "predictions.parquet"), curve(run)
    assert set(predictions.fold.tolist()) == {0}
    assert len(predictions) == rows[0]["count"]
    best = json.loads((run / "fold=0" / "result.json").read_bytes())
    row = rows[best["best_epoch"] - 1]
    assert best["score"] == row["breast_pr_auc"] == max(row["breast_pr_auc"] for row in rows)
    cases = predictions.cases(Level.BREAST)
    assert len(cases.keys) == row["breast_count"]
    assert float(np.mean((cases.probabilities - cases.labels) ** 2)) == row["breast_brier"]


def test_the_saved_model_gives_the_predictions(run: Path, dataset: Path) -> None:
    from trainer.dataset import open_dataset
    from trainer.models import load

    data, model = open_dataset(dataset), load(run / "fold=0" / "model.keras")
    predictions = Predictions.read(run / "fold=0" / "predictions.parquet")
    places = {row.source: place for place, row in enumerate(data.rows)}
    pixels = np.stack([data.pixels(places[source]) for source in predictions.source])[..., None] / 65535.0
    logits = np.asarray(model(pixels.astype(np.float32), training=False))[:, 0]
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), predictions.probability, rtol=1e-4)


def test_tensorboard_reads_the_event_file(run: Path) -> None:
    import tensorflow as tf

    path = run / "fold=0" / "logs" / "events.out.tfevents.0.bcd"
    found = [tf.compat.v1.Event.FromString(record) for record in read_records(path)]
    assert found[0].file_version == "brain.Event:2"
    assert [event.step for event in found[1:]] == [1, 2]
    values = {value.tag: value.simple_value for value in found[2].summary.value}
    last = curve(run)[-1]
    assert values["train/train_loss"] == pytest.approx(last["train_loss"])
    assert values["breast/roc_auc"] == pytest.approx(last["breast_roc_auc"])


def test_a_finished_run_says_so_and_does_nothing(run: Path, dataset: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (run / "fold=0").rglob("*")}
    result = fit(dataset, run)
    assert result.exit_code == 0
    assert "this run is finished" in result.output
    assert before == {path: path.stat().st_mtime_ns for path in (run / "fold=0").rglob("*")}


def test_another_config_or_dataset_is_refused_by_name(run: Path, dataset: Path, tmp_path: Path) -> None:
    refused = fit(dataset, run, "--learning-rate", "0.002", "--model", "convnext_tiny")
    assert refused.exit_code == 2
    assert "learning_rate: 0.001 there, 0.002 asked for" in one_line(refused)
    assert "model: 'resnet_tiny' there" in one_line(refused)
    other = fit(make_small(tmp_path / "other", patients=12), run)
    assert other.exit_code == 2
    assert "content of dataset: sha256" in one_line(other)


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_signal_saves_and_the_same_command_goes_on_to_the_same_bits(
    run: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    with monkeypatch.context() as patch:
        at_step(step, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
        stopped = fit(dataset, tmp_path / "run")
    assert stopped.exit_code == 130, stopped.output
    assert "run the same command again" in stopped.output
    assert not (tmp_path / "run" / "run.json").exists()
    newest = max((tmp_path / "run" / "fold=0" / "checkpoint").glob("step-*.npz"))
    assert int(newest.stem[5:]) == step
    resumed = fit(dataset, tmp_path / "run")
    assert resumed.exit_code == 0, resumed.output
    assert "going on from epoch" in resumed.output
    assert everything(tmp_path / "run") == everything(run)


def test_a_damaged_checkpoint_is_passed_over(
    run: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_step(4, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
        assert fit(dataset, tmp_path / "run", "--checkpoint-minutes", "0.00001").exit_code == 130
    newest = sorted((tmp_path / "run" / "fold=0" / "checkpoint").glob("step-*.npz"))[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    resumed = fit(dataset, tmp_path / "run")
    assert resumed.exit_code == 0, resumed.output
    assert f"{newest.name}, or the best epoch that it names, is damaged" in resumed.output
    assert everything(tmp_path / "run") == everything(run)


def test_a_full_disk_ends_it_with_a_message_and_it_can_go_on(
    run: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        at_step(5, lambda: patch.setattr(atomic, "_write_all", full), patch)
        stopped = fit(dataset, tmp_path / "run", "--checkpoint-minutes", "0.00001")
    assert stopped.exit_code == 1
    assert "No space left on device (ENOSPC)" in one_line(stopped)
    assert not (tmp_path / "run" / "run.json").exists()
    assert not list(tmp_path.rglob("*.tmp"))
    assert fit(dataset, tmp_path / "run").exit_code == 0
    assert everything(tmp_path / "run") == everything(run)


def test_a_loss_that_is_no_number_ends_it_with_step_and_rate(dataset: Path, tmp_path: Path) -> None:
    stopped = fit(
        dataset, tmp_path / "run", "--learning-rate", "1e30", "--clip-norm", "0", "--head-epochs", "0"
    )
    assert stopped.exit_code == 1
    assert "no longer" in one_line(stopped)
    assert not (tmp_path / "run" / "fold=0" / "model.keras").exists()


def test_all_folds_are_trained_in_turn_and_a_run_may_grow_by_folds(
    run: Path, dataset: Path, tmp_path: Path
) -> None:
    assert fit(dataset, tmp_path / "run", "--fold", "1").exit_code == 0
    result = fit(dataset, tmp_path / "run", "--fold", "all")
    assert result.exit_code == 0, result.output
    assert everything(tmp_path / "run", 0) == everything(run, 0)
    folds = json.loads((tmp_path / "run" / "run.json").read_bytes())["folds"]
    assert [fold["fold"] for fold in folds] == [0, 1]


def changed(rows: Any, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run on the dataset with its rows changed by a function."""
    from trainer import train
    from trainer.dataset import open_dataset

    def opened(place: Path) -> Any:
        found = open_dataset(place)
        found.rows = tuple(rows(found.rows))
        return found

    monkeypatch.setattr(train, "open_dataset", opened)
    return fit(dataset, tmp_path / "run")


def test_a_patient_in_two_folds_makes_the_run_refuse(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    def torn(rows: Any) -> Any:
        first = rows[0]
        return [replace(first, fold=1 - first.fold), *rows[1:]]

    result = changed(torn, dataset, tmp_path, monkeypatch)
    assert result.exit_code == 1
    assert "1 patients are in more than one fold" in one_line(result)
    assert not (tmp_path / "run").exists()


def test_one_class_only_missing_labels_and_an_empty_dataset_are_refused(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_class = fit(make_small(tmp_path / "negative", patients=4, positive=0), tmp_path / "run")
    assert one_class.exit_code == 2
    assert "training images of fold 0 are negative" in one_line(one_class)
    missing = fit(dataset, tmp_path / "run", "--target", "malignant")
    assert missing.exit_code == 2
    assert "there is no label malignant; the dataset has" in one_line(missing)
    empty = changed(lambda rows: (), dataset, tmp_path, monkeypatch)
    assert empty.exit_code == 2
    assert "has no prepared image" in one_line(empty)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--weights", "nowhere.h5"), "no such file"),
        (("--model", "vgg"), "vgg"),
        (("--fold", "7"), "there is no fold 7"),
        (("--devices", "5"), "there is no device 5"),
        (("--devices", "0,0"), "named twice"),
        (("--accumulate", "3"), "give a multiple of 3"),
        (("--augment", "nowhere.yaml"), "nowhere.yaml"),
        (("--backend", "jax"), "this process already uses tensorflow"),
        (("--seed", str(1 << 32)), "seed"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_written(
    dataset: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    result = fit(dataset, tmp_path / "run", *options)
    assert result.exit_code == 2
    assert message in one_line(result)
    assert not (tmp_path / "run").exists()


def test_other_files_in_the_folder_are_not_touched(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    result = fit(dataset, tmp_path, "--overwrite")
    assert result.exit_code == 2
    assert "holds other files (thesis.tex)" in one_line(result)
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_something_that_is_no_dataset_is_refused(tmp_path: Path) -> None:
    result = fit(tmp_path, tmp_path / "run")
    assert result.exit_code == 2
    assert "no manifest.json" in one_line(result)


def test_bags_and_auxiliary_heads_train_and_predict_every_view(dataset: Path, tmp_path: Path) -> None:
    options = ("--bags", "attention", "--bag-views", "2", "--batch-size", "4", "--auxiliary", "density")
    result = fit(dataset, tmp_path / "run", *options)
    assert result.exit_code == 0, result.output
    predictions = Predictions.read(tmp_path / "run" / "fold=0" / "predictions.parquet")
    assert len(predictions) == curve(tmp_path / "run")[0]["count"]
    by_breast: dict[tuple[object, object], set[float]] = {}
    for patient, side, value in zip(
        predictions.patient_id, predictions.laterality, predictions.probability, strict=True
    ):
        by_breast.setdefault((patient, side), set()).add(value)
    assert all(len(values) == 1 for values in by_breast.values())


def test_an_interrupted_overwrite_leaves_nothing_that_another_config_goes_on_from(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    at_step(3, lambda: os.kill(os.getpid(), signal.SIGINT), monkeypatch)
    assert fit(dataset, out).exit_code == 130
    assert list((out / "fold=0" / "checkpoint").glob("step-*"))

    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("trainer.runfolder.shutil.rmtree", interrupted)
        assert fit(dataset, out, "--overwrite", "--learning-rate", "0.003").exit_code == 130
    assert (out / "config.yaml").exists()
    (out / "config.yaml").unlink()
    refused = fit(dataset, out, "--learning-rate", "0.003")
    assert refused.exit_code == 2
    assert "it holds folds, but no config.yaml" in one_line(refused)


def test_what_a_kill_left_undone_at_the_very_end_is_done_by_the_next_run(
    dataset: Path, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    (out / "run.json").unlink()
    (out / "fold=0" / "checkpoint").mkdir()
    result = fit(dataset, out)
    assert result.exit_code == 0
    assert "nothing left to do" in result.output
    assert json.loads((out / "run.json").read_text()) == json.loads((run / "run.json").read_text())
    assert not (out / "fold=0" / "checkpoint").exists()


def test_all_folds_get_the_augmentation_that_the_run_names(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("- VerticalFlip: {p: 0.5}\n")
    used = []
    original = trainer.train.train_batches

    def spied(*arguments: Any) -> Any:
        batches = original(*arguments)
        used.append(batches.augmenter.to_yaml())
        mine.write_text("- HorizontalFlip: {p: 1.0}\n")
        return batches

    monkeypatch.setattr("trainer.train.train_batches", spied)
    assert fit(dataset, tmp_path / "run", "--fold", "all", "--augment", str(mine)).exit_code == 0
    assert len(used) == 2
    assert set(used) == {(tmp_path / "run" / "augmentation.yaml").read_text()}


def test_weights_that_change_between_folds_are_refused(
    dataset: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "first.keras"
    shutil.copy(run / "fold=0" / "model.keras", weights)
    original = trainer.train._train

    def then_changed(*arguments: Any) -> None:
        original(*arguments)
        with weights.open("ab") as file:
            file.write(b"more")

    monkeypatch.setattr("trainer.train._train", then_changed)
    result = fit(dataset, tmp_path / "run", "--fold", "all", "--weights", str(weights))
    assert result.exit_code == 2
    assert "the file has changed" in one_line(result)
    assert RunFolder(tmp_path / "run").folds() == (0,)


def test_a_fold_leaves_no_learner_in_memory(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[weakref.ref[Any]] = []
    alive = []
    original = trainer.train.new_learner

    def watched(*arguments: Any) -> Any:
        alive.append([ref() is not None for ref in seen])
        learner = original(*arguments)
        seen.append(weakref.ref(learner))
        return learner

    monkeypatch.setattr("trainer.train.new_learner", watched)
    assert fit(dataset, tmp_path / "run", "--fold", "all").exit_code == 0
    assert alive == [[], [False]]


def test_a_fold_without_positives_keeps_its_last_epoch_and_says_so(tmp_path: Path) -> None:
    dataset = make_small(tmp_path / "dataset", patients=8, positive=1)
    folds = json.loads((dataset / "manifest.json").read_text())["folds"]
    empty = next(one["fold"] for one in folds if not one["positive_images"])
    result = fit(dataset, tmp_path / "run", "--fold", str(empty), "--epochs", "3", "--head-epochs", "0")
    assert result.exit_code == 0, result.output
    told = f"fold {empty}: last epoch 3: no breast_pr_auc, as its validation has not both classes"
    assert told in result.output
    kept = json.loads((tmp_path / "run" / f"fold={empty}" / "result.json").read_text())
    assert (kept["best_epoch"], kept["score"]) == (3, None)
    assert (tmp_path / "run" / "report.html").exists()


def test_export_writes_the_model_of_a_fold_with_its_preprocessing(run: Path, tmp_path: Path) -> None:
    from trainer.cli import main

    out = tmp_path / "saved"
    result = CliRunner().invoke(main, ["export", str(run), "--format", "savedmodel", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "largest difference" in result.output
    assert (out / "assets.extra" / "preprocessing.json").is_file()
    missing = CliRunner().invoke(main, ["export", str(run), "--format", "onnx", "--fold", "1"])
    assert missing.exit_code == 2


def test_a_score_below_zero_is_told_as_the_log_loss_that_it_is() -> None:
    assert chosen_by("breast_pr_auc", -0.1186) == ("log_loss", 0.1186)
    assert chosen_by("loss", -0.5) == ("log_loss", 0.5)
    assert chosen_by("breast_pr_auc", 0.25) == ("breast_pr_auc", 0.25)
