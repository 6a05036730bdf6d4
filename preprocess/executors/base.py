"""What a task is, and what every executor does with tasks.

In:  tasks: picklable values with numbered items that work through them one by one.
Out: their results, in the order in which they finish.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, Self, TypeVar

R_co = TypeVar("R_co", covariant=True)

Heartbeat = Callable[[int | None], None]
"""Called with an item's index before it is worked on, with None once none is in hand any more: names who is
to blame if the process dies."""


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


class Executor(Protocol):
    """Runs tasks somewhere. A task whose item kills, hangs or starves its process is redone without it."""

    def run(self, tasks: Iterable[Task[R_co]]) -> Iterator[R_co]:
        """Yield every task's result as it finishes; raises RunAborted if the run cannot go on."""
        ...
