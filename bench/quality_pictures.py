"""The pictures that levels are judged on: phantoms, DICOM files, plain pictures, each at all its levels.

In:  how many phantoms; paths. Out: `Picture`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from bench.phantom import render_planned
from bench.phantom_machines import Machine
from bench.phantom_plan import PhantomSpec, plan
from preprocess import breast, codestream, dicom, voi
from preprocess.config import ResultConfig
from preprocess.decode import CpuDecoder
from preprocess.kernels import reference as kernels
from preprocess.records import (
    ImageHeader,
    IndexPixels,
    ModalityTransform,
    SourceFile,
    VoiChoice,
    VoiFunction,
    VoiSource,
    Window,
)
from preprocess.wavelet import low_pass_53

LEVELS = 3
"""The deepest level that is judged."""
USUAL_PITCH_MM = 0.07
"""For pictures that do not tell theirs."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One image as table indices at levels 0 … LEVELS, and what is needed to judge them."""

    name: str
    real: bool
    wavelet: str
    """5/3 or 9/7."""
    bits: int
    inverted: bool
    """Larger stored values are darker."""
    pitch_mm: float
    levels: tuple[IndexPixels, ...] = field(repr=False)
    tissue: npt.NDArray[np.bool_] = field(repr=False)
    """On the deepest level's samples."""
    table: voi.Table | None = field(repr=False)
    """The header's first window, to 16 bits."""

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Row, column, rows, columns of the tissue in full-size pixels."""
        step = 1 << LEVELS
        spans = []
        for axis, size in zip((1, 0), self.levels[0].shape, strict=True):
            there = np.flatnonzero(self.tissue.any(axis=axis))
            spans.append((int(there[0]) * step, min(size, (int(there[-1]) + 1) * step)))
        (top, bottom), (left, right) = spans
        return top, left, bottom - top, right - left


def phantoms(count: int, size_factor: float, seed: int) -> Iterator[Picture]:
    """The first image of each of `count` patients; the first six come from six machines."""
    if not count:
        return
    spec = PhantomSpec(patients=count, test_patients=0, positive_rate=0.5, size_factor=size_factor, seed=seed)
    for patient in plan(spec):
        rendered = render_planned(spec, patient, patient.images[0])
        machine = patient.machine
        yield _from_array(
            f"phantom {machine.machine_id}, patient {patient.index}",
            rendered.pixels.astype(np.uint16),
            machine.bits,
            pitch_mm=rendered.pitch_mm,
            machine=machine,
        )


def from_file(path: Path) -> Picture:
    """A DICOM file with wavelet levels through the product's decoder; any other picture transformed here.

    Raises:
        RejectedInput: the DICOM file cannot be parsed or decoded.
        ValueError: it is signed or its codestream has fewer than LEVELS levels.
        OSError: not a picture.
    """
    if path.suffix == ".dcm":
        return _from_dicom(path)
    with Image.open(path) as picture:
        pixels = np.asarray(picture)
    if pixels.ndim != 2:
        raise ValueError(f"{path.name} is not a grayscale picture")
    return _from_array(path.stem, pixels.astype(np.uint16), max(8, int(pixels.max()).bit_length()))


def _from_array(
    name: str,
    pixels: IndexPixels,
    bits: int,
    pitch_mm: float = USUAL_PITCH_MM,
    machine: Machine | None = None,
) -> Picture:
    inverted = machine is not None and machine.inverted
    levels = level_pyramid(pixels, bits)
    return Picture(
        name=name,
        real=machine is None,
        wavelet="5/3",
        bits=bits,
        inverted=inverted,
        pitch_mm=pitch_mm,
        levels=levels,
        tissue=_tissue(levels[LEVELS], inverted),
        table=None if machine is None else _window_of(machine),
    )


def level_pyramid(pixels: IndexPixels, bits: int) -> tuple[IndexPixels, ...]:
    """Levels 0 … LEVELS as a decoder returns them from a reversible stream: clamped to the bits."""
    largest = (1 << bits) - 1
    bands = (low_pass_53(pixels, level) for level in range(LEVELS + 1))
    return tuple(np.clip(band, 0, largest).astype(np.uint16) for band in bands)


def _from_dicom(path: Path) -> Picture:
    config = ResultConfig()
    instance = dicom.parse(SourceFile(path.name, str(path), explicit=True), config)
    image, facts = instance.image, instance.codestream
    if facts is None or image.pixel_representation or codestream.deepest_level(image, facts) < LEVELS:
        raise ValueError(f"{path.name} is signed or has fewer than {LEVELS} wavelet levels")
    decoder = CpuDecoder()
    levels = tuple(kernels.to_index(decoder.decode(instance, level).pixels) for level in range(LEVELS + 1))
    choice = voi.choose(instance.voi, image, config)
    table = None
    if not voi.needs_histogram(choice):
        table = voi.build_table(choice, instance.modality_transform, image, 16)
    return Picture(
        name=path.stem,
        real=True,
        wavelet="5/3" if facts.lossless else "9/7",
        bits=image.bits_stored,
        inverted=image.inverted,
        pitch_mm=image.pixel_spacing_row_mm or USUAL_PITCH_MM,
        levels=levels,
        tissue=_tissue(levels[LEVELS], image.inverted),
        table=table,
    )


def _tissue(samples: IndexPixels, inverted: bool) -> npt.NDArray[np.bool_]:
    """The breast, or everything where none is seen (a radiograph of something else)."""
    values = samples.astype(np.int32)
    everything = np.ones(values.shape, np.bool_)
    found = breast.find(-values if inverted else values, everything)
    return everything if found is None else found


def _window_of(machine: Machine) -> voi.Table:
    """The table of the machine's first window."""
    center, width = (Fraction(text) for text in machine.windows[0])
    function = VoiFunction(machine.voi_lut_function or "LINEAR")
    image = ImageHeader(
        transfer_syntax_uid="1.2.840.10008.1.2.4.90",
        rows=machine.rows,
        columns=machine.columns,
        bits_allocated=16,
        bits_stored=machine.bits,
        high_bit=machine.bits - 1,
        pixel_representation=0,
        photometric_interpretation=machine.photometric_interpretation,
        inverted=machine.inverted,
    )
    choice = VoiChoice(VoiSource.WINDOW, function, Window(center, width))
    return voi.build_table(choice, ModalityTransform(), image, 16)
