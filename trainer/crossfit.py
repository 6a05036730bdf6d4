"""Thresholds and calibration chosen on other patients than those they are applied to.

In:  Cases with labels.
Out: calls at thresholds, and calibrated probabilities, each from the groups that the case is not in.

Groups are the dataset's folds; where there is only one, patients are put into five by a stable hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from trainer.inference import sigmoid
from trainer.metrics import best_threshold
from trainer.predictions import Cases

Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Map = Callable[[Doubles], Doubles]

HASH_GROUPS = 5
BINS = 15
_EPSILON = 1e-7


class Calibration(StrEnum):
    """How probabilities are calibrated."""

    ISOTONIC = "isotonic"
    PLATT = "platt"
    TEMPERATURE = "temperature"


@dataclass(frozen=True, slots=True)
class Calls:
    """Cases called positive, and the threshold that each group's calls were made at."""

    called: Mask
    thresholds: tuple[tuple[int, float], ...]


def groups_of(cases: Cases) -> npt.NDArray[np.int64]:
    """(n,) group of each case: its fold, or its patient's hash where all are in one fold."""
    if np.unique(cases.folds).size > 1:
        return cases.folds
    return np.array([_hashed(str(patient)) for patient in cases.patients], np.int64)


def _hashed(patient: str) -> int:
    return int.from_bytes(hashlib.sha256(patient.encode()).digest()[:8]) % HASH_GROUPS


def nested_calls(cases: Cases) -> Calls:
    """Call each group at the other groups' best-F1 threshold; at 0.5 where they have no positives."""
    groups, called, thresholds = groups_of(cases), np.zeros(len(cases.keys), bool), []
    for group in np.unique(groups):
        rest = groups != group
        threshold = 0.5
        if cases.labels[rest].any():
            threshold, _ = best_threshold(cases.labels[rest], cases.probabilities[rest])
        called[~rest] = cases.probabilities[~rest] >= threshold
        thresholds.append((int(group), threshold))
    return Calls(called, tuple(thresholds))


def nested_calibration(cases: Cases, how: Calibration) -> Doubles | None:
    """Calibrated probabilities (n,), each group's map fitted on the other groups.

    None if some group's rest has one class only: then there is nothing to fit.
    """
    groups, calibrated = groups_of(cases), np.empty(len(cases.keys))
    for group in np.unique(groups):
        rest = groups != group
        if not 0 < cases.labels[rest].sum() < rest.sum():
            return None
        fitted = fit(cases.labels[rest], cases.probabilities[rest], how)
        calibrated[~rest] = fitted(cases.probabilities[~rest])
    return calibrated


def fit(labels: Doubles, probabilities: Doubles, how: Calibration) -> Map:
    """A monotonic map of probabilities, fitted by maximum likelihood (isotonic: least squares)."""
    if how is Calibration.ISOTONIC:
        from sklearn.isotonic import IsotonicRegression

        isotonic = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(probabilities, labels)
        return lambda values: np.asarray(isotonic.predict(values), np.float64)
    if how is Calibration.PLATT:
        from sklearn.linear_model import LogisticRegression

        platt = LogisticRegression(C=1e6).fit(_logit(probabilities)[:, None], labels)
        return lambda values: np.asarray(platt.predict_proba(_logit(values)[:, None])[:, 1], np.float64)
    temperature = _temperature(labels, _logit(probabilities))
    return lambda values: sigmoid(_logit(values) / temperature)


def _temperature(labels: Doubles, logits: Doubles) -> float:
    """Guo et al., ICML 2017: the one divisor of all logits with the smallest log loss."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(np.mean(np.logaddexp(0, scaled) - labels * scaled))

    return float(np.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x))


def _logit(values: Doubles) -> Doubles:
    clipped = np.clip(values, _EPSILON, 1 - _EPSILON)
    return np.asarray(np.log(clipped) - np.log1p(-clipped), np.float64)


@dataclass(frozen=True, slots=True)
class Bin:
    """Cases of one calibration bin: how many, their mean probability, the share of positives."""

    count: int
    predicted: float
    observed: float


def reliability(labels: Doubles, probabilities: Doubles, bins: int = BINS) -> tuple[Bin, ...]:
    """Bins of (nearly) equally many cases, in order of probability; fewer where cases are few."""
    order = np.argsort(probabilities, kind="stable")
    parts = np.array_split(order, min(bins, max(order.size, 1)))
    return tuple(
        Bin(part.size, float(probabilities[part].mean()), float(labels[part].mean()))
        for part in parts
        if part.size
    )


def expected_calibration_error(labels: Doubles, probabilities: Doubles) -> float:
    """Mean distance of predicted from observed over the bins of `reliability`, weighted by their cases."""
    parts = reliability(labels, probabilities)
    total = sum(part.count for part in parts)
    return sum(part.count * abs(part.predicted - part.observed) for part in parts) / max(total, 1)
