"""How a training tells what it is doing: a bar on a terminal, else a line every few seconds, JSON on request.

In:  steps and epochs as they end.
Out: text on stderr: loss, images per second, share of time without a batch, time left.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

from preprocess.config import LogFormat
from trainer.config import Monitor
from trainer.position import EpochRow, Position

_EVERY_S = 5.0


class Reporter(Protocol):
    """What a training tells of itself."""

    def fold(self, fold: int, epochs: int, steps: int, batch: int) -> None:
        """A fold begins: `epochs` epochs of `steps` batches."""
        ...

    def step(self, position: Position) -> None:
        """A step is done, and `position` is where the training stands."""
        ...

    def epoch(self, row: EpochRow, monitor: Monitor) -> None:
        """An epoch is done and validated."""
        ...

    def note(self, message: str) -> None:
        """Something worth a line."""
        ...


class Silent:
    """Says nothing: for callers of `train.fit` as a function."""

    def fold(self, fold: int, epochs: int, steps: int, batch: int) -> None:
        """Ignored."""

    def step(self, position: Position) -> None:
        """Ignored."""

    def epoch(self, row: EpochRow, monitor: Monitor) -> None:
        """Ignored."""

    def note(self, message: str) -> None:
        """Ignored."""


class _Counting:
    """What lines and bars both need to know."""

    def __init__(self) -> None:
        self._fold, self._epochs, self._steps, self._batch = 0, 0, 0, 0
        self._begun, self._done = time.monotonic(), 0

    def fold(self, fold: int, epochs: int, steps: int, batch: int) -> None:
        """Count from here."""
        self._fold, self._epochs, self._steps, self._batch = fold, epochs, steps, batch
        self._begun, self._done = time.monotonic(), 0

    def _status(self, position: Position) -> dict[str, Any]:
        tally = position.tally
        left = (self._epochs - position.epoch) * self._steps - tally.steps
        pace = (time.monotonic() - self._begun) / max(self._done, 1)
        return {
            "fold": self._fold,
            "epoch": position.epoch + 1,
            "epochs": self._epochs,
            "step": tally.steps,
            "steps": self._steps,
            "loss": round(tally.loss / max(tally.steps - tally.skipped, 1), 5),
            "images_per_second": round(tally.steps * self._batch / max(tally.seconds, 1e-9), 2),
            "wait_share": round(tally.waited / max(tally.seconds, 1e-9), 4),
            "eta_s": round(left * pace),
        }

    def _told(self, row: EpochRow, monitor: Monitor) -> str:
        names = dict.fromkeys((monitor.value, "roc_auc", "breast_roc_auc", "breast_pf1"))
        cells = dict(row.cells())
        scores = [f"{name} {cells[name]:.4f}" for name in names if cells.get(name) is not None]
        return (
            f"fold {self._fold} epoch {row.epoch}/{self._epochs}: train loss {row.train_loss:.4f},"
            f" log loss {row.image.log_loss or 0:.4f}, {', '.join(scores) or 'no scores'};"
            f" {row.images_per_second:.1f} img/s, waiting {row.wait_share:.1%}"
        )


class Lines(_Counting):
    """One line every few seconds, as text or JSON."""

    def __init__(self, log_format: LogFormat = LogFormat.TEXT, stream: TextIO | None = None) -> None:
        super().__init__()
        self._json = log_format is LogFormat.JSON
        self._stream = stream or sys.stderr
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to say."""

    def step(self, position: Position) -> None:
        """Tell if it is time."""
        self._done += 1
        if time.monotonic() - self._last < _EVERY_S:
            return
        self._last = time.monotonic()
        now = self._status(position)
        text = (
            f"fold {now['fold']} epoch {now['epoch']}/{now['epochs']} step {now['step']}/{now['steps']}:"
            f" loss {now['loss']}, {now['images_per_second']} img/s, waiting {now['wait_share']:.1%},"
            f" {now['eta_s']} s left"
        )
        self._write({"event": "progress", **now}, text)

    def epoch(self, row: EpochRow, monitor: Monitor) -> None:
        """Tell at once."""
        self._last = time.monotonic()
        self._write({"event": "epoch", "fold": self._fold, **dict(row.cells())}, self._told(row, monitor))

    def note(self, message: str) -> None:
        """Tell at once."""
        self._write({"event": "note", "message": message}, message)

    def _write(self, record: dict[str, Any], text: str) -> None:
        if self._json:
            record = {"time": round(time.time(), 3), **record}
        with contextlib.suppress(OSError):  # a closed pipe or a terminal that is gone ends no training
            print(json.dumps(record) if self._json else text, file=self._stream, flush=True)


class Bar(_Counting):
    """A progress bar of each epoch on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console  # slow to import, and only needed where a bar is drawn
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        super().__init__()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("", total=None, status="", visible=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def step(self, position: Position) -> None:
        """Move the bar."""
        self._done += 1
        now = self._status(position)
        self._progress.update(
            self._task,
            visible=True,
            total=self._steps,
            completed=now["step"],
            description=f"fold {now['fold']} epoch {now['epoch']}/{now['epochs']}",
            status=f"loss {now['loss']:.4f} {now['images_per_second']:.1f} img/s"
            f" waiting {now['wait_share']:.1%} {now['eta_s']} s left",
        )

    def epoch(self, row: EpochRow, monitor: Monitor) -> None:
        """A line above the bar."""
        self._progress.reset(self._task)
        self.note(self._told(row, monitor))

    def note(self, message: str) -> None:
        """A line above the bar."""
        self._progress.console.print(message, highlight=False)


def reporter(log_format: LogFormat) -> AbstractContextManager[Bar | Lines]:
    """The reporter that fits: a bar if stderr is a terminal and text is wanted, lines otherwise."""
    if log_format is LogFormat.TEXT and sys.stderr.isatty():
        return Bar()
    return Lines(log_format)
