"""In: a breast, its outline in a view, a grid. Out: brightness of its tissue, 0 (air) to about 1 (metal).

Brightness is what a "for presentation" image shows: thickness already equalised, so fat is an even dark grey
that falls off only in the last millimetres before the skin line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bench.phantom_anatomy import Breast, Outline, View, project
from bench.phantom_texture import (
    Field,
    Grid,
    band,
    power_law,
    resample,
    sample,
    smoothstep,
    strands,
)

_COARSE_MM = 0.4
_GLAND = {"A": 0.55, "B": 0.80, "C": 1.0, "D": 1.15}
_WEB = {"A": 0.85, "B": 1.0, "C": 0.9, "D": 0.7}


@dataclass(frozen=True, slots=True)
class Scene:
    """What the layers of one view are drawn from; distances in millimetres."""

    breast: Breast
    view: View
    shape: Outline
    grid: Grid
    skin_mm: Field
    """Distance to the skin from inside; 0 outside."""
    rng: np.random.Generator

    @property
    def nipple(self) -> tuple[float, float]:
        """Row and column of the nipple."""
        return self.shape.nipple_row_mm, float(self.shape.reach(np.array([self.shape.nipple_row_mm]))[0])


def draw_tissue(breast: Breast, view: View, shape: Outline, grid: Grid, rng: np.random.Generator) -> Field:
    """Brightness of all tissue on `grid`, whose origin is the top of the tissue at the chest wall."""
    scene = Scene(breast, view, shape, grid, skin_distance(shape, view, grid), rng)
    inner = smoothstep(scene.skin_mm, 2, 15)
    cone = _retroareolar(scene)
    polar = _Polar.around_nipple(scene)
    lobules = _lobules(scene, polar)
    gland = _gland(scene, lobules, polar) * np.maximum(inner, cone)
    fat = 0.20 + 0.03 * power_law(grid, 2.6, rng) + 0.04 * lobules
    net, ducts = _net(scene) * np.float32(_WEB[breast.density]), _ducts(scene, polar)
    near = np.minimum(lobules + 0.6 * cone, 1) * inner
    value = fat + gland * 0.44 + net * (0.085 + 0.06 * near) * (0.35 + 0.65 * inner)
    value += ducts * (0.075 + 0.12 * near) * (0.25 + 0.75 * inner) + _vessels(scene) * inner
    value += _pectoral(scene, value) if view is View.MLO else _pectoral_sliver(scene)
    if breast.implant:
        value = _with_implant(scene, value)
    return _skin_and_air(scene, value)


def skin_distance(shape: Outline, view: View, grid: Grid) -> Field:
    """Distance from each place inside to the skin; chest wall and the upper edge of an MLO are not skin."""
    coarse = grid.at_pitch(max(_COARSE_MM, grid.pitch_mm))
    reach = shape.reach(coarse.row_mm()[:, 0].astype(np.float64))
    mask = coarse.column_mm() < reach[:, None]
    padded = np.pad(mask, ((0, 1), (1, 1)), mode="edge")
    padded = np.pad(padded, ((1, 0), (0, 0)), mode="edge" if view is View.MLO else "constant")
    padded[:, -1] = False
    padded[-1] = padded[-2] if view is View.MLO else False
    reach_px = 1
    distance = ndimage.distance_transform_edt(padded)[reach_px:-reach_px, reach_px:-reach_px]
    distance = ndimage.gaussian_filter(distance, 0.8)
    inside = np.maximum(distance.astype(np.float32) - np.float32(0.5), 0) * np.float32(coarse.pitch_mm)
    return resample(inside, coarse, grid)


@dataclass(frozen=True, slots=True)
class _Polar:
    """Coordinates around a point before the nipple, bent by a slow field: ducts and septa follow them."""

    grid: Grid
    along: Field
    """Row in `grid`: angle times 60 mm."""
    outward: Field
    """Column in `grid`: half the distance."""

    @classmethod
    def around_nipple(cls, scene: Scene) -> _Polar:
        grid, (row, column) = scene.grid, scene.nipple
        slow = grid.at_pitch(2.0)
        bend = resample(power_law(slow, 4.6, scene.rng, longest_mm=70), slow, grid)
        down = grid.row_mm() - np.float32(row)
        back = np.float32(column + 14) - grid.column_mm()
        angle = np.arctan2(down, back) + np.float32(0.09) * bend
        polar = Grid(int(np.pi * 60 / 0.4), int((grid.columns * grid.pitch_mm + 100) / 2 / 0.4), 0.4)
        return cls(polar, (angle + np.float32(np.pi / 2)) * 60, np.hypot(down, back) / 2 + 1)

    def take(self, field: Field) -> Field:
        """A field drawn in polar coordinates, as it lies in the view."""
        return sample(field, self.grid, self.along, self.outward)


def _lobules(scene: Scene, polar: _Polar) -> Field:
    """Projected fibroglandular lobules, 0…1: the same tissue in both views, drawn out towards the nipple."""
    coarse = scene.grid.at_pitch(max(1.5, scene.grid.pitch_mm))
    total = np.zeros((coarse.rows, coarse.columns), np.float32)
    tissue = scene.breast.tissue
    places = project(scene.breast, scene.view, scene.shape, tissue.centres)
    for (row, column), radius, weight in zip(places, tissue.radii_mm, tissue.weights, strict=True):
        along_row = np.exp(-(((coarse.row_mm() - row) / (0.85 * radius)) ** 2))
        along_column = np.exp(-(((coarse.column_mm() - column) / (1.5 * radius)) ** 2))
        total += np.float32(weight) * along_row * along_column
    streaks = polar.take(band(polar.grid, 14, scene.rng, stretch=2.0))
    drawn_out = resample(total, coarse, scene.grid) * np.exp(0.4 * streaks)
    return np.asarray(1 - np.exp(-drawn_out), np.float32)


def _gland(scene: Scene, lobules: Field, polar: _Polar) -> Field:
    """Dense tissue: lobules broken up by power-law texture, septa and islands of fat."""
    texture = power_law(scene.grid, 3.3, scene.rng, longest_mm=40)
    streaks = polar.take(power_law(polar.grid, 3.0, scene.rng, longest_mm=20))
    holes = smoothstep(band(scene.grid, 15, scene.rng) + 0.5 * texture + 0.3 * streaks, 0.5, 2.4)
    edge = smoothstep(lobules + 0.16 * texture + 0.07 * streaks, 0.12, 1.0)
    inside = 0.72 + 0.17 * texture + 0.09 * streaks
    amount = np.float32(_GLAND[scene.breast.density])
    return np.clip(edge * inside * (1 - 0.6 * holes) * amount, 0, 1.3)


def _net(scene: Scene) -> Field:
    """Cooper's ligaments: a net at several scales that fades in and out."""
    grid, rng = scene.grid, scene.rng
    net = np.zeros((grid.rows, grid.columns), np.float32)
    for wavelength, width, weight in (
        (21.0, 0.55, 0.9),
        (12.0, 0.42, 0.8),
        (7.0, 0.34, 0.65),
        (4.0, 0.3, 0.35),
    ):
        fade = smoothstep(power_law(grid, 2.4, rng, longest_mm=1.6 * wavelength), -0.5, 1.5)
        net += np.float32(weight) * strands(band(grid, wavelength, rng), wavelength, width) * fade
    return net


def _ducts(scene: Scene, polar: _Polar) -> Field:
    """Ducts and septa that run together at the nipple."""
    total = np.zeros((scene.grid.rows, scene.grid.columns), np.float32)
    for wavelength, width, weight in ((13.0, 0.9, 0.8), (7.0, 0.65, 0.7)):
        lines = strands(band(polar.grid, wavelength, scene.rng, stretch=2.0), wavelength, width)
        fade = smoothstep(power_law(polar.grid, 2.4, scene.rng, longest_mm=25), -0.6, 1.5)
        total += np.float32(weight) * polar.take(lines * fade)
    return total


def _retroareolar(scene: Scene) -> Field:
    """Where dense tissue may come close to the skin: a cone behind the nipple."""
    row, column = scene.nipple
    down = np.abs(scene.grid.row_mm() - np.float32(row))
    back = np.maximum(np.float32(column) - scene.grid.column_mm(), 0)
    cone = np.exp(-((down / (3 + 0.25 * back)) ** 2)) * np.exp(-((back / 18) ** 2))
    return np.asarray(cone * smoothstep(back, 0.0, 2.5), np.float32)


def _vessels(scene: Scene) -> Field:
    """Veins: soft tubes one to two millimetres wide."""
    coarse = scene.grid.at_pitch(max(0.3, scene.grid.pitch_mm))
    canvas = np.zeros((coarse.rows, coarse.columns), np.float32)
    for path in scene.breast.vessels:
        places = project(scene.breast, scene.view, scene.shape, path)
        steps, knots = np.linspace(0, len(places) - 1, 900), np.arange(len(places))
        rows = (np.interp(steps, knots, places[:, 0]) // coarse.pitch_mm).astype(int)
        columns = (np.interp(steps, knots, places[:, 1]) // coarse.pitch_mm).astype(int)
        there = (rows >= 0) & (rows < coarse.rows) & (columns >= 0) & (columns < coarse.columns)
        canvas[rows[there], columns[there]] = 1
    width = 0.45 / coarse.pitch_mm
    soft = ndimage.gaussian_filter(canvas, width) * np.float32(np.sqrt(2 * np.pi) * width)
    return np.asarray(np.float32(0.085) * np.minimum(resample(soft, coarse, scene.grid), 1.2), np.float32)


def _pectoral_edge(scene: Scene) -> Field:
    """How far the muscle reaches from the chest wall at each row."""
    breast = scene.breast
    part = np.clip(scene.grid.row_mm() / np.float32(breast.pectoral_height_mm), 0, 1)
    bow = np.float32(4 * np.sin(21 * breast.angle_rad))
    straight = np.float32(breast.pectoral_width_mm) * (1 - part**1.12)
    return np.asarray(straight + bow * np.sin(np.pi * part), np.float32)


def _pectoral(scene: Scene, under: Field) -> Field:
    """Pectoral muscle of an MLO: bright, brighter towards the chest wall, faintly streaked."""
    grid, rng = scene.grid, scene.rng
    edge = _pectoral_edge(scene)
    wobble = 0.7 * resample(power_law(grid.at_pitch(1.5), 4.0, rng), grid.at_pitch(1.5), grid)
    distance = (edge - grid.column_mm()) * np.float32(0.85) + wobble
    muscle = smoothstep(distance, -1.0, 2.2)
    body = 0.40 + 0.16 * np.clip(distance / 45, 0, 1) + 0.025 * power_law(grid, 2.6, rng)
    return np.asarray(muscle * np.maximum(body - 0.35 * np.maximum(under - 0.25, 0), 0.05), np.float32)


def _pectoral_sliver(scene: Scene) -> Field:
    """In a quarter of CC views the muscle shows as a bright rim at the chest wall."""
    if scene.rng.random() > 0.25:
        return np.zeros((1, 1), np.float32)
    centre = np.float32(scene.shape.height_mm * scene.rng.uniform(0.4, 0.65))
    half = np.float32(scene.shape.height_mm * scene.rng.uniform(0.15, 0.3))
    depth = np.float32(scene.rng.uniform(2, 5))
    reach = depth * (1 - ((scene.grid.row_mm() - centre) / half) ** 2)
    return np.float32(0.36) * smoothstep(reach - scene.grid.column_mm(), -1.0, 2.5)


def _with_implant(scene: Scene, value: Field) -> Field:
    """A silicone implant: a bright even ellipse at the chest wall that hides what is behind it."""
    breast = scene.breast
    row = np.float32(scene.shape.nipple_row_mm - 0.08 * breast.half_width_mm)
    height, depth = np.float32(0.68 * breast.half_width_mm), np.float32(0.58 * breast.depth_mm)
    tilt = (scene.grid.row_mm() - row) / height
    radius = np.hypot(tilt, (scene.grid.column_mm() + np.float32(0.05) * tilt * depth) / depth)
    ripple = resample(
        power_law(scene.grid.at_pitch(1.5), 4.5, scene.rng), scene.grid.at_pitch(1.5), scene.grid
    )
    radius = np.asarray(radius + np.float32(0.012) * ripple, np.float32)
    cover = smoothstep(-radius, -1.02, -0.985)
    body = 0.74 + 0.10 * np.sqrt(np.clip(1 - radius**2, 0, 1)) + 0.05 * smoothstep(radius, 0.93, 0.99)
    return np.asarray(value * (1 - cover) + cover * (body + 0.12 * np.minimum(value - 0.3, 0.4)), np.float32)


def _skin_and_air(scene: Scene, value: Field) -> Field:
    """Thickness falls to nothing at the skin; the skin itself is a thin brighter line; air is 0."""
    skin = scene.skin_mm
    thickness = 0.16 + 0.84 * np.sqrt(np.clip(skin / 11, 0, 1))
    slow = scene.grid.at_pitch(2.0)
    fade = resample(smoothstep(power_law(slow, 2.5, scene.rng, longest_mm=40), -1.5, 1.5), slow, scene.grid)
    line = (0.06 + 0.16 * fade) * np.exp(-(((skin - 0.8) / 0.62) ** 2))
    row, column = scene.nipple
    areola = np.hypot(
        scene.grid.row_mm() - np.float32(row), scene.grid.column_mm() - np.float32(column - 1.5)
    )
    line = line + np.float32(0.2) * np.exp(-((areola / 4.0) ** 4))
    return np.asarray((value * thickness + line) * smoothstep(skin, -0.4, 0.3), np.float32)
