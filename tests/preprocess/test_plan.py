from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.errors import UsageError
from preprocess.plan import plan_shards, positive_label, split_ambiguous
from preprocess.records import Label, LabelColumn, LabelLevel, ScannedFile
from tests.factories import CONFIG, LABELS, inputs, scanned


@st.composite
def archives(draw: st.DrawFn) -> tuple[ScannedFile, ...]:
    sizes = draw(st.lists(st.integers(1, 9), max_size=12))
    cancer = draw(st.lists(st.sampled_from([0, 1, None]), min_size=12, max_size=12))
    return tuple(scanned(f"p{p}", f"i{i}", cancer[p]) for p, n in enumerate(sizes) for i in range(n))


@given(archives(), st.integers(1, 6), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_plans_keep_patients_whole_and_every_input_once(
    files: tuple[ScannedFile, ...], limit: int, shuffler: random.Random
) -> None:
    config = CONFIG.model_copy(update={"shard_images": limit, "folds": 3})
    plans = plan_shards(files, config, LABELS)
    turned = list(files)
    shuffler.shuffle(turned)
    assert plan_shards(turned, config, LABELS) == plans
    planned = [source for plan in plans for source in plan.sources]
    assert sorted(s.source for s in planned) == sorted(f.source.source for f in files)
    homes: dict[str | None, set[str]] = {}
    for plan in plans:
        patients = {source.identity.patient_id for source in plan.sources}
        assert len(plan.sources) <= limit or len(patients) == 1
        assert len(plan.sources) == len(plan.file_bytes) > 0
        for patient in patients:
            homes.setdefault(patient, set()).add(plan.name)
    assert all(len(names) == 1 for names in homes.values())


def test_shards_are_named_by_fold_and_number() -> None:
    plans = plan_shards(inputs(), CONFIG, LABELS)
    assert [plan.name for plan in plans] == [
        "fold=0/part-00000",
        "fold=0/part-00001",
        "fold=1/part-00000",
        "fold=1/part-00001",
    ]
    assert [plan.fold for plan in plans] == [0, 0, 1, 1]


def test_the_key_changes_with_everything_that_decides_bytes() -> None:
    plan = plan_shards(inputs(), CONFIG, LABELS)[0]
    source = plan.sources[0]
    other_label = dataclasses.replace(source, labels=(Label("cancer", 7), *source.labels[1:]))
    other_view = dataclasses.replace(source, identity=dataclasses.replace(source.identity, view="MLO"))
    variants = [
        plan,
        dataclasses.replace(plan, name="fold=9/part-00000"),
        dataclasses.replace(plan, sources=plan.sources[::-1]),
        dataclasses.replace(plan, sources=(other_label, *plan.sources[1:])),
        dataclasses.replace(plan, sources=(other_view, *plan.sources[1:])),
        dataclasses.replace(plan, file_bytes=(5, *plan.file_bytes[1:])),
        dataclasses.replace(plan, label_columns=()),
    ]
    keys = [variant.key(CONFIG) for variant in variants] + [plan.key(CONFIG.model_copy(update={"bits": 8}))]
    assert len(set(keys)) == len(keys)
    moved = dataclasses.replace(source, path="/elsewhere/a.dcm")
    assert dataclasses.replace(plan, sources=(moved, *plan.sources[1:])).key(CONFIG) == plan.key(CONFIG)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"age": 1, "cancer": 0}, {"age": 0, "cancer": 1}], "cancer"),
        ([{"age": 50, "biopsy": 1}, {"age": 51, "biopsy": None}], "biopsy"),
        ([{"cancer": "yes", "biopsy": 0}], "biopsy"),
        ([{"age": 50}], None),
        ([], None),
    ],
)
def test_the_stratifying_label_is_cancer_or_the_first_binary_one(
    rows: list[dict[str, int | str | None]], expected: str | None
) -> None:
    columns = [LabelColumn(name, "int64", LabelLevel.BREAST) for name in ("age", "biopsy", "cancer")]
    labels = [[Label(name, value) for name, value in row.items()] for row in rows]
    assert positive_label(columns, labels) == expected


def test_a_label_with_the_name_of_a_column_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="laterality"):
        plan_shards(inputs(), CONFIG, [LabelColumn("laterality", "string", LabelLevel.IMAGE)])


def test_two_inputs_of_one_identity_keep_the_first() -> None:
    first, second = scanned("p", "1", source="a/1.dcm"), scanned("p", "1", source="b/1.dcm")
    kept, rejects = split_ambiguous([second, scanned("p", "2"), first])
    assert [file.source.source for file in kept] == ["a/1.dcm", "train_images/p/2.dcm"]
    assert [(r.source.source, r.code) for r in rejects] == [("b/1.dcm", "ambiguous_identity")]


def test_copies_that_share_a_uid_are_left_to_the_duplicate_rule() -> None:
    copies = [scanned("p", "1", source=f"{n}.dcm", sop_instance_uid="1.2") for n in range(3)]
    assert split_ambiguous(copies) == (tuple(copies), ())
