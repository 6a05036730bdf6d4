from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from preprocess.config import ResultConfig
from preprocess.errors import DatasetDamaged, RunAborted, UsageError
from preprocess.manifest import finish, read_manifest, read_rows, rows_sha256
from preprocess.plan import plan_shards
from preprocess.records import LabelColumn, LabelLevel, Status
from preprocess.schema import COLUMN_NAMES, InstanceRow, duplicate_row, rejected_row
from tests.factories import CONFIG, LABELS, inputs, reject, scanned, write_dataset, write_shard


@pytest.fixture
def out(tmp_path: Path) -> Path:
    plans = plan_shards(inputs(), CONFIG, LABELS)
    results = [write_shard(tmp_path, plan) for plan in plans]
    others = [
        rejected_row(reject(scanned("z", "9").source)),
        duplicate_row(scanned("a", "0"), "train_images/p00/00.dcm", "00" * 32),
    ]
    finish(tmp_path, results, others, config=CONFIG, label_columns=LABELS, ignored=3)
    return tmp_path


def test_every_input_is_accounted_for(out: Path) -> None:
    manifest = read_manifest(out)
    counts = manifest.counts
    assert (counts.found, counts.prepared, counts.rejected, counts.duplicate, counts.ignored) == (
        14,
        11,
        2,
        1,
        3,
    )
    assert counts.rejected_by_code == {"blank_image": 2}
    assert sum(shard.rows for shard in manifest.shards) == 11
    assert sum(fold.images for fold in manifest.folds) == 11
    assert sum(fold.patients for fold in manifest.folds) == 6
    assert [fold.positive_patients for fold in manifest.folds] == [1, 1]
    assert manifest.positive_label == "cancer"
    assert [(label.name, label.known, label.positives) for label in manifest.labels] == [
        ("cancer", 12, 4),
        ("age", 12, None),
        ("density", 12, None),
    ]


def test_the_table_has_every_column_in_source_order_and_no_metadata(out: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = pd.read_parquet(out / "instances.parquet")
    assert list(table.columns) == [*COLUMN_NAMES, "cancer", "age", "density"]
    assert list(table["source"]) == sorted(table["source"])
    assert pq.read_schema(out / "instances.parquet").metadata is None
    assert table["status"].value_counts().to_dict() == {"prepared": 11, "rejected": 2, "duplicate": 1}


def test_rows_come_back_as_they_were_written(out: Path, tmp_path: Path) -> None:
    rows = {row.source: row for row in read_rows(out, LABELS)}
    plans = plan_shards(inputs(), CONFIG, LABELS)
    for plan in plans:
        for row in write_shard(tmp_path / "again", plan).rows:
            assert rows[row.source] == row


def test_the_manifest_is_one_text_that_ends_in_its_hash(out: Path) -> None:
    data = (out / "manifest.json").read_bytes()
    manifest = read_manifest(out)
    assert manifest.to_bytes() == data
    document = json.loads(data)
    assert document["schema_version"] == 1
    assert ResultConfig.model_validate(document["config"]) == CONFIG
    assert document["config_sha256"] == CONFIG.sha256()
    for shard in document["shards"]:
        assert shard["bytes"] == sum(file["bytes"] for file in shard["files"])


def test_the_decoder_changes_neither_manifest_nor_hash(out: Path) -> None:
    rows = read_rows(out, LABELS)
    others = [dataclasses.replace(row, decoder="another") for row in rows]
    assert rows_sha256(others, LABELS) == rows_sha256(rows, LABELS)
    assert b'decoder":' not in (out / "manifest.json").read_bytes()
    changed = [dataclasses.replace(rows[0], view="MLO"), *rows[1:]]
    assert rows_sha256(changed, LABELS) != rows_sha256(rows, LABELS)


def test_every_flipped_bit_in_the_manifest_is_found(out: Path) -> None:
    path = out / "manifest.json"
    data = path.read_bytes()
    for bit in range(0, len(data) * 8, 97):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(broken))
        with pytest.raises(DatasetDamaged):
            read_manifest(out)


def test_other_schema_versions_are_named(out: Path) -> None:
    manifest = read_manifest(out).model_copy(update={"schema_version": 99})
    (out / "manifest.json").write_bytes(manifest.to_bytes())
    with pytest.raises(UsageError, match="99"):
        read_manifest(out)


def test_a_folder_without_a_manifest_is_not_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a complete dataset"):
        read_manifest(tmp_path)


def test_a_source_with_two_rows_ends_the_run_without_a_manifest(tmp_path: Path) -> None:
    row = InstanceRow(source="a", status=Status.REJECTED)
    with pytest.raises(RunAborted, match="two rows"):
        finish(tmp_path, [], [row, row], config=CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_dataset_is_a_dataset(tmp_path: Path) -> None:
    manifest = finish(tmp_path, [], [], config=CONFIG)
    assert read_manifest(tmp_path) == manifest
    assert (manifest.counts.found, manifest.statistics.mean) == (0, None)
    assert read_rows(tmp_path, ()) == []


def test_whole_numbers_in_a_float_column_keep_the_hash(tmp_path: Path) -> None:
    labels = (LabelColumn("age", "float64", LabelLevel.PATIENT),)
    write_dataset(tmp_path)
    rows = read_rows(tmp_path, labels)
    assert {type(label.value) for row in rows for label in row.labels} == {float}
    manifest = read_manifest(tmp_path)
    assert rows_sha256(read_rows(tmp_path, LABELS), LABELS) == manifest.rows_sha256


def test_what_killed_workers_left_is_gone_when_the_manifest_is_there(tmp_path: Path) -> None:
    (tmp_path / "fold=0").mkdir()
    (tmp_path / "fold=0" / ".part-00000.tfrecord.0badcafe.tmp").write_bytes(b"half")
    write_dataset(tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))
