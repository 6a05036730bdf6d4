"""The report as a task for a worker: a table of a million rows takes as much memory as the driver has then.

In:  OUT, whole, with run.json.
Out: OUT/report.html and OUT/dataset_card.md, as `write_report` makes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from preprocess.executors.base import Heartbeat, Task
from preprocess.output import STATE, THUMBNAILS
from preprocess.places import Place
from preprocess.report import write_report
from preprocess.thumbnails import load

LARGE = 100_000
"""Images of a run whose report is made elsewhere; for fewer it is not worth starting."""


@dataclass(frozen=True, slots=True)
class ReportTask:
    """A `Task` without items, so that nothing can be blamed for its failing."""

    out: Place

    @property
    def size(self) -> int:
        """None."""
        return 0

    def run(self, beat: Heartbeat) -> None:
        """Write both. Raises as `write_report`."""
        beat(None)
        write_report(self.out, thumbnails=load(self.out / STATE / THUMBNAILS))

    def alone(self, index: int) -> Task[object]:
        """There are no items."""
        raise IndexError(index)

    def knowing(self, index: int, outcome: object) -> Self:
        """There are no items."""
        raise IndexError(index, outcome)

    def blamed(self, index: int, code: str, message: str) -> Self:
        """There are no items."""
        raise IndexError(index, code, message)
