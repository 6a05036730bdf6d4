"""TFRecord files of tf.train.Example, without TensorFlow.

In:  names with values (int, bool, float, str, bytes; None is left out).
Out: records with masked CRC-32C of length and data, and back with every CRC verified.

The three messages are small enough to write by hand in protobuf's wire format, which makes their bytes ours:
    Example { Features features = 1; }   Features { map<string, Feature> feature = 1; }
    Feature { oneof { BytesList bytes_list = 1; FloatList float_list = 2; Int64List int64_list = 3; } }
Keys are in the order of their UTF-8 bytes. Floats are 32-bit, as tf.train.FloatList defines them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import google_crc32c

from preprocess.errors import DatasetDamaged
from preprocess.places import Place, open_bytes, size_of

FeatureValue = int | float | str | bytes | None
FeatureLists = dict[str, list[bytes] | list[float] | list[int]]
Bytes = bytes | memoryview
Spans = list[tuple[int, int]]
"""(offset, size) of the data of each record of a file."""

_MASK_DELTA = 0xA282EAD8
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5


def encode_example(features: Mapping[str, FeatureValue]) -> bytes:
    """Serialise one tf.train.Example: bool and int as int64, str as UTF-8 bytes, None left out."""
    entries = []
    for name in sorted(features, key=lambda text: text.encode()):
        value = features[name]
        if value is not None:
            entries.append(field(1, field(1, name.encode()) + field(2, _feature(value))))
    return field(1, b"".join(entries))


def frame_record(data: bytes) -> bytes:
    """Wrap serialised bytes as one TFRecord: length, its masked CRC, data, its masked CRC."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _crc(length), data, _crc(data)))


def read_records(path: Place) -> Iterator[bytes]:
    """Yield each record's bytes, one at a time.

    Raises:
        DatasetDamaged: a CRC does not match, or the file ends inside a record.
    """
    with open_bytes(path) as file:
        number, left = 0, size_of(path) or 0
        while head := file.read(12):
            if len(head) != 12 or _crc(head[:8]) != head[8:]:
                raise DatasetDamaged(f"{path.name}: record {number}: the length fails its CRC")
            size = int.from_bytes(head[:8], "little")
            left -= 16 + size
            if left < 0:
                raise DatasetDamaged(f"{path.name}: record {number}: the file ends inside it")
            data, crc = file.read(size), file.read(4)
            if _crc(data) != crc:
                raise DatasetDamaged(f"{path.name}: record {number}: the data fail their CRC")
            yield data
            number += 1


def record_spans(path: Path) -> Spans:
    """Where each record's data lie, found by reading the lengths only, whose CRCs are verified.

    Raises:
        DatasetDamaged: a length fails its CRC, or the file ends inside a record.
        OSError: the file cannot be read.
    """
    spans: Spans = []
    with path.open("rb", buffering=0) as file:
        at, end = 0, os.fstat(file.fileno()).st_size
        while at < end:
            head = os.pread(file.fileno(), 12, at)
            if len(head) != 12 or _crc(head[:8]) != head[8:]:
                raise DatasetDamaged(f"{path.name}: record {len(spans)}: the length fails its CRC")
            size = int.from_bytes(head[:8], "little")
            if at + 16 + size > end:
                raise DatasetDamaged(f"{path.name}: record {len(spans)}: the file ends inside it")
            spans.append((at + 12, size))
            at += 16 + size
    return spans


def read_span(path: Path, offset: int, size: int) -> bytes:
    """One record's data, where `record_spans` found them.

    Raises:
        DatasetDamaged: the data fail their CRC, or are not all there.
        OSError: the file cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        framed = os.pread(file.fileno(), size + 4, offset)
    data = framed[:size]
    if len(framed) != size + 4 or _crc(data) != framed[size:]:
        raise DatasetDamaged(f"{path.name}: the data at byte {offset} fail their CRC")
    return data


def decode_example(data: bytes) -> FeatureLists:
    """Parse a serialised tf.train.Example into name → list of bytes, floats or ints.

    Raises:
        DatasetDamaged: it is not one.
    """
    try:
        view = memoryview(data)  # slices of it copy nothing
        return dict(_entry(entry) for features in _fields(view, 1) for entry in _fields(features, 1))
    except (IndexError, ValueError, struct.error):
        raise DatasetDamaged("not a serialised tf.train.Example") from None


def _crc(data: bytes) -> bytes:
    crc = int(google_crc32c.value(data))
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF)


def varint(number: int) -> bytes:
    """Protobuf's base-128 number."""
    number &= 0xFFFFFFFFFFFFFFFF  # negative int64 travel as ten bytes of two's complement
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, data: bytes) -> bytes:
    """A length-delimited field: message, string or bytes."""
    return varint(number << 3 | _DELIMITED) + varint(len(data)) + data


def _feature(value: int | float | str | bytes) -> bytes:
    if isinstance(value, float):
        return field(_FLOAT_LIST, field(1, struct.pack("<f", value)))
    if isinstance(value, int):
        return field(_INT64_LIST, field(1, varint(value)))
    return field(_BYTES_LIST, field(1, value.encode() if isinstance(value, str) else value))


def _read_varint(data: Bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7


def _walk(data: Bytes) -> Iterator[tuple[int, int, Bytes]]:
    """Fields of a message: (number, wire type, bytes of the value)."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        wire = tag & 7
        if wire == _DELIMITED:
            size, at = _read_varint(data, at)
        elif wire == _VARINT:
            size = _read_varint(data, at)[1] - at
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError("unknown wire type")
        if at + size > len(data):
            raise ValueError("a field ends outside its message")
        yield tag >> 3, wire, data[at : at + size]
        at += size


def _fields(data: Bytes, number: int) -> Iterator[Bytes]:
    return (value for found, _, value in _walk(data) if found == number)


def _entry(entry: Bytes) -> tuple[str, list[bytes] | list[float] | list[int]]:
    (key,), (feature,) = _fields(entry, 1), _fields(entry, 2)
    name = bytes(key).decode()
    ((kind, _, values),) = _walk(feature)
    if kind == _BYTES_LIST:
        return name, [bytes(value) for value in _fields(values, 1)]
    packed = b"".join(_fields(values, 1))
    if kind == _FLOAT_LIST:
        return name, [number for (number,) in struct.iter_unpack("<f", packed)]
    return name, _signed(packed)


def _signed(packed: bytes) -> list[int]:
    numbers, at = [], 0
    while at < len(packed):
        number, at = _read_varint(packed, at)
        numbers.append(number - (1 << 64) if number >> 63 else number)
    return numbers
