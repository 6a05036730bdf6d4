"""One kind of label table: typed columns, the level of each, and rows indexed by their join key.

In:  Table values of one kind, and the TableProfile that explains their columns.
Out: Group: finds the row that describes an image (labels.py combines groups into a LabelTable).
"""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from operator import attrgetter

import numpy as np

from preprocess.columns import Column, Index, Rows
from preprocess.errors import UsageError
from preprocess.label_paths import FileName, PathRows, without_suffix
from preprocess.label_profiles import (
    WELL_KNOWN_KINDS,
    WELL_KNOWN_LEVELS,
    LabelSource,
    Role,
    TableProfile,
)
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
_AMBIGUOUS, _NONE = -1, -2


@dataclass(slots=True)
class Group:
    """All rows of the tables of one kind, indexed by their key."""

    name: str
    role: Role
    identity_only: bool
    level: LabelLevel
    names: list[str]
    rows: Rows[LabelValue]
    kinds: list[str]
    levels: list[LabelLevel]
    who: Rows[Cell]
    """Fields of Identity."""
    images: Column[Cell]
    """Image id, or the stem of its path, that each row is said of."""
    first_of: array[int] = field(default_factory=lambda: array("Q"))
    """Row → the first row with the same key (itself where there is none before, or no key)."""
    agreed: dict[int, Identity] = field(default_factory=dict)
    """Row → its identity, where that is not what its cells say."""
    by_key: dict[tuple[str, ...], int] = field(default_factory=dict)
    """Key of the join → first row; of images only those whose name alone is ambiguous."""
    image_index: Index = field(default_factory=lambda: Index(()))
    """Image → its place in `images.values`."""
    by_image: array[int] = field(default_factory=lambda: array("q"))
    """Place of an image → the first row about it, or _AMBIGUOUS, or _NONE."""
    files: Column[Cell] | None = None
    """Of a table whose rows are said of paths: those, without suffix."""
    by_path: PathRows = field(default_factory=PathRows)

    def identity(self, row: int) -> Identity:
        """Who a row is about."""
        return self.agreed.get(row) or Identity(*self.who[row])

    def find(self, known: Identity, uid: str | None, name: FileName | None) -> int | None:
        """The row that describes an image, or None."""
        if self.role is Role.LIST:
            return None
        if self.level is LabelLevel.IMAGE:
            return self._find_image(known, uid, name)
        key = (known.patient_id, known.laterality)[: 1 if self.level is LabelLevel.PATIENT else 2]
        return self.by_key.get(tuple(k for k in key if k)) if all(key) else None

    def _find_image(self, known: Identity, uid: str | None, name: FileName | None) -> int | None:
        row = None if name is None else self.by_path.find(name)
        if row is not None and not self._contradicts(row, known):
            return row
        for image in (uid, known.image_id, name.stem if name else None):
            row = self._row_of(image, known) if image else None
            if row is None:
                continue
            if image == uid:  # it names one image in the world
                return row
            if name is not None and image == name.stem and name.repeated and not self._may_mean(row, known):
                continue
            if not self._contradicts(row, known):
                return row
        return None

    def _row_of(self, image: str, known: Identity) -> int | None:
        """The row about an image of this name; where several patients have one, the patient's."""
        place = self.image_index.find(image)
        row = _NONE if place is None else self.by_image[place]
        if row == _AMBIGUOUS:
            row = self.by_key.get((known.patient_id or "", image), _NONE)
        return row if row >= 0 else None

    def _may_mean(self, row: int, known: Identity) -> bool:
        """Whether a row may be about an image whose name others have, too.

        A file stem such as `1-1` names an image within its patient only; an image id without a patient does
        so everywhere, as the table has it.
        """
        patient = self.identity(row).patient_id
        return self.files is None if patient is None else patient == known.patient_id

    def _contradicts(self, row: int, known: Identity) -> bool:
        patient = self.identity(row).patient_id
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
    who = Rows([_identity_column(table, name, fields) for name in _FIELDS], len(table.rows))
    names = [] if identity_only else _label_names(table, profile, fields, notes)
    level = _join_level(table, fields, role)
    kinds, levels, labels = [], [], []
    for column in names:
        kind, values = _typed_column(table, column)
        kinds.append(kind)
        levels.append(_level(level, who, values, column, dict(profile.levels)))
        labels.append(values)
    rows = Rows(labels, len(table.rows))
    group = Group(
        table.name, role, identity_only, level, names, rows, kinds, levels, who, _images(table, who)
    )
    group.files = _files(table, who)
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
        if alias in by_name and not any("^" in cell for cell in table.column(by_name[alias]).values if cell):
            fields.setdefault(name, by_name[alias])
    return fields


def _identity_column(table: Table, name: str, fields: dict[str, str]) -> Column[Cell]:
    """One field of Identity in the schema's words."""
    if name not in fields:
        return Column(repeat(None, len(table.rows)))
    column = table.column(fields[name])
    return column.map(identity_value(name, cell) for cell in identifiers(column.values))


def _images(table: Table, who: Rows[Cell]) -> Column[Cell]:
    """What to find images by: their id, else the stem of their path (which is no image id of its own)."""
    paths, images = path_column(table), who.columns[_FIELDS.index("image_id")]
    if paths is None or any(images.values):
        return images
    column = table.column(paths)
    return column.map(None if cell is None else stem(cell.replace("\\", "/")) for cell in column.values)


def _files(table: Table, who: Rows[Cell]) -> Column[Cell] | None:
    """The paths of a table that has no image ids."""
    paths, images = path_column(table), who.columns[_FIELDS.index("image_id")]
    if paths is None or any(images.values):
        return None
    column = table.column(paths)
    return column.map(None if cell is None else without_suffix(cell) for cell in column.values)


def _label_names(table: Table, profile: TableProfile, fields: dict[str, str], notes: list[str]) -> list[str]:
    names = []
    taken = set(fields.values())
    for column in table.columns:
        if column in taken or fold(column) in profile.leave_out or fold(column) in IDENTITY_ALIASES:
            continue
        reason = why_not_label(column, table.column(column).values)
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


def _typed_column(table: Table, name: str) -> tuple[str, Column[LabelValue]]:
    column = table.column(name)
    kind, values = typed(column.values, WELL_KNOWN_KINDS.get(fold(name), "string"))
    return kind, column.map(values)


def _level(
    join: LabelLevel,
    who: Rows[Cell],
    values: Column[LabelValue],
    name: str,
    declared_levels: dict[str, LabelLevel],
) -> LabelLevel:
    """The coarsest level, from the wished one on, that the table proves; else the join's own.

    A profile's declaration also holds where the table has no patients or sides to prove it by.
    """
    declared = declared_levels.get(fold(name))
    wish = declared or WELL_KNOWN_LEVELS.get(fold(name))
    if wish is None or join is LabelLevel.PATIENT:
        return join
    for level in FINENESS[FINENESS.index(wish) : FINENESS.index(join)]:
        fields = ("patient_id",) if level is LabelLevel.PATIENT else ("patient_id", "laterality")
        keys = [who.columns[_FIELDS.index(field)] for field in fields]
        complete = all(None not in key.values for key in keys)
        if _constant(keys, values) if complete else level is declared:
            return level
    return join


def _constant(keys: Sequence[Column[Cell]], values: Column[LabelValue]) -> bool:
    """Whether rows of one key have one value, apart from those that have none."""
    key = np.zeros(len(values), np.int64)
    for column in keys:
        key = key * len(column.values) + column.codes()
    known = np.array([value is not None for value in values.values], bool)[values.codes()]
    key, value = key[known], values.codes()[known]
    order = np.argsort(key, kind="stable")
    key, value = key[order], value[order]
    return not ((key[1:] == key[:-1]) & (value[1:] != value[:-1])).any()


def _index(group: Group) -> None:
    group.first_of = array("Q", range(len(group.rows)))
    if group.role is not Role.LIST:
        if group.level is LabelLevel.IMAGE:
            group.image_index = Index(group.images.values)
            group.by_image = array("q", [_NONE]) * len(group.images.values)
            if group.files is not None:
                _index_files(group, group.files)
            for row, place in enumerate(group.images.codes() if group.files is None else ()):
                _index_image(group, row, int(place))
        else:
            for row in range(len(group.rows)):
                for key in _keys(group.level, group.identity(row)):
                    _join_rows(group, group.by_key.setdefault(key, row), row, key)
    _forget_both(group)


def _index_files(group: Group, files: Column[Cell]) -> None:
    """By path; by stem as long as one path has it, from then on with the patient that has one such path."""
    first_of: dict[tuple[int, str], int] = {}
    for row, (code, place) in enumerate(zip(files.codes().tolist(), group.images.codes(), strict=True)):
        path, image = files.values[code], group.images.values[place]
        if not path or not image:
            continue
        patient = group.identity(row).patient_id or ""
        first = first_of.setdefault((code, "" if "/" in path else patient), row)
        _join_rows(group, first, row, (path,))
        if first != row:
            continue
        group.by_path.add(path, row)
        earlier = group.by_image[place]
        if earlier == _NONE:
            group.by_image[place] = row
            continue
        if earlier != _AMBIGUOUS:
            group.by_key[group.identity(earlier).patient_id or "", image] = earlier
            group.by_image[place] = _AMBIGUOUS
        key = (patient, image)
        group.by_key[key] = _AMBIGUOUS if key in group.by_key else row


def _index_image(group: Group, row: int, place: int) -> None:
    """By its name alone, as long as that is said of one patient; from then on with the patient."""
    image, first = group.images.values[place], group.by_image[place]
    if not image:
        return
    if first == _NONE:
        group.by_image[place] = row
        return
    patient = group.identity(row).patient_id or ""
    if first != _AMBIGUOUS:
        other = group.identity(first).patient_id or ""
        if other == patient:
            _join_rows(group, first, row, (patient, image))
            return
        group.by_key[other, image] = first
        group.by_image[place] = _AMBIGUOUS
    _join_rows(group, group.by_key.setdefault((patient, image), row), row, (patient, image))


def _join_rows(group: Group, first: int, row: int, key: tuple[str, ...]) -> None:
    """Note that two rows are about the same."""
    group.first_of[row] = first
    if first != row:
        check_same(group, first, row, f"one {group.level.value}")
        one, other = group.identity(first), group.identity(row)
        if one != other:
            group.agreed[first] = _agreed(one, other)


def _forget_both(group: Group) -> None:
    """Laterality "B" says of which breasts a row speaks; it is nobody's."""
    at = _FIELDS.index("laterality")
    columns = list(group.who.columns)
    if "B" in columns[at].values:
        columns[at] = columns[at].map(None if side == "B" else side for side in columns[at].values)
        group.who = Rows(columns, len(group.who))
    for row, identity in group.agreed.items():
        if identity.laterality == "B":
            group.agreed[row] = dataclasses.replace(identity, laterality=None)


def _keys(level: LabelLevel, identity: Identity) -> list[tuple[str, ...]]:
    patient, side = identity.patient_id, identity.laterality
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
