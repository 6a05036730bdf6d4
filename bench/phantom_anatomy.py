"""In: a random generator. Out: a breast in three dimensions, and its outline in a CC or MLO view.

Breast frame, millimetres: x from the chest wall (0) to the nipple, y from medial (-) to lateral (+),
z from below (-) to above (+), nipple at y = z = 0. A view sees (row, column): column = x; row grows downwards
and is measured from the nipple along -y (CC: lateral on top) or -(z cos α + y sin α) (MLO, α ≈ 45°).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.interpolate import PchipInterpolator

Points = npt.NDArray[np.float64]
"""(n, 3): x, y, z in millimetres."""


class View(StrEnum):
    """The two screening views."""

    CC = "CC"
    MLO = "MLO"


@dataclass(frozen=True, slots=True)
class Tissue:
    """Fibroglandular lobules as Gaussian blobs, and what texture belongs to a density class."""

    centres: Points
    radii_mm: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Breast:
    """One breast: everything both views share."""

    depth_mm: float
    """Chest wall to nipple."""
    half_width_mm: float
    """Half of the base."""
    pointedness: float
    """Exponent of the outline: 2 is an ellipse, less is more pointed."""
    density: str
    """A (fat) to D (extremely dense)."""
    tissue: Tissue
    vessels: tuple[Points, ...]
    nipple_mm: float
    axilla: float
    """Width of the MLO outline at the top, as part of the depth."""
    pectoral_width_mm: float
    pectoral_height_mm: float
    angle_rad: float
    """Of the MLO projection."""
    implant: bool
    texture_seed: int


_WIDEST_MM = 94.0
"""Half base of a breast whose MLO still fits on the smaller detectors."""

_LOBULES = {"A": 9, "B": 28, "C": 60, "D": 110}


def draw_breast(rng: np.random.Generator, density: str, implant: bool, twin: Breast | None = None) -> Breast:
    """Draw one breast; with `twin` (the other side of the same patient) size and shape follow it closely."""
    depth = float(rng.uniform(72, 116))
    ratio = float(rng.uniform(0.80, 0.99))
    if twin is not None:
        depth = twin.depth_mm * float(rng.uniform(0.96, 1.04))
        ratio = twin.half_width_mm / twin.depth_mm * float(rng.uniform(0.97, 1.03))
    half_width = min(depth * ratio, _WIDEST_MM)
    return Breast(
        depth_mm=depth,
        half_width_mm=half_width,
        pointedness=float(rng.uniform(1.65, 2.15)) if twin is None else twin.pointedness,
        density=density,
        tissue=_draw_tissue(rng, density, depth, half_width),
        vessels=tuple(_draw_vessel(rng, depth, half_width) for _ in range(int(rng.integers(2, 5)))),
        nipple_mm=float(rng.uniform(1.2, 3.8)) if twin is None else twin.nipple_mm,
        axilla=float(rng.uniform(0.62, 0.84)) if twin is None else twin.axilla,
        pectoral_width_mm=depth * float(rng.uniform(0.42, 0.62)),
        pectoral_height_mm=half_width * float(rng.uniform(1.05, 1.6)),
        angle_rad=float(np.deg2rad(rng.uniform(40, 55))),
        implant=implant,
        texture_seed=int(rng.integers(2**62)),
    )


def _draw_tissue(rng: np.random.Generator, density: str, depth: float, half_width: float) -> Tissue:
    """Lobules in a cone that opens from the nipple to the chest wall, most in the upper outer part."""
    count = _LOBULES[density]
    back = rng.beta(1.7, 1.9, count) * 0.72 + 0.10
    spread = half_width * (0.10 + 0.55 * back) * (1.15 if density == "D" else 1.0)
    y = rng.normal(0.12, 0.55, count) * spread
    z = rng.normal(0.12, 0.55, count) * spread
    centres = np.column_stack([depth * (1 - back), y, z])
    scale = half_width / 80
    return Tissue(centres, rng.uniform(4, 13, count) * scale, rng.uniform(0.4, 1.2, count))


def _draw_vessel(rng: np.random.Generator, depth: float, half_width: float) -> Points:
    """A vein that winds from the axillary or medial side towards the nipple."""
    steps = np.linspace(0, 1, 60)
    start = np.array(
        [0.1 * depth, rng.choice([-0.5, 0.6, 0.75]) * half_width, rng.uniform(0.0, 0.8) * half_width]
    )
    end = np.array(
        [rng.uniform(0.6, 0.9) * depth, rng.normal(0, 0.15) * half_width, rng.normal(0, 0.15) * half_width]
    )
    path = start + (end - start) * steps[:, None] ** rng.uniform(0.7, 1.4)
    wiggle = ndimage.gaussian_filter1d(rng.normal(0, 1, (60, 3)), 7, axis=0, mode="nearest") * 20
    return np.asarray(path + wiggle * np.sin(np.pi * steps)[:, None] ** 0.5, np.float64)


@dataclass(frozen=True, slots=True)
class Outline:
    """A breast in a view: for each place along the chest wall, how far tissue reaches from it.

    Attributes:
        rows_mm: rising positions along the chest wall, from the top of the tissue.
        reach_mm: tissue covers columns [0, reach) there; 0 where there is none.
        nipple_row_mm: row of the nipple.
    """

    rows_mm: npt.NDArray[np.float64]
    reach_mm: npt.NDArray[np.float64]
    nipple_row_mm: float

    def reach(self, row_mm: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Tissue's reach at the given rows; 0 outside."""
        return np.asarray(np.interp(row_mm, self.rows_mm, self.reach_mm, left=0.0, right=0.0), np.float64)

    @property
    def height_mm(self) -> float:
        """Length of tissue along the chest wall."""
        return float(self.rows_mm[-1])

    @property
    def area_mm2(self) -> float:
        """Area of tissue."""
        return float(np.trapezoid(self.reach_mm, self.rows_mm))


def outline(breast: Breast, view: View, rng: np.random.Generator) -> Outline:
    """The breast's outline in a view; `rng` is the image's own: positioning differs a little every time."""
    rows, reach, nipple_row = _cc_outline(breast, rng) if view is View.CC else _mlo_outline(breast, rng)
    step = rows[1] - rows[0]
    ripple = ndimage.gaussian_filter1d(rng.normal(0, 1, rows.size), 14 / step) * np.sqrt(14 / step) * 1.1
    reach = np.maximum(reach + ripple * np.clip(reach / 20, 0, 1), 0)
    bump = breast.nipple_mm * np.exp(-((np.abs(rows - nipple_row) / 4.6) ** 2.6))
    return Outline(rows, reach + bump * (reach > 0), nipple_row)


_Curve = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]


def _cc_outline(breast: Breast, rng: np.random.Generator) -> _Curve:
    """Half a superellipse whose widest place is the nipple, a little off the middle."""
    top = breast.half_width_mm * rng.uniform(0.98, 1.1)
    bottom = breast.half_width_mm * rng.uniform(0.9, 1.02)
    rows = np.linspace(0, top + bottom, 600)
    t = np.where(rows < top, (top - rows) / top, (rows - top) / bottom)
    p = breast.pointedness
    reach = breast.depth_mm * np.clip(1 - t**p, 0, 1) ** (1 / 1.75)
    return rows, reach, top


def _mlo_outline(breast: Breast, rng: np.random.Generator) -> _Curve:
    """Axilla on top, bulging to the nipple at about two thirds, back to the fold below."""
    height = breast.half_width_mm * rng.uniform(2.35, 2.6)
    nipple = rng.uniform(0.60, 0.67)
    places = np.array([0, 0.16, 0.34, 0.48, nipple, 0.76, 0.87, 0.95, 1.0])
    axilla = breast.axilla
    parts = [axilla, axilla - 0.02, axilla * 0.55 + 0.42, 0.945, 1.0, 0.93, 0.71, 0.42, 0.0]
    rows = np.linspace(0, height, 700)
    reach = breast.depth_mm * PchipInterpolator(places * height, np.minimum(parts, 1.0))(rows)
    reach = ndimage.gaussian_filter1d(reach, 18, mode="nearest") * np.clip((height - rows) / 8, 0, 1)
    return rows, reach, float(nipple * height)


def project(breast: Breast, view: View, shape: Outline, points: Points) -> npt.NDArray[np.float64]:
    """Project points of the breast frame into a view: (n, 2) rows and columns in millimetres."""
    if view is View.CC:
        along = points[:, 1]
    else:
        along = points[:, 2] * np.cos(breast.angle_rad) + points[:, 1] * np.sin(breast.angle_rad)
    return np.column_stack([shape.nipple_row_mm - along, points[:, 0]])
