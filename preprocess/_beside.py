"""Label tables that lie beside the images they describe, in folders, archives and remote stores.

In:  files with the Place that their layout found.
Out: every table there that a known profile recognises, once, in the order of their places.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable

from preprocess._found import ARCHIVE_SUFFIX, UNREADABLE, Found
from preprocess.layouts import GENERIC, Place, profile_of
from preprocess.tables import Table, is_url, read_table

_Spot = tuple[str, str | None]
"""A folder's path or URL, or an archive's path and a folder in it ('' for its top)."""


def tables_beside(places: Iterable[tuple[Found, Place]]) -> list[Table]:
    """Find and read them; where a layout names several folders, the first with a table counts."""
    wanted: dict[tuple[tuple[_Spot, ...], tuple[str, ...]], None] = {}
    for found, place in places:
        if place.tables:
            spots = tuple(spot for up in place.roots if (spot := _spot(found, up)) is not None)
            wanted[spots, place.tables] = None
    existing: dict[_Spot, None] = {}
    for spots, names in wanted:
        for name in names:
            here = (_file(spot, name) for spot in spots)
            first = next((file for file in here if _exists(file)), None)
            if first is not None:
                existing[first] = None
    tables = [read_table(*file) for file in sorted(existing, key=lambda file: (file[0], file[1] or ""))]
    return [table for table in tables if profile_of(table) is not GENERIC]


def _spot(found: Found, up: int) -> _Spot | None:
    """The folder `up` components above a file; an archive counts as a folder of its name."""
    if found.member is None:
        return _cut(found.path, up)
    member = found.member.replace("\\", "/")
    depth = member.count("/") + 1
    if up > depth:
        return _cut(found.path, up - depth) if found.path.lower().endswith(ARCHIVE_SUFFIX) else None
    return found.path, "" if up == depth else member.rsplit("/", up)[0]


def _cut(path: str, up: int) -> _Spot | None:
    parts = path.rsplit("/", up)
    return (parts[0], None) if len(parts) == up + 1 else None


def _file(spot: _Spot, name: str) -> _Spot:
    path, inside = spot
    if inside is None:
        return f"{path}/{name}", None
    return path, f"{inside}/{name}" if inside else name


def _exists(file: _Spot) -> bool:
    path, member = file
    try:
        if member is not None:
            return _has_member(path, member)
        if is_url(path):
            import fsspec

            system, inner = fsspec.core.url_to_fs(path)
            return bool(system.isfile(inner))
        return os.path.isfile(path)
    except UNREADABLE:
        return False


def _has_member(path: str, member: str) -> bool:
    if not is_url(path):
        with zipfile.ZipFile(path) as archive:
            return member in archive.namelist()
    import fsspec

    with fsspec.open(path, "rb") as stream, zipfile.ZipFile(stream) as archive:
        return member in archive.namelist()
