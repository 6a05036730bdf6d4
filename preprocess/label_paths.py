"""Which row of a table a file's name means, where the table's column is a path.

In:  cells of a path column, with their rows.
Out: the row whose path ends as the file's does, folders included.

`1-1.dcm` lies in many folders: its stem alone says nothing where several inputs have it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from preprocess.names import MEMBER_SEPARATOR, stem
from preprocess.records import SourceFile

_MOST_ALIKE = 256
"""Rows whose last two components are the same that are looked through for a longer end."""


@dataclass(frozen=True, slots=True)
class FileName:
    """What a file is called, with `/`, without .dcm."""

    path: str
    """Where it lies."""
    source: str = ""
    """Below its input's root."""
    repeated: bool = False
    """Whether several inputs have this stem."""

    @classmethod
    def of(cls, file: SourceFile, *, repeated: bool) -> Self:
        """The name of an input; inside an archive, that of its member."""
        below = file.source.rpartition(MEMBER_SEPARATOR)[2]
        return cls(without_suffix(file.member or file.path), without_suffix(below), repeated)

    @property
    def stem(self) -> str:
        """The last component."""
        return self.path.rpartition("/")[2]


class PathRows:
    """Rows by the paths that they are said of, if those have folders."""

    def __init__(self) -> None:
        self._by_path: dict[str, int] = {}
        self._by_tail: dict[str, list[str]] = defaultdict(list)

    def add(self, path: str, row: int) -> None:
        """Note a row; `path` as `without_suffix` gives it, each once."""
        if "/" in path:
            self._by_path[path] = row
            self._by_tail[_tail(path)].append(path)

    def find(self, name: FileName) -> int | None:
        """The row whose path is the end of the file's, the longest; else the one whose path ends as its name.

        Two paths that end with the name below the root may be two files: then there is none.
        """
        for start in _starts(name.path):
            row = self._by_path.get(name.path[start:])
            if row is not None:
                return row
        there = self._by_tail.get(_tail(name.path), ()) if "/" in name.source else ()
        if len(there) > _MOST_ALIKE:
            return None
        ending = [path for path in there if f"/{path}".endswith(f"/{name.source}")]
        return self._by_path[ending[0]] if len(ending) == 1 else None


def _starts(path: str) -> Iterator[int]:
    """Where its ends of two components and more begin, the longest first."""
    start, last = 0, path.rfind("/")
    while start <= last:
        yield start
        start = path.index("/", start) + 1


def without_suffix(path: str) -> str:
    """With `/` between folders, without `./` in front and without .dcm or .dicom."""
    whole = path.replace("\\", "/").removeprefix("./")
    folder, slash, _ = whole.rpartition("/")
    return folder + slash + stem(whole)


def _tail(path: str) -> str:
    return "/".join(path.split("/")[-2:])
