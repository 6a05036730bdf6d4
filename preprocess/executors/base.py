"""What a task is, and what every executor does with tasks.

In:  tasks: picklable values with numbered items that work through them one by one.
Out: their results, in the order in which they finish.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, Self, TypeVar

R_co = TypeVar("R_co", covariant=True)

Heartbeat = Callable[[int], None]
"""Called with an item's index before it is worked on: names who is to blame if the process dies."""


class Task(Protocol[R_co]):
    """A unit of work, of retry and of distribution. Running it twice gives the same result."""

    def run(self, beat: Heartbeat) -> R_co:
        """Work through the items; `beat(index)` before each."""
        ...

    def blamed(self, index: int, code: str, message: str) -> Self:
        """The same task, with one item to be rejected unread for a documented code."""
        ...


class Executor(Protocol):
    """Runs tasks somewhere. A task whose item kills, hangs or starves its process is redone without it."""

    def run(self, tasks: Iterable[Task[R_co]]) -> Iterator[R_co]:
        """Yield every task's result as it finishes; raises RunAborted if the run cannot go on."""
        ...
