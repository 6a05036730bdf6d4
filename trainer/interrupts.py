"""SIGINT, SIGTERM and SIGHUP: a training writes a checkpoint first; whatever else is going on ends at once.

In:  signals.
Out: KeyboardInterrupt, which the command line turns into exit code 130. A second signal does not wait.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Self

from preprocess.exits import INTERRUPTS


class Interrupts:
    """Installed as a context manager, in the main thread; handlers go back to what they were."""

    def __init__(self) -> None:
        self.requested = False
        self._patient = False
        self._before: list[tuple[signal.Signals, object]] = []

    def __enter__(self) -> Self:
        for number in INTERRUPTS:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:  # nohup, or a shell's background job
                self._before.append((number, before))
                signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)  # type: ignore[arg-type]  # as getsignal gave it

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Within, the first signal only sets `requested`: whoever loops asks and ends in good order."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._patient or self.requested:
            raise KeyboardInterrupt
        self.requested = True
