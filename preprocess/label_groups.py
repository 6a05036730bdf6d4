"""One kind of label table: typed columns, the level of each, and rows indexed by their join key.

In:  Table values of one kind, and the TableProfile that explains their columns.
Out: Group: finds the row that describes an image (labels.py combines groups into a LabelTable).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter

from preprocess.errors import UsageError
from preprocess.label_values import (
    IDENTITY_ALIASES,
    PATH_ALIASES,
    fold,
    identifiers,
    identity_value,
    typed,
    why_not_label,
)
from preprocess.names import stem
from preprocess.records import Identity, LabelLevel, LabelValue
from preprocess.tables import Cell, Table, stack

FINENESS = [LabelLevel.PATIENT, LabelLevel.BREAST, LabelLevel.IMAGE]
"""Levels from the coarsest to the finest."""

_FIELDS = tuple(f.name for f in dataclasses.fields(Identity))
_values: Callable[[Identity], tuple[str | None, ...]] = attrgetter(*_FIELDS)
_AMBIGUOUS = -1

WELL_KNOWN_LEVELS: dict[str, LabelLevel] = {
    "cancer": LabelLevel.BREAST,
    "biopsy": LabelLevel.BREAST,
    "invasive": LabelLevel.BREAST,
    "birads": LabelLevel.BREAST,
    "difficultnegativecase": LabelLevel.BREAST,
    "implant": LabelLevel.BREAST,
    "density": LabelLevel.PATIENT,
    "age": LabelLevel.PATIENT,
}
"""Folded column name → what the label is said of, wherever a table proves it (see `_level`)."""

WELL_KNOWN_KINDS = {name: "string" if name == "density" else "int64" for name in WELL_KNOWN_LEVELS}
"""Kinds of well-known columns that have no value at all, so that a subset has the whole's schema."""


class Role(StrEnum):
    """What a table is there for."""

    TABLE = "table"
    """Rows find images by their ids."""
    LIST = "list"
    """A list of inputs: its rows belong to files, no join needed."""


@dataclass(frozen=True, slots=True)
class TableProfile:
    """How one kind of table maps to the schema. Column names are compared folded (`fold`)."""

    name: str
    required: frozenset[str] = frozenset()
    """Folded names of the columns that recognise it."""
    identity: tuple[tuple[str, str], ...] = ()
    """(folded column, field of Identity) beyond the usual aliases."""
    levels: tuple[tuple[str, LabelLevel], ...] = ()
    """(folded column, level) beyond the well-known ones."""
    leave_out: frozenset[str] = frozenset()
    """Folded names of columns that are neither identity nor label."""
    derive: Callable[[Table], Table] | None = None
    """Adds columns whose mapping is certain, or merges rows; runs first."""

    def recognises(self, table: Table) -> bool:
        """True if the table has the columns of this profile."""
        return self.required <= {fold(column) for column in table.columns}


@dataclass(frozen=True, slots=True)
class LabelSource:
    """One table, what it is for, and the profile that explains it."""

    table: Table
    profile: TableProfile
    role: Role = Role.TABLE
    identity_only: bool = False
    """Only laterality, view, site, … are taken: labels come from an explicit --labels."""


@dataclass(slots=True)
class Group:
    """All rows of the tables of one kind, indexed by their key."""

    name: str
    role: Role
    identity_only: bool
    level: LabelLevel
    names: list[str]
    kinds: list[str]
    levels: list[LabelLevel]
    rows: list[tuple[LabelValue, ...]]
    identities: list[Identity]
    images: list[Cell]
    """Image id, or the stem of its path, that each row is said of."""
    first_of: list[int] = field(default_factory=list)
    """Row → the first row with the same key (itself where there is none before, or no key)."""
    by_key: dict[tuple[str, ...], int] = field(default_factory=dict)
    by_image: dict[str, int] = field(default_factory=dict)

    def find(self, known: Identity, uid: str | None, name: str | None) -> int | None:
        """The row that describes an image, or None."""
        if self.role is Role.LIST:
            return None
        if self.level is LabelLevel.IMAGE:
            return self._find_image(known, uid, name)
        key = (known.patient_id, known.laterality)[: 1 if self.level is LabelLevel.PATIENT else 2]
        return self.by_key.get(tuple(k for k in key if k)) if all(key) else None

    def _find_image(self, known: Identity, uid: str | None, name: str | None) -> int | None:
        for image in (uid, known.image_id, name):
            if not image:
                continue
            row = self.by_key.get((known.patient_id or "", image))
            if row is not None:
                return row
            row = self.by_image.get(image, _AMBIGUOUS)
            # A UID names one image in the world; a file stem such as `1-1` only within its patient.
            if row != _AMBIGUOUS and (image == uid or not self._contradicts(row, known)):
                return row
        return None

    def _contradicts(self, row: int, known: Identity) -> bool:
        patient = self.identities[row].patient_id
        return None not in (patient, known.patient_id) and patient != known.patient_id


def merged(first: Identity, second: Identity) -> Identity:
    """`first`, with `second` where it says nothing."""
    if second == Identity():
        return first
    return Identity(
        *(a if a is not None else b for a, b in zip(_values(first), _values(second), strict=True))
    )


def make_group(sources: list[LabelSource], notes: list[str]) -> Group:
    """Type, check and index the tables of one kind; appends to `notes` which columns were not kept.

    Raises:
        UsageError: no column to join on, or two rows of one key that differ.
    """
    profile, role, identity_only = sources[0].profile, sources[0].role, sources[0].identity_only
    table = stack(" + ".join(sorted({s.table.name for s in sources})), [s.table for s in sources])
    derived = profile.derive(table) if profile.derive else table
    if role is Role.TABLE or len(derived.rows) == len(table.rows):
        table = derived  # the rows of a list belong to files and are not merged
    fields = _identity_columns(table, profile)
    identities = _identities(table, fields)
    names = [] if identity_only else _label_names(table, profile, fields, notes)
    level = _join_level(table, fields, role)
    images = _images(table, identities)
    group = Group(table.name, role, identity_only, level, names, [], [], [], identities, images)
    _fill(group, table, dict(profile.levels))
    _index(group)
    return group


def path_column(table: Table) -> str | None:
    """The column that says where the files are, if the table is a list of inputs."""
    by_name = {fold(column): column for column in reversed(table.columns)}
    return next((by_name[alias] for alias in PATH_ALIASES if alias in by_name), None)


def _identity_columns(table: Table, profile: TableProfile) -> dict[str, str]:
    """Field of Identity → column."""
    by_name = {fold(column): column for column in reversed(table.columns)}
    fields: dict[str, str] = {}
    for alias, name in (*profile.identity, *IDENTITY_ALIASES.items()):
        # What looks like a person's name (PN components are separated by ^) identifies nobody here.
        if alias in by_name and not any("^" in cell for cell in table.column(by_name[alias]) if cell):
            fields.setdefault(name, by_name[alias])
    return fields


def _identities(table: Table, fields: dict[str, str]) -> list[Identity]:
    columns: list[list[str | None]] = []
    for name in _FIELDS:
        cells: list[Cell] = [None] * len(table.rows)
        if name in fields:
            cells = identifiers(table.column(fields[name]))
        columns.append([identity_value(name, cell) for cell in cells])
    shared: dict[tuple[str | None, ...], Identity] = {}
    return [shared.setdefault(row, Identity(*row)) for row in zip(*columns, strict=True)]


def _images(table: Table, identities: list[Identity]) -> list[Cell]:
    """What to find images by: their id, else the stem of their path (which is no image id of its own)."""
    paths = path_column(table)
    if paths is None or any(identity.image_id for identity in identities):
        return [identity.image_id for identity in identities]
    return [None if cell is None else stem(cell.replace("\\", "/")) for cell in table.column(paths)]


def _label_names(table: Table, profile: TableProfile, fields: dict[str, str], notes: list[str]) -> list[str]:
    names = []
    taken = set(fields.values())
    for column in table.columns:
        if column in taken or fold(column) in profile.leave_out or fold(column) in IDENTITY_ALIASES:
            continue
        reason = why_not_label(column, table.column(column))
        if reason is None:
            names.append(column)
        elif reason:
            notes.append(f"{table.name}: column {column!r} is not kept: it {reason}")
    return names


def _join_level(table: Table, fields: dict[str, str], role: Role) -> LabelLevel:
    if role is Role.LIST or "image_id" in fields or path_column(table) is not None:
        return LabelLevel.IMAGE
    if "patient_id" in fields:
        return LabelLevel.BREAST if "laterality" in fields else LabelLevel.PATIENT
    raise UsageError(
        f"{table.name}: nothing to join on: it needs image_id, or patient_id and laterality, or patient_id"
    )


def _fill(group: Group, table: Table, declared: dict[str, LabelLevel]) -> None:
    """Type the label columns and settle what each is said of."""
    columns: list[list[LabelValue]] = []
    for name in group.names:
        kind, values = typed(table.column(name), WELL_KNOWN_KINDS.get(fold(name), "string"))
        group.kinds.append(kind)
        group.levels.append(
            _level(group, values, WELL_KNOWN_LEVELS.get(fold(name)), declared.get(fold(name)))
        )
        columns.append(values)
    shared: dict[tuple[LabelValue, ...], tuple[LabelValue, ...]] = {}
    rows = zip(*columns, strict=True) if columns else iter([()] * len(table.rows))
    group.rows = [shared.setdefault(row, row) for row in rows]


def _level(
    group: Group, values: list[LabelValue], known: LabelLevel | None, declared: LabelLevel | None
) -> LabelLevel:
    """The coarsest level, from the wished one on, that the table proves; else the join's own.

    A profile's declaration also holds where the table has no patients or sides to prove it by.
    """
    wish = declared or known
    if wish is None or group.level is LabelLevel.PATIENT:
        return group.level
    for level in FINENESS[FINENESS.index(wish) : FINENESS.index(group.level)]:
        width = 1 if level is LabelLevel.PATIENT else 2
        keys = [(i.patient_id, i.laterality)[:width] for i in group.identities]
        complete = all(None not in key for key in keys)
        if _constant(keys, values) if complete else level is declared:
            return level
    return group.level


def _constant(keys: Sequence[tuple[str | None, ...]], values: list[LabelValue]) -> bool:
    first: dict[tuple[str | None, ...], LabelValue] = {}
    return all(v is None or first.setdefault(k, v) == v for k, v in zip(keys, values, strict=True))


def _index(group: Group) -> None:
    group.first_of = list(range(len(group.rows)))
    if group.role is not Role.LIST:
        for row in range(len(group.rows)):
            _index_row(group, row)
    # "B" says of which breasts a row speaks; it is nobody's laterality.
    both = [i for i, identity in enumerate(group.identities) if identity.laterality == "B"]
    for row in both:
        group.identities[row] = dataclasses.replace(group.identities[row], laterality=None)


def _index_row(group: Group, row: int) -> None:
    identity, image = group.identities[row], group.images[row]
    for key in _keys(group.level, identity, image):
        first = group.by_key.setdefault(key, row)
        group.first_of[row] = first
        if first != row:
            check_same(group, first, row, repr("/".join(part for part in key if part)))
            group.identities[first] = _agreed(group.identities[first], identity)
    if group.level is LabelLevel.IMAGE and image:
        first = group.by_image.setdefault(image, row)
        if group.first_of[row] != first:
            group.by_image[image] = _AMBIGUOUS


def _keys(level: LabelLevel, identity: Identity, image: Cell) -> list[tuple[str, ...]]:
    patient, side = identity.patient_id, identity.laterality
    if level is LabelLevel.IMAGE:
        return [(patient or "", image)] if image else []
    if patient is None or level is LabelLevel.PATIENT:
        return [(patient,)] if patient else []
    return [(patient, one) for one in ("LR" if side == "B" else side or "")]


def check_same(group: Group, first: int, row: int, what: str) -> None:
    """Two rows about the same thing must have the same labels.

    Raises:
        UsageError: they differ; names rows (as a spreadsheet counts them), key and columns, no values.
    """
    if group.rows[first] == group.rows[row]:
        return
    differing = [n for n, a, b in zip(group.names, group.rows[first], group.rows[row], strict=True) if a != b]
    raise UsageError(
        f"{group.name}: rows {first + 2} and {row + 2} both describe {what}"
        f" and differ in {', '.join(differing)}"
    )


def _agreed(first: Identity, second: Identity) -> Identity:
    """What two rows of one key agree on: the view of a breast with two views is nobody's."""
    pairs = zip(_values(first), _values(second), strict=True)
    return Identity(*(a if a == b else None for a, b in pairs))
