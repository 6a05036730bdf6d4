"""VOI as one table: modality LUT → window, SIGMOID or VOI LUT → polarity → output bits (PS3.3 C.11.1–2).

In:  the header's VOI alternatives and modality transform as typed values; for minmax and percentile also
     the range of stored values that occur.
Out: the alternative that applies (VoiChoice), and 65,536 uint16 entries indexed by the 16-bit pattern of
     the stored value (signed: v + 32768). The same bytes on every device: it is only looked up afterwards.

Formulas, with x the modality value, c and w centre and width, M = 2^bits − 1 the largest output:

    LINEAR        y = ((x − (c − ½)) / (w − 1) + ½) · M, within 0…M; w = 1 steps from 0 to M above c − ½
    LINEAR_EXACT  y = ((x − c) / w + ½) · M, within 0…M
    SIGMOID       y = M / (1 + exp(−4 (x − c) / w))
    LUT           y = entry[floor(x) − first mapped] / (2^LUT bits − 1) · M; the end entries go on for ever
    range         LINEAR_EXACT from the smallest to the largest modality value of the stored values low…high

An inverted picture takes M − y. Then floor(y + ½). Everything but SIGMOID is rational: y is computed in
float64 and, where that is within 1e-6 of a half, again exactly (SIGMOID: to 60 decimal digits).
"""

from __future__ import annotations

import decimal
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor

import numpy as np
import numpy.typing as npt

from preprocess.config import MissingWindow, ProcessingPolicy, ResultConfig, VoiPreference, WindowPolicy
from preprocess.errors import RejectedInput
from preprocess.records import (
    ImageHeader,
    Lut,
    ModalityTransform,
    VoiChoice,
    VoiFunction,
    VoiHeader,
    VoiSource,
    Window,
)

Table = npt.NDArray[np.uint16]
_Int64 = npt.NDArray[np.int64]
_Float64 = npt.NDArray[np.float64]

ENTRIES = 65536
_SIGNED_OFFSET = 32768
_NEAR_HALF = 1e-6
_DIGITS = 60
_HUGE = Fraction(10) ** 30
"""Slopes beyond this are a step between neighbouring values anyway, and float64 could overflow."""
_SATURATED = 200
"""SIGMOID at |z| beyond this is 0 or M in 60 digits."""


# --- which alternative applies ---


def choose(voi: VoiHeader, image: ImageHeader, config: ResultConfig) -> VoiChoice:
    """Choose among the header's alternatives and the config's policies; `reason` says why.

    Windows that cannot be applied (LINEAR with w < 1, others with w ≤ 0) and empty LUTs are passed over;
    `voi_index` counts what is left. A choice by range (minmax, percentile, full) has no window yet: see
    `resolve`. Raises RejectedInput invalid_voi only where a policy says reject.
    """
    processing = image.presentation_intent_type == "FOR PROCESSING"
    if processing and config.for_processing is ProcessingPolicy.REJECT:
        raise RejectedInput("invalid_voi", "FOR PROCESSING image, and --for-processing is reject")
    if config.window is not WindowPolicy.HEADER:
        return _by_range(config.window.value, f"--window {config.window.value}")
    if processing and config.for_processing is not ProcessingPolicy.HEADER:
        return _by_range(config.for_processing.value, "FOR PROCESSING: windows were not made for display")
    choice = _from_header(voi, config)
    if choice is not None:
        return choice
    found = f"none of {len(voi.windows)} windows and {len(voi.luts)} VOI LUTs can be applied"
    if config.missing_window is MissingWindow.REJECT:
        raise RejectedInput("invalid_voi", found)
    return _by_range(config.missing_window.value, found)


def _by_range(source: str, reason: str) -> VoiChoice:
    return VoiChoice(VoiSource(source), VoiFunction.LINEAR_EXACT, reason=reason)


def _from_header(voi: VoiHeader, config: ResultConfig) -> VoiChoice | None:
    windows = [i for i, window in enumerate(voi.windows) if _can_apply(voi.function, window)]
    luts = [i for i, lut in enumerate(voi.luts) if lut.entries and lut.bits > 0]
    if luts and (config.voi is VoiPreference.LUT or not windows):
        index = luts[min(config.voi_index, len(luts) - 1)]
        reason = _reason("VOI LUT", index, len(voi.luts), len(luts), bool(windows))
        return VoiChoice(VoiSource.LUT, None, None, voi.luts[index], index, reason)
    if windows:
        index = windows[min(config.voi_index, len(windows) - 1)]
        reason = _reason("window", index, len(voi.windows), len(windows), bool(luts))
        return VoiChoice(VoiSource.WINDOW, voi.function, voi.windows[index], None, index, reason)
    return None


def _can_apply(function: VoiFunction, window: Window) -> bool:
    return window.width >= 1 if function is VoiFunction.LINEAR else window.width > 0


def _reason(kind: str, index: int, total: int, usable: int, preferred: bool) -> str:
    reason = f"{kind} {index + 1} of {total} in the header"
    if usable < total:
        reason += f", {total - usable} cannot be applied"
    return reason + (", preferred to the other kind by --voi" if preferred else "")


# --- ranges of stored values ---


def bits_range(image: ImageHeader) -> tuple[int, int]:
    """Smallest and largest stored value that BitsStored and PixelRepresentation allow."""
    if image.pixel_representation:
        return -(1 << (image.bits_stored - 1)), (1 << (image.bits_stored - 1)) - 1
    return 0, (1 << image.bits_stored) - 1


def needs_histogram(choice: VoiChoice) -> bool:
    """Whether the choice depends on the values that occur."""
    return choice.source in (VoiSource.MINMAX, VoiSource.PERCENTILE)


def stored_range(
    histogram: npt.NDArray[np.integer], choice: VoiChoice, image: ImageHeader, config: ResultConfig
) -> tuple[int, int]:
    """Range of stored values that a minmax, percentile or full choice maps to the full output.

    histogram: integer counts (65536,) by table index, padding excluded. A percentile p of n pixels is the
    value of rank ceil(p·n), at least 1, with p the decimal number of the config. Percentiles that fall
    together give way to minimum and maximum. Raises RejectedInput blank_image where those do too.
    """
    if choice.source is VoiSource.FULL:
        return bits_range(image)
    offset = _SIGNED_OFFSET if image.pixel_representation else 0
    present = np.flatnonzero(histogram)
    if present.size < 2:
        raise RejectedInput("blank_image", f"{present.size} different values outside padding")
    low, high = int(present[0]), int(present[-1])
    if choice.source is VoiSource.PERCENTILE:
        cumulative = np.cumsum(histogram, dtype=np.int64)
        ranks = [
            max(1, ceil(Fraction(str(p)) * int(cumulative[-1])))
            for p in (config.percentile_low, config.percentile_high)
        ]
        first, last = (int(np.searchsorted(cumulative, rank)) for rank in ranks)
        low, high = (first, last) if first < last else (low, high)
    return low - offset, high - offset


def resolve(
    choice: VoiChoice, modality: ModalityTransform, image: ImageHeader, stored: tuple[int, int] | None
) -> VoiChoice:
    """Give a choice by range its window: LINEAR_EXACT between its modality values; others stay as they are.

    stored: what `stored_range` returned; not needed for the full range. Raises RejectedInput invalid_voi for
    a modality transform that cannot be applied (slope 0, empty LUT).
    """
    usable = modality.slope != 0 if modality.lut is None else len(modality.lut.entries) > 0
    if not usable:
        raise RejectedInput("invalid_voi", "the modality transform has slope 0 or an empty LUT")
    if choice.window is not None or choice.lut is not None:
        return choice
    if stored is None and needs_histogram(choice):
        raise ValueError(f"{choice.source.value} needs the range of stored values")
    first, last = stored or bits_range(image)
    if modality.lut is None:
        ends = [modality.slope * v + modality.intercept for v in (first, last)]
    else:
        ends = [Fraction(x) for x in _modality_values(modality.lut, np.arange(first, last + 1)).tolist()]
    low, high = min(ends), max(ends)
    # A range of one value is a step above it, as a window of width 1.
    width = high - low or Fraction(1)
    return replace(choice, window=Window(low + width / 2, width))


# --- the table ---


def build_table(
    choice: VoiChoice,
    modality: ModalityTransform,
    image: ImageHeader,
    bits: int,
    stored: tuple[int, int] | None = None,
) -> Table:
    """Build the look-up table of a choice: uint16 (65536,), read-only, output polarity MONOCHROME2.

    bits: 8 or 16, of the output. stored: range of stored values for a choice by range. Patterns outside
    BitsStored get the entry of the nearest value inside. Raises as `resolve`.
    """
    resolved = replace(resolve(choice, modality, image, stored), reason="")
    table: Table = _table(resolved, modality, bits_range(image), image.inverted, (1 << bits) - 1)
    return table


@lru_cache(maxsize=64)
def _table(
    choice: VoiChoice, modality: ModalityTransform, limits: tuple[int, int], inverted: bool, largest: int
) -> Table:
    pattern = np.arange(ENTRIES) - (_SIGNED_OFFSET if limits[0] < 0 else 0)
    x = np.clip(pattern, *limits)
    slope, intercept = modality.slope, modality.intercept
    if modality.lut is not None:
        x, slope, intercept = _modality_values(modality.lut, x), Fraction(1), Fraction(0)
    domain = np.arange(x.min(), x.max() + 1)
    if choice.lut is not None:
        values = _through_lut(choice.lut, domain, slope, intercept, inverted, largest)
    else:
        assert choice.window is not None
        values = _through_window(choice, domain, slope, intercept, inverted, largest)
    table: Table = values[x - domain[0]].astype(np.uint16)
    table.setflags(write=False)
    return table


def _modality_values(lut: Lut, stored: _Int64) -> _Int64:
    """Modality LUT (PS3.3 C.11.1.1.1): values before the first and after the last take the end entries."""
    entries = np.array(lut.entries, np.int64)
    return entries[np.clip(stored - lut.first_mapped, 0, entries.size - 1)]


def _through_lut(
    lut: Lut, domain: _Int64, slope: Fraction, intercept: Fraction, inverted: bool, largest: int
) -> _Int64:
    """VOI LUT (PS3.3 C.11.2.1.1); an input between two entries takes the lower one."""
    whole = (1 << lut.bits) - 1
    entries = np.clip(np.array(lut.entries, np.int64), 0, whole)
    if inverted:
        entries = whole - entries
    last = entries.size - 1
    unit = slope.denominator * intercept.denominator
    factor, term = int(slope * unit), int((intercept - lut.first_mapped) * unit)
    index = [min(max((factor * x + term) // unit, 0), last) for x in domain.tolist()]
    return (2 * entries[index] * largest + whole) // (2 * whole)


def _through_window(
    choice: VoiChoice, domain: _Int64, slope: Fraction, intercept: Fraction, inverted: bool, largest: int
) -> _Int64:
    """LINEAR, SIGMOID, LINEAR_EXACT (PS3.3 C.11.2.1.2.1, C.11.2.1.3.1-2) over consecutive integers."""
    assert choice.window is not None
    center, width = choice.window.center, choice.window.width
    if choice.function is VoiFunction.SIGMOID:
        sign = -1 if inverted else 1
        return _sigmoid(domain, sign * 4 * slope / width, sign * 4 * (intercept - center) / width, largest)
    if choice.function is VoiFunction.LINEAR:
        center, width = center - Fraction(1, 2), width - 1
    if width == 0:
        above = _above(domain, slope, center - intercept)
        return np.where(above != inverted, largest, 0)
    factor, term = slope / width, (intercept - center) / width + Fraction(1, 2)
    if inverted:
        factor, term = -factor, 1 - term
    return _linear(domain, factor * largest, term * largest, largest)


def _above(domain: _Int64, slope: Fraction, threshold: Fraction) -> npt.NDArray[np.bool_]:
    """Where slope·x > threshold, exactly."""
    edge = threshold / slope
    lowest, highest = int(domain[0]) - 1, int(domain[-1]) + 1
    if slope > 0:
        return domain > min(max(floor(edge), lowest), highest)
    return domain < min(max(ceil(edge), lowest), highest)


def _linear(domain: _Int64, factor: Fraction, term: Fraction, largest: int) -> _Int64:
    y, unsure = _evaluate(domain, factor, term)
    return _rounded(domain, y, unsure, lambda x: factor * x + term, largest)


def _sigmoid(domain: _Int64, factor: Fraction, term: Fraction, largest: int) -> _Int64:
    z, unsure = _evaluate(domain, factor, term)
    y = largest / (1 + np.exp(-np.clip(z, -_SATURATED, _SATURATED)))
    return _rounded(domain, y, unsure, lambda x: _exact_sigmoid(factor * x + term, largest), largest)


def _exact_sigmoid(z: Fraction, largest: int) -> Fraction:
    z = min(max(z, Fraction(-_SATURATED)), Fraction(_SATURATED))
    with decimal.localcontext(decimal.Context(prec=_DIGITS)):
        exponent = decimal.Decimal(-z.numerator) / decimal.Decimal(z.denominator)
        return Fraction(largest / (1 + exponent.exp()))


def _evaluate(domain: _Int64, factor: Fraction, term: Fraction) -> tuple[_Float64, npt.NDArray[np.bool_]]:
    """factor·x + term in float64, counted from the zero crossing so that large terms cannot cancel.

    Beside it: where even that may be inexact, because the slope is so steep that neighbours of the crossing
    matter. Everywhere else the error is below 1e-10 wherever the value is within ±65,536.
    """
    crossing = min(max(floor(-term / factor), int(domain[0])), int(domain[-1]))
    at_crossing = _within(factor * crossing + term)
    away = domain - crossing
    values = np.float64(_within(factor)) * away.astype(np.float64) + np.float64(at_crossing)
    return values, np.abs(away) <= 1


def _within(value: Fraction) -> Fraction:
    return min(max(value, -_HUGE), _HUGE)


def _rounded(
    domain: _Int64,
    y: _Float64,
    unsure: npt.NDArray[np.bool_],
    exact: Callable[[int], Fraction],
    largest: int,
) -> _Int64:
    """floor(y + ½) within 0…largest; exactly where float64 cannot decide."""
    raised = np.clip(y, 0, largest) + 0.5
    result = np.floor(raised).astype(np.int64)
    near = np.abs(raised - np.rint(raised)) < _NEAR_HALF
    for i in np.flatnonzero(near | unsure).tolist():
        result[i] = min(max(floor(exact(int(domain[i])) + Fraction(1, 2)), 0), largest)
    return result
