"""In: a grid and a random generator. Out: float32 fields that tissue texture is made of.

Parenchyma has a power-law spectrum (β ≈ 3; Burgess, Med Phys 28, 2001); strands are the zero lines of
band-limited fields, so they branch, close and fade like ligaments and ducts do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import fft, ndimage

Field = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Grid:
    """A raster in millimetres: pixel (r, c) is centred on ((r + ½)·pitch, (c + ½)·pitch)."""

    rows: int
    columns: int
    pitch_mm: float

    def row_mm(self) -> Field:
        """Row centres, shape (rows, 1)."""
        return ((np.arange(self.rows, dtype=np.float32) + 0.5) * np.float32(self.pitch_mm))[:, None]

    def column_mm(self) -> Field:
        """Column centres, shape (1, columns)."""
        return ((np.arange(self.columns, dtype=np.float32) + 0.5) * np.float32(self.pitch_mm))[None, :]

    def at_pitch(self, pitch_mm: float) -> Grid:
        """The same area at another pitch, covering at least as much."""
        scale = self.pitch_mm / pitch_mm
        return Grid(
            max(4, int(np.ceil(self.rows * scale))), max(4, int(np.ceil(self.columns * scale))), pitch_mm
        )


def resample(field: Field, source: Grid, target: Grid) -> Field:
    """Bilinear resampling between two grids that share their origin."""
    box = (
        0.0,
        0.0,
        target.columns * target.pitch_mm / source.pitch_mm,
        target.rows * target.pitch_mm / source.pitch_mm,
    )
    limits = (0.0, 0.0, min(box[2], float(source.columns)), min(box[3], float(source.rows)))
    picture = Image.fromarray(np.ascontiguousarray(field, np.float32))
    resized = picture.resize((target.columns, target.rows), Image.Resampling.BILINEAR, box=limits)
    return np.asarray(resized, np.float32)


def power_law(grid: Grid, beta: float, rng: np.random.Generator, longest_mm: float = 60.0) -> Field:
    """Gaussian field whose power spectrum falls as frequency^-beta below `longest_mm`; mean 0, variance 1."""
    frequency = _frequencies(grid, 1.0)
    amplitude = np.maximum(frequency, 1.0 / longest_mm) ** (-beta / 2)
    return _filtered(grid, amplitude.astype(np.float32), rng)


def band(grid: Grid, wavelength_mm: float, rng: np.random.Generator, stretch: float = 1.0) -> Field:
    """Gaussian field of one dominant wavelength (about an octave), mean 0, variance 1.

    Structures are `stretch` times longer along columns than along rows.
    """
    octaves = np.log2(np.maximum(_frequencies(grid, stretch), 1e-6) * wavelength_mm)
    return _filtered(grid, np.exp(-0.5 * (octaves / 0.5) ** 2).astype(np.float32), rng)


def strands(field: Field, wavelength_mm: float, half_width_mm: float) -> Field:
    """Bright lines, 0…1, along the zero crossings of a `band` field."""
    sharpness = np.float32(wavelength_mm / (2 * np.pi * half_width_mm))
    return np.asarray(np.exp(-((field * sharpness) ** 2)), np.float32)


def sample(field: Field, grid: Grid, row_mm: Field, column_mm: Field) -> Field:
    """Look a field up at other places (bilinear, mirrored at its borders)."""
    places = np.stack(np.broadcast_arrays(row_mm, column_mm)) / np.float32(grid.pitch_mm) - np.float32(0.5)
    return np.asarray(ndimage.map_coordinates(field, places, order=1, mode="mirror"), np.float32)


def smoothstep(value: Field, low: float, high: float) -> Field:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _frequencies(grid: Grid, stretch: float) -> Field:
    """Radial frequency in cycles/mm of each rfft2 bin of the padded grid."""
    rows, columns = _fast_shape(grid)
    row = np.fft.fftfreq(rows, grid.pitch_mm)[:, None].astype(np.float32)
    column = np.fft.rfftfreq(columns, grid.pitch_mm)[None, :].astype(np.float32)
    return np.asarray(np.hypot(row, column * np.float32(stretch)), np.float32)


def _fast_shape(grid: Grid) -> tuple[int, int]:
    return int(fft.next_fast_len(grid.rows, real=True)), int(fft.next_fast_len(grid.columns, real=True))


def _filtered(grid: Grid, amplitude: Field, rng: np.random.Generator) -> Field:
    """White noise through a filter, scaled to mean 0 and an expected variance of 1."""
    shape = _fast_shape(grid)
    spectrum = fft.rfft2(rng.standard_normal(shape, np.float32), workers=1)
    amplitude = amplitude.copy()
    amplitude[0, 0] = 0
    weights = np.full(amplitude.shape[1], 2.0)
    weights[0] = 1.0
    if shape[1] % 2 == 0:
        weights[-1] = 1.0
    deviation = np.sqrt((amplitude.astype(np.float64) ** 2 * weights).sum() / (shape[0] * shape[1]))
    field = fft.irfft2(spectrum * amplitude, s=shape, workers=1)
    return np.asarray(field[: grid.rows, : grid.columns] / np.float32(max(deviation, 1e-12)), np.float32)


def scale_odd(field: Field, factor: float) -> Field:
    """Scale an odd-sized patch about its centre; the result has odd size and contains the whole patch."""
    rows, columns = (2 * int(np.ceil(n * factor / 2)) + 1 for n in field.shape)
    down, right = (rows / factor - field.shape[0]) / 2, (columns / factor - field.shape[1]) / 2
    pad = int(np.ceil(max(down, right, 0)))
    picture = Image.fromarray(np.pad(np.asarray(field, np.float32), pad))
    box = (pad - right, pad - down, pad + field.shape[1] + right, pad + field.shape[0] + down)
    return np.asarray(picture.resize((columns, rows), Image.Resampling.BILINEAR, box=box), np.float32)
