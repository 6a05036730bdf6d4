"""What one file is, and what would become of it and why: `bcd-prep inspect FILE`.

In:  a path and the result config.
Out: an Inspection; shown as text, drawn in the terminal, written as a picture of the original with its box
     beside the prepared image. Nothing of the text names a person.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console, Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from preprocess import pipeline
from preprocess.config import ResultConfig
from preprocess.decode import CpuDecoder, Decoder
from preprocess.errors import UsageError
from preprocess.inspection_facts import FactGroup, fact_groups
from preprocess.names import MEMBER_SEPARATOR, safe_path
from preprocess.records import Prepared, Reject, SourceFile
from preprocess.thumbnails import shrink, to_gray

PREVIEW_ROWS = 512
_GAP = 12
_BOX = (255, 212, 59)
_BACKGROUND = 40
_DRAWN_COLUMNS = 96

Gray = npt.NDArray[np.uint8]
Rgb = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Inspection:
    """One file, looked at closely. Exactly one of `prepared` and `reject` is set."""

    name: str
    groups: tuple[FactGroup, ...]
    reject: Reject | None
    original: Gray | None = field(default=None, repr=False)
    """Display picture of the original, at most PREVIEW_ROWS high; None if nothing was decoded."""
    box: tuple[float, float, float, float] | None = None
    """top, left, height, width of what was kept, as fractions of the frame."""
    prepared: Gray | None = field(default=None, repr=False)
    """The upper 8 bits of the prepared image, at most PREVIEW_ROWS high."""


def inspect_file(path: str, config: ResultConfig, decoder: Decoder | None = None) -> Inspection:
    """Take one file (or `archive.zip::member`) through the pipeline and keep what every stage found.

    Never raises for what is wrong with the file: that is the Reject.
    """
    source = source_of(path)
    trace = pipeline.steps(source, config, decoder or CpuDecoder())
    groups = tuple(group for group in fact_groups(trace, config) if group.facts)
    return Inspection(
        name=source.source,
        groups=groups,
        reject=trace.reject,
        original=to_gray(trace.coarse, PREVIEW_ROWS) if trace.coarse else None,
        box=_fractions(trace),
        prepared=_preview(trace.prepared) if trace.prepared else None,
    )


def source_of(path: str) -> SourceFile:
    """The SourceFile of a path that the user named; a zip's member after `::`."""
    file, separator, member = path.partition(MEMBER_SEPARATOR)
    if not separator or Path(path).exists():
        file, member = path, ""
    name = safe_path(file.rpartition("/")[2]) + (MEMBER_SEPARATOR + safe_path(member) if member else "")
    local = file if "://" in file else str(Path(file).absolute())
    return SourceFile(source=name, path=local, member=member or None, explicit=True)


def _fractions(trace: pipeline.Trace) -> tuple[float, float, float, float] | None:
    if trace.findings is None or trace.instance is None:
        return None
    box, image = trace.findings.box, trace.instance.image
    return (
        box.row / image.rows,
        box.column / image.columns,
        box.rows / image.rows,
        box.columns / image.columns,
    )


def _preview(prepared: Prepared) -> Gray:
    pixels = prepared.pixels
    gray = pixels if pixels.dtype == np.uint8 else pixels >> 8
    return shrink(gray.astype(np.uint8), PREVIEW_ROWS)


def show(
    inspection: Inspection, *, png: Path | None = None, draw: bool = False, console: Console | None = None
) -> None:
    """Print the facts; draw the pictures if asked; write them as PNG if `png` is given and there are any.

    Raises UsageError if the PNG cannot be written.
    """
    console = console or Console(highlight=False)
    console.print(render_text(inspection))
    picture = preview(inspection)
    if picture is None:
        return
    if draw:
        columns = min(console.width, _DRAWN_COLUMNS)
        thick = preview(inspection, line_px=-(-picture.shape[1] // columns))
        console.print(half_blocks(picture if thick is None else thick, columns))
    if png is not None:
        _write(picture, png)


def _write(picture: Rgb, png: Path) -> None:
    try:
        Image.fromarray(picture).save(png, "PNG")
    except OSError as error:
        raise UsageError(f"cannot write {png}: {error.strerror}") from None


def render_text(inspection: Inspection) -> Group:
    """The verdict, then a heading and a table per group of facts."""
    verdict = Text("would be prepared", style="bold green")
    if inspection.reject is not None:
        verdict = Text(f"would be rejected: {inspection.reject.code}", style="bold red")
    parts: list[RenderableType] = [Text.assemble((inspection.name, "bold"), "  ", verdict)]
    for group in inspection.groups:
        parts += [Text(f"\n{group.title}", style="bold cyan"), _facts(group)]
    return Group(*parts)


def _facts(group: FactGroup) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", min_width=28)
    table.add_column(overflow="fold")
    for name, value in group.facts:
        table.add_row(f"  {name}", Text(value))
    return table


def preview(inspection: Inspection, line_px: int = 1) -> Rgb | None:
    """Original with box beside the prepared image: (rows, columns, 3); None if nothing was decoded."""
    parts = []
    if inspection.original is not None:
        parts.append(_boxed(inspection.original, inspection.box, line_px))
    if inspection.prepared is not None:
        parts.append(np.stack([inspection.prepared] * 3, axis=-1))
    if not parts:
        return None
    rows = max(part.shape[0] for part in parts)
    width = sum(part.shape[1] for part in parts) + _GAP * (len(parts) - 1)
    canvas = np.full((rows, width, 3), _BACKGROUND, np.uint8)
    column = 0
    for part in parts:
        top = (rows - part.shape[0]) // 2
        canvas[top : top + part.shape[0], column : column + part.shape[1]] = part
        column += part.shape[1] + _GAP
    return canvas


def _boxed(gray: Gray, box: tuple[float, float, float, float] | None, line_px: int) -> Rgb:
    picture = np.stack([gray] * 3, axis=-1)
    if box is None:
        return picture
    rows, columns = gray.shape
    top, left, height, width = box
    edge = np.zeros(gray.shape, np.bool_)
    inside = np.s_[
        int(top * rows) : round((top + height) * rows), int(left * columns) : round((left + width) * columns)
    ]
    edge[inside] = True
    edge[inside][line_px:-line_px, line_px:-line_px] = False
    picture[edge] = _BOX
    return picture


def half_blocks(picture: Rgb, columns: int) -> Text:
    """A picture as `▀` characters: two pixels to a cell, the upper as ink and the lower as ground."""
    rows = max(2, round(picture.shape[0] * columns / picture.shape[1])) // 2 * 2
    small = np.asarray(Image.fromarray(picture).resize((columns, rows), Image.Resampling.BOX))
    text = Text(no_wrap=True, end="")
    for row in range(0, rows, 2):
        for above, below in zip(small[row], small[row + 1], strict=True):
            ink, ground = (f"#{r:02x}{g:02x}{b:02x}" for r, g, b in (above, below))
            text.append("▀", Style(color=ink, bgcolor=ground))
        text.append("\n")
    return text
