"""Kinds of label tables: what recognises one, what its columns mean, what it is there for.

In and out: frozen values, for layouts that know a data set's tables, and for label_groups.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from preprocess.label_values import fold
from preprocess.records import LabelLevel
from preprocess.tables import Table

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
