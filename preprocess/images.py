"""A prepared image as it lies in a file: encoded bytes, and the values beside them.

In:  Prepared pixels and their InstanceRow.
Out: encoded bytes and back; the names and order of the values in shards; a picture's path; its hash.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.config import Encoding
from preprocess.errors import DatasetDamaged
from preprocess.png import decode_png, encode_png
from preprocess.records import LabelValue
from preprocess.schema import COLUMN_NAMES, InstanceRow

# Shards hold prepared images only, so no status and rejects. The decoder may differ between devices whose
# pixels are the same. The place is said by the path: readers of `fold=K` folders add that column themselves.
_OUTCOME = {"status", "reject_stage", "reject_code", "reject_message", "duplicate_of", "decoder"}
_PLACE = {"fold", "shard", "shard_row"}
_OF_IMAGE = {"height", "width", "bits"}  # lie first, beside the image: `image/height`, …
_NOT_IN_SHARDS = _OUTCOME | _PLACE | _OF_IMAGE

SHARD_COLUMNS: tuple[str, ...] = tuple(name for name in COLUMN_NAMES if name not in _NOT_IN_SHARDS)
"""Columns of an InstanceRow that shards carry, besides height, width, bits and labels."""

_LONGEST = 100
_DEVICE_NAME = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)


def shard_values(row: InstanceRow) -> dict[str, LabelValue]:
    """The row's values that shards carry, labels last; None included."""
    values: dict[str, LabelValue] = {name: getattr(row, name) for name in SHARD_COLUMNS}
    return values | {label.name: label.value for label in row.labels}


def encode(pixels: npt.NDArray[Any], encoding: Encoding) -> bytes:
    """Encode 2-D uint8 or uint16 pixels: PNG, or raw little-endian rows."""
    return encode_png(pixels) if encoding is Encoding.PNG else little_endian(pixels)


def decode(data: bytes, encoding: str, height: int, width: int, bits: int) -> npt.NDArray[Any]:
    """Decode what `encode` made. Raises DatasetDamaged if it is not a picture of that size and depth."""
    if encoding == Encoding.PNG:
        pixels = decode_png(data)
    elif encoding == Encoding.RAW and bits in (8, 16) and len(data) == height * width * bits // 8:
        pixels = np.frombuffer(data, f"<u{bits // 8}").reshape(height, width).astype(f"u{bits // 8}")
    else:
        raise DatasetDamaged("an image's bytes do not fit its format, size and bits")
    if pixels.shape != (height, width) or pixels.dtype.itemsize * 8 != bits:
        raise DatasetDamaged("an image has another size or depth than its record says")
    return pixels


def little_endian(pixels: npt.NDArray[Any]) -> bytes:
    """C-order little-endian bytes: what `pixels_sha256` is taken over."""
    return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<")).tobytes()


def pixels_sha256(pixels: npt.NDArray[Any]) -> str:
    """Hex sha256 of the pixels' little-endian C-order bytes."""
    return hashlib.sha256(little_endian(pixels)).hexdigest()


def picture_path(row: InstanceRow) -> str:
    """`<patient_id>/<image_id>.png` with safe components: what lies under images/."""
    return f"{safe_component(row.patient_id or '')}/{safe_component(row.image_id or '')}.png"


def safe_component(name: str) -> str:
    """One path component for any text: injective, never empty, hidden, special, or longer than 100 bytes.

    Letters, digits, `-`, `_` and inner dots stay; all else becomes %XX of its UTF-8 bytes. What is still too
    long is cut and gets `%h` and 128 bits of its sha256, which no escaping yields.
    """
    data = name.encode("utf-8", "surrogatepass")
    escaped = "".join(chr(b) if _is_plain(b) else f"%{b:02X}" for b in data)
    if escaped.startswith(".") or _DEVICE_NAME.match(escaped):
        escaped = f"%{data[0]:02X}{escaped[1:]}"
    if escaped.endswith("."):
        escaped = f"{escaped[:-1]}%2E"
    if len(escaped) > _LONGEST:
        escaped = f"{escaped[:64]}%h{hashlib.sha256(data).hexdigest()[:32]}"
    return escaped or "%empty"


def _is_plain(byte: int) -> bool:
    character = chr(byte)
    return byte < 128 and (character.isalnum() or character in "-_.")
