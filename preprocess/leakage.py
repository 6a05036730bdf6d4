"""Possible leakage: the same pixels under more than one patient. Reported, never acted on.

In:  all rows of a dataset.
Out: LeakageGroup values in a stable order, for the manifest, the report and a note at the end of a run.

Copies of an image under new UIDs and new patients (re-exports, merged data sets, constancy phantoms) put the
same picture into training and validation. Inputs that share a SOP Instance UID are duplicates already.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict

from preprocess.packed import recurs
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


def find_leakage(rows: Iterable[InstanceRow]) -> tuple[LeakageGroup, ...]:
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


@dataclass(slots=True)
class _Group:
    """What is kept of images that share a key: not the images, which may be all there are."""

    images: int = 0
    patients: set[str | None] = field(default_factory=set)
    folds: set[int] = field(default_factory=set)
    sources: list[str] = field(default_factory=list)
    """The first MOST_SOURCES by their UTF-8 bytes, in that order."""

    def add(self, row: InstanceRow) -> None:
        """Take in an image."""
        self.images += 1
        self.patients.add(row.patient_id)
        if row.fold is not None:
            self.folds.add(row.fold)
        if len(self.sources) < MOST_SOURCES or row.source.encode() < self.sources[-1].encode():
            insort(self.sources, row.source, key=str.encode)
            del self.sources[MOST_SOURCES:]


def _groups(rows: Iterable[InstanceRow], same: Literal["decoded", "prepared"]) -> Iterator[LeakageGroup]:
    # Only images whose key occurs again (or has the hash of one that does) are looked at closely.
    again = recurs(key for _, key in _keys(rows, same))
    groups: defaultdict[Key, _Group] = defaultdict(_Group)
    for place, (row, key) in enumerate(_keys(rows, same)):
        if again[place]:
            groups[key].add(row)
    for key, group in groups.items():
        if len(group.patients) > 1:
            yield LeakageGroup(
                same=same,
                sha256=str(key[0]),
                images=group.images,
                patients=len(group.patients),
                folds=tuple(sorted(group.folds)),
                sources=tuple(group.sources),
            )


def _keys(rows: Iterable[InstanceRow], same: str) -> Iterator[tuple[InstanceRow, Key]]:
    """Prepared rows by what makes their pixels equal."""
    for row in rows:
        if row.status is not Status.PREPARED:
            continue
        if same == "prepared" and row.pixels_sha256 is not None:
            yield row, (row.pixels_sha256,)
        elif same == "decoded" and row.decoded_sha256 is not None:
            yield row, (row.decoded_sha256, row.decode_level, row.rows, row.columns, row.bits_stored)
