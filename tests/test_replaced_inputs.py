"""An input replaced by another of the same name and size is noticed by its time; one only touched is not."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from bench.phantom_dicom import DicomSpec, write_dicom
from preprocess.config import ExecutionConfig, PrepConfig, ResultConfig
from preprocess.manifest import RUN, read_manifest, read_rows
from preprocess.planning import RunRequest
from preprocess.runner import RunSummary, run
from preprocess.verify import verify
from tests.inline import InlineExecutor
from tests.instances import smooth

RESULT = ResultConfig(height=32, width=24, shard_images=2, folds=2)
NAMES = [f"p{patient}/i{image}.dcm" for patient in range(3) for image in range(2)]


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocess.runner.LocalExecutor", InlineExecutor)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        write(tmp_path / "in" / name, number)
    return tmp_path / "in"


def write(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    spec = DicomSpec(
        windows=(("500", "900"),), patient_id=path.parent.name, instance=f"{path.parent.name}{path.stem}"
    )
    write_dicom(path, np.roll(smooth((48, 40), 8), number, axis=0), spec)


def prepare(inputs: Path, out: Path) -> RunSummary:
    return run(RunRequest((str(inputs),), out, config=PrepConfig(result=RESULT, execution=ExecutionConfig())))


def replace_in_place(path: Path, number: int) -> None:
    """Other pixels under the same name and size, a second later."""
    size, time_ns = path.stat().st_size, path.stat().st_mtime_ns
    write(path, number)
    assert path.stat().st_size == size
    os.utime(path, ns=(time_ns + 10**9, time_ns + 10**9))


def promised(out: Path) -> dict[str, str]:
    files = [*out.glob("fold=*/*"), out / "manifest.json", out / "instances.parquet"]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_replaced_input_of_a_complete_dataset_is_prepared_again(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(inputs, out)
    replace_in_place(inputs / NAMES[0], 20)
    again = prepare(inputs, out)
    assert again.shards_reused == again.shards - 1
    digest = hashlib.sha256((inputs / NAMES[0]).read_bytes()).hexdigest()
    rows = {row.source: row for row in read_rows(out, read_manifest(out).label_columns())}
    assert rows[NAMES[0]].file_sha256 == digest
    assert verify(out).status == "whole"
    prepare(inputs, tmp_path / "fresh")
    assert promised(out) == promised(tmp_path / "fresh")
    last = prepare(inputs, out)
    assert last.shards_reused == last.shards


def test_a_replaced_input_of_an_interrupted_run_is_prepared_again(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("preprocess.runner.finish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(inputs, out)
    replace_in_place(inputs / NAMES[3], 20)
    again = prepare(inputs, out)
    assert again.shards_reused == again.shards - 1
    prepare(inputs, tmp_path / "fresh")
    assert promised(out) == promised(tmp_path / "fresh")


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_inputs_with_another_time_but_the_same_content_are_kept(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(inputs, out)
    before = promised(out)
    for name in NAMES:
        os.utime(inputs / name)
    again = prepare(inputs, out)
    assert again.shards_reused == again.shards
    assert promised(out) == before


def test_without_knowing_the_times_contents_decide(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(inputs, out)
    (out / RUN).unlink()
    assert prepare(inputs, out).shards_reused == 3
    replace_in_place(inputs / NAMES[5], 20)
    (out / RUN).unlink()
    assert prepare(inputs, out).shards_reused == 2


def test_times_are_in_no_promised_file(inputs: Path, tmp_path: Path) -> None:
    prepare(inputs, tmp_path / "one")
    for name in NAMES:
        os.utime(inputs / name, ns=(0, 10**18))
    prepare(inputs, tmp_path / "two")
    assert promised(tmp_path / "one") == promised(tmp_path / "two")
