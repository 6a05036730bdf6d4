"""Stable names for what was found (DESIGN §3, column `source`).

In:  Findings.
Out: Named: one Found per file under a unique name that depends neither on argument order nor on where
     the input roots lie.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from preprocess._found import ARCHIVE_SUFFIX, Findings, Found
from preprocess.errors import RejectedInput
from preprocess.names import MEMBER_SEPARATOR, safe_name, safe_path, with_suffix
from preprocess.records import SourceFile

_MAX_HASHED_BYTES = 1 << 32


@dataclass(frozen=True, slots=True)
class Named:
    """Files by their unique names."""

    files: dict[str, Found]
    listed_twice: tuple[tuple[int, int], ...]
    """Rows of lists that name the same file."""


def give_names(findings: Findings) -> Named:
    """Name every file once, however many ways lead to it.

    Of several ways the one without links and with the smallest name is kept.
    """
    tops = _tops({found.root for found in findings.found})
    several = len(set(tops.values())) > 1
    best: dict[str, tuple[tuple[bool, str, str], Found]] = {}
    listed_twice = []
    for found in findings.found:
        name = _name(found, tops[found.root], findings.root_names if several else {})
        rank = (found.linked, name, found.path)
        known = best.setdefault(found.key, (rank, found))
        if known[1] is found:
            continue
        if known[1].row is not None and found.row is not None:
            listed_twice.append((known[1].row, found.row))
        winner, loser = (found, known[1]) if rank < known[0] else (known[1], found)
        winner.explicit |= loser.explicit
        winner.row = loser.row if winner.row is None else winner.row
        best[found.key] = (min(rank, known[0]), winner)
    by_name: dict[str, list[Found]] = {}
    for rank, found in best.values():
        by_name.setdefault(rank[1], []).append(found)
    return Named(_unique(by_name), tuple(listed_twice))


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
    if top_names:
        lead = f"{safe_name(top_names[top] or 'root')}/{lead}"
    if found.member is None:
        return safe_path(lead + found.relative)
    archive = found.relative[: -len(MEMBER_SEPARATOR + found.member)]
    member = safe_path(found.member, backslash_separates=True) or safe_name("")
    return f"{safe_path(lead + archive)}{MEMBER_SEPARATOR}{member}"


def _unique(by_name: dict[str, list[Found]]) -> dict[str, Found]:
    """Names that several files would have get a suffix made of each one's content."""
    files = {name: found[0] for name, found in by_name.items() if len(found) == 1}
    for name in sorted(by_name, key=str.encode):
        if len(by_name[name]) == 1:
            continue
        for digest, _, found in sorted((_digest(f), f.key, f) for f in by_name[name]):
            suffix, copies = digest, 1
            # Files with the same content may swap names: nobody can tell.
            while (unique := with_suffix(name, suffix)) in files:
                copies += 1
                suffix = f"{digest}-{copies}"
            files[unique] = found
    return files


def _digest(found: Found) -> str:
    from preprocess.dicom import read_bytes

    source = SourceFile(found.relative, found.path, found.member)
    try:
        return hashlib.sha256(read_bytes(source, _MAX_HASHED_BYTES)).hexdigest()[:12]
    except RejectedInput as error:
        return error.code
