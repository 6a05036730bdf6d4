"""Possible leakage: the same pixels under more than one patient. Reported, never acted on.

In:  all rows of a dataset.
Out: LeakageGroup values in a stable order, for the manifest, the report and a note at the end of a run.

Copies of an image under new UIDs and new patients (re-exports, merged data sets, constancy phantoms) put the
same picture into training and validation. Inputs that share a SOP Instance UID are duplicates already.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from preprocess.records import Status
from preprocess.schema import InstanceRow

MOST_SOURCES = 100
"""Sources that a group names; `images` counts all of them."""

Key = tuple[Hashable, ...]


class LeakageGroup(BaseModel):
    """Prepared images of several patients with the same pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    same: Literal["decoded", "prepared"]
    """Equal before any processing (decoded at one level), or only after it."""
    sha256: str
    """`decoded_sha256` or `pixels_sha256` of all of them."""
    images: int
    patients: int
    folds: tuple[int, ...]
    """More than one: pictures of a training fold are in a validation fold."""
    sources: tuple[str, ...]
    """In their order, at most MOST_SOURCES."""


def find_leakage(rows: Sequence[InstanceRow]) -> tuple[LeakageGroup, ...]:
    """Groups of prepared images that share pixels across patients, the largest first.

    Images are grouped by decoded pixels (with size and wavelet level), then by prepared pixels; a group of
    prepared pixels is left out where one of decoded pixels says the same of the same images.
    """
    decoded = list(_groups(rows, "decoded"))
    told = {(group.images, group.sources) for group in decoded}
    prepared = (group for group in _groups(rows, "prepared") if (group.images, group.sources) not in told)
    return tuple(sorted((*decoded, *prepared), key=lambda g: (-g.images, g.same, g.sha256)))


def summary(groups: Sequence[LeakageGroup]) -> str | None:
    """One line for people; None if there is nothing to say."""
    if not groups:
        return None
    images = len({source for group in groups for source in group.sources})
    across = sum(len(group.folds) > 1 for group in groups)
    more = " or more" if any(group.images > len(group.sources) for group in groups) else ""
    return (
        f"possible leakage: {images}{more} images share their pixels with another patient's"
        f" ({len(groups)} groups, {across} of them across folds); see possible_leakage in manifest.json"
    )


def _groups(rows: Sequence[InstanceRow], same: Literal["decoded", "prepared"]) -> Iterator[LeakageGroup]:
    repeated = _repeated(hash(key) for _, key in _keys(rows, same))
    members: defaultdict[Key, list[InstanceRow]] = defaultdict(list)
    for row, key in _keys(rows, same):
        if hash(key) in repeated:
            members[key].append(row)
    for key, images in members.items():
        patients = len({row.patient_id for row in images})
        if patients > 1:
            yield LeakageGroup(
                same=same,
                sha256=str(key[0]),
                images=len(images),
                patients=patients,
                folds=tuple(sorted({row.fold for row in images if row.fold is not None})),
                sources=tuple(sorted((row.source for row in images), key=str.encode)[:MOST_SOURCES]),
            )


def _keys(rows: Sequence[InstanceRow], same: str) -> Iterator[tuple[InstanceRow, Key]]:
    """Prepared rows by what makes their pixels equal."""
    for row in rows:
        if row.status is not Status.PREPARED:
            continue
        if same == "prepared" and row.pixels_sha256 is not None:
            yield row, (row.pixels_sha256,)
        elif same == "decoded" and row.decoded_sha256 is not None:
            yield row, (row.decoded_sha256, row.decode_level, row.rows, row.columns, row.bits_stored)


def _repeated(values: Iterable[int]) -> set[int]:
    """Values that occur more than once: only their rows are looked at closely, so memory stays small."""
    seen: set[int] = set()
    again: set[int] = set()
    for value in values:
        (again if value in seen else seen).add(value)
    return again
