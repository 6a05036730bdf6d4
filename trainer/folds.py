"""Which rows train and which validate: the dataset's own folds, never a patient on both sides.

In:  dataset, labels, a fold.
Out: Split; test rows; what each fold holds.

Rows whose target is unknown are left out. Rows of an official test split (`split` = test) are for `evaluate`;
a patient with one of them is in no training and no validation, with none of its images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from preprocess.errors import BcdError, UsageError
from preprocess.schema import InstanceRow
from trainer.dataset import Dataset
from trainer.records import Rows, Split
from trainer.targets import Labels

TEST = "test"
Mask = npt.NDArray[np.bool_]


class LeakageError(BcdError):
    """A patient would be on both sides of a split: nothing that is measured would mean anything."""

    code = "leakage"


@dataclass(frozen=True, slots=True)
class FoldFacts:
    """Validation rows of one fold, whose target is known."""

    fold: int
    images: int
    patients: int
    positive_images: int
    positive_patients: int


def split(dataset: Dataset, labels: Labels, fold: int) -> Split:
    """Training and validation rows of one fold, ascending.

    A fold without positives, or without images, is no error here: `fold_facts` tells it.

    Raises:
        UsageError: there is no such fold, or training would have one class only.
        LeakageError: a patient is in two folds.
    """
    folds = dataset.manifest.config.folds
    if not 0 <= fold < folds:
        raise UsageError(f"there is no fold {fold}: the dataset has {folds}, from 0")
    if folds == 1:
        raise UsageError(
            "the dataset has one fold: nothing is left to train on; run bcd-prep with more --folds"
        )
    usable = _usable(dataset.rows, labels)
    require_disjoint(dataset.rows, usable)
    here = np.array([row.fold == fold for row in dataset.rows])
    found = Split(fold, _rows(usable & ~here), _rows(usable & here))
    _require_two_classes(labels, found)
    return found


def test_rows(dataset: Dataset, labels: Labels) -> Rows:
    """Rows of the official test split whose target is known, ascending."""
    return _rows(_known(labels) & np.array([row.split == TEST for row in dataset.rows]))


def fold_facts(dataset: Dataset, labels: Labels) -> tuple[FoldFacts, ...]:
    """What each fold holds to validate on."""
    usable = _usable(dataset.rows, labels)
    return tuple(_facts(dataset.rows, labels, fold, usable) for fold in range(dataset.manifest.config.folds))


def without_positives(facts: Sequence[FoldFacts]) -> str | None:
    """One line on folds that no ranking metric can be computed on; None if there is nothing to say."""
    none = [str(one.fold) for one in facts if not one.positive_images]
    if not none:
        return None
    return f"no positive image in fold {', '.join(none)}: their ranking metrics will be empty"


def require_disjoint(rows: Sequence[InstanceRow], usable: Mask) -> None:
    """Raise LeakageError if a patient of the usable rows is in more than one fold."""
    folds: dict[str, int | None] = {}
    torn = set()
    for index in np.flatnonzero(usable).tolist():
        patient = _patient(rows[index])
        if folds.setdefault(patient, rows[index].fold) != rows[index].fold:
            torn.add(patient)
    if torn:
        raise LeakageError(
            f"{len(torn)} patients are in more than one fold: they would train what they validate"
        )


def _usable(rows: Sequence[InstanceRow], labels: Labels) -> Mask:
    tested = {_patient(row) for row in rows if row.split == TEST}
    usable: Mask = _known(labels) & np.array([_patient(row) not in tested for row in rows])
    return usable


def _known(labels: Labels) -> Mask:
    return cast(Mask, ~np.isnan(labels.values[:, 0]))


def _require_two_classes(labels: Labels, found: Split) -> None:
    positives = labels.positives(found.train)
    if not positives or positives == len(found.train):
        only = "positive" if positives else "negative"
        raise UsageError(
            f"{labels.target}: all {len(found.train)} training images of fold {found.fold} are {only}"
            if len(found.train)
            else f"{labels.target}: fold {found.fold} leaves no image with a known label to train on"
        )


def _facts(rows: Sequence[InstanceRow], labels: Labels, fold: int, usable: Mask) -> FoldFacts:
    mine = [index for index in np.flatnonzero(usable).tolist() if rows[index].fold == fold]
    positive = [index for index in mine if labels.values[index, 0] == 1]
    patients, ill = ({_patient(rows[index]) for index in some} for some in (mine, positive))
    return FoldFacts(fold, len(mine), len(patients), len(positive), len(ill))


def _patient(row: InstanceRow) -> str:
    return row.patient_id or row.source


def _rows(mask: Mask) -> Rows:
    return np.flatnonzero(mask).astype(np.int64)
