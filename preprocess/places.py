"""Where a dataset lies: a folder of this machine, or a prefix of an object store (any fsspec URL).

In:  a Path or a RemotePath.
Out: its bytes, size and listing. Whatever fails raises OSError; only "it is not there" is an answer, so that
     a disk or store in trouble is never taken for an empty one.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, order=True)
class RemotePath:
    """An object, or a prefix of objects, by URL: the few words of pathlib that this program speaks."""

    url: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", self.url.rstrip("/"))

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """What follows the last slash."""
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> RemotePath:
        """What precedes the last slash."""
        return RemotePath(self.url.rpartition("/")[0])


Place = Path | RemotePath
"""OUT, or something in it."""


def name_below(folder: Place, file: Place) -> str:
    """A file's path relative to a folder above it, `/`-separated."""
    if isinstance(folder, Path) and isinstance(file, Path):
        return file.relative_to(folder).as_posix()
    return str(file).removeprefix(f"{folder}/")


def plain_name(out: Place) -> str:
    """What the dataset is called: the last component of where it lies."""
    return out.resolve().name if isinstance(out, Path) else out.name


def place(text: str) -> Place:
    """The place that a command line names: `file://` and plain paths are folders, other URLs stores."""
    if "://" not in text or text.startswith("file://"):
        return Path(text.removeprefix("file://"))
    return RemotePath(text)


@contextlib.contextmanager
def store_of(path: RemotePath) -> Iterator[tuple[AbstractFileSystem, str]]:
    """The store behind a URL, and the path in it; whatever its client raises becomes an OSError.

    Clients have exception trees of their own (botocore, aiohttp, …), which may quote addresses and keys.
    """
    import fsspec  # imported where needed: local runs never pay for it

    try:
        yield fsspec.core.url_to_fs(path.url, use_listings_cache=False)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - see the docstring
        raise OSError(errno.EIO, f"the store's client raised {type(error).__name__}") from None


def size_of(path: Place) -> int | None:
    """Size of a file in bytes; None if there is none."""
    try:
        if isinstance(path, Path):
            return path.stat().st_size
        with store_of(path) as (store, name):
            return int(store.info(name)["size"])
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_bytes(path: Place) -> bytes:
    """A file's bytes. Raises FileNotFoundError or another OSError."""
    if isinstance(path, Path):
        return path.read_bytes()
    with store_of(path) as (store, name):
        return bytes(store.cat_file(name))


def open_bytes(path: Place) -> BinaryIO:
    """Open a file for reading, seekable. Raises FileNotFoundError or another OSError."""
    if isinstance(path, Path):
        return path.open("rb")
    with store_of(path) as (store, name):
        return cast(BinaryIO, store.open(name, "rb", block_size=_BLOCK_BYTES))


def names_in(folder: Place) -> list[str]:
    """Names of files and folders directly in `folder`; none if it is not there."""
    try:
        if isinstance(folder, Path):
            return sorted(os.listdir(folder))
        with store_of(folder) as (store, name):
            return sorted(entry.rstrip("/").rpartition("/")[2] for entry in store.ls(name, detail=False))
    except FileNotFoundError:
        return []


def files_below(folder: Place) -> list[Place]:
    """All files under `folder`, sorted, as the same kind of place. None if the folder is not there."""
    if isinstance(folder, RemotePath):
        with store_of(folder) as (store, name):
            found = cast(list[str], store.find(name))
            return [RemotePath(folder.url + path[len(name) :]) for path in sorted(found)]
    files: list[str] = []
    for top, _, names in os.walk(folder, onerror=_raise):
        files += [os.path.join(top, name) for name in names]
    return [Path(file) for file in sorted(files)]


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
