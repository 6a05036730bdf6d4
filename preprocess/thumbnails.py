"""Small pictures of originals for the report's contact sheet.

In:  a coarse Mammogram and its BreastBox, in the worker that has them anyway.
Out: Thumbnail values; `save` and `load` keep them in a folder between the run and the report.
"""

from __future__ import annotations

import hashlib
import io
import json
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from preprocess.atomic import write_atomically
from preprocess.places import Place, files_below, read_bytes
from preprocess.records import BreastBox, Mammogram, Padding, SourceFile

THUMBNAIL_ROWS = 240
CONTACT_SHEET_IMAGES = 24
_TEXT_KEY = "bcd-thumbnail"

Bytes2D = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64] | npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """An original as an 8-bit PNG, and the breast box as fractions of the frame."""

    source: str
    """The `source` of its row in instances.parquet (hashed there, hashed here)."""
    png: bytes = field(repr=False)
    top: float
    left: float
    height: float
    width: float


def make_thumbnail(
    coarse: Mammogram, box: BreastBox, *, source: str | None = None, max_rows: int = THUMBNAIL_ROWS
) -> Thumbnail:
    """Shrink stored values of any wavelet level to a grayscale picture of at most `max_rows` rows.

    The window is the range of the unpadded pixels without its outer thousandths, larger values dark if
    the image is inverted. `source` replaces the instance's own (under --identifiers hash).
    """
    image = coarse.instance.image
    gray = to_gray(coarse, max_rows)
    return Thumbnail(
        source=coarse.instance.source.source if source is None else source,
        png=encode(gray),
        top=box.row / image.rows,
        left=box.column / image.columns,
        height=box.rows / image.rows,
        width=box.columns / image.columns,
    )


def to_gray(coarse: Mammogram, max_rows: int) -> Bytes2D:
    """Stored values as a display picture: (≤ max_rows, in proportion) uint8, MONOCHROME2."""
    low, high = display_range(coarse.pixels, coarse.instance.padding)
    scaled = (coarse.pixels.astype(np.float32) - low) * np.float32(255.0 / max(high - low, 1))
    gray = np.clip(scaled + 0.5, 0, 255).astype(np.uint8)
    if coarse.instance.image.inverted:
        gray = 255 - gray
    return shrink(gray, max_rows)


def display_range(pixels: npt.NDArray[np.generic], padding: Padding | None) -> tuple[int, int]:
    """0.1 % and 99.9 % ranks of a sample of the unpadded stored values."""
    step = max(1, max(pixels.shape) // 512)
    values = np.asarray(pixels[::step, ::step]).astype(np.int64).ravel()
    if padding is not None:
        kept = values[(values < padding.low) | (values > padding.high)]
        values = kept if kept.size else values
    values.sort()
    last = values.size - 1
    return int(values[last // 1000]), int(values[last - last // 1000])


def shrink(gray: Bytes2D, max_rows: int) -> Bytes2D:
    """Area-average a uint8 picture down to `max_rows`; smaller ones stay as they are."""
    rows, columns = gray.shape
    if rows <= max_rows:
        return gray
    size = (max(1, round(columns * max_rows / rows)), max_rows)
    return np.asarray(Image.fromarray(gray).resize(size, Image.Resampling.BOX))


def encode(gray: Bytes2D) -> bytes:
    """A uint8 picture as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(gray).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def save(thumbnail: Thumbnail, folder: Place) -> Place:
    """Write one thumbnail as a PNG that carries its source and box as text; the name is a hash."""
    name = hashlib.sha256(thumbnail.source.encode()).hexdigest()[:24]
    box = (thumbnail.top, thumbnail.left, thumbnail.height, thumbnail.width)
    text = PngImagePlugin.PngInfo()
    text.add_itxt(_TEXT_KEY, json.dumps({"source": thumbnail.source, "box": box}))
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(thumbnail.png)) as picture:
        picture.save(buffer, "PNG", pnginfo=text)
    path = folder / f"{name}.png"
    write_atomically(path, buffer.getvalue())
    return path


def load(folder: Place) -> tuple[Thumbnail, ...]:
    """All thumbnails that `save` left in a folder, sorted by source; none if it is absent."""
    found = [_read(path) for path in files_below(folder) if path.name.endswith(".png")]
    return tuple(sorted((item for item in found if item), key=lambda item: item.source))


def _read(path: Place) -> Thumbnail | None:
    with Image.open(io.BytesIO(read_bytes(path))) as picture:
        text = picture.info.get(_TEXT_KEY)
        if not isinstance(text, str):
            return None
        gray = np.asarray(picture.convert("L"))
    described = json.loads(text)
    top, left, height, width = (float(number) for number in described["box"])
    return Thumbnail(str(described["source"]), encode(gray), top, left, height, width)


def contact_sources(sources: Iterable[SourceFile], n: int = CONTACT_SHEET_IMAGES) -> tuple[SourceFile, ...]:
    """Choose the inputs of the contact sheet: a pure function of the set of sources, never of their order.

    Classes of the first 0/1 label alternate; inside a class, machines (or top folders, where no machine is
    known) take turns, so that rare transfer syntaxes and positives are on the sheet. `sources` is gone
    through three times; a few numbers of each are all that is kept.
    """
    label = _binary_label(sources)
    names: dict[str, int] = {}
    kinds, groups, hashes = array("q"), array("q"), array("Q")
    for source in sources:
        kinds.append(names.setdefault(_label_text(source, label), len(names)))
        groups.append(hash(_group(source)))
        hashes.append(int.from_bytes(hashlib.sha256(source.source.encode()).digest()[:8]))
    kind, group, digest = np.array(kinds), np.array(groups), np.array(hashes)
    turn = _rank((kind, group), (digest,))
    place = _rank((kind,), (turn, digest))
    name_of = list(names)
    queue = sorted((int(place[row]), name_of[kind[row]], int(row)) for row in np.flatnonzero(place < n))
    rows = {row for _, _, row in queue[:n]}
    chosen = [source for row, source in enumerate(sources) if row in rows]
    return tuple(sorted(chosen, key=lambda source: source.source.encode()))


def _rank(within: Sequence[Integers], by: Sequence[Integers]) -> Integers:
    """The place of each row, in the order of `by`, among those that are equal in `within`."""
    order = np.lexsort((*reversed(by), *reversed(within)))
    at = np.arange(len(order))
    first = np.zeros(len(order), bool)
    first[:1] = True
    for key in within:
        first[1:] |= key[order][1:] != key[order][:-1]
    rank = np.empty_like(at)
    rank[order] = at - np.maximum.accumulate(np.where(first, at, 0))
    return rank


def _group(source: SourceFile) -> str:
    identity = source.identity
    if identity.machine_id is not None:
        return f"{identity.site_id}/{identity.machine_id}"
    return source.source.split("/", 1)[0]


def _binary_label(sources: Iterable[SourceFile]) -> str | None:
    values: dict[str, set[object]] = {}
    for source in sources:
        for label in source.labels:
            if label.value is not None:
                values.setdefault(label.name, set()).add(label.value)
    binary = [name for name, seen in values.items() if seen <= {0, 1} and len(seen) == 2]
    return "cancer" if "cancer" in binary else min(binary, default=None)


def _label_text(source: SourceFile, name: str | None) -> str:
    return next((str(label.value) for label in source.labels if label.name == name), "")
