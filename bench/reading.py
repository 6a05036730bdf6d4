"""How many bytes of the inputs `--read needed` reads, counted, and whether it changes a pixel.

In:  DICOM paths and sizes of prepared images.
Out: a BytesRead for each transfer syntax and size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.results import BytesRead
from bench.stages import by_syntax, source
from preprocess import pipeline
from preprocess.config import Read, ResultConfig
from preprocess.decode import CpuDecoder


def bytes_read(paths: Sequence[str], sizes: Sequence[tuple[int, int]]) -> Iterator[BytesRead]:
    """Prepare every file twice: read whole, and read as needed."""
    for syntax, some in by_syntax(paths):
        for height, width in sizes:
            whole = ResultConfig(height=height, width=width)
            yield _counted(f"{syntax} → {height}x{width}", some, whole)


def _counted(name: str, paths: Sequence[str], whole: ResultConfig) -> BytesRead:
    decoder, needed = CpuDecoder(), whole.model_copy(update={"read": Read.NEEDED})
    file_bytes = read = partly = same = 0
    for path in paths:
        all_of_it = pipeline.steps(source(path), whole, decoder)
        part_of_it = pipeline.steps(source(path), needed, decoder)
        file_bytes += all_of_it.bytes_read
        read += part_of_it.bytes_read
        partly += part_of_it.bytes_read < all_of_it.bytes_read
        same += _outcome(all_of_it) == _outcome(part_of_it)
    return BytesRead(name, len(paths), partly, same, file_bytes, read)


def _outcome(trace: pipeline.Trace) -> str:
    return trace.prepared.pixels_sha256 if trace.prepared else trace.outcome_reject().code
