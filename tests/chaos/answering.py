"""An executor that knows what scans of `crowd` say: the driver's memory, without the work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from preprocess.records import ScannedFile
from preprocess.tasks import ScanTask

_UID = "1.2.826.0.1.3680043.8.498.{}"


class Answering:
    """Answers scans, without opening a file."""

    def run(self, tasks: Iterable[Any]) -> Iterator[Any]:
        for task in tasks:
            assert isinstance(task, ScanTask)
            yield tuple(
                ScannedFile(source, source.identity, _UID.format(source.identity.image_id), 900, 10**18)
                for source in task.sources
            )
