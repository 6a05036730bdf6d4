"""Bytes of an input, wherever it lies: local file, zip member, fsspec URL.

In:  SourceFile and a limit in bytes.
Out: all of its bytes, or the first of them and the total size; limits hold before anything is read.
"""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import IO

from preprocess.errors import RejectedInput
from preprocess.failures import describe
from preprocess.records import SourceFile

ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError)
"""Damaged, missing, unsupported or encrypted member; RuntimeError is what zipfile raises for a password."""
URL_ERRORS = (ValueError, ImportError)
"""Unknown protocol; a file system whose package is not installed."""
_BLOCK_BYTES = 1 << 16


def read_bytes(source: SourceFile, max_bytes: int) -> bytes:
    """Read the whole input.

    Raises:
        RejectedInput: unreadable, or file_too_large (more than `max_bytes`; found before reading where the
            size is known, otherwise after `max_bytes` + 1 bytes).
    """
    return read_prefix(source, max_bytes, max_bytes)[0]


def read_prefix(source: SourceFile, max_bytes: int, wanted: int) -> tuple[bytes, int]:
    """Read the first `wanted` bytes, and say how many there are in all.

    Returns:
        The bytes, and the input's size in bytes.

    Raises:
        RejectedInput: unreadable, file_too_large.
    """
    try:
        with _opened(source) as (stream, size):
            if size is None:
                data = _read(stream, max_bytes + 1)
                size = len(data)
            else:
                data = b"" if size > max_bytes else _read(stream, min(size, wanted))
    except (OSError, *ZIP_ERRORS, *URL_ERRORS) as error:
        raise RejectedInput("unreadable", f"cannot be read: {describe(error)}") from None
    if size > max_bytes:
        raise RejectedInput("file_too_large", f"more than {max_bytes} bytes")
    if len(data) < min(size, wanted):
        raise RejectedInput("unreadable", f"{len(data)} bytes read where {min(size, wanted)} should be")
    return data, size


def read_range(source: SourceFile, start: int, end: int) -> bytes:
    """Read bytes [start, end) of a file or URL (no archive's member): of a URL one request, of no more.

    Raises:
        RejectedInput: unreadable, also if the input ends before `end`.
    """
    try:
        if "://" in source.path:
            import fsspec

            file_system, path = fsspec.core.url_to_fs(source.path)
            data: bytes = file_system.cat_file(path, start=start, end=end)
        else:
            with _open_regular(source.path) as stream:
                stream.seek(start)
                data = stream.read(end - start)
    except (OSError, *URL_ERRORS) as error:
        raise RejectedInput("unreadable", f"cannot be read: {describe(error)}") from None
    if len(data) > end - start:  # a server that knows no ranges sends all
        data = data[start:end]
    if len(data) < end - start:
        raise RejectedInput("unreadable", f"{len(data)} bytes read where {end - start} should be")
    return data


def modified_ns(source: SourceFile) -> int:
    """When an input's file (of a member: its archive) was last written; 0 for URLs and what is gone."""
    if "://" in source.path:
        return 0
    try:
        return os.stat(source.path).st_mtime_ns
    except OSError:
        return 0


def _read(stream: IO[bytes], wanted: int) -> bytes:
    """Read until `wanted` bytes or the end: remote and zip streams may return less at a time."""
    first = stream.read(wanted)
    if len(first) in (0, wanted):
        return first
    parts = [first]
    missing = wanted - len(first)
    while missing and (part := stream.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


@contextmanager
def _opened(source: SourceFile) -> Iterator[tuple[IO[bytes], int | None]]:
    """Yield an open stream and its size (None if only reading can tell)."""
    if source.member is not None:
        archive = _archive(source.path)
        info = archive.getinfo(source.member)
        with archive.open(info) as stream:
            yield stream, info.file_size
    elif "://" in source.path:
        with _open_url(source.path) as stream:
            yield stream, getattr(stream, "size", None)
    else:
        with _open_regular(source.path) as stream:
            yield stream, os.fstat(stream.fileno()).st_size


def _open_regular(path: str) -> IO[bytes]:
    # Opening a named pipe would wait for ever, so the kind is asked first.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("not a regular file")
    return open(path, "rb")


def _open_url(url: str) -> IO[bytes]:
    import fsspec  # imported where needed: local runs never pay for it

    file_system, path = fsspec.core.url_to_fs(url)
    # Remote file systems read a block ahead, 5 MB by default: `scan` wants a fraction of that.
    opened: IO[bytes] = file_system.open(path, "rb", block_size=_BLOCK_BYTES)
    return opened


def _archive(path: str) -> zipfile.ZipFile:
    """The open archive; its directory (54,706 members in the RSNA zip) is read once per process."""
    if "://" in path:
        return _cached_archive(path, 0, 0, os.getpid())
    status = os.stat(path)
    return _cached_archive(path, status.st_size, status.st_mtime_ns, os.getpid())


@lru_cache(maxsize=2)
def _cached_archive(path: str, size: int, mtime_ns: int, pid: int) -> zipfile.ZipFile:
    # size and mtime notice a replaced archive; pid keeps a forked worker off its parent's file position.
    if "://" in path:
        return zipfile.ZipFile(_open_url(path))
    return zipfile.ZipFile(path)
