"""In: a `PhantomSpec`. Out: the AUC of an observer that knows each lesion's form and place.

A prewhitening matched filter (Burgess, JOSA A 14, 1997): what a classifier that must find the lesion first
can hardly exceed. Signal known exactly, background known by its power spectrum only; look-alikes, which
make the real task harder, are left out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import fft, stats

from bench.phantom_anatomy import Breast, View, draw_breast
from bench.phantom_lesions import Lesion, draw_lesions, signal
from bench.phantom_machines import MACHINES, Machine, scaled
from bench.phantom_plan import PhantomSpec
from bench.phantom_render import Exposure, render_view

_OBSERVER = 3001
_DENSITIES = "ABBBBCCCCD"

Patch = npt.NDArray[np.float64]


def matched_filter_auc(spec: PhantomSpec) -> float:
    """AUC, by breast over both views, of lesion present against absent.

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
    present, absent = zip(*(_scores(spec, machine, case) for case in range(spec.ceiling)), strict=True)
    wins = stats.mannwhitneyu(present, absent).statistic
    return float(wins / len(present) ** 2)


def _scores(spec: PhantomSpec, machine: Machine, case: int) -> tuple[float, float]:
    """Mean score over the views of one breast with its lesion, and of another without."""
    rng = np.random.default_rng([spec.seed, case, _OBSERVER])
    breast = draw_breast(rng, _DENSITIES[case % len(_DENSITIES)], False)
    lesion = draw_lesions(breast, True, spec.difficulty, rng)[0]
    unseen = replace(lesion, contrast=0.0)
    scores = [
        [_score((breast, shown, lesion), view, machine, rng) for view in View] for shown in (lesion, unseen)
    ]
    return float(np.mean(scores[0])), float(np.mean(scores[1]))


def _score(
    case: tuple[Breast, Lesion, Lesion], view: View, machine: Machine, rng: np.random.Generator
) -> float:
    """Filter one image at the lesion's place; alone, tissue gives every template the same variance."""
    breast, shown, known = case
    rendered = render_view(Exposure(breast, (shown,), view, "L", machine), rng)
    template = signal(known, rendered.pitch_mm).patch.astype(np.float64)
    row, column = rendered.lesions[0].centre
    patch, template = _around(rendered.pixels / ((1 << machine.bits) - 1), (row, column), template)
    window = np.hanning(patch.shape[0] + 2)[1:-1, None] * np.hanning(patch.shape[1] + 2)[None, 1:-1]
    seen = fft.rfft2((patch - patch.mean()) * np.sqrt(window))
    wanted = fft.rfft2((template - template.mean()) * np.sqrt(window))
    power = _spectrum(patch.shape, rendered.pitch_mm)
    matched = (wanted.conj() * seen / power).real.sum() / np.sqrt((np.abs(wanted) ** 2 / power).sum())
    return float(matched * rendered.pitch_mm / np.sqrt(patch.size))


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
