"""Label tables joined to images: by image id, by patient and laterality, or by patient.

In:  Table values with the profile that explains their columns (layouts/ has those of known data sets).
Out: LabelTable: typed label columns with their level, and the labels and identity of any one image.

    read_table ─→ Table ─┐
    profile (layouts/) ──┴─ build ─→ LabelTable ─ join(scanned files) ─→ Joined: files with labels, counts

The same `LabelTable.match` runs twice: at discovery with what the layout says, so that even a Reject
keeps its labels, and after the scan with what the headers add (`join`), for layouts that say nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field

from preprocess.label_groups import FINENESS, Group, check_same, make_group, merged
from preprocess.label_paths import FileName
from preprocess.label_profiles import LabelSource, Role, TableProfile
from preprocess.label_values import cast, widest
from preprocess.names import stem
from preprocess.packed import Packed, ScannedCodec, SourceCodec
from preprocess.records import (
    Identity,
    Label,
    LabelColumn,
    LabelLevel,
    LabelValue,
    ScannedFile,
    SourceFile,
)

__all__ = [
    "Joined",
    "LabelSource",
    "LabelTable",
    "Match",
    "Role",
    "RowSet",
    "TableProfile",
    "build",
    "join",
    "labelled",
]


_MOST_SHARED = 1 << 16


@dataclass(frozen=True, slots=True)
class Match:
    """What the tables say of one image: identity completed, labels, and the rows they came from."""

    identity: Identity
    labels: tuple[Label, ...]
    rows: tuple[tuple[int, int], ...]
    """(group, row) of every label row used."""


class RowSet:
    """(group, row) of label rows; a byte each."""

    def __init__(self) -> None:
        self._groups: dict[int, bytearray] = {}

    def update(self, rows: Iterable[tuple[int, int]]) -> None:
        """Add rows."""
        for number, row in rows:
            marks = self._groups.setdefault(number, bytearray())
            if row >= len(marks):
                marks.extend(bytes(row + 1 - len(marks)))
            marks[row] = 1

    def __contains__(self, item: object) -> bool:
        assert isinstance(item, tuple)
        number, row = item
        marks = self._groups.get(number, b"")
        return row < len(marks) and marks[row] == 1


@dataclass(frozen=True, slots=True)
class Joined:
    """Files with labels, and how many rows and images found no partner."""

    files: Packed[ScannedFile]
    rows_unmatched: int
    images_unmatched: int


@dataclass(frozen=True, slots=True)
class LabelTable:
    """All label tables of a run, typed, indexed, with one declaration per label column."""

    columns: tuple[LabelColumn, ...]
    notes: tuple[str, ...]
    """Columns that were not kept and why; never values."""
    _groups: tuple[Group, ...]
    repeated: set[str] = field(default_factory=set, compare=False, repr=False)
    """Stems that several inputs have (`discover` fills it in): they tell no image."""
    _shared: dict[tuple[tuple[int, tuple[LabelValue, ...]], ...], tuple[Label, ...]] = field(
        default_factory=dict, compare=False, repr=False
    )
    """Labels by the values they are made of: most images have the same few, and there are many images."""

    def lookup(self, identity: Identity, sop_instance_uid: str | None, stem: str | None) -> tuple[Label, ...]:
        """The labels of one image; empty if no row describes it."""
        return self.match(identity, Identity(), sop_instance_uid, FileName(stem) if stem else None).labels

    def match(
        self, layout: Identity, header: Identity, sop_instance_uid: str | None, name: FileName | None
    ) -> Match:
        """Labels and completed identity of one image.

        Rows are looked for by path, SOP Instance UID, image id and file stem, by patient and laterality, or
        by patient, as the table has it. The layout's identity wins over the table's, that over the header's
        (whose laterality is sometimes wrong).
        """
        found: list[tuple[int, int]] = []
        for number, group in enumerate(self._groups):
            row = group.find(merged(layout, header), sop_instance_uid, name)
            if row is not None:
                layout = merged(layout, group.identity(row))
                if not group.identity_only:
                    found.append((number, row))
        return Match(layout, self._labels(found), tuple(found))

    def of_list_row(self, row: int) -> tuple[Identity, tuple[Label, ...]]:
        """Identity and labels of a row of the input lists, counted over all lists in their order."""
        for number, group in enumerate(self._groups):
            if group.role is Role.LIST:
                return group.identity(row), self._labels([(number, row)])
        raise IndexError(row)

    def check_list_rows(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Two rows that list one file must say the same of it.

        Raises:
            UsageError: they do not.
        """
        for group in self._groups:
            for first, row in pairs if group.role is Role.LIST else ():
                check_same(group, first, row, "one file")

    def unmatched(self, used: Container[tuple[int, int]]) -> int:
        """How many label rows found no image, given those that did."""
        return sum(
            (number, first) not in used
            for number, group in enumerate(self._groups)
            if group.role is Role.TABLE and not group.identity_only
            for first in group.first_of
        )

    def _labels(self, rows: list[tuple[int, int]]) -> tuple[Label, ...]:
        if not rows:
            return ()
        key = tuple((number, self._groups[number].rows[row]) for number, row in rows)
        labels = self._shared.get(key)
        if labels is None:
            labels = self._made(key)
            if len(self._shared) < _MOST_SHARED:
                self._shared[key] = labels
        return labels

    def _made(self, rows: tuple[tuple[int, tuple[LabelValue, ...]], ...]) -> tuple[Label, ...]:
        values: dict[str, LabelValue] = {}
        for number, row in rows:
            for name, value in zip(self._groups[number].names, row, strict=True):
                if values.get(name) is None:
                    values[name] = value
        return tuple(
            Label(column.name, cast(values[column.name], column.kind))
            for column in self.columns
            if column.name in values
        )


def join(
    table: LabelTable | None, scanned: Iterable[ScannedFile], rejected: Iterable[SourceFile] = ()
) -> Joined:
    """Give every scanned file its labels and what the tables add to its identity.

    `rejected` sources take no part but their rows count as matched: their labels came at discovery.
    Idempotent; keeps order.
    """
    used = RowSet()
    files: Packed[ScannedFile] = Packed(ScannedCodec(SourceCodec()))
    unlabelled = 0
    for file in scanned:
        source, match = labelled(table, file.source, file.identity, file.sop_instance_uid)
        used.update(match.rows)
        unlabelled += not source.labels
        identity = merged(source.identity, file.identity)
        files.append(dataclasses.replace(file, source=source, identity=identity))
    for source in rejected:
        used.update(labelled(table, source, Identity(), None)[1].rows)
    has_labels = table is not None and bool(table.columns)
    return Joined(
        files,
        rows_unmatched=table.unmatched(used) if table else 0,
        images_unmatched=unlabelled if has_labels else 0,
    )


def labelled(
    table: LabelTable | None, source: SourceFile, header: Identity, sop_instance_uid: str | None
) -> tuple[SourceFile, Match]:
    """One source with its labels and completed identity; labels it has already are kept."""
    if table is None:
        return source, Match(source.identity, source.labels, ())
    name = FileName.of(source, repeated=stem(source.member or source.path) in table.repeated)
    match = table.match(source.identity, header, sop_instance_uid, name)
    labels = _combined(table.columns, source.labels, match.labels)
    if labels == source.labels and match.identity == source.identity:
        return source, match
    return dataclasses.replace(source, identity=match.identity, labels=labels), match


def build(sources: Sequence[LabelSource]) -> LabelTable | None:
    """Type, check and index label tables; None if there are none.

    Raises:
        UsageError: a table has no column to join on, or two rows of one key differ.
    """
    kinds: dict[tuple[bool, bool, str], list[LabelSource]] = {}
    for source in sources:
        key = (not source.identity_only, source.role is not Role.LIST, source.profile.name)
        kinds.setdefault(key, []).append(source)
    notes: list[str] = []
    # Identity first: laterality from one table may be the key of the next.
    groups = tuple(make_group(kinds[key], notes) for key in sorted(kinds))
    return LabelTable(_columns(groups), tuple(dict.fromkeys(notes)), groups) if groups else None


def _combined(
    columns: tuple[LabelColumn, ...], known: tuple[Label, ...], more: tuple[Label, ...]
) -> tuple[Label, ...]:
    if not known or not more:
        return known or more
    values = {label.name: label for label in more}
    values |= {label.name: label for label in known if label.value is not None or label.name not in values}
    return tuple(values[column.name] for column in columns if column.name in values)


def _columns(groups: tuple[Group, ...]) -> tuple[LabelColumn, ...]:
    """One declaration per name over all groups: the widest kind, the finest level."""
    kinds: dict[str, list[str]] = {}
    levels: dict[str, list[LabelLevel]] = {}
    for group in groups:
        for name, kind, level in zip(group.names, group.kinds, group.levels, strict=True):
            kinds.setdefault(name, []).append(kind)
            levels.setdefault(name, []).append(level)
    return tuple(
        LabelColumn(name, widest(kinds[name]), max(levels[name], key=FINENESS.index)) for name in kinds
    )
