"""Trainings told to MLflow: its own client over HTTP, and a server that answers as MLflow's does.

Needs the extra `mlflow`, which is not in the lock file: `make mlflow`. What happens without is tested anyway.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.tracking.server import Tracker, serving
from tests.trainer.runs import curve, fit, make_small
from trainer.position import EpochRow

# MLflow brings some fifty packages, which nothing else here needs: they are not in the lock file.
has_mlflow = importlib.util.find_spec("mlflow") is not None
needs_mlflow = pytest.mark.skipif(not has_mlflow, reason="needs the extra `mlflow`: make mlflow")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small(tmp_path_factory.mktemp("tracking") / "dataset")


def sent(run: dict[str, list[tuple[str, int, float]]]) -> list[dict[str, float]]:
    """Metrics by epoch, in the order in which they came."""
    steps = dict.fromkeys(step for _, step, _ in run["metrics"])
    return [{key: value for key, step, value in run["metrics"] if step == one} for one in steps]


@needs_mlflow
def test_a_fold_is_a_run_with_parameters_and_every_epochs_scores(dataset: Path, tmp_path: Path) -> None:
    tracker, out = Tracker(), tmp_path / "run"
    with serving(tracker) as uri:
        done = fit(dataset, out, "--mlflow", uri)
    assert done.exit_code == 0, done.output
    assert list(tracker.experiments) == ["bcd-train"]
    (run,) = tracker.runs.values()
    assert run["name"] == "run/fold=0"
    assert run["params"]["model"] == "resnet_tiny"
    assert run["statuses"] == ["RUNNING", "FINISHED"]
    history = curve(out)
    assert len(history) == 2
    for row, told in zip(history, sent(run), strict=True):
        numbers = {key: value for key, value in row.items() if value is not None}
        assert numbers.items() <= told.items()
    everything = "".join(path.read_text() for path in out.glob("*.json"))
    assert "secret" not in everything + done.output
    assert "http://127.0.0.1" in json.loads((out / "environment.json").read_text())["options"]["mlflow"]


@needs_mlflow
def test_a_server_that_is_lost_costs_a_message_and_gets_all_when_it_is_back(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer import tracking

    tracker, send = Tracker(), tracking.MLflow._send

    def lost_for_the_first(log: tracking.MLflow, history: Sequence[EpochRow]) -> None:
        tracker.refuses = len(history) == 1
        send(log, history)

    monkeypatch.setattr(tracking.MLflow, "_send", lost_for_the_first)
    with serving(tracker) as uri:
        done = fit(dataset, tmp_path / "run", "--mlflow", uri)
    assert done.exit_code == 0, done.output
    assert "MLflow has not taken epoch 1" in done.output
    assert "not today" in done.output
    (run,) = tracker.runs.values()
    assert [step for key, step, _ in run["metrics"] if key == "train_loss"] == [1, 2]


@needs_mlflow
def test_a_training_that_goes_on_goes_on_in_the_same_run(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.train import Diverged, FoldTraining

    tracker, out, validate = Tracker(), tmp_path / "run", FoldTraining._validate_epoch

    def stopped_after_one(training: FoldTraining) -> None:
        validate(training)
        raise Diverged("for this test")

    with serving(tracker) as uri:
        with monkeypatch.context() as patch:
            patch.setattr(FoldTraining, "_validate_epoch", stopped_after_one)
            assert fit(dataset, out, "--mlflow", uri).exit_code == 1
        done = fit(dataset, out, "--mlflow", uri)
    assert done.exit_code == 0, done.output
    (run,) = tracker.runs.values()
    assert run["statuses"] == ["RUNNING", "FINISHED", "RUNNING", "FINISHED"]
    assert [step for key, step, _ in run["metrics"] if key == "train_loss"] == [1, 2]


@needs_mlflow
@pytest.mark.parametrize("uri", ["http://someone:secret@127.0.0.1:9", "gopher://someone:secret@nowhere"])
def test_a_server_that_cannot_be_had_is_said_at_once(dataset: Path, tmp_path: Path, uri: str) -> None:
    done = fit(dataset, tmp_path / "run", "--mlflow", uri)
    assert done.exit_code == 2
    assert "--mlflow" in done.output
    assert "secret" not in done.output
    assert "Traceback" not in done.output


@pytest.mark.skipif(has_mlflow, reason="MLflow is installed: its absence cannot be seen here")
def test_without_mlflow_the_message_names_the_extra(dataset: Path, tmp_path: Path) -> None:
    done = fit(dataset, tmp_path / "run", "--mlflow", "http://127.0.0.1:9")
    assert done.exit_code == 2
    assert "pip install '.[mlflow]'" in done.output
