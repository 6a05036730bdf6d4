"""What predictions are worth: scores with intervals at three levels, by slice, and how well calibrated.

In:  Predictions, and the dataset rows they are of.
Out: Assessment, the content of evaluation/metrics.json and of the report's tables. A pure function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from preprocess.records import LabelValue
from preprocess.schema import InstanceRow
from trainer.crossfit import Calibration, expected_calibration_error, nested_calibration, nested_calls
from trainer.intervals import Interval, intervals
from trainer.metrics import Scores, scores
from trainer.predictions import Cases, Level, Predictions, attribute

SLICES = ("site_id", "machine_id", "view", "density", "age", "implant")
SLICE_RESAMPLES = 200
_SMALLEST_SLICE = 5
_AGES = (40, 50, 60, 70)


@dataclass(frozen=True, slots=True)
class Confusion:
    """Calls against labels, at thresholds chosen on other patients."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int


@dataclass(frozen=True, slots=True)
class CalibrationScores:
    """What a calibration, fitted on other patients, does; the first has none."""

    name: str
    brier: float
    expected_calibration_error: float


@dataclass(frozen=True, slots=True)
class LevelAssessment:
    """One level's scores: `scores` calls at 0.5, `intervals` and `confusion` at nested thresholds."""

    level: Level
    scores: Scores
    intervals: tuple[Interval, ...]
    confusion: Confusion
    thresholds: tuple[tuple[int, float], ...]
    calibration: tuple[CalibrationScores, ...]


@dataclass(frozen=True, slots=True)
class SliceAssessment:
    """Images that share a value of a column."""

    column: str
    value: str
    count: int
    positives: int
    intervals: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class Assessment:
    """All of it. `unknown`: images without a label, which no score counts."""

    images: int
    unknown: int
    levels: tuple[LevelAssessment, ...]
    slices: tuple[SliceAssessment, ...]


def assess(predictions: Predictions, rows: Sequence[InstanceRow], *, seed: int = 0) -> Assessment:
    """Assess predictions of the rows given, in the same order."""
    if [row.source for row in rows] != predictions.source.tolist():
        raise ValueError("predictions are not of these rows")
    return Assessment(
        images=len(predictions),
        unknown=int(np.isnan(predictions.label).sum()),
        levels=tuple(_level(predictions.cases(level).known(), level, seed) for level in Level),
        slices=tuple(_slices(predictions, rows, seed)),
    )


def _level(cases: Cases, level: Level, seed: int) -> LevelAssessment:
    calls = nested_calls(cases)
    truth = cases.labels == 1
    confusion = Confusion(
        int((truth & calls.called).sum()),
        int((~truth & calls.called).sum()),
        int((truth & ~calls.called).sum()),
        int((~truth & ~calls.called).sum()),
    )
    return LevelAssessment(
        level=level,
        scores=scores(cases.labels, cases.probabilities),
        intervals=intervals(cases, calls.called, seed=seed),
        confusion=confusion,
        thresholds=calls.thresholds,
        calibration=tuple(_calibrations(cases)),
    )


def _calibrations(cases: Cases) -> list[CalibrationScores]:
    if not cases.keys:
        return []
    found = [("none", cases.probabilities)]
    for how in Calibration:
        calibrated = nested_calibration(cases, how)
        if calibrated is not None:
            found.append((how.value, calibrated))
    return [
        CalibrationScores(
            name, float(np.mean((p - cases.labels) ** 2)), expected_calibration_error(cases.labels, p)
        )
        for name, p in found
    ]


def _slices(predictions: Predictions, rows: Sequence[InstanceRow], seed: int) -> list[SliceAssessment]:
    cases = predictions.cases(Level.IMAGE)
    calls = np.zeros(len(rows), bool)
    known = ~np.isnan(cases.labels)
    calls[known] = nested_calls(cases.known()).called
    found = []
    for column in SLICES:
        values = np.array([_shown(column, value) for value in attribute(rows, column)], dtype=object)
        for value in sorted({value for value in values.tolist() if value is not None}):
            chosen = known & (values == value)
            if chosen.sum() >= _SMALLEST_SLICE:
                part = cases.where(chosen)
                scored = intervals(part, calls[chosen], seed=seed, resamples=SLICE_RESAMPLES)
                positives = int(part.labels.sum())
                found.append(SliceAssessment(column, value, len(part.keys), positives, scored))
    return found


def _shown(column: str, value: LabelValue) -> str | None:
    if value is None:
        return None
    if column != "age":
        return str(value)
    if not isinstance(value, int | float):
        return None
    below = [limit for limit in _AGES if limit <= value]
    return f"{below[-1]}+" if below and below[-1] == _AGES[-1] else _decade(below)


def _decade(below: Sequence[int]) -> str:
    return f"{below[-1]}–{below[-1] + 9}" if below else f"under {_AGES[0]}"
