"""In: a breast, its lesions, a view, a machine. Out: stored pixels, and where breast and lesions lie in them.

No files: `bench.phantom` writes what this module renders.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from bench.phantom_anatomy import Breast, Outline, View, outline, project
from bench.phantom_draw import draw_tissue
from bench.phantom_lesions import Lesion, LesionKind, signal
from bench.phantom_machines import Machine, air, to_stored
from bench.phantom_texture import Field, Grid, resample

_WORKING_MM = 0.15
_MARGIN_MM = 3.0
_MOST_COVERED = 0.158
"""Of a segmented machine's frame: the real files' padding covers at least 83 %."""
_LEAST_COVERED = 0.112
_NIPPLE_MARKERS = 0.2
"""Of images have a metal ball taped to the nipple."""


@dataclass(frozen=True, slots=True)
class Box:
    """Half-open box in full-size pixels."""

    row: int
    column: int
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class LesionBox:
    """Where a lesion is seen."""

    kind: LesionKind
    malignant: bool
    box: Box
    centre: tuple[int, int]
    """Row and column of the pixel that the signal's middle was added to."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """What is exposed how: everything one image depends on beside its random generator."""

    breast: Breast
    lesions: tuple[Lesion, ...]
    view: View
    laterality: str
    machine: Machine


@dataclass(frozen=True, slots=True)
class RenderedView:
    """One image and its truth."""

    pixels: npt.NDArray[np.unsignedinteger] = field(repr=False)
    """(rows, columns) stored values, uint8 or uint16."""
    breast_box: Box
    """All tissue, pectoral muscle included."""
    lesions: tuple[LesionBox, ...]
    tissue_share: float
    """Part of the frame that tissue covers."""
    pitch_mm: float
    """Pixel spacing in the breast."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """The breast on the detector, chest wall at the left: `top` rows of air above, `pitch_mm` per pixel."""

    shape: Outline
    pitch_mm: float
    top: int
    rows: int
    columns: int
    """Rows and columns of the part of the frame that tissue lies in."""

    def reach_px(self) -> npt.NDArray[np.float64]:
        """Columns of tissue in each row of that part."""
        return self.shape.reach((np.arange(self.rows) + 0.5) * self.pitch_mm) / self.pitch_mm


def render_view(exposure: Exposure, rng: np.random.Generator) -> RenderedView:
    """Render one image.

    Args:
        exposure: breast, lesions, view, side and machine.
        rng: the image's own generator: positioning, texture and noise.

    Returns:
        Stored pixels of the machine's matrix and bits, chest wall at the left for L and at the right for R.
    """
    machine = exposure.machine
    frame = _position(exposure, rng)
    reach = frame.reach_px()
    brightness = _brightness(exposure, frame, rng)
    boxes = tuple(_add_lesion(brightness, lesion, exposure, frame) for lesion in exposure.lesions)
    brightness = np.clip(brightness, 0, None) ** np.float32(rng.uniform(0.95, 1.3))
    brightness += np.float32(machine.noise) * _quantum_noise(brightness, frame.pitch_mm, rng)
    stored = air(machine, (machine.rows, machine.columns), rng)
    tissue = np.arange(frame.columns)[None, :] + 0.5 < reach[:, None]
    part = stored[frame.top : frame.top + frame.rows, : frame.columns]
    np.copyto(part, to_stored(machine, brightness), where=tissue)
    if rng.random() < _NIPPLE_MARKERS:
        _nipple_marker(stored, machine, frame)
    if machine.segmented:
        _bright_line(stored, machine)
    if exposure.laterality == "R":
        stored = stored[:, ::-1]
    stored = _with_marker(stored, exposure, frame, rng)
    rows_there = np.flatnonzero(tissue.any(axis=1))
    whole = Box(frame.top + int(rows_there[0]), 0, int(np.ptp(rows_there)) + 1, int(tissue.sum(axis=1).max()))
    return RenderedView(
        np.rint(stored).astype(np.uint8 if machine.bits <= 8 else np.uint16),
        _mirrored(whole, exposure),
        tuple(_mirrored_lesion(lesion, exposure) for lesion in boxes),
        float(tissue.sum() / stored.size),
        frame.pitch_mm,
    )


def _position(exposure: Exposure, rng: np.random.Generator) -> _Frame:
    """Lay the breast on the detector; a segmented machine's share of tissue is kept within the real range."""
    machine = exposure.machine
    shape = outline(exposure.breast, exposure.view, rng)
    pitch = machine.spacing_mm
    height, width = machine.rows * pitch, machine.columns * pitch
    zoom = max(shape.height_mm / (0.99 * height), float(shape.reach_mm.max()) / (0.84 * width))
    if machine.segmented:
        share = shape.area_mm2 / (height * width)
        zoom = max(
            zoom, float(np.sqrt(share / _MOST_COVERED)), min(1.0, float(np.sqrt(share / _LEAST_COVERED)))
        )
    elif zoom < 1:
        zoom = 1.0
    pitch *= zoom
    rows = min(machine.rows, int(np.ceil(shape.height_mm / pitch)) + 1)
    columns = min(machine.columns, int(np.ceil((float(shape.reach_mm.max()) + _MARGIN_MM) / pitch)))
    room = machine.rows - rows
    top = 0 if exposure.view is View.MLO else int(room * rng.uniform(0.3, 0.7))
    return _Frame(shape, pitch, top, rows, columns)


def _brightness(exposure: Exposure, frame: _Frame, rng: np.random.Generator) -> Field:
    """Tissue drawn at a working pitch, brought to the detector's."""
    target = Grid(frame.rows, frame.columns, frame.pitch_mm)
    working = target if frame.pitch_mm >= _WORKING_MM else target.at_pitch(_WORKING_MM)
    drawn = draw_tissue(exposure.breast, exposure.view, frame.shape, working, rng)
    return drawn.copy() if working is target else resample(drawn, working, target).copy()


def _quantum_noise(brightness: Field, pitch_mm: float, rng: np.random.Generator) -> Field:
    """Noise of a dose that is the same per area: smaller pixels are noisier."""
    deviation = np.float32(min(0.04, 0.036 * (0.0857 / pitch_mm))) * (0.75 + 0.5 * brightness)
    white = rng.standard_normal(brightness.shape, np.float32)
    return np.asarray(ndimage.uniform_filter(white, 2, mode="nearest") * deviation, np.float32)


def _add_lesion(brightness: Field, lesion: Lesion, exposure: Exposure, frame: _Frame) -> LesionBox:
    """Add a lesion's signal where both it and its box lie inside the tissue."""
    shape = signal(lesion, frame.pitch_mm)
    row, column = _inside(exposure, lesion, frame, (shape.half_rows_px, shape.half_columns_px))
    half = shape.patch.shape[0] // 2
    first_row, first_column = round(row) - half, round(column) - half
    target = _window(brightness.shape, first_row, first_column, shape.patch.shape)
    source = tuple(
        slice(t.start - first, t.stop - first)
        for t, first in zip(target, (first_row, first_column), strict=True)
    )
    there = brightness[target]
    brightness[target] = there + shape.patch[source] * (1 - 0.55 * np.clip(there, 0, 1))
    box = _window(
        (frame.rows, frame.columns),
        round(row - shape.half_rows_px),
        round(column - shape.half_columns_px),
        (max(3, round(2 * shape.half_rows_px)), max(3, round(2 * shape.half_columns_px))),
    )
    rows, columns = box
    place = Box(rows.start + frame.top, columns.start, rows.stop - rows.start, columns.stop - columns.start)
    return LesionBox(lesion.kind, lesion.malignant, place, (round(row) + frame.top, round(column)))


def _window(shape: tuple[int, ...], row: int, column: int, size: tuple[int, ...]) -> tuple[slice, slice]:
    return (
        slice(max(row, 0), min(row + size[0], shape[0])),
        slice(max(column, 0), min(column + size[1], shape[1])),
    )


def _inside(
    exposure: Exposure, lesion: Lesion, frame: _Frame, half: tuple[float, float]
) -> tuple[float, float]:
    """The lesion's place in pixels, drawn towards the middle of the breast until its box is tissue only."""
    row, column = project(exposure.breast, exposure.view, frame.shape, lesion.place)[0] / frame.pitch_mm
    reach = frame.reach_px()
    middle = exposure.breast.depth_mm * (0.74 if exposure.breast.implant else 0.42)
    aim = (frame.shape.nipple_row_mm / frame.pitch_mm, middle / frame.pitch_mm)
    for _ in range(40):
        top, bottom = int(row - half[0]) - 1, int(np.ceil(row + half[0])) + 1
        if top >= 0 and bottom < frame.rows and column - half[1] >= 0:
            clearance = reach[top : bottom + 1].min() - 2.0 / frame.pitch_mm
            if column + half[1] + 1 <= clearance:
                break
        row, column = row + 0.15 * (aim[0] - row), column + 0.15 * (aim[1] - column)
    return float(row), float(column)


def _nipple_marker(stored: Field, machine: Machine, frame: _Frame) -> None:
    """A metal ball beside the nipple: a white dot, partly in air."""
    row = frame.top + frame.shape.nipple_row_mm / frame.pitch_mm
    column = float(frame.shape.reach(np.array([frame.shape.nipple_row_mm]))[0]) / frame.pitch_mm
    radius = 1.1 / frame.pitch_mm
    rows, columns = _window(stored.shape, int(row - radius), int(column - radius), (int(2 * radius) + 2,) * 2)
    down, right = np.ogrid[rows, columns]
    disc = (down + 0.5 - row) ** 2 + (right + 0.5 - column) ** 2 <= radius**2
    stored[rows, columns][disc] = to_stored(machine, np.array(0.97, np.float32))


def _bright_line(stored: Field, machine: Machine) -> None:
    """The bright vertical line that real files of this kind have outside the breast."""
    width = max(1, round(machine.columns * 0.0008))
    column = round(machine.columns * 0.972)
    stored[:, column : column + width] = to_stored(machine, np.array(0.97, np.float32))


def _with_marker(stored: Field, exposure: Exposure, frame: _Frame, rng: np.random.Generator) -> Field:
    """Burn in side and view beside the breast, readable, with the corner marks that vendors draw."""
    machine = exposure.machine
    size = max(5, round(machine.rows * rng.uniform(0.016, 0.026)))
    text = f"{exposure.laterality}{rng.choice(['', ' '])}{exposure.view.value}"
    picture = _text_picture(text, size, framed=bool(rng.random() < 0.6))
    row = round(machine.rows * rng.uniform(0.03, 0.10))
    beside = frame.reach_px()[max(0, row - frame.top) : max(1, row + picture.shape[0] - frame.top)]
    start = int(beside.max(initial=0) + 4 * size)
    last = round(machine.columns * 0.965) - picture.shape[1]
    column = min(max(start, round(machine.columns * rng.uniform(0.55, 0.8))), last)
    if column < start - 3 * size:
        return np.ascontiguousarray(stored)
    if exposure.laterality == "R":
        column = machine.columns - column - picture.shape[1]
    result = np.ascontiguousarray(stored)
    there = result[row : row + picture.shape[0], column : column + picture.shape[1]]
    value = to_stored(machine, np.array(0.97 if machine.segmented else 1.0, np.float32))
    there[:] = np.where(picture[: there.shape[0], : there.shape[1]], value, there)
    return result


def _text_picture(text: str, size: int, framed: bool) -> npt.NDArray[np.bool_]:
    font = ImageFont.load_default(size)
    left, top, right, bottom = (round(v) for v in font.getbbox(text))
    pad = size // 2
    picture = Image.new("L", (right - left + 2 * pad, bottom - top + 2 * pad))
    draw = ImageDraw.Draw(picture)
    draw.text((pad - left, pad - top), text, fill=255, font=font)
    if framed:
        width, height, arm = picture.width - 1, picture.height - 1, size // 2
        for x, y in ((0, 0), (width, 0), (0, height), (width, height)):
            draw.line([(abs(x - arm), y), (x, y), (x, abs(y - arm))], fill=255, width=max(1, size // 16))
    return np.asarray(picture) > 127


def _mirrored_lesion(lesion: LesionBox, exposure: Exposure) -> LesionBox:
    if exposure.laterality != "R":
        return lesion
    row, column = lesion.centre
    centre = (row, exposure.machine.columns - 1 - column)
    return replace(lesion, box=_mirrored(lesion.box, exposure), centre=centre)


def _mirrored(box: Box, exposure: Exposure) -> Box:
    if exposure.laterality != "R":
        return box
    return Box(box.row, exposure.machine.columns - box.column - box.columns, box.rows, box.columns)
