"""Known layouts of mammography data, recognised by path, mapped to one schema (docs/layouts.md).

In:  a source's full path (safe, `/`-separated) or a table's columns.
Out: Place (identity, and where the data set's root is) or the TableProfile that explains the table.

A layout looks at one path at a time, never at its neighbours: what else is given as input changes no
identity.
"""

from __future__ import annotations

from preprocess.errors import UsageError
from preprocess.label_profiles import TableProfile
from preprocess.layouts import cmmd, pacs, rsna, vindr
from preprocess.layouts.base import Layout, Place
from preprocess.tables import Table

LAYOUTS: tuple[Layout, ...] = (rsna.LAYOUT, vindr.LAYOUT, cmmd.LAYOUT, pacs.LAYOUT)
"""In the order in which they are tried; `pacs` takes whatever the others leave."""

AUTO = "auto"
LAYOUT_NAMES = (AUTO, *(layout.name for layout in LAYOUTS))
GENERIC = TableProfile("generic")

__all__ = ["AUTO", "GENERIC", "LAYOUTS", "LAYOUT_NAMES", "Layout", "Place", "place", "profile_of", "select"]


def select(name: str) -> Layout | None:
    """The layout of that name, None for `auto`.

    Raises:
        UsageError: there is no such layout.
    """
    if name == AUTO:
        return None
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    raise UsageError(f"no layout {name!r}: it is one of {', '.join(LAYOUT_NAMES)}")


def place(path: str, forced: Layout | None = None) -> tuple[Layout, Place]:
    """Which layout a path follows, and what the path says."""
    if forced is not None:
        return forced, forced.assume(path)
    for layout in LAYOUTS:
        found = layout.recognise(path)
        if found is not None:
            return layout, found
    return pacs.LAYOUT, Place()


def profile_of(table: Table) -> TableProfile:
    """The profile that explains a table's columns; the generic one if no known data set has them."""
    for layout in LAYOUTS:
        for profile in layout.profiles:
            if profile.recognises(table):
                return profile
    return GENERIC
