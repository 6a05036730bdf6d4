"""What the expansion of inputs collects: files with the way they were found, and what was left out.

In:  paths, URLs and archive members, one by one, each with a way to read its first bytes.
Out: Findings: one Found per file and way to it, packed: there may be a million.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain

from preprocess.names import MEMBER_SEPARATOR, is_dicom_name
from preprocess.packed import Packed, Plain, Shared, recurring
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
    source: str = ""
    """The name it is given in the end (`_naming`); empty before."""


class FoundCodec:
    """Found: what its path and key share with `relative` is not kept again."""

    def __init__(self) -> None:
        self._leads: Shared[str] = Shared()

    def dump(self, value: Found) -> Plain:
        """Take apart."""
        key = None if value.key == value.path else self._cut(value.key, value.relative)
        tail = value.member is not None and value.relative.endswith(MEMBER_SEPARATOR + value.member)
        return (
            value.relative,
            self._cut(value.path, value.relative),
            key,
            len(value.member or "") if tail else value.member,
            self._cut(value.root, ""),
            value.explicit,
            value.linked,
            value.row,
            True if value.source == value.relative else value.source,
        )

    def load(self, plain: Plain) -> Found:
        """Put together again."""
        relative, path, key, member, root, explicit, linked, row, source = plain
        path = self._joined(path, relative)
        return Found(
            path if key is None else self._joined(key, relative),
            path,
            relative[len(relative) - member :] if isinstance(member, int) else member,
            self._joined(root, relative),
            relative,
            explicit,
            linked,
            row,
            relative if source is True else source,
        )

    def _cut(self, text: str, tail: str) -> Plain:
        lead = text.removesuffix(tail)
        number = self._leads.number(lead)
        return lead if number is None else number, len(lead) < len(text)

    def _joined(self, cut: Plain, tail: str) -> str:
        lead, with_tail = cut
        lead = self._leads.values[lead] if isinstance(lead, int) else lead
        return f"{lead}{tail}" if with_tail else str(lead)


class TextCodec:
    """Text as it is."""

    def dump(self, value: str) -> Plain:
        """Take apart."""
        return (value,)

    def load(self, plain: Plain) -> str:
        """Put together again."""
        return str(plain[0])


@dataclass(slots=True)
class Findings:
    """Everything behind the inputs."""

    looks: Callable[[bytes], bool]
    """The content test: is this the beginning of a DICOM file?"""
    found: Packed[Found] = field(default_factory=lambda: Packed(FoundCodec()))
    ignored: Packed[str] = field(default_factory=lambda: Packed(TextCodec()))
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
        self.ignored.append(found.key)
        self.unopened += found.relative.lower().endswith(ARCHIVE_SUFFIX)

    def count_ignored(self) -> int:
        """How many files were ignored, however often each was met, and not taken on another way."""
        first = len(self.found)
        again = recurring(chain((found.key for found in self.found), self.ignored))
        taken = {self.found[place].key for place in again if place < first}
        twice = [self.ignored[place - first] for place in again if place >= first]
        return len(self.ignored) - len(twice) + len(set(twice) - taken)
