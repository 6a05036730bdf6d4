"""One pinned PNG encoder: the same bytes for the same pixels, everywhere.

In:  2-D uint8 or uint16 pixels.
Out: grayscale PNG of 8 or 16 bits: IHDR, one IDAT, IEND; filter Up on every row; libdeflate level 1 out of
     the locked imagecodecs wheel. And back, for exactly such files, with every checksum verified.

System zlibs give different bytes, so none is used. Measured on mammograms of 1024x512, 16 bits: filters Up
and Sub save 7 % over none, Paeth saves no more at ten times the cost; Up undoes itself with one running sum.
libdeflate's level 1 takes 10 ms, zlib's level 1 25 ms for as many bytes, libdeflate's level 9 60 ms for 1 %
fewer.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from imagecodecs import DeflateError, deflate_decode, deflate_encode

from preprocess.errors import DatasetDamaged

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LEVEL = 1
_UP = 2
_BLOCK = 32
_HEADER = struct.Struct(">IIBBBBB")


def encode_png(pixels: npt.NDArray[Any]) -> bytes:
    """Encode 2-D uint8 or uint16 pixels as grayscale PNG (W3C PNG, colour type 0).

    Raises:
        ValueError: another shape or dtype.
    """
    if pixels.ndim != 2 or not pixels.size or pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"PNG takes 2-D uint8 or uint16 pixels, not {pixels.ndim}-D {pixels.dtype}")
    height, width = pixels.shape
    header = _HEADER.pack(width, height, pixels.dtype.itemsize * 8, 0, 0, 0, 0)
    data = bytes(deflate_encode(_filter_up(pixels), level=_LEVEL))
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def decode_png(data: bytes) -> npt.NDArray[Any]:
    """Decode what encode_png wrote, checking every CRC and the size; uint8 or uint16 of (height, width).

    Raises:
        DatasetDamaged: anything is not as encode_png writes it.
    """
    chunks = _chunks(data)
    if [kind for kind, _ in chunks] != [b"IHDR", b"IDAT", b"IEND"] or len(chunks[0][1]) != _HEADER.size:
        raise DatasetDamaged("not a PNG of this program: unexpected chunks")
    width, height, bits, *rest = _HEADER.unpack(chunks[0][1])
    if bits not in (8, 16) or any(rest) or not width or not height:
        raise DatasetDamaged("not a PNG of this program: unexpected header")
    row_bytes = width * bits // 8
    expected = height * (row_bytes + 1)
    if expected > 1100 * len(data) + 4096:  # deflate cannot expand further: refuse before allocating
        raise DatasetDamaged("PNG header claims more pixels than its data can hold")
    try:
        raw = deflate_decode(chunks[1][1], out=expected)
    except DeflateError:
        raise DatasetDamaged("PNG data do not inflate") from None
    if len(raw) != expected:
        raise DatasetDamaged("PNG data do not fill the picture")
    rows = np.frombuffer(raw, np.uint8).reshape(height, row_bytes + 1)
    if (rows[:, 0] != _UP).any():
        raise DatasetDamaged("not a PNG of this program: unexpected filter")
    samples = _undo_up(rows[:, 1:])
    return samples if bits == 8 else samples.view(">u2").astype(np.uint16)


def _filter_up(pixels: npt.NDArray[Any]) -> bytes:
    """Rows as filter type byte, then big-endian samples less the row above, modulo 256."""
    height, width = pixels.shape
    samples = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder(">")).view(np.uint8)
    samples = samples.reshape(height, width * pixels.dtype.itemsize)
    out = np.empty((height, samples.shape[1] + 1), np.uint8)
    out[:, 0] = _UP
    out[0, 1:] = samples[0]
    np.subtract(samples[1:], samples[:-1], out=out[1:, 1:])
    return out.tobytes()


def _undo_up(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Running sums down the columns, modulo 256: within all blocks of rows at once, then between blocks.

    NumPy's own accumulate goes through memory column by column: measured at 1024x512x16, 6 ms instead of 1.
    """
    sums = np.array(rows, order="C")
    whole = len(sums) - len(sums) % _BLOCK
    blocks = sums[:whole].reshape(-1, _BLOCK, sums.shape[1])
    for number in range(1, _BLOCK):
        blocks[:, number] += blocks[:, number - 1]
    for number in range(1, len(blocks)):
        blocks[number] += blocks[number - 1, -1]
    for number in range(max(whole, 1), len(sums)):
        sums[number] += sums[number - 1]
    return sums


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    if data[:8] != _SIGNATURE:
        raise DatasetDamaged("not a PNG")
    chunks, at = [], 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        body, end = data[at + 4 : at + 8 + size], at + 12 + size
        if (
            len(body) != size + 4
            or len(data) < end
            or zlib.crc32(body) != int.from_bytes(data[end - 4 : end])
        ):
            raise DatasetDamaged("a PNG chunk fails its CRC")
        chunks.append((body[:4], body[4:]))
        at = end
    return chunks
