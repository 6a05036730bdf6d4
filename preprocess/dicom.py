"""SourceFile → Instance: headers only, limits first, VOI and geometry as typed values.

In:  SourceFile, ResultConfig.
Out: Instance (everything decode and render rely on, and the still encoded frame), or RejectedInput.

    read (_read) → find the data set (_container) → walk it to Pixel Data (_elements) → values (_attributes)
      → checks (_identity, _image_header) → VOI (_voi_header) → the frame (_encapsulation) → codestream facts

`scan` stops before the frame; `begin` and `for_level` read no more of it than a wavelet level needs. All go
through the same checks, so a header that `scan` accepts is accepted by `parse`; what `parse` alone can find
are faults of the frame itself.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

from preprocess import _packets, _tile, codestream
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
    read_fragments,
)
from preprocess._identity import read_identity, reject_non_images, uid, without_pixels
from preprocess._image_header import read_image_header
from preprocess._read import modified_ns, read_bytes, read_prefix, read_range
from preprocess._voi_header import read_modality_transform, read_padding, read_voi
from preprocess.config import Read, ResultConfig
from preprocess.errors import RejectedInput
from preprocess.geometry import is_full_certain
from preprocess.records import (
    CodestreamFacts,
    Compression,
    Identity,
    ImageHeader,
    Instance,
    ModalityTransform,
    Padding,
    Partial,
    ScannedFile,
    SourceFile,
    VoiHeader,
)

__all__ = ["begin", "for_level", "looks_like_dicom", "parse", "read_bytes", "scan"]

_PREFIX_BYTES = 1 << 16
"""What `scan` reads at first; headers of single-frame images take 1 to 30 KB."""
_PREFIX_GROWTH = 16
_TAIL_BYTES = 1 << 12
"""Read from a file's end where the middle is left out: the end of the image, and what follows Pixel Data."""
_STEP_BYTES = 1 << 14
"""Read beyond what is known to be needed: the next packet's header is likely to be there."""
_WHOLE = 0.75
"""Share of a codestream from which on the whole file is read."""
_WANTED = frozenset(int(tag) for tag in Tag)
_WAVELETS = frozenset((Compression.JPEG_2000, Compression.HTJ2K))
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

    modified = modified_ns(source)
    parsed, _, size = _opening(source, config, sha256)
    return ScannedFile(source, parsed.identity, parsed.sop_instance_uid, size, modified)


def _opening(
    source: SourceFile, config: ResultConfig, sha256: Callable[[], str]
) -> tuple[_Parsed, bytes, int]:
    """The header, out of as little of the file as holds it; the bytes read, and how many there are."""
    wanted = _PREFIX_BYTES
    while True:
        data, size = read_prefix(source, config.max_file_bytes, wanted)
        try:
            return _read(source, data, size, config, sha256), data, size
        except Incomplete:
            wanted *= _PREFIX_GROWTH


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
    whole = _instance(source, parsed, file_bytes=len(data), file_sha256=digest)
    return replace(whole, payload=payload, codestream=_facts(parsed, payload), bytes_read=len(data))


def begin(source: SourceFile, config: ResultConfig) -> Instance:
    """Read one image as `parse` does, or as much of it as tells what `for_level` will have to read.

    With --read needed, and of JPEG 2000 only; of what cannot be read in part, all. Raises as `parse`.
    """
    if config.read is not Read.NEEDED or config.decodes_fully:
        return parse(source, config)
    part = _part(source, config)
    if isinstance(part, Instance):
        return part
    whole = parse(source, config)
    return replace(whole, bytes_read=whole.bytes_read + part)


def for_level(instance: Instance, level: int, config: ResultConfig) -> Instance:
    """The instance with all that decoding at `level` needs, reading what is missing.

    Raises:
        RejectedInput: as `parse`, whose findings are final: where a part does not do, the whole is read.
    """
    partial = instance.partial
    if partial is None:
        return instance
    head = partial.head
    while level:
        try:
            payload = _packets.for_level(head, level)
        except _tile.Unordered:
            break
        except _tile.Short as short:
            wanted = max(short.needed, len(head)) + _STEP_BYTES
            if wanted > _WHOLE * partial.facts.codestream_bytes:
                break
            head += read_range(instance.source, partial.at + len(head), partial.at + wanted)
        else:
            facts = replace(partial.facts, codestream_start=0, codestream_bytes=len(payload), has_eoc=True)
            read = instance.bytes_read + len(head) - len(partial.head)
            return replace(
                instance,
                payload=payload,
                codestream=facts,
                partial=replace(partial, head=head),
                bytes_read=read,
            )
    whole = parse(instance.source, config)
    return replace(whole, bytes_read=whole.bytes_read + instance.bytes_read + len(head) - len(partial.head))


def _part(source: SourceFile, config: ResultConfig) -> Instance | int:
    """The file's first bytes and its last ones as an Instance; the bytes read in vain if that will not do.

    The middle is taken as zeros, which only `read_j2k` steps over. Nothing is rejected here: what looks wrong
    is read whole and judged then.
    """
    read = 0
    if source.member is not None:
        return read
    try:
        parsed, head, size = _opening(source, config, _not_here)
        read = len(head)
        container = parsed.container
        rest = size - _TAIL_BYTES
        if parsed.compression not in _WAVELETS or container.inflated or rest <= len(head):
            return read
        if is_full_certain(parsed.image, config):
            return read
        data = head + bytes(rest - len(head)) + read_range(source, rest, size)
        read += _TAIL_BYTES
        parsed = replace(parsed, container=replace(container, data=data))
        payload = _payload(parsed)
        _, fragments = read_fragments(data, parsed.pixel.start)
        facts = _facts(parsed, payload)
    except RejectedInput:
        return read
    single = len(fragments) == parsed.image.number_of_frames == 1
    if facts is None or not single or facts.tiles != 1 or not codestream.ends(payload):
        return read
    if not codestream.deepest_level(parsed.image, facts):
        return read
    # Further tile-parts lie in what was not read. That the stream ends where Pixel Data do is what is known.
    facts = replace(facts, complete=True, codestream_bytes=len(payload) - facts.codestream_start)
    at = fragments[0].start + facts.codestream_start
    instance = _instance(source, parsed, file_bytes=size, file_sha256=None)
    partial = Partial(at, data[at : len(head)], facts)
    return replace(instance, codestream=facts, partial=partial, bytes_read=read)


def _not_here() -> str:
    """In place of the file's hash, for identities that are made of it."""
    raise RejectedInput("unreadable", "the file is not read whole")


def _instance(source: SourceFile, parsed: _Parsed, *, file_bytes: int, file_sha256: str | None) -> Instance:
    """The header as an Instance, without its frame."""
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
        file_bytes=file_bytes,
        file_sha256=file_sha256,
        payload=b"",
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
