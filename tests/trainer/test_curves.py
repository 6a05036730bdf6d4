from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.trainer.cases import predicted, rows
from trainer.curves import Line, all_curves, history
from trainer.predictions import Cases, Level


def cases() -> list[tuple[Level, Cases]]:
    made = predicted(rows(30))
    return [(level, made.cases(level).known()) for level in Level]


def test_curves_are_whole_svg_and_the_same_again() -> None:
    first, again = all_curves(cases()), all_curves(cases())
    assert [curve.name for curve in first] == [
        "roc", "precision_recall", "calibration", "thresholds", "probabilities",
    ]  # fmt: skip
    for curve, same in zip(first, again, strict=True):
        assert ElementTree.fromstring(curve.svg).tag.endswith("svg")
        assert curve.svg == same.svg
        assert "breast" in curve.svg or curve.name in ("thresholds", "probabilities")


def test_one_class_has_no_curves() -> None:
    negatives = [(level, part.where(part.labels == 0)) for level, part in cases()]
    assert all_curves(negatives) == ()


@pytest.mark.parametrize("values", [[0.7, 0.5, 0.4], [0.7, float("nan"), 0.4], [0.7]])
def test_a_history_is_drawn_with_its_gaps(values: list[float]) -> None:
    text = history([Line("training", values), Line("validation", np.array(values) + 0.1)], "loss")
    assert "training" in text
    assert "validation" in text


@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_epochs_are_counted_in_whole_numbers(epochs: int) -> None:
    text = history([Line("training", np.linspace(0.5, 0.4, epochs))], "loss")
    axis = text.split('id="matplotlib.axis_1"')[1].split('id="matplotlib.axis_2"')[0]
    *ticks, label = re.findall(r">([^<>\s]+)</text>", axis)
    assert label == "epoch"
    assert "1" in ticks
    assert all(tick.isdigit() for tick in ticks)
