from __future__ import annotations

import stat
from pathlib import Path

import pytest

from preprocess.config import Format, Identifiers
from preprocess.errors import UsageError
from preprocess.identifiers import Pseudonyms
from preprocess.manifest import finish
from preprocess.plan import plan_shards
from preprocess.records import Status
from preprocess.schema import InstanceRow
from preprocess.shards import load_finished
from preprocess.verify import verify
from tests.factories import CONFIG, LABELS, scanned, write_shard

HASH = CONFIG.model_copy(
    update={
        "identifiers": Identifiers.HASH,
        "formats": (Format.TFRECORD, Format.PARQUET, Format.PNG),
    }
)

ROW = InstanceRow(
    source="secret/1.dcm",
    status=Status.DUPLICATE,
    duplicate_of="secret/0.dcm",
    patient_id="P-secret",
    image_id="I-secret",
    sop_instance_uid="1.2.3",
    study_instance_uid="1.2.4",
    site_id="1",
)


def test_keep_keeps_and_makes_no_key(tmp_path: Path) -> None:
    assert Pseudonyms.open(Identifiers.KEEP, tmp_path / "OUT.key").row(ROW) == ROW
    assert list(tmp_path.iterdir()) == []


def test_the_key_file_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "OUT.key"
    first = Pseudonyms.open(Identifiers.HASH, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Pseudonyms.open(Identifiers.HASH, path) == first
    assert Pseudonyms.open(Identifiers.HASH, tmp_path / "other.key").row(ROW) != first.row(ROW)


def test_another_file_is_not_taken_for_a_key(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    path.write_text("not a key\n")
    with pytest.raises(UsageError, match="not a key file"):
        Pseudonyms.open(Identifiers.HASH, path)
    assert path.read_text() == "not a key\n"


def test_equal_values_stay_equal_and_uids_stay_uids() -> None:
    names = Pseudonyms(b"k" * 32)
    row, other = names.row(ROW), names.row(InstanceRow(source="secret/0.dcm", status=Status.PREPARED))
    assert row.duplicate_of == other.source
    assert row.patient_id != row.image_id
    assert row.sop_instance_uid is not None
    assert row.sop_instance_uid.startswith("2.25.")
    assert len(row.sop_instance_uid) <= 64
    assert row.series_instance_uid is None
    assert (row.site_id, row.status) == ("1", Status.DUPLICATE)


def test_the_key_is_not_in_the_repr() -> None:
    assert "kkkk" not in repr(Pseudonyms(b"k" * 32))


def test_original_names_are_nowhere_in_out(tmp_path: Path) -> None:
    names = Pseudonyms(b"k" * 32)
    files = [scanned(f"secret{p}", f"private{p}{i}", cancer=p % 2) for p in range(3) for i in range(2)]
    files.append(scanned("secret9", "private9bad"))
    plans = plan_shards(files, HASH, LABELS)
    results = [write_shard(tmp_path, plan, HASH, names) for plan in plans]
    journals = b"".join(path.read_bytes() for path in tmp_path.rglob("*.json"))
    finish(tmp_path, results, [names.row(ROW)], config=HASH, label_columns=LABELS)
    everything = journals + b"".join(
        path.relative_to(tmp_path).as_posix().encode() + path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file()
    )
    for word in (b"secret", b"private", b"train_images", b"1.2.3", *(p.key(HASH).encode() for p in plans)):
        assert word not in everything
    assert verify(tmp_path).status == "whole"
    assert load_finished(tmp_path, plans, HASH, names) == {result.name: result for result in results}
