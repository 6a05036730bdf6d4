"""Tasks that misbehave at known places, for the executors' tests. Importable by worker processes."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from preprocess.executors.base import Heartbeat

poisoned = False
"""What a broken heap is to a process: harmless where it was done, deadly at the next item."""


@dataclass(frozen=True)
class Toy:
    """Squares its items; those named in `deeds` misbehave first. Blamed items give their code instead.

    A deed is a word, or a word and how often at most ("killed*1"; counted in the folder `marks`). The deed
    of None is done after the last item.
    """

    items: tuple[int, ...]
    deeds: tuple[tuple[int | None, str], ...] = ()
    blames: tuple[tuple[int, str], ...] = ()
    known: tuple[tuple[int, int | str], ...] = ()
    marks: str = ""
    solo: bool = False

    @property
    def size(self) -> int:
        return len(self.items)

    def run(self, beat: Heartbeat) -> tuple[int | str, ...]:
        blames, known, results = dict(self.blames), dict(self.known), []
        for index, item in enumerate(self.items):
            beat(index)
            if index not in blames and index not in known:
                self.work(item)
            results.append(blames.get(index) or known.get(index) or item * item)
        beat(None)
        self.misbehave(None)
        return tuple(results)

    def alone(self, index: int) -> Toy:
        deeds = tuple((item, deed) for item, deed in self.deeds if item is not None)
        return Toy((self.items[index],), deeds=deeds, marks=self.marks, solo=True)

    def knowing(self, index: int, outcome: object) -> Self:
        [only] = outcome  # type: ignore[misc]
        return dataclasses.replace(self, known=(*self.known, (index, only)))

    def blamed(self, index: int, code: str, message: str) -> Self:
        return dataclasses.replace(self, blames=(*self.blames, (index, code)))

    def work(self, item: int) -> None:
        if poisoned:
            os.kill(os.getpid(), signal.SIGABRT)
        if self.marks:
            with open(Path(self.marks) / f"worked-{item}", "a") as mark:
                mark.write(f"{os.getpid()}\n")
        self.misbehave(item)

    def misbehave(self, item: int | None) -> None:
        deed, _, times = dict(self.deeds).get(item, "").partition("*")
        if times:
            done = Path(self.marks) / f"done-{item}"
            before = done.read_text() if done.exists() else ""
            if len(before) >= int(times):
                return
            done.write_text(before + "x")
        if deed:
            getattr(self, deed)()

    def segfault(self) -> None:
        ctypes.string_at(8)

    def abort(self) -> None:
        os.abort()

    def exit(self) -> None:
        os._exit(3)

    def leave(self) -> None:
        sys.exit(3)

    def killed(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def terminated(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def stopped(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def hang(self) -> None:
        time.sleep(600)

    def poison(self) -> None:
        global poisoned
        poisoned = True

    def die_in_company(self) -> None:
        if not self.solo:
            self.segfault()

    def full_disk(self) -> None:
        raise OSError(28, "No space left on device", "/data/Doe^Jane.dcm")

    def fault(self) -> None:
        raise KeyError("Doe^Jane")

    def hog(self) -> None:
        bytearray(10**12)

    def talk(self) -> None:
        os.write(1, b"Doe^Jane\n")
        os.write(2, b"Doe^Jane\n")
        sys.stderr.write("Doe^Jane\n")


def never(*_: object) -> None:
    """A breast detector that does not come back."""
    threading.Event().wait()
