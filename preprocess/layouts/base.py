"""What a layout adapter is: two functions of a path, the tables beside it, and how to read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from preprocess.label_profiles import TableProfile
from preprocess.records import Identity


@dataclass(frozen=True, slots=True)
class Place:
    """What a path says of the image: its identity, and where the data set's tables may lie."""

    identity: Identity = field(default_factory=Identity)
    roots: tuple[int, ...] = ()
    """How many trailing components to cut off to come to a folder that may hold tables, best first."""
    tables: tuple[str, ...] = ()
    """File names of those tables."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One known arrangement of files. All functions are pure functions of one path."""

    name: str
    recognise: Callable[[str], Place | None]
    """None if the path does not follow this layout."""
    assume: Callable[[str], Place]
    """The same where the user names the layout: reads the path however unusual its names are."""
    profiles: tuple[TableProfile, ...] = ()
    """The tables that come with it."""
    expects: str = "any path"
    """The paths that it recognises, in words."""
