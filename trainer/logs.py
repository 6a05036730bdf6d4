"""What a training writes down as it goes: history.csv, history.jsonl, TensorBoard events, MLflow.

In:  finished epochs.
Out: files that hold exactly the epochs of the checkpoint; a resumed training rewrites them first.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from preprocess.atomic import write_atomically
from preprocess.errors import UsageError
from trainer import events
from trainer.config import ExecutionConfig, TrainConfig
from trainer.position import EpochRow


class Log(Protocol):
    """One kind of log."""

    def resume(self, history: Sequence[EpochRow]) -> None:
        """Hold these epochs and no others."""
        ...

    def epoch(self, history: Sequence[EpochRow]) -> None:
        """The last of these is new."""
        ...

    def close(self) -> None:
        """The training has ended, for now or for good."""
        ...


@dataclass(frozen=True, slots=True)
class HistoryFiles:
    """history.csv, an empty cell where a score does not exist, and history.jsonl, null there."""

    folder: Path

    def resume(self, history: Sequence[EpochRow]) -> None:
        """Write both anew. Raises RunAborted."""
        table = io.StringIO()
        if history:
            writer = csv.writer(table, lineterminator="\n")
            writer.writerow(name for name, _ in history[0].cells())
            writer.writerows([value for _, value in row.cells()] for row in history)
        write_atomically(self.folder / "history.csv", table.getvalue().encode())
        lines = "".join(json.dumps(dict(row.cells())) + "\n" for row in history)
        write_atomically(self.folder / "history.jsonl", lines.encode())

    epoch = resume

    def close(self) -> None:
        """Nothing: files are closed after each epoch."""


@dataclass(frozen=True, slots=True)
class TensorBoard:
    """An event file."""

    path: Path

    def resume(self, history: Sequence[EpochRow]) -> None:
        """Write it anew. Raises RunAborted."""
        events.rewrite(self.path, history)

    def epoch(self, history: Sequence[EpochRow]) -> None:
        """Append. Raises RunAborted."""
        events.append(self.path, history[-1])

    def close(self) -> None:
        """Nothing: files are closed after each epoch."""


class MLflow:
    """A run on an MLflow server, one for each fold; a resumed training goes on in the same one."""

    def __init__(self, uri: str, folder: Path, config: TrainConfig) -> None:
        try:
            import mlflow  # an extra, and slow to import
        except ModuleNotFoundError:
            raise UsageError("--mlflow needs the mlflow extra: pip install '.[mlflow]'") from None
        self._mlflow, self._note = mlflow, folder / "logs" / "mlflow-run"
        mlflow.set_tracking_uri(uri)
        known = self._note.read_text() if self._note.exists() else None
        self._run = mlflow.start_run(run_id=known, run_name=f"{folder.parent.name}/{folder.name}")
        if known is None:
            mlflow.log_params(config.flat())
            write_atomically(self._note, self._run.info.run_id.encode())

    def resume(self, history: Sequence[EpochRow]) -> None:
        """Nothing: the server keeps what it got, and an epoch that is done again overwrites its values."""

    def epoch(self, history: Sequence[EpochRow]) -> None:
        """Send the last epoch's numbers."""
        values = {name: float(value) for name, value in history[-1].cells() if value is not None}
        self._mlflow.log_metrics(values, step=history[-1].epoch)

    def close(self) -> None:
        """End the run on the server."""
        self._mlflow.end_run()


def logs_of(folder: Path, config: TrainConfig, execution: ExecutionConfig) -> tuple[Log, ...]:
    """The logs that are wanted. Raises UsageError: MLflow is not installed."""
    logs: list[Log] = [HistoryFiles(folder)]
    if execution.tensorboard:
        logs.append(TensorBoard(folder / "logs" / events.NAME))
    if execution.mlflow is not None:
        logs.append(MLflow(execution.mlflow, folder, config))
    return tuple(logs)
