"""What a training writes down as it goes: history.csv, history.jsonl, TensorBoard events, MLflow.

In:  finished epochs.
Out: files that hold exactly the epochs of the checkpoint; a resumed training rewrites them first.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from preprocess.atomic import write_atomically
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


def logs_of(
    folder: Path, config: TrainConfig, execution: ExecutionConfig, note: Callable[[str], None]
) -> tuple[Log, ...]:
    """The logs that are wanted; `note` is told what could not be logged.

    Raises:
        UsageError: MLflow is not installed, or does not take the run.
    """
    logs: list[Log] = [HistoryFiles(folder)]
    if execution.tensorboard:
        logs.append(TensorBoard(folder / "logs" / events.NAME))
    if execution.mlflow is not None:
        from trainer.tracking import MLflow  # an extra, and slow to import

        logs.append(MLflow(execution.mlflow, folder, config, note))
    return tuple(logs)
