"""Nobody trains what they validate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from preprocess.errors import UsageError
from tests.trainer.sets import BOTH, image, make, screening
from trainer.config import DataConfig
from trainer.dataset import Dataset
from trainer.folds import LeakageError, fold_facts, split, test_rows, without_positives
from trainer.targets import Labels, labels_of

test_rows.__test__ = False  # type: ignore[attr-defined]  # a function of the trainer, not a test
DATA = DataConfig()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    files = screening(8)
    files += [image("unknown", side, "CC", None) for side in "LR"]
    files += [image("official", side, view, 1, split="test") for side in "LR" for view in ("CC", "MLO")]
    files += [image("both", "L", "CC", 1, split="test"), image("both", "R", "CC", 1, split="train")]
    return make(tmp_path_factory.mktemp("set") / "OUT", files)


@pytest.fixture(scope="module")
def labels(dataset: Dataset) -> Labels:
    return labels_of(dataset.rows, DATA)


def test_folds_share_no_patient_and_cover_all_known_rows(dataset: Dataset, labels: Labels) -> None:
    validated = []
    for fold in range(2):
        found = split(dataset, labels, fold)
        train, validation = (
            {dataset.rows[i].patient_id for i in rows} for rows in (found.train, found.validation)
        )
        assert not train & validation
        assert not (train | validation) & {"unknown", "official", "both"}
        assert all(dataset.rows[i].fold == fold for i in found.validation)
        assert np.all(np.diff(found.train) > 0)
        assert np.all(np.diff(found.validation) > 0)
        validated += found.validation.tolist()
        assert sorted([*found.train, *found.validation]) == sorted(
            i for i, row in enumerate(dataset.rows) if row.patient_id and row.patient_id.startswith("p")
        )
    assert len(validated) == len(set(validated)) == 32


def test_the_official_test_split_is_for_evaluation(dataset: Dataset, labels: Labels) -> None:
    rows = test_rows(dataset, labels)
    assert {dataset.rows[i].patient_id for i in rows} == {"official", "both"}
    assert len(rows) == 5


def test_a_patient_in_two_folds_is_refused(dataset: Dataset, labels: Labels) -> None:
    rows = list(dataset.rows)
    index = next(i for i, row in enumerate(rows) if row.patient_id == "p00")
    rows[index] = replace(rows[index], fold=1 - (rows[index].fold or 0))
    torn = Dataset(dataset.place, dataset.manifest, tuple(rows), dataset.kind)
    for fold in (0, 1):
        with pytest.raises(LeakageError, match="1 patients are in more than one fold"):
            split(torn, labels, fold)


def test_folds_without_positives_are_told_not_fatal(tmp_path: Path) -> None:
    dataset = make(tmp_path / "OUT", screening(6, positive=1))
    labels = labels_of(dataset.rows, DATA)
    facts = fold_facts(dataset, labels)
    assert [one.images for one in facts] == [12, 12]
    assert [one.patients for one in facts] == [3, 3]
    assert sorted(one.positive_images for one in facts) == [0, 2]
    assert sorted(one.positive_patients for one in facts) == [0, 1]
    empty = next(one.fold for one in facts if not one.positive_images)
    assert (
        without_positives(facts) == f"no positive image in fold {empty}: their ranking metrics will be empty"
    )
    assert len(split(dataset, labels, empty).validation) == 12
    with pytest.raises(UsageError, match=r"all 12 training images of fold \d are negative"):
        split(dataset, labels, 1 - empty)


def test_folds_with_positives_have_nothing_to_tell(dataset: Dataset, labels: Labels) -> None:
    assert without_positives(fold_facts(dataset, labels)) is None


def test_one_class_is_told(tmp_path: Path) -> None:
    dataset = make(tmp_path / "OUT", [image(f"p{n}", "L", "CC", 1) for n in range(6)])
    with pytest.raises(UsageError, match="are positive"):
        split(dataset, labels_of(dataset.rows, DATA), 0)


@pytest.mark.parametrize("fold", [-1, 2])
def test_folds_that_are_not_there_are_told(dataset: Dataset, labels: Labels, fold: int) -> None:
    with pytest.raises(UsageError, match=f"there is no fold {fold}: the dataset has 2"):
        split(dataset, labels, fold)


def test_one_fold_leaves_nothing_to_train_on(tmp_path: Path) -> None:
    dataset = make(tmp_path / "OUT", config=BOTH.model_copy(update={"folds": 1}))
    with pytest.raises(UsageError, match="--folds"):
        split(dataset, labels_of(dataset.rows, DATA), 0)
