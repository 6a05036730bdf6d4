"""Whether a wavelet level keeps the contrast of what is looked for: specks and masses of known size.

In:  a Picture. Out: contrast-to-noise ratios of planted lesions, against those in the ideal picture.

Tiles of the picture's tissue are put side by side; each gets one sphere (brightness as its thickness) at a
random sub-pixel place in its middle. The picture is prepared with and without them: the difference is the
signal. Values are brought to 15 bits first, so that rounding does not blur the comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bench.quality_metrics import Target
from bench.quality_pictures import LEVELS, Picture
from preprocess.records import IndexPixels
from preprocess.wavelet import low_pass_53

SIZES_MM = (0.1, 0.2, 0.3, 0.5, 5.0)
"""Diameters: microcalcifications, and one mass."""
TILE_PX = 192
"""A multiple of 2^LEVELS, so that every tile sees the same phase."""
_WANDER_PX = 16.0
_BITS = 15
BRIGHTNESS = 0.15
_SUPERSAMPLING = 5

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Kept:
    """What a way of resizing keeps, over what the ideal picture has: one size's lesions together."""

    contrast: float
    """Mean contrast-to-noise over the ideal's mean."""
    contrast_p5: float
    """5th percentile of the ratio lesion by lesion: one lesion in twenty fares worse."""
    detectability: float
    """As `contrast`, of the root of the signal's summed squares: an observer's who knows its form (d′)."""
    detectability_p5: float
    noise: float


@dataclass(frozen=True, slots=True)
class LesionRatio:
    """How visible lesions of one size are, relative to the ideal picture."""

    picture: str
    real: bool
    level: int
    margin: float
    size_mm: float
    size_samples: float
    """Diameter in samples of the level."""
    lesions: int
    leveled: Kept
    bilinear: Kept


@dataclass(frozen=True, slots=True)
class Planted:
    """A mosaic of tissue without and with lesions, each at all levels, and where the lesions lie."""

    without: tuple[IndexPixels, ...] = field(repr=False)
    planted: tuple[IndexPixels, ...] = field(repr=False)
    centres: _Floats = field(repr=False)
    """(tiles, 2): row and column in mosaic pixels, where pixel n covers n … n + 1."""
    sizes_mm: _Floats = field(repr=False)


def plant(picture: Picture, tiles_a_side: int, seed: int, brightness: float = BRIGHTNESS) -> Planted:
    """Plant one lesion a tile into tiles of the picture's tissue, the sizes in turn.

    brightness: of a sphere's middle, as part of the tissue's range (0.5 to 99.5 %).

    Raises ValueError: fewer tiles than sizes, or the picture is smaller than a tile.
    """
    if tiles_a_side**2 < len(SIZES_MM) or min(picture.levels[0].shape) < TILE_PX:
        raise ValueError(f"{picture.name}: needs {len(SIZES_MM)} tiles of {TILE_PX} pixels")
    rng = np.random.default_rng([seed, 5003])
    mosaic = _mosaic(picture, tiles_a_side, rng)
    low, high = np.percentile(mosaic, (0.5, 99.5))
    amplitude = brightness * (high - low) * (-1 if picture.inverted else 1)
    corner = np.stack(np.divmod(np.arange(tiles_a_side**2), tiles_a_side), axis=1) * TILE_PX
    centres = corner + TILE_PX / 2 + rng.uniform(-_WANDER_PX, _WANDER_PX, corner.shape)
    sizes = np.resize(np.array(SIZES_MM), len(centres))
    signal = np.zeros(mosaic.shape)
    for centre, size in zip(centres, sizes, strict=True):
        _add_sphere(signal, centre, size / picture.pitch_mm / 2)
    planted = np.rint(mosaic + amplitude * signal)
    return Planted(_pyramid(mosaic), _pyramid(planted), centres, sizes)


def ratios(picture: Picture, planted: Planted, level: int, margin: float) -> Iterator[LesionRatio]:
    """Contrast-to-noise of each size at a level on which the box is `margin` times its size in the output.

    Contrast: mean signal over the pixels in which the ideal picture shows at least half of the lesion's
    peak. Noise: deviation of the tile without lesion from its 5 × 5 mean. Both in the prepared picture.
    Lesions that the ideal rounds to nothing, and tiles of one value, are left out.
    """
    ratio = margin * (1 << level)
    target = Target.of((0, 0, *planted.without[0].shape), ratio)
    pairs = [(stack[0], stack[level]) for stack in (planted.without, planted.planted)]
    ideal = [target.area(full, 0).astype(np.float64) for full, _ in pairs]
    leveled = [target.area(samples, level).astype(np.float64) for _, samples in pairs]
    bilinear = [target.bilinear(full).astype(np.float64) for full, _ in pairs]
    measured = np.array(
        [
            [_seen(ideal, kind, window) for kind in (ideal, leveled, bilinear)]
            for window in _windows(planted, ratio)
        ]
    )
    usable = (measured[:, 0] > 0).all(axis=1) & (measured[:, 1:, 2] > 0).all(axis=1)
    for size in SIZES_MM:
        of_size = measured[(planted.sizes_mm == size) & usable]
        if not len(of_size):
            continue
        leveled_kept, bilinear_kept = (_kept(of_size[:, 0], of_size[:, way]) for way in (1, 2))
        samples = size / picture.pitch_mm / (1 << level)
        yield LesionRatio(
            picture.name,
            picture.real,
            level,
            margin,
            size,
            samples,
            len(of_size),
            leveled_kept,
            bilinear_kept,
        )


def _kept(ideal: _Floats, other: _Floats) -> Kept:
    """The means' ratio, and percentiles of ratios lesion by lesion; columns: contrast, energy, noise."""
    ideal_shown, shown = (seen[:, :2] / seen[:, 2:] for seen in (ideal, other))
    contrast, energy = shown.mean(axis=0) / ideal_shown.mean(axis=0)
    low, low_energy = np.percentile(shown / ideal_shown, 5, axis=0)
    noise = (other[:, 2] / ideal[:, 2]).mean()
    return Kept(float(contrast), float(low), float(energy), float(low_energy), float(noise))


def _windows(planted: Planted, ratio: float) -> Iterable[tuple[slice, slice]]:
    """The output pixels that lie wholly inside each tile."""
    for centre in planted.centres:
        corner = centre // TILE_PX * TILE_PX
        first, last = np.ceil(corner / ratio).astype(int), ((corner + TILE_PX) // ratio).astype(int)
        yield slice(first[0], last[0]), slice(first[1], last[1])


def _seen(
    ideal: list[_Floats], kind: list[_Floats], window: tuple[slice, slice]
) -> tuple[float, float, float]:
    """Contrast, root of the signal's energy, noise."""
    full = np.abs(ideal[1][window] - ideal[0][window])
    tissue = kind[0][window]
    signal = np.abs(kind[1][window] - tissue)
    contrast, energy = signal[full >= full.max() / 2].mean(), np.sqrt((signal**2).sum())
    return float(contrast), float(energy), float((tissue - ndimage.uniform_filter(tissue, 5)).std())


def _mosaic(picture: Picture, tiles_a_side: int, rng: np.random.Generator) -> _Floats:
    """Tiles of tissue, at random places that lie as much inside it as there are such places."""
    half = TILE_PX >> (LEVELS + 1)
    share = ndimage.uniform_filter(picture.tissue.astype(np.float32), 2 * half, mode="constant")
    rows, columns = np.nonzero(share >= min(0.99, float(share.max())))
    chosen = rng.integers(len(rows), size=tiles_a_side**2)
    mosaic = np.empty((tiles_a_side * TILE_PX,) * 2)
    limits = [size - TILE_PX for size in picture.levels[0].shape]
    for n, place in enumerate(chosen):
        row, column = (
            int(np.clip((int(found[place]) - half << LEVELS) + rng.integers(1 << LEVELS), 0, limit))
            for found, limit in zip((rows, columns), limits, strict=True)
        )
        top, left = (index * TILE_PX for index in divmod(n, tiles_a_side))
        tile = picture.levels[0][row : row + TILE_PX, column : column + TILE_PX]
        mosaic[top : top + TILE_PX, left : left + TILE_PX] = tile
    return mosaic * 2.0 ** (_BITS - picture.bits)


def _add_sphere(signal: _Floats, centre: _Floats, radius_px: float) -> None:
    """Add a sphere's thickness, 1 in its middle, averaged over each pixel."""
    first = np.floor(centre - radius_px).astype(int)
    size = int(np.ceil(2 * radius_px)) + 2
    fine = (np.arange(size * _SUPERSAMPLING) + 0.5) / _SUPERSAMPLING
    down, right = (first + fine[:, None] - centre).T
    square = 1 - (down[:, None] ** 2 + right[None, :] ** 2) / radius_px**2
    thickness = np.sqrt(np.clip(square, 0, None))
    blocks = thickness.reshape(size, _SUPERSAMPLING, size, _SUPERSAMPLING).mean(axis=(1, 3))
    signal[first[0] : first[0] + size, first[1] : first[1] + size] += blocks


def _pyramid(mosaic: _Floats) -> tuple[IndexPixels, ...]:
    """All levels, with room above the 15 bits."""
    pixels = np.clip(mosaic, 0, 65535).astype(np.int32)
    bands = (low_pass_53(pixels, level) for level in range(LEVELS + 1))
    return tuple(np.clip(band, 0, 65535).astype(np.uint16) for band in bands)
