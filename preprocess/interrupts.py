"""Signals that ask a run to stop: raised as KeyboardInterrupt, and raised again where that was swallowed.

In:  SIGINT, SIGTERM, SIGHUP.
Out: KeyboardInterrupt wherever the main thread is; and at `check`, once a run was asked to stop.

What raises in the middle of a library's native code may come out as that library's own error, or not at all:
pydantic's serialiser does both. So a run asks after each shard, and an error after a signal is its doing.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import NoReturn

_state = {"asked": False}


def handle(numbers: Iterable[signal.Signals]) -> None:
    """Have these signals interrupt the main thread, but for those that are ignored (nohup, a shell's job)."""
    _state["asked"] = False
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def asked() -> bool:
    """Whether a signal has come since `handle`."""
    return _state["asked"]


def check() -> None:
    """Raise KeyboardInterrupt if a signal has come."""
    if asked():
        raise KeyboardInterrupt


def _interrupt(*_: object) -> NoReturn:
    _state["asked"] = True
    raise KeyboardInterrupt
