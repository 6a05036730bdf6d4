"""What a compressed frame says of itself, read without decoding; its repair; the wavelet levels it allows.

In:  a frame's encoded bytes and the transfer syntax.
Out: CodestreamFacts, a check of them against the header before anything is allocated, repaired bytes.
"""

from __future__ import annotations

from preprocess._j2k import EOC_BYTES, read_j2k
from preprocess._jpeg import read_jpeg
from preprocess._markers import impossible
from preprocess.errors import RejectedInput
from preprocess.records import CodestreamFacts, Compression, ImageHeader

_COMPRESSIONS = {
    "1.2.840.10008.1.2": Compression.NATIVE,
    "1.2.840.10008.1.2.1": Compression.NATIVE,
    "1.2.840.10008.1.2.1.99": Compression.NATIVE,
    "1.2.840.10008.1.2.2": Compression.NATIVE,
    "1.2.840.10008.1.2.5": Compression.RLE,
    "1.2.840.10008.1.2.4.50": Compression.JPEG,
    "1.2.840.10008.1.2.4.51": Compression.JPEG,
    "1.2.840.10008.1.2.4.57": Compression.JPEG_LOSSLESS,
    "1.2.840.10008.1.2.4.70": Compression.JPEG_LOSSLESS,
    "1.2.840.10008.1.2.4.80": Compression.JPEG_LS,
    "1.2.840.10008.1.2.4.81": Compression.JPEG_LS,
    "1.2.840.10008.1.2.4.90": Compression.JPEG_2000,
    "1.2.840.10008.1.2.4.91": Compression.JPEG_2000,
    "1.2.840.10008.1.2.4.201": Compression.HTJ2K,
    "1.2.840.10008.1.2.4.202": Compression.HTJ2K,
    "1.2.840.10008.1.2.4.203": Compression.HTJ2K,
}
_PADDING = b"\x00\xff"
_TAIL_BYTES = 64
_WAVELETS = frozenset({Compression.JPEG_2000, Compression.HTJ2K})
_JPEGS = frozenset({Compression.JPEG, Compression.JPEG_LOSSLESS, Compression.JPEG_LS})


def compression_of(transfer_syntax_uid: str) -> Compression:
    """Family of decoders for a transfer syntax (PS3.5 Section 10 and A.4).

    Raises:
        RejectedInput: unsupported_transfer_syntax.
    """
    try:
        return _COMPRESSIONS[transfer_syntax_uid]
    except KeyError:
        raise RejectedInput("unsupported_transfer_syntax", "no decoder for this transfer syntax") from None


def read_facts(data: bytes, compression: Compression) -> CodestreamFacts:
    """Read size, precision, sign, levels and completeness from a compressed frame's own headers.

    Never decodes, never allocates by a claimed size, always ends.

    Raises:
        RejectedInput: codestream_invalid; codestream_mismatch where the stream is of another JPEG process
            than the transfer syntax says; unsupported_codestream.
        ValueError: the compression has no codestream (native, RLE).
    """
    if compression in _WAVELETS:
        return read_j2k(data, compression)
    if compression in _JPEGS:
        return read_jpeg(data, compression)
    raise ValueError(f"{compression.value} has no codestream")


def check_against_header(facts: CodestreamFacts, image: ImageHeader) -> None:
    """Refuse a codestream that contradicts the DICOM header, before any allocation.

    Precision may differ from Bits Stored and the sign from Pixel Representation, as they do in many valid
    files; samples that do not fit Bits Allocated are a lie.

    Raises:
        RejectedInput: color, codestream_mismatch, unsupported_codestream for a region of interest in HTJ2K,
            which OpenJPEG does not scale back.
    """
    if facts.components > 1:
        raise RejectedInput("color", f"the codestream has {facts.components} components")
    if facts.has_roi and facts.compression is Compression.HTJ2K:
        raise RejectedInput("unsupported_codestream", "a region of interest in HTJ2K")
    if (facts.rows, facts.columns) != (image.rows, image.columns):
        raise RejectedInput(
            "codestream_mismatch",
            f"the codestream is {facts.rows}x{facts.columns}, the header says {image.rows}x{image.columns}",
        )
    if facts.precision > image.bits_allocated:
        raise RejectedInput(
            "codestream_mismatch",
            f"the codestream has {facts.precision} bits, the header allocates {image.bits_allocated}",
        )


def repair(payload: bytes, facts: CodestreamFacts) -> bytes:
    """Cut the bare codestream out of its boxes and padding, and end it with EOC.

    A missing EOC is appended only where every tile-part that the stream declares is there in full.

    Raises:
        RejectedInput: codestream_truncated; codestream_invalid where more than padding follows the end of a
            bare stream: an end marker that came of damage.
    """
    if not facts.complete:
        raise RejectedInput("codestream_truncated", "the data end before all of the declared image is there")
    end = facts.codestream_start + facts.codestream_bytes
    if not facts.boxed and payload[end:].strip(_PADDING):
        raise RejectedInput("codestream_invalid", "the image ends before its data do")
    if facts.has_eoc and facts.codestream_start == 0 and end == len(payload):
        return payload
    codestream = payload[facts.codestream_start : end]
    return codestream if facts.has_eoc else codestream + EOC_BYTES


def check_packets(codestream: bytes, facts: CodestreamFacts) -> None:
    """Refuse a repaired JPEG 2000 or HTJ2K stream that holds what no packet can hold.

    Meant for level 0, where every packet is decoded. The others are read in part, and what they leave out
    says nothing about their pixels.

    Raises:
        RejectedInput: decode_failed.
    """
    found = impossible(codestream) if facts.compression in _WAVELETS else None
    if found is not None:
        raise RejectedInput("decode_failed", f"no packet can hold the bytes at {found} of the codestream")


def ends(payload: bytes) -> bool:
    """Whether a JPEG 2000 frame's last bytes are the end of its codestream, and padding."""
    return payload[-_TAIL_BYTES:].rstrip(_PADDING).endswith(EOC_BYTES)


def level_size(rows: int, columns: int, level: int) -> tuple[int, int]:
    """(rows, columns) of wavelet level `level`: ceil(n / 2^level), origin 0 (T.800 B-15)."""
    return -(-rows >> level), -(-columns >> level)


def deepest_level(image: ImageHeader, facts: CodestreamFacts | None) -> int:
    """Deepest wavelet level that may be decoded, 0 where only the full image is right.

    Level 0 is forced where stored values are more than numbers (docs/numerics.md: a sign to extend, HighBit
    other than BitsStored - 1, overlay bits) and where the grid does not start at 0. With several tiles each
    tile is reduced by itself, so 2^level must divide the tile size.
    """
    if facts is None or facts.compression not in _WAVELETS or facts.offset or facts.subsampled:
        return 0
    if facts.signed != bool(image.pixel_representation):
        return 0
    if image.high_bit != image.bits_stored - 1 or image.has_overlay_in_pixels:
        return 0
    level = facts.levels
    sizes = ((facts.rows, facts.tile_rows), (facts.columns, facts.tile_columns))
    while any(n > tile and tile % (1 << level) for n, tile in sizes):
        level -= 1
    return level
