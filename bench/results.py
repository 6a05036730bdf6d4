"""A benchmark's outcome as a JSON file: what was run, on what, how busy the machine was, every pass.

In:  measurements, verdicts, settings.
Out: a `Result`, written and read back as it was.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from bench.compare import Verdict
from bench.facts import MachineFacts, load_average, machine_facts
from bench.measure import Measurement
from preprocess.errors import UsageError

Load = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Planned:
    """Planning N inputs: seconds and the largest resident size of the planning process."""

    inputs: int
    seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class BytesRead:
    """What --read needed reads of files of one transfer syntax, for one size of prepared image."""

    name: str
    files: int
    partly: int
    """Files of which less was read than they have."""
    same: int
    """Files whose prepared pixels (or reject) are those of reading the whole."""
    file_bytes: int
    bytes_read: int


@dataclass(frozen=True, slots=True)
class Result:
    """One run of one benchmark."""

    kind: str
    """decode, prep, peers, scale, feed, train or bytes."""
    label: str
    """What was done to what, for tables: `.90 → 1024x512`."""
    facts: MachineFacts
    load_before: Load
    load_after: Load
    cores: int
    measurements: tuple[Measurement, ...]
    verdicts: tuple[Verdict, ...] = ()
    planned: tuple[Planned, ...] = ()
    read: tuple[BytesRead, ...] = ()


@dataclass(frozen=True, slots=True)
class Begun:
    """What is noted before a benchmark starts."""

    kind: str
    facts: MachineFacts
    load: Load

    def finish(
        self,
        label: str,
        measurements: tuple[Measurement, ...],
        cores: int = 1,
        verdicts: tuple[Verdict, ...] = (),
        planned: tuple[Planned, ...] = (),
    ) -> Result:
        """Note what is known after it."""
        return Result(
            self.kind, label, self.facts, self.load, load_average(), cores, measurements, verdicts, planned
        )


def begin(kind: str, command: str, packages: tuple[str, ...] = ()) -> Begun:
    """Look at machine and load before a run."""
    from bench.facts import PACKAGES

    names = tuple(dict.fromkeys((*PACKAGES, *packages)))
    return Begun(kind, machine_facts(command, names), load_average())


_ADAPTER = TypeAdapter(Result)


def save(result: Result, path: Path) -> None:
    """Write as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_ADAPTER.dump_json(result, indent=1) + b"\n")


def is_result(path: Path) -> bool:
    """Whether a JSON file is of this kind: others beside it have a `schema`, gpu-check's have `checks`."""
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise UsageError(f"{path.name} is no JSON") from error
    return isinstance(document, dict) and not document.keys() & {"schema", "checks"}


def load(path: Path) -> Result:
    """Read what `save` wrote. Raises UsageError if it is something else."""
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except ValueError as error:
        raise UsageError(f"{path.name} is no result of bcd-bench") from error
