"""Is a dataset what was written? And is it what its inputs say?

In:  OUT; for `verify_source` also inputs and a way to prepare them with another decoder.
Out: VerifyReport: whole, damaged or incomplete, with every problem named; SourceReport: largest difference.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from preprocess.atomic import is_temporary
from preprocess.config import Format
from preprocess.errors import DatasetDamaged, RejectedInput, UsageError
from preprocess.failures import describe
from preprocess.identifiers import Pseudonyms
from preprocess.manifest import INSTANCES, MANIFEST, Manifest, read_manifest, read_rows, rows_sha256
from preprocess.parquet import same_library, write_instances
from preprocess.places import Place, files_below, name_below, read_bytes, size_of
from preprocess.plan import utf8_key
from preprocess.reading import Pixels, check_file, read_images, read_shard_images, rows_by_shard
from preprocess.records import Prepared, SourceFile, Status
from preprocess.results import ShardFile, storable_text
from preprocess.schema import InstanceRow


class Verdict(StrEnum):
    """Outcome of verify, worst last; exit codes 0, 1, 3."""

    WHOLE = "whole"
    DAMAGED = "damaged"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What verify found. `images` is the number of images decoded and found right, in all formats."""

    status: Verdict
    problems: tuple[str, ...] = ()
    files: int = 0
    images: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class SourceReport:
    """Stored pixels against inputs prepared again. `largest_difference` in prepared pixel values."""

    checked: int
    largest_difference: int
    worst: str | None
    """Source of the largest difference; None if there is none."""
    problems: tuple[str, ...] = ()
    beyond_oracle: tuple[str, ...] = ()
    """Chosen inputs that no independent decoder can decode, as `source: reason`."""


def verify(out: Place) -> VerifyReport:
    """Re-read everything in OUT: sizes, hashes, checksums, images, counts, places. Damage never raises."""
    try:
        if size_of(out / MANIFEST) is None:
            missing = f"{MANIFEST} is missing: no run of bcd-prep, or one that has not finished"
            return VerifyReport(Verdict.INCOMPLETE, (missing,))
        manifest = read_manifest(out)
    except (DatasetDamaged, UsageError, OSError) as error:
        return VerifyReport(Verdict.DAMAGED, (_words(error),))
    problems = [problem for file in _files(manifest) for problem in _check_file(out, file)]
    problems += _unknown_files(out, manifest)
    rows: list[InstanceRow] = []
    images = 0
    try:
        rows = read_rows(out, manifest.label_columns())
        problems += _check_rows(out, manifest, rows)
        images, found = _check_images(out, manifest, rows)
        problems += found
    except (DatasetDamaged, OSError) as error:
        problems.append(_words(error))
    leftovers = _leftovers(out)
    status = Verdict.DAMAGED if problems else Verdict.INCOMPLETE if leftovers else Verdict.WHOLE
    return VerifyReport(status, (*problems, *leftovers), sum(1 for _ in _files(manifest)), images, len(rows))


def verify_source(
    out: Place,
    sources: Sequence[SourceFile],
    prepare: Callable[[SourceFile], Prepared],
    sample: int,
    seed: int = 0,
    pseudonyms: Pseudonyms | None = None,
) -> SourceReport:
    """Prepare `sample` random inputs again with `prepare` and compare with what is stored.

    The choice is a function of seed and sources only. `prepare` uses an independent decoder and the dataset's
    config; if it raises RejectedInput that is a problem, since the dataset has a picture of the input. If it
    raises LookupError, no independent decoder exists for that input.

    Raises:
        UsageError, DatasetDamaged: as read_images.
    """
    names = pseudonyms or Pseudonyms()
    by_name = {names.source(storable_text(source.source)): source for source in sources}
    rows = [
        row for row in read_rows(out, read_manifest(out).label_columns()) if row.status is Status.PREPARED
    ]
    known = [row.source for row in rows if row.source in by_name]
    chosen = set(sorted(known, key=lambda name: _lot(seed, name))[:sample])
    if rows and not known:
        raise UsageError("none of the dataset's inputs is among these; give --source what `run` was given")
    problems: list[str] = []
    worst, largest, checked = None, 0, 0
    beyond: list[str] = []
    for row, pixels in read_images(out):
        if row.source not in chosen:
            continue
        try:
            difference = _difference(pixels, prepare(by_name[row.source]).pixels)
        except RejectedInput as error:
            problems.append(f"{row.source}: prepared then, rejected now ({error.code})")
            continue
        except LookupError as error:
            beyond.append(f"{row.source}: {error}")
            continue
        checked += 1
        if difference > largest:
            worst, largest = row.source, difference
    return SourceReport(checked, largest, worst, tuple(problems), tuple(beyond))


def _lot(seed: int, name: str) -> bytes:
    return hashlib.sha256(b"%d\n%s" % (seed, name.encode())).digest()


def _difference(stored: Pixels, again: Pixels) -> int:
    if stored.shape != again.shape or stored.dtype != again.dtype:
        return 1 << stored.dtype.itemsize * 8  # more than any two values differ by
    return int(np.abs(stored.astype(np.int64) - again.astype(np.int64)).max(initial=0))


def _files(manifest: Manifest) -> Iterable[ShardFile]:
    return (file for shard in manifest.shards for file in shard.files)


def _check_file(out: Place, file: ShardFile) -> Iterable[str]:
    try:
        check_file(out, file)
    except DatasetDamaged as error:
        yield str(error)


def _words(error: Exception) -> str:
    return f"{MANIFEST}: {describe(error)}" if isinstance(error, OSError) else str(error)


def _unknown_files(out: Place, manifest: Manifest) -> list[str]:
    """Files where readers look for data that the manifest does not know."""
    known = {file.path for file in _files(manifest)}
    try:
        names = [name_below(out, path) for path in files_below(out)]
    except OSError as error:
        return [f"the folder cannot be listed: {describe(error)}"]
    unknown = [name for name in names if name.startswith(("fold=", "images/")) and name not in known]
    return [f"{name} is not in the manifest" for name in sorted(unknown)]


def _leftovers(out: Place) -> list[str]:
    """What a run left that was killed after the manifest, while it drew its report."""
    with contextlib.suppress(OSError):  # told by _unknown_files
        names = [name_below(out, path) for path in files_below(out)]
        left = [name for name in names if is_temporary(name.rpartition("/")[2])]
        return [f"{name} was left by a killed run: run it again" for name in left]
    return []


def _check_rows(out: Place, manifest: Manifest, rows: list[InstanceRow]) -> list[str]:
    problems = []
    if rows_sha256(rows, manifest.label_columns()) != manifest.rows_sha256:
        problems.append(f"{INSTANCES} holds other rows than were written")
    problems += _check_bytes(out, manifest, rows)
    if [row.source for row in rows] != sorted({row.source for row in rows}, key=utf8_key):
        problems.append(f"{INSTANCES}: sources are not unique and in order")
    counts, by_status = manifest.counts, Counter(row.status for row in rows)
    said = (counts.found, counts.prepared, counts.rejected, counts.duplicate)
    if said != (len(rows), *(by_status[status] for status in Status)):
        problems.append(f"{INSTANCES} and the manifest count inputs differently")
    return problems + _check_patients(manifest, rows)


def _check_bytes(out: Place, manifest: Manifest, rows: list[InstanceRow]) -> list[str]:
    """Under the library that wrote it the table has but one form; page checksums leave its footer open."""
    if not same_library(out / INSTANCES):
        return []
    buffer = io.BytesIO()
    write_instances(buffer, rows, manifest.label_columns())
    changed = buffer.getvalue() != read_bytes(out / INSTANCES)
    return [f"{INSTANCES} has other bytes than were written"] if changed else []


def _check_patients(manifest: Manifest, rows: list[InstanceRow]) -> list[str]:
    folds = {shard.name: shard.fold for shard in manifest.shards}
    problems = []
    of_patient: dict[str | None, int | None] = {}
    split: set[str | None] = set()
    for row in rows:
        if row.status is Status.PREPARED:
            if row.fold is None or folds.get(row.shard or "") != row.fold:
                problems.append(
                    f"{row.shard}: row {row.shard_row} is in another fold or shard than the manifest says"
                )
            if of_patient.setdefault(row.patient_id, row.fold) != row.fold:
                split.add(row.patient_id)
    if split:
        problems.append(f"{len(split)} patients are in more than one fold")
    return problems


def _check_images(out: Place, manifest: Manifest, rows: list[InstanceRow]) -> tuple[int, list[str]]:
    """Decode every image of every format; a broken shard does not hide the next."""
    shards, images, problems = rows_by_shard(rows), 0, []
    for shard in manifest.shards:
        for kind in manifest.config.formats:
            try:
                images += sum(
                    1 for _ in read_shard_images(out, shard, Format(kind), shards.get(shard.name, []))
                )
            except DatasetDamaged as error:
                problems.append(str(error))
    return images, problems
