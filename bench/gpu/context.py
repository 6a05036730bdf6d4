"""What a check is given: engines on the device, known images, folders to work in.

In:  the name of the function that opens the engines, the inputs' folder, how large a run is meant to be.
Out: a Context. Figures are what checks return: JSON values only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from dali_pipelines.decoder import DaliDecoder
from dali_pipelines.engines import Engines, Wish, opener
from preprocess import dicom
from preprocess.config import ResultConfig
from preprocess.errors import RejectedInput
from preprocess.records import Instance, SourceFile

Figure = bool | int | float | str | None | list["Figure"] | dict[str, "Figure"]
Figures = dict[str, Figure]


@dataclass(frozen=True)
class Request:
    """What a check's process is told: a picklable, printable value."""

    engines: str
    """module:function (dali_pipelines.engines.opener)."""
    inputs: Path
    """Phantoms, and real files where there are any; below it `phantoms/` and `full/`."""
    real: Path | None
    cores: int
    seconds: float
    """About how long one measurement may take."""


@dataclass
class Context:
    """A check's surroundings; engines are opened when a check first asks for them."""

    request: Request
    figures: Figures = field(default_factory=dict)
    """What was found so far: kept even where the check fails later."""

    @cached_property
    def host(self) -> ThreadPoolExecutor:
        """Threads of the host."""
        return ThreadPoolExecutor(self.request.cores)

    def engines(self, pixels: int = 27_000_000, batch: int = 0, threads: int = 0) -> Engines:
        """New engines."""
        return opener(self.request.engines)(Wish(pixels, self.request.cores, batch, threads))

    @cached_property
    def decoder(self) -> DaliDecoder:
        """A decoder whose engines have been tried."""
        return DaliDecoder(self.engines(), self.host)

    @cached_property
    def small(self) -> list[Instance]:
        """Phantoms at a tenth of their size and every real file that parses."""
        folders = [self.request.inputs / "small", *([self.request.real] if self.request.real else [])]
        return [image for folder in folders for image in instances(folder)]

    @cached_property
    def full(self) -> list[Instance]:
        """Full-size phantoms."""
        return list(instances(self.request.inputs / "full"))


def instances(folder: Path) -> Iterator[Instance]:
    """Every DICOM image below a folder that parses."""
    for path in sorted(folder.rglob("*.dcm")):
        try:
            yield dicom.parse(SourceFile(path.name, str(path), explicit=True), ResultConfig())
        except RejectedInput:
            continue


@contextmanager
def engines_of(context: Context, *, batch: int = 0, threads: int = 0) -> Iterator[Engines]:
    """Engines that are closed again, so that the next have the memory."""
    engines = context.engines(batch=batch, threads=threads)
    try:
        yield engines
    finally:
        engines.close()


def rate(work: Callable[[], int], seconds: float) -> tuple[float, int]:
    """Images a second of `work`, which returns how many it did, after one warm-up; and how many in all."""
    work()
    done, begin = 0, time.perf_counter()
    while True:
        done += work()
        elapsed = time.perf_counter() - begin
        if elapsed >= seconds:
            return round(done / elapsed, 2), done
