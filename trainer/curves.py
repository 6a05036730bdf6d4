"""Curves of a model and of its training, as SVG text for report.html and as files beside metrics.json.

In:  Cases with labels, or a training's history.
Out: SVG, the same text for the same numbers (no date, no random ids).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trainer.crossfit import reliability
from trainer.predictions import Cases, Level

_SIZE_IN = (4.2, 3.4)
_STYLE = {
    "svg.hashsalt": "bcd",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.prop_cycle": cycler(color=["#2f6fb3", "#d1495b", "#3c8d5a", "#8a6bb8", "#c98a2b", "#777777"]),
    "savefig.transparent": True,
    "text.color": "#808890",
    "axes.labelcolor": "#808890",
    "axes.edgecolor": "#808890",
    "xtick.color": "#808890",
    "ytick.color": "#808890",
}
"""Mid-gray text and no background: readable in a light and in a dark page."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A picture with its title."""

    name: str
    title: str
    svg: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a training's history: a value an epoch; NaN where there is none."""

    label: str
    values: Sequence[float]


def all_curves(cases: Sequence[tuple[Level, Cases]]) -> tuple[Curve, ...]:
    """ROC, precision-recall, calibration, thresholds and scores; cases have labels. None of one class."""
    shown = [(level, c) for level, c in cases if 0 < c.labels.sum() < len(c.keys)]
    if not shown:
        return ()
    _, finest = shown[min(1, len(shown) - 1)]
    return (
        Curve("roc", "ROC", roc(shown)),
        Curve("precision_recall", "Precision and recall", precision_recall(shown)),
        Curve("calibration", "Calibration", calibration(shown)),
        Curve("thresholds", "Thresholds", thresholds(finest)),
        Curve("probabilities", "Probabilities", probabilities(finest)),
    )


def roc(cases: Sequence[tuple[Level, Cases]]) -> str:
    """True against false positive rate, a line for each level."""
    from sklearn.metrics import roc_curve

    with _figure("false positive rate", "sensitivity") as (figure, axes):
        axes.plot([0, 1], [0, 1], ":", color="#999999", linewidth=1)
        for level, part in cases:
            false_rate, true_rate, _ = roc_curve(part.labels, part.probabilities)
            axes.plot(false_rate, true_rate, label=level.value)
        axes.legend(frameon=False)
        return _svg(figure)


def precision_recall(cases: Sequence[tuple[Level, Cases]]) -> str:
    """Precision against recall, a line for each level; dotted: the prevalence."""
    from sklearn.metrics import precision_recall_curve

    with _figure("recall", "precision") as (figure, axes):
        for level, part in cases:
            precision, recall, _ = precision_recall_curve(part.labels, part.probabilities)
            (line,) = axes.step(recall, precision, where="post", label=level.value)
            axes.axhline(part.labels.mean(), linestyle=":", linewidth=1, color=line.get_color())
        axes.legend(frameon=False)
        return _svg(figure)


def calibration(cases: Sequence[tuple[Level, Cases]]) -> str:
    """Share of positives against mean probability, in bins of equally many cases."""
    with _figure("mean probability", "share of positives") as (figure, axes):
        axes.plot([0, 1], [0, 1], ":", color="#999999", linewidth=1)
        for level, part in cases:
            bins = reliability(part.labels, part.probabilities)
            axes.plot([b.predicted for b in bins], [b.observed for b in bins], "o-", ms=3, label=level.value)
        axes.legend(frameon=False)
        return _svg(figure)


def thresholds(cases: Cases) -> str:
    """F1, precision and recall against the threshold."""
    truth = cases.labels == 1
    levels = np.linspace(0, 1, 201)
    called = cases.probabilities[None, :] >= levels[:, None]
    hits, calls = (called & truth).sum(1), called.sum(1)
    with _figure("threshold", "") as (figure, axes):
        axes.plot(levels, 2 * hits / np.maximum(calls + truth.sum(), 1), label="F1")
        axes.plot(levels, np.where(calls > 0, hits / np.maximum(calls, 1), np.nan), label="precision")
        axes.plot(levels, hits / truth.sum(), label="recall")
        axes.legend(frameon=False)
        return _svg(figure)


def probabilities(cases: Cases) -> str:
    """Histograms of the probabilities of positives and negatives, each as a share."""
    with _figure("probability", "share of cases") as (figure, axes):
        edges = np.linspace(0, 1, 31)
        for label, name in ((0, "negative"), (1, "positive")):
            part = cases.probabilities[cases.labels == label]
            weights = np.full(part.size, 1 / max(part.size, 1))
            axes.hist(part, edges, weights=weights, alpha=0.55, label=f"{name} ({part.size})")
        axes.legend(frameon=False)
        return _svg(figure)


def history(lines: Sequence[Line], y: str) -> str:
    """A training's values by epoch."""
    with _figure("epoch", y) as (figure, axes):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        for line in lines:
            axes.plot(np.arange(1, len(line.values) + 1), line.values, "o-", ms=2.5, label=line.label)
        axes.legend(frameon=False)
        return _svg(figure)


@contextmanager
def _figure(x: str, y: str) -> Iterator[tuple[Figure, Any]]:  # matplotlib's axes are untyped
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]  # names checked by matplotlib
        figure = Figure(figsize=_SIZE_IN, layout="tight")
        axes = figure.add_subplot()
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        yield figure, axes


def _svg(figure: Figure) -> str:
    """The figure's <svg> element, without prolog and date."""
    with io.StringIO() as text:
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        found = re.search(r"<svg.*</svg>", text.getvalue(), re.DOTALL)
    assert found is not None
    return found.group(0)
