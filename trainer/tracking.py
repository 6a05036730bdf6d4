"""A training's epochs on an MLflow server, one run for each fold.

In:  the tracking URI, finished epochs.
Out: parameters and metrics there; a note here of what was sent, for a resumed training to go on in its run.

A server that cannot be had at the start is an error; one that is lost later costs nothing but a message, and
gets what it missed when it is back.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from preprocess.atomic import write_atomically
from preprocess.errors import UsageError
from trainer.config import TrainConfig
from trainer.position import EpochRow

EXPERIMENT = "bcd-train"
"""Where MLFLOW_EXPERIMENT_NAME says no other."""
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}  # fmt: skip
"""Unless set already: MLflow would hold a training up for minutes, and prints URLs with passwords."""
_USER = re.compile(r"//\S*@")
_LONGEST = 200


class NotTaken(Exception):
    """The server did not do what it was asked; the message says why."""


class MLflow:
    """A Log (logs.py)."""

    def __init__(self, uri: str, folder: Path, config: TrainConfig, note: Callable[[str], None]) -> None:
        """Begin a run, or go on with the one of `folder`.

        Raises:
            UsageError: MLflow is not installed, or does not take the run.
        """
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self._path, self._say = folder / "logs" / "mlflow-run", note
        self._run, self._sent = self._known()
        try:
            with _told():
                self._client = _client(uri)
                if self._run:
                    self._client.update_run(self._run, status="RUNNING")
                else:
                    self._run = self._begun(f"{folder.parent.name}/{folder.name}", config)
        except NotTaken as error:
            raise UsageError(f"--mlflow: {error}") from None
        self._remember()

    def _known(self) -> tuple[str, int]:
        """The run, and how many epochs it has; nothing for a new one."""
        if not self._path.exists():
            return "", 0
        run, _, sent = self._path.read_text(encoding="ascii").strip().partition(" ")
        return run, int(sent or 0)

    def _remember(self) -> None:
        write_atomically(self._path, f"{self._run} {self._sent}\n".encode("ascii"))

    def _begun(self, name: str, config: TrainConfig) -> str:
        from mlflow.entities import Param

        where = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        known = self._client.get_experiment_by_name(where)
        experiment = known.experiment_id if known else self._client.create_experiment(where)
        run = str(self._client.create_run(experiment, run_name=name).info.run_id)
        parameters = [Param(key, str(value)) for key, value in config.flat().items()]
        self._client.log_batch(run, params=parameters)
        return run

    def resume(self, history: Sequence[EpochRow]) -> None:
        """Send what the server lacks."""
        self._send(history)

    def epoch(self, history: Sequence[EpochRow]) -> None:
        """Send the last epoch's numbers, and those before that were not taken."""
        self._send(history)

    def _send(self, history: Sequence[EpochRow]) -> None:
        from mlflow.entities import Metric

        for row in history[self._sent :]:
            now = int(time.time() * 1000)
            cells = [(name, value) for name, value in row.cells() if value is not None]
            metrics = [Metric(name, float(value), now, row.epoch) for name, value in cells]
            try:
                with _told():
                    self._client.log_batch(self._run, metrics=metrics)
            except NotTaken as error:
                self._say(f"MLflow has not taken epoch {row.epoch}, and will be sent it again: {error}")
                return
            self._sent += 1
            self._remember()

    def close(self) -> None:
        """End the run on the server, as killed or failed where it was; one that goes on takes it up again."""
        try:
            with _told():
                self._client.set_terminated(self._run, status=_status(sys.exc_info()[1]))
        except NotTaken as error:
            self._say(f"MLflow was not told of the end: {error}")


def _status(error: BaseException | None) -> str:
    """MLflow's word for how a training ended."""
    if error is None:
        return "FINISHED"
    return "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"


def _client(uri: str) -> Any:  # MLflow's types are not known where it is not installed
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


@contextmanager
def _told() -> Iterator[None]:
    """MLflow's failures as NotTaken: their first line, without a user's name and password."""
    try:
        from mlflow.exceptions import MlflowException
    except ModuleNotFoundError:
        raise NotTaken("needs the extra mlflow: pip install '.[mlflow]'") from None
    try:
        yield
    except (MlflowException, OSError, ImportError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise NotTaken(without_user(first)[:_LONGEST]) from None


def without_user(text: str) -> str:
    """A text without the user names and passwords of its URLs."""
    return _USER.sub("//", text)
