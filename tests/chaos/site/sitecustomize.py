"""Kills a process of a run in the middle of a commit. Python imports this by itself from PYTHONPATH.

BCD_CHAOS_KILL = "<who counts>:<call>:<n>:<before or after>:<whom to kill>:<mark>": the first process to make
its n-th call kills itself or its parent, once per mark (a file).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any


def _killing(real: Callable[..., Any], number: int, when: str, whom: str, mark: str) -> Callable[..., Any]:
    made = 0

    def call(*arguments: object, **keywords: object) -> object:
        nonlocal made
        made += 1
        if made != number or os.path.exists(mark):
            return real(*arguments, **keywords)
        if when == "after":
            real(*arguments, **keywords)
        os.close(os.open(mark, os.O_CREAT | os.O_WRONLY))
        os.kill(os.getpid() if whom == "itself" else os.getppid(), signal.SIGKILL)
        return real(*arguments, **keywords)  # the parent is dead: so is this process, in a moment

    return call


def _arm(order: str) -> None:
    who, name, number, when, whom, mark = order.split(":")
    worker = any("executors.worker" in word for word in sys.orig_argv)
    if worker == (who == "worker"):
        setattr(os, name, _killing(getattr(os, name), int(number), when, whom, mark))


if os.environ.get("BCD_CHAOS_KILL"):
    _arm(os.environ["BCD_CHAOS_KILL"])
