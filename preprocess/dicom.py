"""SourceFile → Instance: headers only, limits first, VOI and geometry as typed values.

In:  SourceFile, ResultConfig.
Out: Instance (everything decode and render rely on, and the still encoded frame), or RejectedInput.

    read (_read) → find the data set (_container) → walk it to Pixel Data (_elements) → values (_attributes)
      → checks (_identity, _image_header) → VOI (_voi_header) → the frame (_encapsulation) → codestream facts

`scan` stops before the frame. Both go through the same checks, so a header that `scan` accepts is accepted by
`parse`; what `parse` alone can find are faults of the frame itself.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass

from preprocess import codestream
from preprocess._attributes import Attributes, Tag
from preprocess._container import EXPLICIT_BIG, Container, Incomplete, looks_like_dicom, open_container
from preprocess._elements import PIXEL_DATA, Element, Header, read_header
from preprocess._encapsulation import (
    NativeValue,
    OffsetTable,
    check_after_pixels,
    check_native_length,
    check_native_surplus,
    encapsulated_frame,
    end_of_fragments,
    native_frame,
)
from preprocess._identity import read_identity, reject_non_images, uid, without_pixels
from preprocess._image_header import read_image_header
from preprocess._read import modified_ns, read_bytes, read_prefix
from preprocess._voi_header import read_modality_transform, read_padding, read_voi
from preprocess.config import ResultConfig
from preprocess.errors import RejectedInput
from preprocess.records import (
    CodestreamFacts,
    Compression,
    Identity,
    ImageHeader,
    Instance,
    ModalityTransform,
    Padding,
    ScannedFile,
    SourceFile,
    VoiHeader,
)

__all__ = ["looks_like_dicom", "parse", "read_bytes", "scan"]

_PREFIX_BYTES = 1 << 16
"""What `scan` reads at first; headers of single-frame images take 1 to 30 KB."""
_PREFIX_GROWTH = 16
_WANTED = frozenset(int(tag) for tag in Tag)
_NO_CODESTREAM = frozenset((Compression.NATIVE, Compression.RLE))


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A header that passed every check that needs no pixel."""

    container: Container
    pixel: Element
    attributes: Attributes
    compression: Compression
    image: ImageHeader
    modality_transform: ModalityTransform
    voi: VoiHeader
    padding: Padding | None
    identity: Identity
    sop_instance_uid: str | None


def scan(source: SourceFile, config: ResultConfig) -> ScannedFile:
    """Read headers only: what planning needs. The file is read to its end only where the header is that long.

    Raises:
        RejectedInput: as `parse`, as far as it can be told without the frame.
    """

    def sha256() -> str:
        return hashlib.sha256(read_bytes(source, config.max_file_bytes)).hexdigest()

    wanted, modified = _PREFIX_BYTES, modified_ns(source)
    while True:
        data, size = read_prefix(source, config.max_file_bytes, wanted)
        try:
            parsed = _read(source, data, size, config, sha256)
        except Incomplete:
            wanted *= _PREFIX_GROWTH
        else:
            return ScannedFile(source, parsed.identity, parsed.sop_instance_uid, size, modified)


def parse(source: SourceFile, config: ResultConfig) -> Instance:
    """Read one image: typed headers and its encoded frame. Nothing is decoded.

    Returns:
        Instance whose codestream, if it has one, agrees with the header.

    Raises:
        RejectedInput: any code of stages discover and parse; codestream_invalid, codestream_mismatch and
            unsupported_codestream of a frame that contradicts its header.
    """
    data = read_bytes(source, config.max_file_bytes)
    digest = hashlib.sha256(data).hexdigest()
    parsed = _read(source, data, len(data), config, lambda: digest)
    payload = _payload(parsed)
    return Instance(
        source=source,
        identity=parsed.identity,
        image=parsed.image,
        modality_transform=parsed.modality_transform,
        voi=parsed.voi,
        padding=parsed.padding,
        study_instance_uid=uid(parsed.attributes, Tag.STUDY_INSTANCE_UID),
        series_instance_uid=uid(parsed.attributes, Tag.SERIES_INSTANCE_UID),
        sop_instance_uid=parsed.sop_instance_uid,
        file_bytes=len(data),
        file_sha256=digest,
        payload=payload,
        codestream=_facts(parsed, payload),
    )


def _read(
    source: SourceFile, data: bytes, size: int, config: ResultConfig, sha256: Callable[[], str]
) -> _Parsed:
    """Everything up to the frame. Raises Incomplete if it goes on beyond `data` (of `size` bytes in all)."""
    whole = len(data) == size
    container = open_container(data, config, whole=whole)
    header = read_header(container, _WANTED, config.max_sequence_depth, whole=whole or container.inflated)
    attributes = Attributes.of(container, header)
    pixel = _check_kind(container, header, attributes, config)
    compression = codestream.compression_of(container.transfer_syntax_uid)
    image = read_image_header(attributes, container.transfer_syntax_uid, config)
    _check_pixel_element(pixel, compression, image, len(container.data) if container.inflated else size)
    return _Parsed(
        container=container,
        pixel=pixel,
        attributes=attributes,
        compression=compression,
        image=image,
        modality_transform=read_modality_transform(attributes, image),
        voi=read_voi(attributes, image),
        padding=read_padding(attributes, image),
        identity=read_identity(attributes, source.identity, image.frame, sha256),
        sop_instance_uid=uid(attributes, Tag.SOP_INSTANCE_UID),
    )


def _check_kind(
    container: Container, header: Header, attributes: Attributes, config: ResultConfig
) -> Element:
    """Whether this is an image that somebody may want; its Pixel Data."""
    sop_class = uid(attributes, Tag.SOP_CLASS_UID) or container.media_sop_class_uid
    reject_non_images(attributes, sop_class)
    modality, wanted = (attributes.text(Tag.MODALITY) or "").upper(), config.modality.upper()
    if modality and wanted not in ("ANY", modality):
        raise RejectedInput("modality", "another modality than the one asked for")
    if header.pixel is None:
        if header.truncated:
            raise RejectedInput("corrupt_header", "the file ends inside the header")
        raise without_pixels(attributes, sop_class)
    if header.pixel.tag != PIXEL_DATA:
        raise RejectedInput("float_pixel_data", "float or double float pixel data")
    return header.pixel


def _check_pixel_element(pixel: Element, compression: Compression, image: ImageHeader, total: int) -> None:
    """Whether Pixel Data is native or encapsulated as its transfer syntax says, and long enough if native."""
    if pixel.undefined is (compression is Compression.NATIVE):
        kind = "encapsulated" if pixel.undefined else "native"
        raise RejectedInput("invalid_encapsulation", f"{kind} Pixel Data contradict the transfer syntax")
    if compression is Compression.NATIVE:
        check_native_length(min(pixel.end, total) - pixel.start, _frame_bytes(image), image.frame)


def _frame_bytes(image: ImageHeader) -> int:
    return image.rows * image.columns * (image.bits_allocated // 8)


def _payload(parsed: _Parsed) -> bytes:
    pixel, image, data = parsed.pixel, parsed.image, parsed.container.data
    if parsed.compression is Compression.NATIVE:
        check_native_surplus(
            data[pixel.start : pixel.end],
            _frame_bytes(image) * image.number_of_frames,
            _frame_bytes(image) // image.rows,
        )
        check_after_pixels(data, pixel.end, little=parsed.container.encoding.little)
        value = NativeValue(data, pixel.start, min(pixel.end, len(data)))
        return native_frame(value, _frame_bytes(image), image.frame, swapped=_swapped(parsed))
    check_after_pixels(data, end_of_fragments(data, pixel.start), little=True)
    extended = _extended_offsets(parsed.attributes)
    return encapsulated_frame(data, pixel.start, image.number_of_frames, image.frame, extended)


def _swapped(parsed: _Parsed) -> bool:
    """Whether pairs of bytes must change places to lie as the transfer syntax makes a decoder expect.

    8-bit pixels in big-endian OW words (PS3.5 8.2, 7.3); 16-bit pixels of a data set whose byte order is not
    the declared one.
    """
    big = not parsed.container.encoding.little
    if parsed.image.bits_allocated == 8:
        return big and parsed.pixel.vr == "OW"
    return big != (parsed.image.transfer_syntax_uid == EXPLICIT_BIG)


def _extended_offsets(attributes: Attributes) -> OffsetTable | None:
    """Extended Offset Table (7FE0,0001) and its Lengths (7FE0,0002), 64-bit integers; None without both."""
    tables = []
    for tag in (Tag.EXTENDED_OFFSET_TABLE, Tag.EXTENDED_OFFSET_TABLE_LENGTHS):
        value, _ = attributes.raw(tag)
        tables.append(struct.unpack_from(f"<{len(value) // 8}Q", value))
    return OffsetTable(*tables) if all(tables) else None


def _facts(parsed: _Parsed, payload: bytes) -> CodestreamFacts | None:
    if parsed.compression in _NO_CODESTREAM:
        return None
    facts = codestream.read_facts(payload, parsed.compression)
    codestream.check_against_header(facts, parsed.image)
    return facts
