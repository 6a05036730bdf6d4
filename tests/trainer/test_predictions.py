from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from preprocess.errors import DatasetDamaged
from preprocess.records import Status
from preprocess.schema import InstanceRow
from trainer.predictions import Level, Predictions


def table() -> Predictions:
    rows = [
        InstanceRow(source=f"{p}/{i}.dcm", status=Status.PREPARED, patient_id=p, image_id=str(i),
                    laterality=side, view=view)
        for i, (p, side, view) in enumerate(
            [("7", "L", "CC"), ("7", "L", "MLO"), ("7", "R", "CC"), ("12", None, None), ("12", None, "CC")]
        )
    ]  # fmt: skip
    return Predictions.of(rows, [0, 0, 0, 1, 1], [1, 1, 0, np.nan, 0], [0.2, 0.6, 0.1, 0.9, 0.3])


def test_breasts_are_means_over_their_views() -> None:
    cases = table().cases(Level.BREAST)
    assert cases.keys == ("12_?12/3.dcm", "12_?12/4.dcm", "7_L", "7_R")
    assert cases.probabilities == pytest.approx([0.9, 0.3, 0.4, 0.1])
    assert np.isnan(cases.labels[0])
    assert cases.labels[1:].tolist() == [0, 1, 0]
    assert cases.folds.tolist() == [1, 1, 0, 0]


def test_patients_are_positive_if_an_image_is_and_known_if_one_is() -> None:
    cases = table().cases(Level.PATIENT)
    assert cases.keys == ("12", "7")
    assert cases.labels.tolist() == [0, 1]
    assert cases.probabilities == pytest.approx([0.6, 0.3])


def test_cases_without_a_label_are_left_out_of_the_known() -> None:
    known = table().cases(Level.IMAGE).known()
    assert known.keys == ("7/0.dcm", "7/1.dcm", "7/2.dcm", "12/4.dcm")


def test_the_file_gives_back_what_was_written(tmp_path: Path) -> None:
    written = table()
    written.write(tmp_path / "predictions.parquet")
    read = Predictions.read(tmp_path / "predictions.parquet")
    for name in ("source", "image_id", "patient_id", "laterality", "view", "fold"):
        assert getattr(read, name).tolist() == getattr(written, name).tolist()
    np.testing.assert_array_equal(read.label, written.label)
    np.testing.assert_array_equal(read.probability, written.probability)


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    table().write(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetDamaged, match=r"predictions\.parquet"):
        Predictions.read(path)
