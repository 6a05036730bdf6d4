"""`bcd-train fit` in a process that dies at a chosen moment. Importable by processes of a fork server.

The fork server has the libraries imported, so that a try costs a training and not its imports; each try is a
process of its own, and the kill a SIGKILL.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Moment = tuple[str, int]
"""What is counted, and the how-manieth of it is the last: step, read, write, fsync or rename."""
CALLS = {"step": 8, "read": 40, "write": 60, "fsync": 60, "rename": 40}


def moments(count: int, seed: int = 20261125) -> list[Moment]:
    """Kinds in turn, each at a number that chance decides."""
    rng = random.Random(seed)
    kinds = list(CALLS)
    return [(kind := kinds[place % len(kinds)], rng.randint(1, CALLS[kind])) for place in range(count)]


def dying(call: Callable[..., Any], number: int) -> Callable[..., Any]:
    """The same function, whose n-th call kills its process."""
    counter = iter(range(1, 10**9))

    def wrapped(*arguments: Any, **options: Any) -> Any:
        if next(counter) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)

    return wrapped


def _main(arguments: list[str], moment: Moment | None, log: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    from preprocess import atomic
    from trainer.backends.tensorflow import TensorFlowLearner
    from trainer.cli import main
    from trainer.dataset import Dataset

    places: dict[str, tuple[Any, str]] = {
        "step": (TensorFlowLearner, "step"),
        "read": (Dataset, "pixels"),
        "write": (atomic, "_write_all"),
        "fsync": (atomic, "_fsync"),
        "rename": (atomic, "_rename"),
    }
    if moment is not None:
        owner, name = places[moment[0]]
        setattr(owner, name, dying(getattr(owner, name), moment[1]))
    sys.argv = ["bcd-train", *arguments]
    main()


def train(arguments: list[str], moment: Moment | None, log: Path) -> int:
    """Run it; its exit code, −9 where it was killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["keras", "albumentations", "sklearn.metrics", "trainer.train"])
    process = context.Process(target=_main, args=(arguments, moment, str(log)))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode
