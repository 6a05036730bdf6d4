"""Which row of a table a file's name means, where the table's column is a path.

In:  cells of a path column, with their rows.
Out: the row whose path ends as the file's does, folders included.

`1-1.dcm` lies in many folders: its stem alone says nothing where several inputs have it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Self

from preprocess.names import stem
from preprocess.records import SourceFile


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
        return cls(without_suffix(file.member or file.path), without_suffix(file.source), repeated)

    @property
    def stem(self) -> str:
        """The last component."""
        return self.path.rpartition("/")[2]


class PathRows:
    """Rows by the paths that they are said of, if those have folders."""

    def __init__(self) -> None:
        self._by_tail: dict[str, list[tuple[str, int]]] = defaultdict(list)

    def add(self, path: str, row: int) -> None:
        """Note a row; `path` as `without_suffix` gives it, each once."""
        if "/" in path:
            self._by_tail[_tail(path)].append((path, row))

    def find(self, name: FileName) -> int | None:
        """The row whose path is the end of the file's, or ends with its name below the root: the longest."""
        there = self._by_tail.get(_tail(name.path), ())
        fitting = [(len(path), row) for path, row in there if _fits(path, name)]
        return max(fitting)[1] if fitting else None


def without_suffix(path: str) -> str:
    """With `/` between folders, without `./` in front and without .dcm or .dicom."""
    whole = path.replace("\\", "/").removeprefix("./")
    folder, slash, _ = whole.rpartition("/")
    return folder + slash + stem(whole)


def _fits(path: str, name: FileName) -> bool:
    ends = f"/{name.path}".endswith(f"/{path}")
    return ends or ("/" in name.source and f"/{path}".endswith(f"/{name.source}"))


def _tail(path: str) -> str:
    return "/".join(path.split("/")[-2:])
