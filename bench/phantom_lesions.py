"""In: a breast and how hard its lesions shall be. Out: lesions in three dimensions, and their signals.

Malignant: spiculated or ill-defined masses, clusters of pleomorphic microcalcifications. Benign look-alikes:
smooth sharp masses, round scattered calcifications.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from bench.phantom_anatomy import Breast, Points
from bench.phantom_texture import Field, Grid, power_law, scale_odd, smoothstep


class LesionKind(StrEnum):
    """Kinds, as in column `kind` of lesions.csv."""

    SPICULATED_MASS = "spiculated_mass"
    INDISTINCT_MASS = "indistinct_mass"
    MICROCALCIFICATIONS = "microcalcifications"
    SMOOTH_MASS = "smooth_mass"
    ROUND_CALCIFICATIONS = "round_calcifications"


_CALCIFICATIONS = frozenset({LesionKind.MICROCALCIFICATIONS, LesionKind.ROUND_CALCIFICATIONS})
_MALIGNANT = (LesionKind.SPICULATED_MASS, LesionKind.INDISTINCT_MASS, LesionKind.MICROCALCIFICATIONS)
_MALIGNANT_SHARE = (0.42, 0.20, 0.38)
_BENIGN = (LesionKind.SMOOTH_MASS, LesionKind.ROUND_CALCIFICATIONS)


@dataclass(frozen=True, slots=True)
class Lesion:
    """One lesion of a breast, the same in both views."""

    kind: LesionKind
    malignant: bool
    place: Points
    """(1, 3): breast frame, millimetres."""
    radius_mm: float
    """Of a mass, or of the area that calcifications lie in."""
    contrast: float
    """Added brightness at the centre."""
    seed: int


@dataclass(frozen=True, slots=True)
class Signal:
    """A lesion's added brightness, centred on the lesion, and the half size of its box."""

    patch: Field
    half_rows_px: float
    half_columns_px: float


def draw_lesions(
    breast: Breast, malignant: bool, difficulty: float, rng: np.random.Generator
) -> tuple[Lesion, ...]:
    """Draw a breast's lesions: one or two malignant ones, or one or two benign look-alikes.

    Args:
        breast: where they lie.
        malignant: which sort.
        difficulty: 0 (large, bright) to 1 (small, faint).
        rng: decides everything else.
    """
    kinds = [
        _MALIGNANT[int(rng.choice(3, p=_MALIGNANT_SHARE))] if malignant else _BENIGN[int(rng.integers(2))]
    ]
    if rng.random() < 0.2:
        kinds.append(LesionKind.MICROCALCIFICATIONS if malignant else LesionKind.ROUND_CALCIFICATIONS)
    place = _place(breast, rng)
    return tuple(_draw(kind, malignant, place, difficulty, rng) for kind in dict.fromkeys(kinds))


def _place(breast: Breast, rng: np.random.Generator) -> Points:
    """In glandular tissue, most often in the upper outer quadrant; before an implant, not behind it."""
    front, room = (0.70, 0.25) if breast.implant else (0.35, 0.42)
    x = breast.depth_mm * rng.uniform(front, front + 0.1 if breast.implant else 0.72)
    room *= breast.half_width_mm
    y, z = np.clip(rng.normal(0.25, 0.5, 2), -1, 1) * room
    return np.array([[x, y, z]])


def _draw(
    kind: LesionKind, malignant: bool, place: Points, difficulty: float, rng: np.random.Generator
) -> Lesion:
    easy = 1 - difficulty
    if kind in _CALCIFICATIONS:
        radius = rng.uniform(3.5, 8.0)
        contrast = (0.18 + 0.5 * easy) * rng.uniform(0.85, 1.15)
    else:
        radius = rng.uniform(4.0, 8.5) * (0.75 + 0.5 * easy)
        contrast = (0.09 + 0.27 * easy) * rng.uniform(0.85, 1.15)
    return Lesion(kind, malignant, place, float(radius), float(contrast), int(rng.integers(2**62)))


def signal(lesion: Lesion, pitch_mm: float) -> Signal:
    """Added brightness of a lesion at a pixel pitch: a square patch with the lesion in its middle."""
    rng = np.random.default_rng(lesion.seed)
    if lesion.kind in _CALCIFICATIONS:
        return _calcifications(lesion, pitch_mm, rng)
    return _mass(lesion, pitch_mm, rng)


def _raster(half_mm: float, pitch_mm: float) -> tuple[Grid, Field, Field]:
    """A patch's grid, and row and column offsets from its middle in millimetres."""
    half = max(2, int(np.ceil(half_mm / pitch_mm)))
    grid = Grid(2 * half + 1, 2 * half + 1, pitch_mm)
    middle = np.float32((half + 0.5) * pitch_mm)
    return grid, grid.row_mm() - middle, grid.column_mm() - middle


def _mass(lesion: Lesion, pitch_mm: float, rng: np.random.Generator) -> Signal:
    """A lobulated body; its border is sharp (benign) or fades; spicules where the kind has them."""
    spiculated = lesion.kind is LesionKind.SPICULATED_MASS
    benign = lesion.kind is LesionKind.SMOOTH_MASS
    fine = max(pitch_mm, 0.1)
    grid, down, right = _raster(lesion.radius_mm * (2.8 if spiculated else 1.6), fine)
    angle, distance = np.arctan2(down, right), np.hypot(down, right)
    border = np.ones_like(angle)
    for order, size in ((2, 0.12), (3, 0.07), (5, 0.0 if benign else 0.06), (8, 0.0 if benign else 0.05)):
        border += np.float32(size * rng.uniform(0.4, 1)) * np.cos(
            order * angle + np.float32(rng.uniform(0, 7))
        )
    inside = np.asarray(distance / (np.float32(lesion.radius_mm) * border), np.float32)
    body = smoothstep(inside, 1.03, 0.88) if benign else smoothstep(inside, 1.35, 0.35)
    body = body * (0.92 + (0.03 if benign else 0.09) * power_law(grid, 3.0, rng, longest_mm=8))
    if spiculated:
        body = np.maximum(body, _spicules(lesion.radius_mm, angle, distance, rng))
    reach = lesion.radius_mm * (1.5 if spiculated else 1.15) / pitch_mm
    return Signal(_repitch(np.float32(lesion.contrast) * body, fine, pitch_mm), reach, reach)


def _spicules(radius_mm: float, angle: Field, distance: Field, rng: np.random.Generator) -> Field:
    """Thin tapering lines that radiate from the mass."""
    total = np.zeros_like(distance)
    for _ in range(int(rng.integers(14, 26))):
        length = np.float32(radius_mm * rng.uniform(1.5, 2.7))
        curl = np.float32(rng.normal(0, 0.12)) * distance / length
        turn = np.angle(np.exp(1j * (angle - np.float32(rng.uniform(-np.pi, np.pi)) - curl))).astype(
            np.float32
        )
        off = distance * np.sin(np.clip(turn, -1.5, 1.5))
        width = np.float32(rng.uniform(0.3, 0.55))
        line = np.exp(-((off / width) ** 2)) * np.clip(1 - distance / length, 0, 1) * (np.abs(turn) < 1.5)
        total = np.maximum(total, np.float32(rng.uniform(0.6, 1.0)) * line)
    return total


def _calcifications(lesion: Lesion, pitch_mm: float, rng: np.random.Generator) -> Signal:
    """Specks: pleomorphic, partly in a line (malignant), or round and alike (benign)."""
    benign = lesion.kind is LesionKind.ROUND_CALCIFICATIONS
    count = int(rng.integers(4, 9)) if benign else int(rng.integers(10, 28))
    spread = rng.normal(0, 0.42, (count, 2)) * lesion.radius_mm * (1.0 if benign else np.array([0.55, 1.0]))
    turn = rng.uniform(0, np.pi)
    spread = np.clip(spread, -lesion.radius_mm, lesion.radius_mm) @ np.array(
        [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    )
    grid, down, right = _raster(float(np.abs(spread).max()) + 2.0, pitch_mm)
    patch = np.zeros((grid.rows, grid.columns), np.float32)
    for row, column in spread:
        _add_speck(patch, (down - np.float32(row), right - np.float32(column)), (pitch_mm, benign), rng)
    half = (np.abs(spread).max(axis=0) + 1.0) / pitch_mm
    return Signal(np.float32(lesion.contrast) * patch, float(half[0]), float(half[1]))


def _add_speck(
    patch: Field, offsets: tuple[Field, Field], form: tuple[float, bool], rng: np.random.Generator
) -> None:
    """Add one speck; its mass, not its peak, is kept where pixels are larger than it."""
    (down, right), (pitch_mm, benign) = offsets, form
    long = rng.uniform(0.25, 0.45) if benign else rng.uniform(0.09, 0.32)
    short = long if benign else long * rng.uniform(0.35, 1.0)
    turn, peak = rng.uniform(0, np.pi), rng.uniform(0.75, 1.1) if benign else rng.uniform(0.4, 1.1)
    blur = (0.4 * pitch_mm) ** 2
    wide, thin = np.hypot(long, np.sqrt(blur)), np.hypot(short, np.sqrt(blur))
    rows = np.flatnonzero(np.abs(down[:, 0]) < 4 * wide)
    columns = np.flatnonzero(np.abs(right[0]) < 4 * wide)
    if not rows.size or not columns.size:
        return
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    d, r = down[rows], right[:, columns]
    along = (d * np.cos(turn) + r * np.sin(turn)) / np.float32(wide)
    across = (r * np.cos(turn) - d * np.sin(turn)) / np.float32(thin)
    level = np.float32(peak * long * short / (wide * thin))
    patch[window] = np.maximum(
        patch[window], level * np.exp(-((along**2 + across**2) ** (2 if benign else 1)))
    )


def _repitch(patch: Field, fine_mm: float, pitch_mm: float) -> Field:
    """Bring a patch to the image's pitch, keeping it centred and of odd size."""
    if fine_mm == pitch_mm:
        return patch
    return scale_odd(patch, fine_mm / pitch_mm)
