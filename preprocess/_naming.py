"""Stable names for what was found (docs/dataset.md, column `source`).

In:  Findings.
Out: Named: one Found per file under a unique name that depends neither on argument order nor on where
     the input roots lie.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from preprocess._found import ARCHIVE_SUFFIX, Findings, Found, FoundCodec
from preprocess.errors import RejectedInput
from preprocess.names import MEMBER_SEPARATOR, safe_name, safe_path, with_suffix
from preprocess.packed import Packed, recurring
from preprocess.records import SourceFile

_MAX_HASHED_BYTES = 1 << 32


@dataclass(frozen=True, slots=True)
class Named:
    """Every file once, with its unique name."""

    files: Packed[Found]
    """In the order of their names' UTF-8 bytes, each with its `source`."""
    listed_twice: tuple[tuple[int, int], ...]
    """Rows of lists that name the same file."""


def give_names(findings: Findings) -> Named:
    """Name every file once, however many ways lead to it.

    Of several ways the one without links and with the smallest name is kept.
    """
    found = findings.found
    tops = _tops({one.root for one in found})
    top_names = findings.root_names if len(set(tops.values())) > 1 else {}
    same, gone, listed_twice = _same_files(found, tops, top_names)
    rows = [row for row in range(len(found)) if row not in gone]
    names = [_name(one, tops[one.root], top_names) for row, one in enumerate(found) if row not in gone]
    _make_unique(names, lambda place: found[rows[place]])
    files: Packed[Found] = Packed(FoundCodec())
    for place in sorted(range(len(rows)), key=names.__getitem__):  # code points sort as UTF-8 does
        one = same.get(rows[place]) or found[rows[place]]
        one.source = names[place]
        files.append(one)
    return Named(files, listed_twice)


def _same_files(
    found: Sequence[Found], tops: dict[str, str], top_names: dict[str, str]
) -> tuple[dict[int, Found], set[int], tuple[tuple[int, int], ...]]:
    """Files found in several ways: the way to keep of each, by its place; the other places; rows of lists."""
    best: dict[str, tuple[tuple[bool, str, str], Found, int]] = {}
    gone: set[int] = set()
    listed_twice = []
    for place in recurring(one.key for one in found):
        one = found[place]
        rank = (one.linked, _name(one, tops[one.root], top_names), one.path)
        known = best.setdefault(one.key, (rank, one, place))
        if known[1] is one:
            continue
        if known[1].row is not None and one.row is not None:
            listed_twice.append((known[1].row, one.row))
        winner, loser = (one, known[1]) if rank < known[0] else (known[1], one)
        winner.explicit |= loser.explicit
        winner.row = loser.row if winner.row is None else winner.row
        gone.add(known[2] if winner is one else place)
        best[one.key] = (min(rank, known[0]), winner, place if winner is one else known[2])
    return {place: one for _, one, place in best.values()}, gone, tuple(listed_twice)


def layout_path(found: Found) -> str:
    """The whole safe path that layouts look at; an archive counts as a folder of its name."""
    if found.member is None:
        return safe_path(found.path.lstrip("/"))
    path = found.path[: -len(ARCHIVE_SUFFIX)] if found.path.lower().endswith(ARCHIVE_SUFFIX) else found.path
    return f"{safe_path(path)}/{safe_path(found.member, backslash_separates=True)}"


def _tops(roots: set[str]) -> dict[str, str]:
    """Root → the outermost root that it lies in."""
    tops = {}
    for root in roots:
        tops[root] = above = root
        while "/" in above:
            above = above.rpartition("/")[0]
            if above in roots:
                tops[root] = above
    return tops


def _name(found: Found, top: str, top_names: dict[str, str]) -> str:
    """The name below the outermost root, which itself leads where there are several (`top_names`)."""
    lead = f"{found.root[len(top) :]}/".lstrip("/")
    first = f"{safe_name(top_names[top] or 'root')}/" if top_names else ""
    if found.member is None:
        return first + safe_path(lead + found.relative)
    archive = found.relative[: -len(MEMBER_SEPARATOR + found.member)]
    member = safe_path(found.member, backslash_separates=True) or safe_name("")
    return f"{first}{safe_path(lead + archive)}{MEMBER_SEPARATOR}{member}"


def _make_unique(names: list[str], found: Callable[[int], Found]) -> None:
    """Names that several files would have get a suffix made of each one's content."""
    by_name: dict[str, list[int]] = {}
    for place in recurring(names):
        by_name.setdefault(names[place], []).append(place)
    clashing = sorted(name for name, places in by_name.items() if len(places) > 1)
    taken = set(names).difference(clashing) if clashing else set()
    for name in clashing:
        files = [(_digest(found(place)), found(place).key, place) for place in by_name[name]]
        for digest, _, place in sorted(files):
            suffix, copies = digest, 1
            # Files with the same content may swap names: nobody can tell.
            while (unique := with_suffix(name, suffix)) in taken:
                copies += 1
                suffix = f"{digest}-{copies}"
            taken.add(unique)
            names[place] = unique


def _digest(found: Found) -> str:
    from preprocess.dicom import read_bytes

    source = SourceFile(found.relative, found.path, found.member)
    try:
        return hashlib.sha256(read_bytes(source, _MAX_HASHED_BYTES)).hexdigest()[:12]
    except RejectedInput as error:
        return error.code
