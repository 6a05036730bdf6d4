"""Files that are either whole or not there: temporary name, fsync, rename, directory fsync.

In:  bytes for a path under OUT.
Out: the file under its final name, or nothing. Every write of shards, journals and manifests goes through
     here, so that tests can make the disk fail in one place. I/O errors become RunAborted.

In an object store a PUT is atomic by itself: the bytes gather in an unnamed local file (in TMPDIR) first.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import secrets
import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from preprocess.errors import RunAborted
from preprocess.failures import describe
from preprocess.places import Place, RemotePath, files_below, store_of

TEMPORARY_SUFFIX = ".tmp"
"""Temporary files end so; whatever does is nobody's data."""
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]+\.tmp", re.DOTALL)


@contextlib.contextmanager
def aborting_on_io_error(path: Place) -> Iterator[None]:
    """Turn an OSError on `path` into RunAborted, which names the errno and the file, nothing else."""
    try:
        yield
    except OSError as error:
        raise RunAborted(f"{path.name}: {describe(error)}") from error


def is_temporary(name: str) -> bool:
    """True for names of files that a killed process left before their rename; not for others' `.tmp`."""
    return _TEMPORARY.fullmatch(name) is not None


class NewFile(io.RawIOBase):
    """A file being written; counts its bytes and hashes them on the way.

    `commit()` makes it durable under its final name, `discard()` removes it. Until one of them is called the
    final name is nobody's data. Raises RunAborted on I/O errors.
    """

    def __init__(self, path: Place, descriptor: int) -> None:
        super().__init__()
        self.size = 0
        self._place = path
        self._hash = hashlib.sha256()
        self._descriptor = descriptor
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
        view = memoryview(data).cast("B")  # type: ignore[arg-type]  # RawIOBase says object
        if not self._pending:
            return len(view)
        with aborting_on_io_error(self._place):
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

    @abstractmethod
    def park(self) -> None:
        """Put the finished file in safety and close it; it is not committed yet."""

    @abstractmethod
    def commit(self) -> None:
        """Make the file durable under its final name."""

    @abstractmethod
    def discard(self) -> None:
        """Remove the file if it was not committed. Never raises for a file that is gone."""

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)  # closed even if this fails


class TemporaryFile(NewFile):
    """A new file in a folder: beside its final place, under a temporary name that a killed process leaves."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
        with aborting_on_io_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        super().__init__(path, descriptor)

    def park(self) -> None:
        """Flush the finished file to disk and close it, still under its temporary name."""
        with aborting_on_io_error(self.path):
            if self._descriptor >= 0:
                _fsync(self._descriptor)
                self._close()

    def commit(self) -> None:
        """Make the file durable under its final name. The directory is fsynced too."""
        self.park()
        with aborting_on_io_error(self.path):
            _rename(self._temporary, self.path)
            self._pending = False
            sync_directory(self.path.parent)

    def discard(self) -> None:
        """Remove the temporary file if it was not committed. Never raises for a file that is gone."""
        with contextlib.suppress(OSError):
            self._close()
        if self._pending:
            self._pending = False
            with contextlib.suppress(OSError):
                self._temporary.unlink()


class Upload(NewFile):
    """A new object: it becomes visible whole, by one PUT, when it is parked or committed.

    The local file that gathers its bytes has no name, so nothing is left of it whatever happens.
    """

    def __init__(self, path: RemotePath) -> None:
        self.path = path
        self._sent = False
        with aborting_on_io_error(path), tempfile.TemporaryFile(buffering=0) as spool:
            descriptor = os.dup(spool.fileno())
        super().__init__(path, descriptor)

    def park(self) -> None:
        """Send the object. Without a journal or manifest that names it, it is nobody's data."""
        if not self._sent:
            with aborting_on_io_error(self.path), store_of(self.path) as (store, name):
                store.put_file(f"/proc/self/fd/{self._descriptor}", name)
            self._sent = True
            with contextlib.suppress(OSError):
                self._close()

    def commit(self) -> None:
        """Send the object unless it was parked."""
        self.park()
        self._pending = False

    def discard(self) -> None:
        """Remove the object if it was parked but not committed."""
        with contextlib.suppress(OSError):
            self._close()
        if self._pending and self._sent:
            with contextlib.suppress(RunAborted):
                remove_file(self.path)
        self._pending = False


def new_file(path: Place) -> NewFile:
    """Begin a file at its place. Raises RunAborted."""
    return TemporaryFile(path) if isinstance(path, Path) else Upload(path)


def write_atomically(path: Place, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file, the new one, never a part."""
    with new_file(path) as file:
        file.write(data)
        file.commit()


def remove_file(path: Place) -> None:
    """Remove `path` durably; a file that is already gone is fine."""
    with aborting_on_io_error(path), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if isinstance(path, Path):
            path.unlink()
            sync_directory(path.parent)
        else:
            with store_of(path) as (store, name):
                store.rm_file(name)


def remove_folder(folder: Place) -> None:
    """Remove a folder as far as possible: for what does no harm if it stays."""
    if isinstance(folder, Path):
        with contextlib.suppress(OSError):  # closing can fail beyond what rmtree ignores
            shutil.rmtree(folder, ignore_errors=True)
        return
    with contextlib.suppress(OSError, RunAborted):
        for path in files_below(folder):
            remove_file(path)


def clean_leftovers(out: Place) -> None:
    """Remove temporary files that killed workers left under `out`. Only while nobody writes there."""
    with aborting_on_io_error(out):
        leftovers = [path for path in files_below(out) if is_temporary(path.name)]
    for path in leftovers:
        remove_file(path)


def sync_directory(directory: Place) -> None:
    """Flush a directory's entries to disk, so that a rename in it survives power loss."""
    if not isinstance(directory, Path):
        return  # a store that has taken an object has it
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
