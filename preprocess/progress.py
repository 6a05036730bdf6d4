"""How a run tells what it is doing: a bar on a terminal, else a line every few seconds, JSON on request.

In:  phases with totals, and steps done.
Out: text on stderr. Never a patient's name, an id or a path of an input.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self, TextIO

from preprocess.config import LogFormat

_EVERY_S = 5.0


class Reporter(Protocol):
    """What a run tells of itself."""

    def phase(self, name: str, total: int) -> None:
        """A new phase begins with `total` steps."""
        ...

    def step(self, count: int, rejected: int = 0) -> None:
        """`count` more steps are done, `rejected` of them rejects."""
        ...

    def note(self, message: str) -> None:
        """Something worth a line."""
        ...


class Silent:
    """Says nothing: for tests and for callers of `runner.run` as a function."""

    def phase(self, name: str, total: int) -> None:
        """Ignored."""

    def step(self, count: int, rejected: int = 0) -> None:
        """Ignored."""

    def note(self, message: str) -> None:
        """Ignored."""


class Lines:
    """One line every few seconds, as text or JSON."""

    def __init__(self, log_format: LogFormat = LogFormat.TEXT, stream: TextIO | None = None) -> None:
        self._json = log_format is LogFormat.JSON
        self._stream = stream or sys.stderr
        self._name, self._total, self._done, self._rejected = "", 0, 0, 0
        self._begun = self._told = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tell(final=True)

    def phase(self, name: str, total: int) -> None:
        """Finish the last phase's line and begin another."""
        self._tell(final=True)
        self._name, self._total, self._done, self._rejected = name, total, 0, 0
        self._begun = self._told = time.monotonic()

    def step(self, count: int, rejected: int = 0) -> None:
        """Count, and tell if it is time."""
        self._done += count
        self._rejected += rejected
        if time.monotonic() - self._told >= _EVERY_S:
            self._told = time.monotonic()
            self._tell()

    def note(self, message: str) -> None:
        """Tell at once."""
        self._write({"event": "note", "message": message}, message)

    def _tell(self, *, final: bool = False) -> None:
        if not self._name:
            return
        rate = self._done / max(time.monotonic() - self._begun, 1e-9)
        record = {
            "event": "phase_end" if final else "progress",
            "phase": self._name,
            "done": self._done,
            "total": self._total,
            "rejected": self._rejected,
            "per_second": round(rate, 2),
        }
        text = f"{self._name}: {self._done}/{self._total}, {self._rejected} rejected, {rate:.1f}/s"
        self._write(record, text)
        if final:
            self._name = ""

    def _write(self, record: dict[str, str | int | float], text: str) -> None:
        if self._json:
            record = {"time": round(time.time(), 3), **record}
        with contextlib.suppress(OSError):  # a closed pipe or a terminal that is gone ends no run
            print(json.dumps(record) if self._json else text, file=self._stream, flush=True)


class Bar:
    """A progress bar on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console  # slow to import, and only needed where a bar is drawn
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rejected]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._rejected = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def phase(self, name: str, total: int) -> None:
        """A new bar."""
        self._rejected = 0
        self._task = self._progress.add_task(name, total=total, rejected="")

    def step(self, count: int, rejected: int = 0) -> None:
        """Advance the bar."""
        self._rejected += rejected
        told = f"{self._rejected} rejected" if self._rejected else ""
        self._progress.update(self._task, advance=count, rejected=told)

    def note(self, message: str) -> None:
        """A line above the bars."""
        self._progress.console.print(message, highlight=False)


def reporter(log_format: LogFormat) -> AbstractContextManager[Bar | Lines]:
    """The reporter that fits: a bar if stderr is a terminal and text is wanted, lines otherwise."""
    if log_format is LogFormat.TEXT and sys.stderr.isatty():
        return Bar()
    return Lines(log_format)
