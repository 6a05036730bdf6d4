"""Files that are either whole or not there: temporary name, fsync, rename, directory fsync.

In:  bytes for a path under OUT.
Out: the file under its final name, or nothing. Every write of shards, journals and manifests goes through
     here, so that tests can make the disk fail in one place. I/O errors become RunAborted.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from preprocess.errors import RunAborted

TEMPORARY_SUFFIX = ".tmp"
"""Temporary files end so; whatever does is nobody's data."""


@contextlib.contextmanager
def aborting_on_io_error(path: Path) -> Iterator[None]:
    """Turn an OSError on `path` into RunAborted, which names the errno and the file, nothing else."""
    try:
        yield
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "unknown")
        raise RunAborted(f"{name} on {path.name}: {os.strerror(error.errno or 0)}") from error


def is_temporary(name: str) -> bool:
    """True for names of files that a killed process left before their rename."""
    return name.endswith(TEMPORARY_SUFFIX)


class TemporaryFile(io.RawIOBase):
    """A file being written beside its final place; counts its bytes and hashes them on the way.

    `commit()` makes it durable under its final name, `discard()` removes it. Until one of them is called the
    final name is untouched. Raises RunAborted on I/O errors. A killed process leaves the temporary file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.size = 0
        self._hash = hashlib.sha256()
        self._temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
        with aborting_on_io_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self._pending = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def writable(self) -> bool:
        """Always true: pyarrow asks."""
        return True

    def write(self, data: object) -> int:
        """Write all of `data` (any buffer); returns its length. After `discard` it goes nowhere."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        if not self._pending:
            return len(view)
        with aborting_on_io_error(self.path):
            _write_all(self._descriptor, view)
        self._hash.update(view)
        self.size += len(view)
        return len(view)

    def tell(self) -> int:
        """Bytes written so far."""
        return self.size

    def sha256(self) -> str:
        """Hex sha256 of everything written so far."""
        return self._hash.hexdigest()

    def close(self) -> None:
        """Nothing: pyarrow closes its sinks before we decide; only commit and discard end the file."""

    def park(self) -> None:
        """Flush the finished file to disk and close it, still under its temporary name."""
        with aborting_on_io_error(self.path):
            if self._descriptor >= 0:
                _fsync(self._descriptor)
                os.close(self._descriptor)
                self._descriptor = -1

    def commit(self) -> None:
        """Make the file durable under its final name. The directory is fsynced too."""
        self.park()
        with aborting_on_io_error(self.path):
            _rename(self._temporary, self.path)
            self._pending = False
            sync_directory(self.path.parent)

    def discard(self) -> None:
        """Remove the temporary file if it was not committed. Never raises for a file that is gone."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1
        if self._pending:
            self._pending = False
            with contextlib.suppress(OSError):
                self._temporary.unlink()


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file, the new one, never a part."""
    with TemporaryFile(path) as file:
        file.write(data)
        file.commit()


def remove_file(path: Path) -> None:
    """Remove `path` durably; a file that is already gone is fine."""
    with aborting_on_io_error(path):
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            sync_directory(path.parent)


def clean_leftovers(out: Path) -> None:
    """Remove temporary files that killed workers left under `out`. Only while nobody writes there."""
    with aborting_on_io_error(out):
        leftovers = [path for path in out.rglob(f"*{TEMPORARY_SUFFIX}") if path.is_file()]
    for path in leftovers:
        remove_file(path)


def sync_directory(directory: Path) -> None:
    """Flush a directory's entries to disk, so that a rename in it survives power loss."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _fsync(descriptor)
    finally:
        os.close(descriptor)


# The three calls that a full or broken disk fails; tests replace them one at a time.


def _write_all(descriptor: int, view: memoryview) -> None:
    while view:
        view = view[os.write(descriptor, view) :]


def _fsync(descriptor: int) -> None:
    os.fsync(descriptor)


def _rename(old: Path, new: Path) -> None:
    os.replace(old, new)
