"""What the expansion of inputs collects: files with the way they were found, and what was left out.

In:  paths, URLs and archive members, one by one, each with a way to read its first bytes.
Out: Findings: one Found per file and way to it.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from preprocess.names import is_dicom_name
from preprocess.tables import Table

HEAD_BYTES = 1024
"""How much of a file is read to see whether its content is DICOM."""

ARCHIVE_SUFFIX = ".zip"
_ZIP_MAGIC = b"PK\x03\x04"

UNREADABLE = (
    OSError,
    RuntimeError,
    NotImplementedError,
    EOFError,
    KeyError,
    ValueError,
    zlib.error,
    zipfile.BadZipFile,
)
"""What files, zip members (encrypted, damaged, packed by an unknown method) and remote stores raise."""


def real_path(path: str) -> str:
    """The path with links resolved and no `/` at its end, so that the root of all is empty."""
    return os.path.realpath(path).rstrip("/")


@dataclass(slots=True)
class Found:
    """One file, and one way to it."""

    key: str
    """Where it really is (links to folders resolved): equal for every way to the same file."""
    path: str
    """What opens it: absolute path or URL."""
    member: str | None
    root: str
    """Real folder, or URL of one, that `relative` starts from; without `/` at its end."""
    relative: str
    """Path below `root` as found, raw; an archive's members after `::`."""
    explicit: bool = False
    linked: bool = False
    """Reached through a link to a folder."""
    row: int | None = None
    """Row in the lists, counted over all of them."""


@dataclass(slots=True)
class Findings:
    """Everything behind the inputs."""

    looks: Callable[[bytes], bool]
    """The content test: is this the beginning of a DICOM file?"""
    found: list[Found] = field(default_factory=list)
    ignored: set[str] = field(default_factory=set)
    """Keys of files in walks that are DICOM neither by name nor by content."""
    root_names: dict[str, str] = field(default_factory=dict)
    """Root → its name as the user wrote it (the smallest, if there are several)."""
    lists: list[Table] = field(default_factory=list)
    unopened: int = 0
    """Zip archives met in folders: not opened."""

    def add_root(self, root: str, name: str) -> str:
        """Note a root and what it is called."""
        self.root_names[root] = min(name, self.root_names.get(root, name))
        return root

    def name(self, found: Found) -> None:
        """Take a file that the user named: whatever it holds, it gets a row."""
        found.explicit = True
        self.found.append(found)

    def meet(self, found: Found, head: Callable[[], bytes]) -> None:
        """Take a file met in a walk if its name or content is DICOM, or if it cannot be looked into."""
        if is_dicom_name(found.relative):
            self.name(found)
            return
        try:
            first = head()
            # An archive of stored, not compressed, files shows the beginning of one of them.
            taken = not first.startswith(_ZIP_MAGIC) and self.looks(first)
        except UNREADABLE:
            taken = True
        if taken:
            self.found.append(found)
            return
        self.ignored.add(found.key)
        self.unopened += found.relative.lower().endswith(ARCHIVE_SUFFIX)
