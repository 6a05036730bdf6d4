"""In: nothing. Out: the machines of the phantom data set, and how each stores brightness.

Formats follow RSNA's: boxed JPEG 2000 with 16 bits in SIZ (2776×2082 of 12 bits; 5355×4915 of 16 bits,
MONOCHROME1, SIGMOID, four windows, padding at the maximum), and JPEG Lossless SV1 of 10 to 14 bits.
Machines do not overlap between the two sites.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from bench.phantom_dicom import MOST_BITS, SYNTAXES
from bench.phantom_texture import Field


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine: its matrix, its pixel format and how often it is used."""

    site_id: int
    machine_id: int
    share: float
    rows: int
    columns: int
    spacing_mm: float
    tells_spacing: bool
    bits: int
    syntax: str
    photometric_interpretation: str = "MONOCHROME2"
    windows: tuple[tuple[str, str], ...]
    voi_lut_function: str | None = None
    padding_value: int | None = None
    segmented: bool = False
    """All air is padding, and a bright line stands beside the breast."""
    noise: float = 1.0
    """Quantum noise, as part of the usual."""
    air_noise: float = 0.0
    """Deviation of air's stored values; 0: air is exactly 0."""

    @property
    def inverted(self) -> bool:
        """MONOCHROME1: larger is darker."""
        return self.photometric_interpretation == "MONOCHROME1"


MACHINES: tuple[Machine, ...] = (
    Machine(
        site_id=1, machine_id=49, share=0.43, rows=2776, columns=2082, spacing_mm=0.0857, tells_spacing=False,
        bits=12, syntax="jpeg-2000", windows=(("2048", "4096"),), voi_lut_function="LINEAR", padding_value=0,
    ),
    Machine(
        site_id=1, machine_id=170, share=0.11, rows=5355, columns=4915, spacing_mm=0.05, tells_spacing=False,
        bits=16, syntax="jpeg-2000", photometric_interpretation="MONOCHROME1",
        windows=(("7250", "7500"), ("7250", "6000"), ("7250", "9000"), ("6500", "7500")),
        voi_lut_function="SIGMOID", padding_value=15500, segmented=True, noise=0.5,
    ),
    Machine(
        site_id=2, machine_id=21, share=0.14, rows=3328, columns=2560, spacing_mm=0.07, tells_spacing=True,
        bits=12, syntax="jpeg-lossless-sv1", windows=(("1900", "3400"),), padding_value=0, air_noise=3.0,
    ),
    Machine(
        site_id=2, machine_id=29, share=0.12, rows=4096, columns=3328, spacing_mm=0.07, tells_spacing=True,
        bits=14, syntax="jpeg-lossless-sv1", windows=(("7600", "7000"), ("7600", "9000")),
        voi_lut_function="SIGMOID", air_noise=6.0,
    ),
    Machine(
        site_id=2, machine_id=48, share=0.09, rows=3328, columns=2560, spacing_mm=0.07, tells_spacing=False,
        bits=10, syntax="jpeg-lossless-sv1", photometric_interpretation="MONOCHROME1",
        windows=(("512", "1024"),), air_noise=1.0,
    ),
    Machine(
        site_id=1, machine_id=93, share=0.11, rows=4096, columns=3328, spacing_mm=0.07, tells_spacing=True,
        bits=12, syntax="jpeg-lossless-sv1", windows=(("2000", "3600"), ("1800", "2800")),
        voi_lut_function="LINEAR", padding_value=0, air_noise=0.0,
    ),
)  # fmt: skip
"""Every kind comes first once; shares say how the rest is spread."""


def scaled(machine: Machine, size_factor: float) -> Machine:
    """The same machine with a smaller or larger matrix over the same area."""
    return replace(
        machine,
        rows=max(32, round(machine.rows * size_factor)),
        columns=max(32, round(machine.columns * size_factor)),
        spacing_mm=machine.spacing_mm / size_factor,
    )


def with_syntax(machine: Machine, syntax: str) -> Machine:
    """The same machine writing another transfer syntax, with fewer bits where it cannot carry so many."""
    bits = min(machine.bits, MOST_BITS.get(SYNTAXES[syntax], 16))
    divisor = 1 << (machine.bits - bits)
    return replace(
        machine,
        syntax=syntax,
        bits=bits,
        windows=tuple(
            (_divided(center, divisor), _divided(width, divisor)) for center, width in machine.windows
        ),
        padding_value=None if machine.padding_value is None else machine.padding_value // divisor,
        air_noise=machine.air_noise / divisor,
    )


def _divided(text: str, divisor: int) -> str:
    return f"{(Decimal(text) / divisor).normalize():f}"[:16]


def to_stored(machine: Machine, brightness: Field) -> Field:
    """The value that the machine's first window shows as `brightness` (PS3.3 C.11.2.1.2-3, undone)."""
    center, width = (np.float32(float(text)) for text in machine.windows[0])
    if machine.voi_lut_function == "SIGMOID":
        shown = np.clip(brightness, 0.02, 0.97)
        offset = width / 4 * np.log(shown / (1 - shown))
    else:
        offset = (np.clip(brightness, 0, 1) - np.float32(0.5)) * width
    value = center - offset if machine.inverted else center + offset
    return np.asarray(np.clip(value, 0, (1 << machine.bits) - 1), np.float32)


def air(machine: Machine, shape: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Stored values where there is no tissue: padding, the darkest value, or noise near it."""
    darkest = float((1 << machine.bits) - 1) if machine.inverted else 0.0
    if machine.segmented and machine.padding_value is not None:
        return np.full(shape, machine.padding_value, np.float32)
    if not machine.air_noise:
        return np.full(shape, darkest, np.float32)
    noise = np.abs(rng.standard_normal(shape, np.float32) + 2) * np.float32(machine.air_noise)
    return np.asarray(np.abs(np.float32(darkest) - noise), np.float32)
