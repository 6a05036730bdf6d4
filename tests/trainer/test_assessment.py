from __future__ import annotations

import numpy as np
import pytest

from tests.trainer.cases import predicted, rows
from trainer.assessment import assess
from trainer.predictions import Level, Predictions


def test_levels_slices_and_unknown_labels_are_counted() -> None:
    of = rows()
    made = predicted(of)
    label = made.label.copy()
    label[:4] = np.nan
    predictions = Predictions.of(of, made.fold, label, made.probability)
    found = assess(predictions, of)
    image, breast, patient = found.levels
    assert (found.images, found.unknown) == (240, 4)
    assert (image.scores.count, breast.scores.count, patient.scores.count) == (236, 118, 59)
    assert image.level is Level.IMAGE
    by_column = {
        column: [s for s in found.slices if s.column == column] for column in ("view", "site_id", "age")
    }
    assert sum(s.count for s in by_column["view"]) == 236
    assert sum(s.count for s in by_column["site_id"]) == 236
    assert {s.value for s in by_column["age"]} <= {"under 40", "40–49", "50–59", "60–69", "70+"}


def test_the_confusion_matrix_holds_every_known_case() -> None:
    found = assess(predicted(rows()), rows())
    for level in found.levels:
        matrix = level.confusion
        assert matrix.true_positives + matrix.false_negatives == level.scores.positives
        assert (
            matrix.true_positives + matrix.false_positives + matrix.false_negatives + matrix.true_negatives
            == level.scores.count
        )


def test_means_over_views_help() -> None:
    image, breast, _ = assess(predicted(rows(200)), rows(200)).levels
    assert image.scores.roc_auc is not None
    assert breast.scores.roc_auc is not None
    assert breast.scores.roc_auc > image.scores.roc_auc + 0.03


def test_shuffled_labels_are_worth_nothing() -> None:
    of = rows(200)
    made = predicted(of)
    shuffled = np.random.default_rng(3).permutation(made.label)
    found = assess(Predictions.of(of, made.fold, shuffled, made.probability), of)
    auc = found.levels[0].intervals[0]
    assert auc.low is not None
    assert auc.high is not None
    assert auc.low < 0.5 < auc.high


def test_an_assessment_is_a_pure_function() -> None:
    assert assess(predicted(rows(20)), rows(20)) == assess(predicted(rows(20)), rows(20))


def test_predictions_of_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="not of these rows"):
        assess(predicted(rows()), rows()[::-1])
