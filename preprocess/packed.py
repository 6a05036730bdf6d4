"""Lists of a million small values: each is kept as some hundred bytes and made again when asked for.

In:  SourceFile, ScannedFile, Reject: whatever has a Codec.
Out: Packed, a sequence of them. As objects they would take half a kilobyte each and more.

What many values share (folders, labels, views) is kept once, in the codec.
"""

from __future__ import annotations

import marshal
from array import array
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt

from preprocess.errors import Stage
from preprocess.records import Identity, Label, Reject, ScannedFile, SourceFile

T = TypeVar("T")
U = TypeVar("U")
H = TypeVar("H", bound=Hashable)

P = TypeVar("P", bound=tuple[Any, ...])

Plain = tuple[Any, ...]
"""Text, numbers, None and tuples of them: what `marshal` writes. It never leaves the process."""

_MARSHAL_VERSION = 2  # without references, which would tell equal values apart
_MOST_SHARED = 1 << 16


class Codec(Protocol[T]):
    """How one kind of value is written as plain ones."""

    def dump(self, value: T) -> Plain:
        """Take apart."""
        ...

    def load(self, plain: Plain) -> T:
        """Put together again."""
        ...


class PlainCodec(Generic[P]):
    """Plain values as they are."""

    def dump(self, value: P) -> Plain:
        """Nothing to take apart."""
        return value

    def load(self, plain: Plain) -> P:
        """Nothing to put together."""
        return cast(P, plain)


class Packed(Sequence[T]):
    """A list that can grow; its slices and selections share its bytes. Pickled, it becomes a tuple."""

    __slots__ = ("_codec", "_data", "_starts")

    def __init__(self, codec: Codec[T], values: Iterable[T] = ()) -> None:
        self._codec = codec
        self._data = bytearray()
        self._starts = array("Q")
        for value in values:
            self.append(value)

    def append(self, value: T) -> None:
        """Add a value at the end."""
        self._starts.append(len(self._data))
        self._data += marshal.dumps(self._codec.dump(value), _MARSHAL_VERSION)

    @property
    def codec(self) -> Codec[T]:
        """What its values are written with."""
        return self._codec

    def take(self, rows: Iterable[int] | npt.NDArray[np.int64]) -> Packed[T]:
        """The values at these places, in this order."""
        places = rows if isinstance(rows, np.ndarray) else np.fromiter(rows, np.int64)
        starts = array("Q")
        if len(places):
            starts.frombytes(np.frombuffer(self._starts, np.uint64)[places].tobytes())
        return self._sharing(self._codec, starts)

    def seen_as(self, codec: Codec[U]) -> Packed[U]:
        """The same records, read by another codec."""
        return self._sharing(codec, self._starts)

    def _sharing(self, codec: Codec[U], starts: array[int]) -> Packed[U]:
        other = Packed(codec)
        other._data, other._starts = self._data, starts
        return other

    def _load(self, start: int) -> T:
        # The longest record is not known, but marshal stops where its value ends.
        with memoryview(self._data) as data:
            return self._codec.load(marshal.loads(data[start:]))

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[T]:
        return map(self._load, self._starts)

    @overload
    def __getitem__(self, row: int) -> T: ...
    @overload
    def __getitem__(self, row: slice) -> Packed[T]: ...
    def __getitem__(self, row: int | slice) -> T | Packed[T]:
        if isinstance(row, slice):
            return self._sharing(self._codec, self._starts[row])
        return self._load(self._starts[row])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(other) == len(self) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]  # equal by content, and growing

    def __repr__(self) -> str:
        return f"Packed of {len(self)}"

    def __reduce__(self) -> tuple[type, tuple[tuple[T, ...]]]:
        return tuple, (tuple(self),)


class Shared(Generic[H]):
    """Values that occur again and again, by number; at most so many that they stay few."""

    __slots__ = ("_numbers", "values")

    def __init__(self) -> None:
        self.values: list[H] = []
        self._numbers: dict[H, int] = {}

    def number(self, value: H) -> int | None:
        """Its number; None if there are too many different ones already."""
        number = self._numbers.get(value)
        if number is None and len(self.values) < _MOST_SHARED:
            number = self._numbers[value] = len(self.values)
            self.values.append(value)
        return number


class SourceCodec:
    """SourceFile: a path that ends in the source's name is kept as the folder before it."""

    def __init__(self) -> None:
        self._places: Shared[str] = Shared()
        self._who: Shared[tuple[str | None, ...]] = Shared()
        self._labels: Shared[bytes] = Shared()
        self._loaded: dict[int, tuple[Label, ...]] = {}

    def dump(self, value: SourceFile) -> Plain:
        """Take apart."""
        tail = value.path.endswith(value.source)
        place = value.path.removesuffix(value.source)
        number = self._places.number(place)
        return (
            value.source,
            place if number is None else number,
            tail,
            value.member,
            value.explicit,
            self.dump_identity(value.identity),
            self._dump_labels(value.labels),
        )

    def load(self, plain: Plain) -> SourceFile:
        """Put together again."""
        source, place, tail, member, explicit, identity, labels = plain
        if isinstance(place, int):
            place = self._places.values[place]
        path = place + source if tail else place
        return SourceFile(
            source, path, member, explicit, self.load_identity(identity), self._load_labels(labels)
        )

    def dump_identity(self, who: Identity) -> Plain:
        """Take apart: ids, and the number of the rest."""
        rest = (who.laterality, who.view, who.site_id, who.machine_id, who.split)
        number = self._who.number(rest)
        return who.patient_id, who.image_id, rest if number is None else number

    def load_identity(self, plain: Plain) -> Identity:
        """Put together again."""
        patient, image, rest = plain
        return Identity(patient, image, *(self._who.values[rest] if isinstance(rest, int) else rest))

    def _dump_labels(self, labels: tuple[Label, ...]) -> int | bytes:
        # As bytes, because 1, 1.0 and True are equal but not the same label.
        dumped = marshal.dumps(tuple((label.name, label.value) for label in labels), _MARSHAL_VERSION)
        number = self._labels.number(dumped)
        return dumped if number is None else number

    def _load_labels(self, labels: int | bytes) -> tuple[Label, ...]:
        if isinstance(labels, bytes):
            return tuple(Label(name, value) for name, value in marshal.loads(labels))
        made = self._loaded.get(labels)
        if made is None:
            made = self._loaded[labels] = self._load_labels(self._labels.values[labels])
        return made


class ScannedCodec:
    """ScannedFile: an identity that is its source's is not kept twice."""

    def __init__(self, sources: SourceCodec) -> None:
        self.sources = sources

    def dump(self, value: ScannedFile) -> Plain:
        """Take apart."""
        source = self.sources.dump(value.source)
        same = value.identity == value.source.identity
        identity = None if same else self.sources.dump_identity(value.identity)
        return source, identity, value.sop_instance_uid, value.file_bytes, value.modified_ns

    def load(self, plain: Plain) -> ScannedFile:
        """Put together again."""
        source = self.sources.load(plain[0])
        identity = source.identity if plain[1] is None else self.sources.load_identity(plain[1])
        return ScannedFile(source, identity, *plain[2:])


class SourceOfScannedCodec:
    """Only the source of each ScannedFile."""

    def __init__(self, sources: SourceCodec) -> None:
        self._sources = sources

    def dump(self, value: SourceFile) -> Plain:
        """Take apart."""
        return (self._sources.dump(value),)

    def load(self, plain: Plain) -> SourceFile:
        """Put together again."""
        return self._sources.load(plain[0])


class RejectCodec:
    """Reject before anything was parsed: without an instance."""

    def __init__(self, sources: SourceCodec) -> None:
        self._sources = sources

    def dump(self, value: Reject) -> Plain:
        """Take apart."""
        assert value.instance is None
        source = self._sources.dump(value.source)
        return source, value.stage.value, value.code, value.message, value.file_bytes, value.file_sha256

    def load(self, plain: Plain) -> Reject:
        """Put together again."""
        source, stage, code, message, file_bytes, file_sha256 = plain
        return Reject(self._sources.load(source), Stage(stage), code, message, None, file_bytes, file_sha256)


def pack_scanned(files: Iterable[ScannedFile]) -> Packed[ScannedFile]:
    """Scanned files, packed if they are not."""
    return files if isinstance(files, Packed) else Packed(ScannedCodec(SourceCodec()), files)


def only_sources(files: Packed[ScannedFile]) -> Packed[SourceFile]:
    """Their sources, in the same order."""
    assert isinstance(files.codec, ScannedCodec)
    return files.seen_as(SourceOfScannedCodec(files.codec.sources))


def recurring(keys: Iterable[Hashable]) -> list[int]:
    """Places of keys that may occur more than once: all that do, and by chance a few that do not.

    Eight bytes a key; whoever asks compares those few exactly.
    """
    return [int(place) for place in np.flatnonzero(recurs(keys))]


def recurs(keys: Iterable[Hashable]) -> npt.NDArray[np.bool_]:
    """For each key, whether it may occur more than once."""
    hashes = np.fromiter(map(hash, keys), np.int64)
    order = np.argsort(hashes, kind="stable")
    equal = hashes[order[1:]] == hashes[order[:-1]]
    found = np.zeros(len(hashes), bool)
    found[order[1:][equal]] = True
    found[order[:-1][equal]] = True
    return found
