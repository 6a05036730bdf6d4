"""Local folders and zip archives, walked: the same files in whatever order the system lists them.

In:  a folder or an archive.
Out: additions to Findings.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from functools import partial
from typing import IO

from preprocess._found import HEAD_BYTES, UNREADABLE, Findings, Found, real_path
from preprocess.errors import UsageError
from preprocess.names import MEMBER_SEPARATOR


def walk(folder: str, findings: Findings) -> None:
    """All files below a folder; links are followed, but no folder is visited twice.

    Folders reached without links come first, so that a link changes nobody's name. A folder that cannot
    be listed becomes a source of its own: it will be a Reject, not a silence.

    Raises:
        UsageError: the folder itself cannot be listed.
    """
    real = real_path(folder)
    root = findings.add_root(real, os.path.basename(folder))
    if not os.access(folder, os.R_OK | os.X_OK):
        raise UsageError(f"input {folder!r} cannot be read")
    visited = {real}
    links: list[tuple[str, str]] = []
    _tree(folder, "", root, visited, links, findings)
    while links:
        links.sort(key=lambda link: os.fsencode(link[1]), reverse=True)
        path, relative = links.pop()
        target = real_path(path)
        if target not in visited:
            visited.add(target)
            _tree(path, relative, root, visited, links, findings)


def _tree(
    top: str, prefix: str, root: str, visited: set[str], links: list[tuple[str, str]], findings: Findings
) -> None:
    """Everything below `top` that can be reached without a further link."""
    linked = prefix != ""
    pending = [(top, prefix, real_path(top))]
    while pending:
        folder, relative, real = pending.pop()
        lead = f"{relative}/" if relative else ""
        try:
            with os.scandir(folder) as listing:
                entries = list(listing)
        except OSError:
            findings.name(Found(real, folder, None, root, relative or ".", linked=linked))
            continue
        for entry in entries:
            name = lead + entry.name
            if entry.is_dir(follow_symlinks=False):
                below = f"{real}/{entry.name}"
                if not linked or below not in visited:
                    visited.add(below)
                    pending.append((entry.path, name, below))
            elif _leads_to_folder(entry):
                links.append((entry.path, name))
            else:
                key = entry.path if real == folder else f"{real}/{entry.name}"
                _entry(entry, Found(key, entry.path, None, root, name, linked=linked), findings)


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_symlink() and entry.is_dir()
    except OSError:  # a link to itself
        return False


def _entry(entry: os.DirEntry[str], found: Found, findings: Findings) -> None:
    try:
        regular = entry.is_file() or not os.path.exists(entry.path)
    except OSError:
        regular = True
    if regular:  # or a link that leads nowhere: unreadable, which is for the Reject to say
        findings.meet(found, partial(head_of_file, entry.path))
    else:
        findings.ignored.append(found.key)  # pipes, sockets and devices are never opened


def head_of_file(path: str) -> bytes:
    """The first bytes of a local file."""
    with open(path, "rb", buffering=0) as file:
        return file.read(HEAD_BYTES)


def members(archive: IO[bytes] | str, at: Found, findings: Findings) -> bool:
    """All files in a zip archive found at `at`; False if it cannot be opened as one."""
    try:
        opened = zipfile.ZipFile(archive)
    except UNREADABLE:
        return False
    with opened:
        for name in sorted(_file_names(opened)):
            findings.meet(member_of(at, name), partial(_head_of_member, opened, name))
    return True


def member_of(at: Found, name: str) -> Found:
    """A member of the archive found at `at`."""
    return Found(
        f"{at.key}{MEMBER_SEPARATOR}{name}",
        at.path,
        name,
        at.root,
        f"{at.relative}{MEMBER_SEPARATOR}{name}",
    )


def _file_names(archive: zipfile.ZipFile) -> Iterator[str]:
    """Names that open something; of two entries with one name only the last can be opened."""
    return iter({info.filename for info in archive.infolist() if not info.is_dir()})


def _head_of_member(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        return file.read(HEAD_BYTES)
