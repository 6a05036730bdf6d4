"""What a wavelet level costs in image quality, next to what peers do: the ground `--decode-margin` stands on.

In:  pictures; which margins, how many planted lesions. Out: Quality: figures per picture, level and margin,
     and a verdict on each margin that could be chosen.

The ideal is the full decode reduced by the exact area mean. A level's margin is the box's size on the level
over its size in the output: with `--decode-margin M`, level r serves from M on, until level r + 1 does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from bench.quality_lesions import LesionRatio, plant, ratios
from bench.quality_metrics import Target, psnr, ssim
from bench.quality_pictures import LEVELS, Picture
from preprocess import voi
from preprocess.kernels import reference as kernels
from preprocess.records import IndexPixels

MARGINS = (1.0, 1.0625, 1.125, 1.1875, 1.25, 1.375, 1.5, 2.0, 2.5)
CANDIDATES = (1.0, 1.0625, 1.125, 1.1875, 1.25, 1.375, 1.5)
"""Margins that are judged as `--decode-margin`; each with all measured margins that it would allow."""
KEPT = 0.95
"""Of the ideal's detectability, that lesions as wide as a level's sample must keep in the mean."""
_SMALLEST_PX = 11
_EQUAL_DB = 120.0


@dataclass(frozen=True, slots=True)
class Nearness:
    """PSNR in dB and SSIM against the ideal: the level's, and bilinear without antialias from full decode."""

    level_psnr: float
    bilinear_psnr: float
    level_ssim: float
    bilinear_ssim: float


@dataclass(frozen=True, slots=True)
class Fidelity:
    """One picture at one level and margin."""

    picture: str
    real: bool
    wavelet: str
    level: int
    margin: float
    out_rows: int
    out_columns: int
    stored: Nearness
    """On stored values; the peak is the ideal's own range."""
    shown: Nearness | None
    """After the header's window, to 16 bits; None where there is no window."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one choice of `--decode-margin` gives over all measured margins from it on."""

    margin: float
    compared: int
    """Comparisons with bilinear (picture × level × margin × stored or shown)."""
    psnr_behind: int
    """Of these, where the level is farther from the ideal than bilinear."""
    ssim_behind: int
    least_psnr_gain: float
    least_detectability: float | None
    """Mean over pictures, of lesions at least as wide as a level's sample; the worst level and margin.
    None: none were planted."""
    least_detectability_small: float | None
    """The same of narrower lesions."""
    unlucky_behind: tuple[str, ...]
    """Where the 5th percentile of contrast is lower than bilinear's: level, margin, size."""

    @property
    def nearer(self) -> bool:
        """Every picture at every level and margin is at least as near to the ideal as bilinear's."""
        return not self.psnr_behind and not self.ssim_behind

    @property
    def preserves(self) -> bool:
        """Lesions as wide as a sample keep `KEPT` of their detectability at every level and margin."""
        return self.least_detectability is not None and self.least_detectability >= KEPT


@dataclass(frozen=True, slots=True)
class Quality:
    """Everything measured."""

    fidelity: tuple[Fidelity, ...]
    lesions: tuple[LesionRatio, ...]
    verdicts: tuple[Verdict, ...]


def judge(fidelity: Iterable[Fidelity], lesions: Iterable[LesionRatio]) -> Quality:
    """Put figures together and judge every candidate margin."""
    pictures, planted = tuple(fidelity), tuple(lesions)
    return Quality(pictures, planted, tuple(_verdict(margin, pictures, planted) for margin in CANDIDATES))


def fidelity(picture: Picture) -> Iterator[Fidelity]:
    """All levels and margins at which the picture's box is at least 11 pixels a side in the output."""
    for level in range(1, LEVELS + 1):
        for margin in MARGINS:
            target = Target.of(picture.box, margin * (1 << level))
            if min(target.out_rows, target.out_columns) < _SMALLEST_PX:
                continue
            ideal = target.area(picture.levels[0], 0)
            leveled = target.area(picture.levels[level], level)
            made = (ideal, leveled, target.bilinear(picture.levels[0]))
            yield Fidelity(
                picture=picture.name,
                real=picture.real,
                wavelet=picture.wavelet,
                level=level,
                margin=margin,
                out_rows=target.out_rows,
                out_columns=target.out_columns,
                stored=_nearness(made, float(np.ptp(ideal))),
                shown=None if picture.table is None else _shown(made, picture.table),
            )


def lesion_ratios(picture: Picture, tiles_a_side: int, seed: int) -> Iterator[LesionRatio]:
    """Planted lesions at all levels and margins."""
    planted = plant(picture, tiles_a_side, seed)
    for level in range(1, LEVELS + 1):
        for margin in MARGINS:
            yield from ratios(picture, planted, level, margin)


def _shown(made: tuple[IndexPixels, IndexPixels, IndexPixels], table: voi.Table) -> Nearness:
    ideal, leveled, bilinear = (kernels.look_up(pixels, table) for pixels in made)
    return _nearness((ideal, leveled, bilinear), 65535.0)


def _nearness(made: tuple[IndexPixels, IndexPixels, IndexPixels], peak: float) -> Nearness:
    ideal, leveled, bilinear = made
    return Nearness(
        min(psnr(ideal, leveled, peak), _EQUAL_DB),
        min(psnr(ideal, bilinear, peak), _EQUAL_DB),
        ssim(ideal, leveled, peak),
        ssim(ideal, bilinear, peak),
    )


def _verdict(margin: float, pictures: tuple[Fidelity, ...], planted: tuple[LesionRatio, ...]) -> Verdict:
    near = [
        nearness
        for figure in pictures
        if figure.margin >= margin
        for nearness in (figure.stored, figure.shown)
        if nearness is not None
    ]
    allowed = [lesion for lesion in planted if lesion.margin >= margin]
    wide = [lesion for lesion in allowed if lesion.size_samples >= 1]
    narrow = [lesion for lesion in allowed if lesion.size_samples < 1]
    return Verdict(
        margin=margin,
        compared=len(near),
        psnr_behind=sum(one.level_psnr < one.bilinear_psnr for one in near),
        ssim_behind=sum(one.level_ssim < one.bilinear_ssim for one in near),
        least_psnr_gain=min((one.level_psnr - one.bilinear_psnr for one in near), default=0.0),
        least_detectability=_least_detectability(wide),
        least_detectability_small=_least_detectability(narrow),
        unlucky_behind=_unlucky(allowed),
    )


Setting = tuple[int, float, float]
"""Level, margin, size in millimetres."""


def by_setting(lesions: Iterable[LesionRatio]) -> dict[Setting, list[LesionRatio]]:
    """The pictures' figures, setting by setting."""
    grouped: dict[Setting, list[LesionRatio]] = {}
    for lesion in lesions:
        grouped.setdefault((lesion.level, lesion.margin, lesion.size_mm), []).append(lesion)
    return grouped


def _least_detectability(lesions: list[LesionRatio]) -> float | None:
    means = (
        float(np.mean([one.leveled.detectability for one in group])) for group in by_setting(lesions).values()
    )
    return min(means, default=None)


def _unlucky(lesions: list[LesionRatio]) -> tuple[str, ...]:
    behind = []
    for (level, margin, size), group in by_setting(lesions).items():
        leveled = np.mean([one.leveled.contrast_p5 for one in group])
        if leveled < np.mean([one.bilinear.contrast_p5 for one in group]):
            behind.append(f"level {level}, margin {margin:g}, {size:g} mm")
    return tuple(behind)
