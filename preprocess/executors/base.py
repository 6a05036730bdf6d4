"""What a task is, and what every executor does with tasks.

In:  tasks: picklable values with numbered items that work through them one by one.
Out: their results, in the order in which they finish.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, Self, TypeVar

R_co = TypeVar("R_co", covariant=True)

Heartbeat = Callable[[int | None], None]
"""Called with an item's index before it is worked on, with None once none is in hand any more: names who is
to blame if the process dies."""


class ItemEnded(RuntimeError):
    """Raised by a task: a process of its own ended or hung on an item, and only that. `cause` says how."""

    def __init__(self, index: int, cause: str) -> None:
        super().__init__(f"item {index}: {cause}")
        self.index, self.cause = index, cause


class Task(Protocol[R_co]):
    """A unit of work, of retry and of distribution. Running it twice gives the same result."""

    @property
    def size(self) -> int:
        """How many items it has: indices are 0 … size - 1."""
        ...

    def run(self, beat: Heartbeat) -> R_co:
        """Work through the items; `beat(index)` before each, `beat(None)` after the last."""
        ...

    def alone(self, index: int) -> Task[object]:
        """One item as a task of its own, to be run in a process that has done nothing else.

        It writes nothing that the whole task would not write as well.
        """
        ...

    def knowing(self, index: int, outcome: object) -> Self:
        """The same task, with the result of `alone(index)` instead of work on that item."""
        ...

    def blamed(self, index: int, code: str, message: str) -> Self:
        """The same task, with one item to be rejected unread for a documented code."""
        ...


@dataclass(slots=True)
class Record:
    """What a run's workers went through, for run.json."""

    started: int = 0
    lost: int = 0
    tried_alone: int = 0
    blamed: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    peak_worker_bytes: int = 0
    devices: Counter[str] = field(default_factory=Counter)
    """Tasks that each GPU finished, and the CPU ("cpu") in their place; empty without GPUs."""

    def as_text(self) -> str:
        """One line for people."""
        causes = ", ".join(f"{name}: {count}" for name, count in sorted(self.causes.items()))
        return (
            f"{self.lost} worker processes were lost and replaced ({causes});"
            f" {self.blamed.total()} images are to blame for it"
        )

    def as_json(self) -> dict[str, int | dict[str, int]]:
        """For run.json."""
        return {
            "workers_started": self.started,
            "workers_lost": self.lost,
            "causes": dict(sorted(self.causes.items())),
            "tried_alone": self.tried_alone,
            "blamed": dict(sorted(self.blamed.items())),
            "peak_worker_bytes": self.peak_worker_bytes,
            "shards_by_device": dict(sorted(self.devices.items())),
        }


class Executor(Protocol):
    """Runs tasks somewhere. A task whose item kills, hangs or starves its process is redone without it."""

    record: Record

    def run(self, tasks: Iterable[Task[R_co]]) -> Iterator[R_co]:
        """Yield every task's result as it finishes; raises RunAborted if the run cannot go on."""
        ...
