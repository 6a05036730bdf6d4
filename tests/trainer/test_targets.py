"""Rules, labels, heads, and the negative control."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.errors import UsageError
from preprocess.records import Label, LabelValue, Status
from preprocess.schema import InstanceRow
from trainer.config import BagPooling, DataConfig
from trainer.targets import Rule, labels_of, shuffled


def row(
    patient: str = "p", side: str = "L", *, split: str | None = None, view: str = "CC", **labels: LabelValue
) -> InstanceRow:
    return InstanceRow(
        source=f"{patient}{side}{view}",
        status=Status.PREPARED,
        patient_id=patient,
        laterality=side,
        view=view,
        split=split,
        labels=tuple(Label(name, value) for name, value in labels.items()),
    )


@pytest.mark.parametrize(
    ("rule", "values", "expected"),
    [
        ("BIRADS>=4", (3, 4, 5.0, "4", None), (False, True, True, True, None)),
        ("BIRADS <= 4", (3, 4, 4.5), (True, True, False)),
        ("x>0", (0, 0.1), (False, True)),
        ("x<-1", (-2, -1), (True, False)),
        ("pathology==malignant", ("malignant", "benign", None), (True, False, None)),
        ("pathology == 'malignant'", ("malignant", "benign"), (True, False)),
        ("x!=0", (0, 0.0, 1, 2), (False, False, True, True)),
        ("BIRADS in {4,5}", (4, 5.0, 3, "5"), (True, True, False, True)),
        ("density in {C, D}", ("C", "D", "A"), (True, True, False)),
        (">=4", (3, 4), (False, True)),
        ("Tumor size in mm>=20", (19, 20), (False, True)),
    ],
)
def test_rules_say_what_is_positive(
    rule: str, values: tuple[LabelValue, ...], expected: tuple[bool | None, ...]
) -> None:
    parsed = Rule.parse(rule, "BIRADS")
    assert tuple(parsed.holds(value) for value in values) == expected


@pytest.mark.parametrize("rule", ["", "BIRADS", "BIRADS=4", "x>=high", "x in 4,5", "{4}", "x >="])
def test_what_is_no_rule_is_told(rule: str) -> None:
    with pytest.raises(UsageError, match="--positive"):
        Rule.parse(rule, "BIRADS")


def test_ordering_text_is_told() -> None:
    with pytest.raises(UsageError, match="needs numbers"):
        Rule.parse("density>=2", "").holds("B")


def test_unknown_labels_are_nan_and_counted() -> None:
    rows = [row(cancer=1), row(cancer=0), row(cancer=None), row()]
    labels = labels_of(rows, DataConfig())
    np.testing.assert_array_equal(labels.values[:, 0], np.array([1, 0, np.nan, np.nan], np.float32))
    assert labels.values.dtype == np.float32
    assert (labels.unknown, labels.known.tolist(), labels.positives(labels.known)) == (2, [0, 1], 1)


def test_a_rule_names_its_column_and_the_target_in_words() -> None:
    rows = [row(cancer=0, BIRADS=5), row(cancer=1, BIRADS=1)]
    labels = labels_of(rows, DataConfig(positive="BIRADS>=4"))
    assert labels.values[:, 0].tolist() == [1, 0]
    assert labels.target == "BIRADS>=4"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DataConfig(target="tumour"), "there is no label tumour; the dataset has cancer, density"),
        (DataConfig(target="density"), "not 0 or 1 but also B, C: say --positive 'density==…'"),
        (DataConfig(target="cancer", positive="grade>=2"), "there is no label grade"),
    ],
)
def test_targets_that_cannot_be_are_told(config: DataConfig, message: str) -> None:
    rows = [row(cancer=1, density="B"), row(cancer=0, density="C")]
    with pytest.raises(UsageError, match=message):
        labels_of(rows, config)


def test_no_labels_at_all_are_told() -> None:
    with pytest.raises(UsageError, match="run bcd-prep with --labels"):
        labels_of([row()], DataConfig())
    with pytest.raises(UsageError, match="unknown for every image"):
        labels_of([row(cancer=None)], DataConfig())


def test_heads_number_their_classes() -> None:
    rows = [
        row(cancer=1, BIRADS=10.0, invasive=1, view="CC"),
        row(cancer=0, BIRADS=2, invasive=0, view="MLO"),
        row(cancer=0, BIRADS=None, invasive=None, view="CC"),
    ]
    labels = labels_of(rows, DataConfig(), ("BIRADS", "invasive", "view"))
    assert [head.classes for head in labels.heads] == [("2", "10"), ("0", "1"), ("CC", "MLO")]
    assert [head.logits for head in labels.heads] == [1, 1, 1]
    np.testing.assert_array_equal(
        labels.values[:, 1:], np.array([[1, 1, 0], [0, 0, 1], [np.nan, np.nan, 0]], np.float32)
    )
    assert labels.head_unknown() == (1, 1, 0)


def test_a_trained_models_heads_judge_another_dataset() -> None:
    trained = labels_of([row(cancer=1, density=d) for d in "ABC"], DataConfig(), ("density",)).heads
    other = labels_of([row(cancer=0, density="C"), row(cancer=0, density="Z")], DataConfig(), heads=trained)
    np.testing.assert_array_equal(other.values[:, 1], np.array([2, np.nan], np.float32))
    assert np.isnan(labels_of([row(cancer=0)], DataConfig(), heads=trained).values[0, 1])


def test_heads_that_cannot_be_are_told() -> None:
    rows = [row(f"{n}", cancer=1, age=float(n), one="x") for n in range(40)]
    with pytest.raises(UsageError, match="age has 40"):
        labels_of(rows, DataConfig(), ("age",))
    with pytest.raises(UsageError, match="one has 1"):
        labels_of(rows, DataConfig(), ("one",))
    with pytest.raises(UsageError, match="view of a bag"):
        labels_of(rows, DataConfig(bags=BagPooling.MAX), ("view",))


def screening(draw: st.DrawFn) -> list[InstanceRow]:
    rows = []
    for patient in range(draw(st.integers(1, 12))):
        split = draw(st.sampled_from([None, None, "test"]))
        for side in draw(st.sampled_from(["L", "R", "LR"])):
            cancer = draw(st.sampled_from([0, 0, 1, None]))
            rows += [
                row(f"p{patient}", side, split=split, view=view, cancer=cancer)
                for view in draw(st.sampled_from([("CC",), ("CC", "MLO")]))
            ]
    return rows


@given(st.composite(screening)(), st.integers(0, 5))
def test_shuffling_moves_whole_breasts_among_patients(rows: list[InstanceRow], seed: int) -> None:
    target = np.array([np.nan if r.labels[0].value is None else r.labels[0].value for r in rows], np.float32)
    found = shuffled(rows, target, seed)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(target))
    np.testing.assert_array_equal(found, shuffled(rows, target, seed))
    assert _patterns(rows, found) == _patterns(rows, target)
    sides = {}
    for one, value in zip(rows, found, strict=True):
        assert sides.setdefault((one.patient_id, one.laterality), value) in (value, None) or np.isnan(value)


def _patterns(rows: list[InstanceRow], target: np.ndarray) -> Counter[tuple[bool, tuple[float, ...]]]:
    """How many patients have which labels, breast by breast."""
    patients: dict[tuple[str | None, bool], dict[str | None, float]] = {}
    for one, value in zip(rows, target.tolist(), strict=True):
        if value == value:
            patients.setdefault((one.patient_id, one.split == "test"), {})[one.laterality] = value
    return Counter((tested, tuple(v for _, v in sorted(p.items()))) for (_, tested), p in patients.items())


def test_shuffled_labels_say_nothing_of_the_pictures() -> None:
    rows = [row(f"p{n}", side, cancer=int(n < 20 and side == "L")) for n in range(200) for side in "LR"]
    truth = labels_of(rows, DataConfig()).values[:, 0]
    control = [labels_of(rows, DataConfig(shuffle_labels=True), seed=seed).values[:, 0] for seed in range(20)]
    assert all(one.sum() == truth.sum() for one in control)
    assert len({one.tobytes() for one in control}) == 20
    shared = np.mean([(one * truth).sum() for one in control])
    assert 0.5 < shared < 4  # of 20 positives, 2 by chance
