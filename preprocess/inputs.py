"""What the inputs of a command line stand for: every file behind them, before names are given.

In:  files, folders, globs, lists (CSV, TSV, Parquet with a path column), zip archives, fsspec URLs.
Out: Findings.

In a walk (folder, glob, archive) a file is taken if its name or its content is DICOM, or if it cannot be
read: what cannot be looked into is not silently left out. Zip archives inside folders are not opened.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from preprocess._found import ARCHIVE_SUFFIX, HEAD_BYTES, Findings, Found, real_path
from preprocess._walk import head_of_file, member_of, members, walk
from preprocess.errors import UsageError
from preprocess.failures import describe
from preprocess.label_groups import path_column
from preprocess.names import MEMBER_SEPARATOR
from preprocess.tables import is_table_name, is_url, read_table

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

_REMOTE_ERRORS = (OSError, ImportError, ValueError, RuntimeError)


def find(inputs: Iterable[str], looks: Callable[[bytes], bool]) -> Findings:
    """Expand inputs; their order does not matter.

    Raises:
        UsageError: an input does not exist, cannot be opened at all, or stands for nothing.
    """
    findings = Findings(looks)
    folders: set[str] = set()
    for text in sorted({_as_path(text) for text in inputs}):
        if is_url(text):
            _remote(text, findings)
        else:
            folders |= _local(text, findings)
    for folder in sorted(_outermost(folders)):
        walk(folder, findings)
    return findings


def glob_base(pattern: str) -> str:
    """The folder above the first component with a wildcard."""
    fixed = []
    for part in pattern.split("/"):
        if glob.has_magic(part):
            break
        fixed.append(part)
    return "/".join(fixed) or ("/" if pattern.startswith("/") else ".")


def _as_path(text: str) -> str:
    return unquote(text.removeprefix("file://")) if text.startswith("file://") else text


def _local(text: str, findings: Findings) -> set[str]:
    """Take one local input; return the folders it stands for."""
    try:
        if os.path.isdir(text):
            return {os.path.abspath(text)}
        if os.path.lexists(text):
            _file(os.path.abspath(text), findings)
            return set()
    except ValueError as error:
        raise UsageError(f"input {text!r} is not a path") from error
    archive, separator, member = text.partition(MEMBER_SEPARATOR)
    if separator and os.path.isfile(archive):
        findings.name(member_of(_at(os.path.abspath(archive), findings), member))
        return set()
    if glob.has_magic(text):
        return _glob(text, findings)
    raise UsageError(f"input {text!r} does not exist")


def _at(path: str, findings: Findings) -> Found:
    """A single file: its folder is its root."""
    folder, name = os.path.split(path)
    root = findings.add_root(real_path(folder), os.path.basename(folder))
    return Found(f"{root}/{name}", path, None, root, name)


def _file(path: str, findings: Findings) -> None:
    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        raise UsageError(f"input {path!r} is not a regular file")
    at = _at(path, findings)
    if is_table_name(path):
        _list(path, findings)
    elif not (_is_archive(path) and members(path, at, findings)):
        findings.name(at)


def _is_archive(path: str) -> bool:
    return path.lower().endswith(ARCHIVE_SUFFIX)


def _glob(text: str, findings: Findings) -> set[str]:
    matches = {os.path.abspath(match) for match in glob.glob(text, recursive=True, include_hidden=True)}
    if not matches:
        raise UsageError(f"input {text!r} matches nothing")
    base = os.path.abspath(glob_base(text))
    root = findings.add_root(real_path(base), os.path.basename(base))
    folders = {match for match in matches if os.path.isdir(match)}
    real_folder: dict[str, str] = {}
    for path in sorted(matches - folders):
        folder, name = os.path.split(path)
        if folder not in real_folder:
            real_folder[folder] = real_path(folder)
        found = Found(f"{real_folder[folder]}/{name}", path, None, root, os.path.relpath(path, base))
        if os.path.exists(path) and not os.path.isfile(path):
            findings.ignored.append(found.key)  # pipes, sockets and devices are never opened
        elif not (_is_archive(path) and members(path, found, findings)):
            findings.meet(found, partial(head_of_file, path))
    return folders


def _outermost(folders: set[str]) -> set[str]:
    """Folders that are not walked with another one already (unless only a link leads there)."""
    real = {folder: real_path(folder) for folder in folders}

    def covered(folder: str) -> bool:
        above = os.path.dirname(folder)
        while above != os.path.dirname(above):
            if above in real and real[folder] == real[above] + folder[len(above) :]:
                return True
            above = os.path.dirname(above)
        return False

    return {folder for folder in folders if not covered(folder)}


def _list(path: str, findings: Findings) -> None:
    """Files named by the rows of a table, relative to its folder or absolute."""
    table = read_table(path)
    column = path_column(table)
    if column is None:
        raise UsageError(
            f"{table.name} has no path column, so it is no list of inputs; labels are given with --labels"
        )
    first = sum(len(known.rows) for known in findings.lists)
    findings.lists.append(table)
    base = path.rpartition("/")[0] if is_url(path) else os.path.dirname(path)
    rows = [(first + row, _listed(cell, base)) for row, cell in enumerate(table.column(column)) if cell]
    if not any(is_url(file) or os.path.lexists(file.partition(MEMBER_SEPARATOR)[0]) for _, file in rows):
        raise UsageError(f"none of the {len(rows)} files listed in {table.name} exists (column {column!r})")
    outside = {os.path.dirname(f) for _, f in rows if not is_url(f) and not f.startswith(f"{base}/")}
    elsewhere = os.path.commonpath(outside) if outside else base
    for row, file in rows:
        found = (
            _remote_file(file, findings, base) if is_url(file) else _below(file, (base, elsewhere), findings)
        )
        found.row = row
        findings.name(found)


def _listed(cell: str, base: str) -> str:
    if "\0" in cell:
        raise UsageError("a list of inputs holds a path with a NUL character")
    text = _as_path(cell if "/" in cell else cell.replace("\\", "/"))
    if is_url(text):
        return text
    return f"{base}/{text.lstrip('/')}" if is_url(base) else os.path.normpath(os.path.join(base, text))


def _below(path: str, bases: tuple[str, str], findings: Findings) -> Found:
    """A listed local file or `archive.zip::member`, named from the list's folder where it lies below."""
    base = bases[0] if path.startswith(f"{bases[0]}/") else bases[1]
    root = findings.add_root(real_path(base), os.path.basename(base))
    archive, separator, member = path.partition(MEMBER_SEPARATOR)
    file = archive if separator and os.path.isfile(archive) else path
    folder, name = os.path.split(file)
    found = Found(f"{real_path(folder)}/{name}", file, None, root, os.path.relpath(file, base))
    return found if file == path else member_of(found, member)


def _remote(url: str, findings: Findings) -> None:
    """Take one URL: a file, a folder, a glob, an archive or a list."""
    import fsspec

    try:
        if _is_web(url):
            _remote_single(url, findings)
            return
        system, path = fsspec.core.url_to_fs(url)
        if glob.has_magic(path):
            base = glob_base(path)
            files = [file for file in system.glob(path) if not system.isdir(file)]
        elif system.isdir(path):
            base, files = path, system.find(path)
        elif system.exists(path):
            _remote_single(url, findings)
            return
        else:
            raise UsageError(f"input {url!r} does not exist")
        _remote_files(system, base.rstrip("/"), files, findings)
    except _REMOTE_ERRORS as error:
        raise UsageError(f"input {url!r} cannot be opened: {str(error) or describe(error)}") from error


def _remote_single(url: str, findings: Findings) -> None:
    import fsspec

    found = _remote_file(url, findings)
    if is_table_name(found.relative):
        _list(url, findings)
        return
    if _is_archive(found.relative):
        with fsspec.open(url, "rb") as file:
            if members(file, found, findings):
                return
    findings.name(found)


def _remote_file(url: str, findings: Findings, base: str = "") -> Found:
    """A file by URL, named from `base` where it lies below.

    Query and fragment of web addresses (which may hold keys) are no part of its name.
    """
    if _is_web(url):
        bare = urlsplit(url)._replace(query="", fragment="").geturl()
    else:
        url = bare = _canonical(url)
        base = _canonical(base) if is_url(base) else base
    root = base if base and bare.startswith(f"{base}/") else bare.rpartition("/")[0]
    findings.add_root(root, root.rpartition("/")[2])
    return Found(url, url, None, root, bare[len(root) + 1 :])


def _is_web(url: str) -> bool:
    return urlsplit(url).scheme in ("http", "https")


def _canonical(url: str) -> str:
    """One spelling of a URL, as listings of its store have it."""
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
    except _REMOTE_ERRORS as error:
        raise UsageError(f"{url!r} cannot be opened: {str(error) or describe(error)}") from error
    return str(system.unstrip_protocol(path)).rstrip("/")


def _remote_files(system: AbstractFileSystem, base: str, files: list[str], findings: Findings) -> None:
    root = system.unstrip_protocol(base).rstrip("/")
    findings.add_root(root, root.rpartition("/")[2])
    for file in files:
        url = system.unstrip_protocol(file)
        found = Found(url, url, None, root, file[len(base) :].lstrip("/"))
        findings.meet(found, partial(system.cat_file, file, start=0, end=HEAD_BYTES))
