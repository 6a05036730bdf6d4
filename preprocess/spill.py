"""What a run knows of a million images, kept in files instead of memory.

In:  ShardResult values; values with a sort key.
Out: Results, a mapping that holds one shard in memory at a time; Sorted, values in the order of their keys,
     gone through again and again.

The files are temporary, unnamed (a killed run leaves nothing) and in TMPDIR; they take some hundred bytes an
image.
"""

from __future__ import annotations

import heapq
import marshal
import os
import tempfile
import weakref
import zlib
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Generic, Self, TypeVar

from preprocess.atomic import aborting_on_io_error
from preprocess.errors import RunAborted
from preprocess.packed import Codec, Plain
from preprocess.results import ShardResult

T = TypeVar("T")
Keyed = tuple[bytes, Plain]

_WHERE = Path("temporary file in TMPDIR")
_FAST = 1
_RUN = 4096
"""Values that are sorted in memory at once."""
_BLOCK = 32
"""Values of each run that are in memory while runs are merged."""


class Spool:
    """Blocks of bytes in an unnamed temporary file, compressed. Raises RunAborted if the disk fails."""

    def __init__(self) -> None:
        with aborting_on_io_error(_WHERE):
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - open as long as this value
        weakref.finalize(self, self._file.close)
        self._end = 0

    def put(self, block: bytes) -> tuple[int, int]:
        """Keep a block; returns its place."""
        data = zlib.compress(block, _FAST)
        view = memoryview(data)
        with aborting_on_io_error(_WHERE):
            while view:
                view = view[self._file.write(view) :]
        place = self._end, len(data)
        self._end += len(data)
        return place

    def get(self, place: tuple[int, int]) -> bytes:
        """A block again."""
        at, size = place
        with aborting_on_io_error(_WHERE):
            return zlib.decompress(os.pread(self._file.fileno(), size, at))


class Results(Mapping[str, ShardResult]):
    """Results of shards by name; only what is asked for is in memory."""

    def __init__(self, results: Iterable[ShardResult] = ()) -> None:
        self._spool = Spool()
        self._places: dict[str, tuple[int, int]] = {}
        for result in results:
            self.add(result)

    def add(self, result: ShardResult) -> None:
        """Keep a result; one of the same name is replaced."""
        self._places[result.name] = self._spool.put(result.to_json())

    def in_order(self, names: Iterable[str]) -> Results:
        """These results in this order, in the same file. Raises KeyError."""
        other = Results.__new__(Results)
        other._spool = self._spool
        other._places = {name: self._places[name] for name in names}
        return other

    def __getitem__(self, name: str) -> ShardResult:
        return ShardResult.from_json(self._spool.get(self._places[name]))

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class Sorted(Generic[T]):
    """Values in the order of their keys: sorted in runs, merged whenever they are gone through."""

    def __init__(self, codec: Codec[T], items: Iterable[tuple[bytes, T]]) -> None:
        self._codec = codec
        self._spool = Spool()
        self._runs: list[list[tuple[int, int]]] = []
        self._length = 0
        run: list[Keyed] = []
        for key, value in items:
            run.append((key, codec.dump(value)))
            if len(run) == _RUN:
                self._keep(run)
                run = []
        self._keep(run)

    def _keep(self, run: list[Keyed]) -> None:
        run.sort(key=itemgetter(0))
        blocks = (run[at : at + _BLOCK] for at in range(0, len(run), _BLOCK))
        self._runs.append([self._spool.put(marshal.dumps(block)) for block in blocks])
        self._length += len(run)

    def _read(self, run: list[tuple[int, int]]) -> Iterator[Keyed]:
        for place in run:
            yield from marshal.loads(self._spool.get(place))

    def items(self) -> Iterator[tuple[bytes, T]]:
        """Keys and values, in the order of keys."""
        for key, plain in heapq.merge(*map(self._read, self._runs), key=itemgetter(0)):
            yield key, self._codec.load(plain)

    def __iter__(self) -> Iterator[T]:
        return (value for _, value in self.items())

    def __len__(self) -> int:
        return self._length

    def checked(self, message: str) -> Self:
        """Itself. Raises RunAborted with `message` if two values have one key."""
        last = None
        for key, _ in heapq.merge(*map(self._read, self._runs), key=itemgetter(0)):
            if key == last:
                raise RunAborted(message)
            last = key
        return self
