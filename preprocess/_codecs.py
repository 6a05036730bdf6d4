"""One function per family of transfer syntaxes: encoded frame → samples, on the CPU.

In:  an Instance whose codestream facts agree with its header, and a wavelet level.
Out: Samples, of the level's exact size. Which library decodes what:
     JPEG 2000              our own, lossless as mammograms have it (jpeg2000/); else, and where that finds
                            anything wrong, OpenJPEG (openjpeg.py); the same pixels at every level
     HTJ2K                  OpenJPEG
     JPEG                   libjpeg-turbo 3 (imagecodecs.jpeg8), 8 and 12 bits
     JPEG Lossless          our own (jpeg_lossless.py), 2 to 16 bits
     JPEG-LS                CharLS (imagecodecs.jpegls)
     RLE, native            NumPy, PackBits of imagecodecs
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from imagecodecs import (
    Jpeg8Error,
    JpeglsError,
    PackbitsError,
    jpeg8_decode,
    jpegls_decode,
    packbits_decode,
)

from preprocess import jpeg2000, jpeg_lossless, openjpeg
from preprocess._canary import with_canary
from preprocess.codestream import check_packets, compression_of, repair
from preprocess.errors import RejectedInput
from preprocess.records import CodestreamFacts, Compression, ImageHeader
from preprocess.stored import Samples, stored_dtype

# Codecs are loaded here, imagecodecs' by their names: a worker imports this before its memory is limited. At
# first use, one may find no room after an image that left none, and would be missing for all that follow.
with contextlib.suppress(ImportError):  # told by whoever needs it, and by doctor
    openjpeg.library()

_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_LOSSLESS_WAVELETS = frozenset(
    ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202")
)
_RLE_SLACK = 1
"""Bytes a segment may expand to beyond its plane: the padding to even length, if taken for a code."""


def decode_frame(
    payload: bytes,
    image: ImageHeader,
    facts: CodestreamFacts | None,
    level: int,
    low: jpeg2000.Low | None = None,
) -> tuple[Samples, jpeg2000.Low | None]:
    """Decode one frame at a wavelet level (0 for everything but JPEG 2000 and HTJ2K).

    Args:
        payload: the encoded frame.
        image: its header.
        facts: what its codestream says of itself, where it has one.
        level: wavelet levels to leave out.
        low: what decoding a coarser level of this frame gave, to go on from; changes no pixel.

    Returns:
        The samples; what to go on from to a finer level, if anything.

    Raises:
        RejectedInput: decode_failed, codestream_truncated, codestream_mismatch, pixel_data_length.
    """
    compression = compression_of(image.transfer_syntax_uid)
    if compression in (Compression.JPEG_2000, Compression.HTJ2K):
        return _wavelets(*_codestream(payload, facts), image, level, low)
    if compression is Compression.NATIVE:
        return _native(payload, image), None
    if compression is Compression.RLE:
        return _rle(payload, image), None
    codestream, facts = _codestream(payload, facts)
    if compression is Compression.JPEG_LS:
        decoded = _imagecodecs(jpegls_decode, codestream)
        return Samples(decoded, facts.precision, False, "charls"), None
    # T.81 knows no sign, and precision is no more than a container: a sign bit is where BitsStored puts it.
    if compression is Compression.JPEG_LOSSLESS:
        decoded = jpeg_lossless.decode(codestream)
        return Samples(decoded, image.bits_allocated, False, "jpeg_lossless"), None
    return Samples(_jpeg(codestream, facts), image.bits_allocated, False, "libjpeg-turbo"), None


def _codestream(payload: bytes, facts: CodestreamFacts | None) -> tuple[bytes, CodestreamFacts]:
    if facts is None:
        raise RejectedInput("codestream_invalid", "the compressed frame was not read")
    return repair(payload, facts), facts


def _wavelets(
    codestream: bytes, facts: CodestreamFacts, image: ImageHeader, level: int, low: jpeg2000.Low | None
) -> tuple[Samples, jpeg2000.Low | None]:
    """JPEG 2000 and HTJ2K: our own decoder where it knows the kind of stream, or else OpenJPEG."""
    if level == 0:
        check_packets(codestream, facts)
    own = jpeg2000.decode_from(low, codestream, facts, level)
    if own is not None:
        return Samples(own[0], facts.precision, facts.signed, "jpeg2000"), own[1]
    whole = facts.lossless and image.transfer_syntax_uid in _LOSSLESS_WAVELETS
    decoded = openjpeg.decode(codestream, level, lossless=whole)
    return Samples(decoded, facts.precision, facts.signed, "openjpeg"), None


def _jpeg(codestream: bytes, facts: CodestreamFacts) -> npt.NDArray[np.integer[Any]]:
    """JPEG, whose entropy-coded data must hold the declared pixels, no more, none beyond the precision."""
    canary = with_canary(codestream)
    decoded = _imagecodecs(jpeg8_decode, canary.data if canary else codestream)
    if canary is not None:
        if not canary.survived(decoded):
            raise RejectedInput("decode_failed", "the entropy-coded data hold more or less than is declared")
        decoded = decoded[: canary.rows]
    if int(decoded.max()) >> facts.precision:
        raise RejectedInput("decode_failed", f"decoded values of more than {facts.precision} bits")
    return decoded


def _imagecodecs(
    decode: Callable[[bytes], npt.NDArray[np.integer[Any]]], codestream: bytes
) -> npt.NDArray[np.integer[Any]]:
    try:
        return decode(codestream)
    except (Jpeg8Error, JpeglsError, ValueError) as error:
        raise RejectedInput("decode_failed", str(error)) from None


def _native(payload: bytes, image: ImageHeader) -> Samples:
    dtype = stored_dtype(image)
    count = image.rows * image.columns
    if len(payload) < count * dtype.itemsize:
        raise RejectedInput(
            "pixel_data_length", f"{len(payload)} bytes of pixels, {count * dtype.itemsize} needed"
        )
    order = ">" if image.transfer_syntax_uid == _BIG_ENDIAN else "<"
    word = np.dtype(f"{order}u{dtype.itemsize}")
    values = np.frombuffer(payload, dtype=word, count=count).reshape(image.rows, image.columns)
    return Samples(values.astype(word.newbyteorder("=")), image.bits_allocated, False, "native")


def _rle(payload: bytes, image: ImageHeader) -> Samples:
    """RLE (PS3.5 Annex G): a header of 16 words, then one PackBits segment per byte, high byte first."""
    planes = stored_dtype(image).itemsize
    if len(payload) < 64:
        raise RejectedInput("codestream_truncated", "the RLE header is incomplete")
    segments, *offsets = struct.unpack_from("<16I", payload)
    if segments != planes:
        raise RejectedInput("codestream_mismatch", f"{segments} RLE segments, {planes} expected")
    values = np.zeros((image.rows, image.columns), dtype=np.uint16 if planes == 2 else np.uint8)
    ends = [*offsets[1:planes], len(payload)]
    for start, end in zip(offsets[:planes], ends, strict=True):
        if not 64 <= start <= end <= len(payload):
            raise RejectedInput("codestream_invalid", "an RLE segment lies outside the frame")
        plane = _packbits(payload[start:end], values.size).reshape(values.shape)
        values = plane if planes == 1 else (values << 8) | plane
    return Samples(values, image.bits_allocated, False, "rle")


def _packbits(segment: bytes, size: int) -> npt.NDArray[np.uint8]:
    try:
        plane = packbits_decode(segment, out=size + _RLE_SLACK + 1)
    except (PackbitsError, ValueError) as error:
        raise RejectedInput("decode_failed", str(error)) from None
    if len(plane) < size:
        raise RejectedInput("codestream_truncated", f"an RLE segment of {len(plane)} bytes, {size} needed")
    if len(plane) > size + _RLE_SLACK:
        raise RejectedInput("decode_failed", f"an RLE segment of more than the {size} bytes needed")
    return np.frombuffer(plane, dtype=np.uint8, count=size)
