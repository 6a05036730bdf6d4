"""Jobs for test_measure, in a module that spawned processes can import."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from bench.measure import Parts


@dataclass(frozen=True, slots=True)
class Toy:
    """Writes its name into a diary on every pass; parts: cores it may use, items of its share."""

    name: str
    diary: str
    items: int = 4
    ends: str = ""

    def share(self, index: int, of: int) -> Self:
        return replace(self, items=len(range(index, self.items, of)))

    def open(self) -> Callable[[], Parts]:
        if self.ends == "unopened":
            raise ImportError("no such library")
        return self._pass

    def _pass(self) -> Parts:
        if self.ends == "killed":
            os._exit(7)
        if self.ends == "raises":
            raise RuntimeError("refused")
        with Path(self.diary).open("a", encoding="utf-8") as file:
            file.write(f"{self.name}\n")
        return (("cores", float(len(os.sched_getaffinity(0)))), ("share", float(self.items)))
