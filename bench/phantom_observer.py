"""In: a `PhantomSpec`. Out: AUCs of observers that know each lesion's form, and its place or about where.

A prewhitening matched filter (Burgess, JOSA A 14, 1997): signal known exactly, background known by its power
spectrum only; look-alikes, which make the real task harder, are left out. Who knows the place need not
search. A classifier must, and has to tell the lesion from everything that looks like it elsewhere: so the
second observer looks within `SEARCHED_MM` of the place. It still knows the form, which no classifier does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import fft, stats

from bench.phantom_anatomy import Breast, View, draw_breast
from bench.phantom_lesions import Lesion, draw_lesions, signal
from bench.phantom_machines import MACHINES, Machine, scaled
from bench.phantom_plan import PhantomSpec
from bench.phantom_render import Exposure, RenderedView, render_view

SEARCHED_MM = 30.0
"""Radius of the disc that the searching observer looks at."""
_OBSERVER = 3001
_DENSITIES = "ABBBBCCCCD"

Patch = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ceiling:
    """AUCs, by breast over both views, of lesion present against absent."""

    matched_filter: float
    """The place is known."""
    search: float
    """The place is known to `SEARCHED_MM`."""


def ceiling(spec: PhantomSpec) -> Ceiling:
    """What observers reach who know every lesion's form.

    Args:
        spec: `ceiling` breasts are simulated with its size factor, difficulty and seed, on the machine whose
            stored values are brightness itself. Each is seen once with its lesion and once, in other tissue,
            without; the scores of its views are averaged.

    Raises:
        ValueError: `spec.ceiling` is 0.
    """
    if spec.ceiling < 1:
        raise ValueError("ceiling must be at least 1")
    machine = scaled(MACHINES[0], spec.size_factor)
    scores = np.array([_scores(spec, machine, case) for case in range(spec.ceiling)])
    present, absent = scores[:, 0], scores[:, 1]
    wins = stats.mannwhitneyu(present, absent).statistic / len(present) ** 2
    return Ceiling(*(float(share) for share in wins))


def _scores(spec: PhantomSpec, machine: Machine, case: int) -> Patch:
    """(2, 2): of one breast with its lesion, of another without; both observers' scores, mean over views."""
    rng = np.random.default_rng([spec.seed, case, _OBSERVER])
    breast = draw_breast(rng, _DENSITIES[case % len(_DENSITIES)], False)
    lesion = draw_lesions(breast, True, spec.difficulty, rng)[0]
    unseen = replace(lesion, contrast=0.0)
    scores = [
        [_score((breast, shown, lesion), view, machine, rng) for view in View] for shown in (lesion, unseen)
    ]
    return np.asarray(np.mean(scores, axis=1), np.float64)


def _score(
    case: tuple[Breast, Lesion, Lesion], view: View, machine: Machine, rng: np.random.Generator
) -> tuple[float, float]:
    """Filter one image at the lesion's place, and around it."""
    breast, shown, known = case
    rendered = render_view(Exposure(breast, (shown,), view, "L", machine), rng)
    template = signal(known, rendered.pitch_mm).patch.astype(np.float64)
    image = rendered.pixels / ((1 << machine.bits) - 1)
    return _filtered(rendered, image, template), _searched(rendered, image, template)


def _filtered(rendered: RenderedView, image: Patch, template: Patch) -> float:
    """The filter's answer at the place; alone, tissue gives every template the same variance."""
    patch, template = _around(image, rendered.lesions[0].centre, template)
    window = np.hanning(patch.shape[0] + 2)[1:-1, None] * np.hanning(patch.shape[1] + 2)[None, 1:-1]
    seen = fft.rfft2((patch - patch.mean()) * np.sqrt(window))
    wanted = fft.rfft2((template - template.mean()) * np.sqrt(window))
    power = _spectrum(patch.shape, rendered.pitch_mm)
    matched = (wanted.conj() * seen / power).real.sum() / np.sqrt((np.abs(wanted) ** 2 / power).sum())
    return float(matched * rendered.pitch_mm / np.sqrt(patch.size))


def _searched(rendered: RenderedView, image: Patch, template: Patch) -> float:
    """The filter's largest answer in the disc, by the spread of its answers there."""
    row, column = rendered.lesions[0].centre
    reach = round(SEARCHED_MM / rendered.pitch_mm)
    margin = reach + template.shape[0] // 2
    top, left = max(row - margin, 0), max(column - margin, 0)
    part = image[top : row + margin + 1, left : column + margin + 1]
    shape = tuple(
        fft.next_fast_len(a + b, real=True) for a, b in zip(part.shape, template.shape, strict=True)
    )
    seen = fft.rfft2(part - part.mean(), shape)
    wanted = fft.rfft2(template, shape)
    answers = fft.irfft2(wanted.conj() * seen / _spectrum(shape, rendered.pitch_mm), shape)
    half = template.shape[0] // 2
    answers = np.roll(answers, (half, half), (0, 1))[: part.shape[0], : part.shape[1]]
    down = np.arange(part.shape[0])[:, None] - (row - top)
    right = np.arange(part.shape[1])[None, :] - (column - left)
    disc = answers[(np.hypot(down, right) <= reach) & (part > 0)]
    return float((disc.max() - np.median(disc)) / disc.std())


def _around(image: Patch, centre: tuple[int, int], template: Patch) -> tuple[Patch, Patch]:
    """The image where the template lies, and the template, both cut at the image's border."""
    half = template.shape[0] // 2
    top, left = centre[0] - half, centre[1] - half
    rows = slice(max(0, -top), min(template.shape[0], image.shape[0] - top))
    columns = slice(max(0, -left), min(template.shape[1], image.shape[1] - left))
    there = image[top + rows.start : top + rows.stop, left + columns.start : left + columns.stop]
    return there, template[rows, columns]


def _spectrum(shape: tuple[int, ...], pitch_mm: float) -> Patch:
    """Power-law tissue (β = 3) over white noise, in the proportion that the phantoms have (to a factor)."""
    row = np.fft.fftfreq(shape[0], pitch_mm)[:, None]
    column = np.fft.rfftfreq(shape[1], pitch_mm)[None, :]
    frequency = np.maximum(np.hypot(row, column), 1 / 60)
    return np.asarray(1.0 / frequency**3 + 0.02, np.float64)
