"""Tasks that misbehave at known places, for the executors' tests. Importable by worker processes."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from dataclasses import dataclass
from typing import Self

from preprocess.executors.base import Heartbeat


@dataclass(frozen=True)
class Toy:
    """Squares its items; those named in `deeds` misbehave first. Blamed items give their code instead."""

    items: tuple[int, ...]
    deeds: tuple[tuple[int, str], ...] = ()
    blames: tuple[tuple[int, str], ...] = ()
    marks: str = ""

    def run(self, beat: Heartbeat) -> tuple[int | str, ...]:
        blames = dict(self.blames)
        results: list[int | str] = []
        for index, item in enumerate(self.items):
            if index in blames:
                results.append(blames[index])
                continue
            beat(index)
            self._misbehave(dict(self.deeds).get(item))
            results.append(item * item)
        return tuple(results)

    def blamed(self, index: int, code: str, message: str) -> Self:
        return dataclasses.replace(self, blames=(*self.blames, (index, code)))

    def _misbehave(self, deed: str | None) -> None:
        if deed == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif deed == "exit":
            os._exit(3)
        elif deed == "hang":
            time.sleep(600)
        elif deed == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif deed == "killed once" and not os.path.exists(self.marks):
            with open(self.marks, "w") as mark:
                mark.write("dead once")
            os.kill(os.getpid(), signal.SIGKILL)
        elif deed == "disk full":
            raise OSError(28, "No space left on device")
        elif deed == "hog":
            bytearray(10**12)
