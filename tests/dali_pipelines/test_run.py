"""Whole runs on simulated devices: every input accounted for, every shard byte the CPU's."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest

from bench.phantom import PhantomSpec, generate
from bench.phantom_dicom import SYNTAXES, DicomSpec, write_dicom
from preprocess import gpus, runner
from preprocess.config import ExecutionConfig, Format, PrepConfig, ResultConfig
from preprocess.errors import RunAborted
from preprocess.executors.devices import Device
from preprocess.planning import RunRequest
from preprocess.runner import RunSummary, run
from preprocess.verify import verify
from tests.chaos.planted import DETECTOR, plant
from tests.dali_pipelines.simulated import device
from tests.instances import smooth
from tests.test_end_to_end import promised

CONFIG = ResultConfig(height=96, width=48, formats=(Format.TFRECORD, Format.PNG), shard_images=6, folds=2)
DEEDS = {"scale": True, "zero": [0], "fail": [1], "short": [2], "crop": [3], "refuse": [4]}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms (JPEG 2000 and JPEG Lossless), HTJ2K, a damaged file and one that is no DICOM."""
    root = tmp_path_factory.mktemp("mixed")
    generate(root / "rsna", PhantomSpec(patients=5, test_patients=0, size_factor=0.1, seed=5))
    for name in ("htj2k", "jpeg-ls", "explicit"):
        spec = DicomSpec(transfer_syntax_uid=SYNTAXES[name], bits_stored=12, patient_id=name, instance=name)
        write_dicom(root / f"{name}.dcm", smooth((300, 220), 12), spec)
    bad = root / "damaged.dcm"
    data = bytearray(next((root / "rsna").rglob("*.dcm")).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 500] = bytes(500)
    bad.write_bytes(data)
    (root / "broken.dcm").write_bytes(b"not DICOM at all")
    return root


def prepare(out: Path, inputs: Path, result: ResultConfig = CONFIG, **execution: object) -> RunSummary:
    config = PrepConfig(
        result=result,
        execution=ExecutionConfig(workers=1, max_rejected="100%", **execution),  # type: ignore[arg-type]
    )
    return run(RunRequest((str(inputs),), out, config=config))


def on(monkeypatch: pytest.MonkeyPatch, *devices: Device) -> None:
    """`--gpu` finds these."""
    monkeypatch.setattr(runner, "devices_of", lambda execution: devices if execution.gpu else ())


@pytest.fixture(scope="module")
def by_cpu(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cpu") / "out"
    prepare(out, inputs)
    return out


def assert_same(out: Path, by_cpu: Path) -> pd.DataFrame:
    """Same files but for the decoder's name in the table; the rows."""
    mine, truth = promised(out), promised(by_cpu)
    for files in (mine, truth):
        del files["instances.parquet"]
    assert mine == truth
    assert len(mine) > 10
    rows, expected = (pd.read_parquet(root / "instances.parquet") for root in (out, by_cpu))
    pd.testing.assert_frame_equal(rows.drop(columns="decoder"), expected.drop(columns="decoder"))
    assert verify(out).status == "whole"
    return rows


def shards_by_device(out: Path) -> dict[str, int]:
    return dict(json.loads((out / "run.json").read_text())["supervision"]["shards_by_device"])


def test_a_device_gives_the_cpus_bytes_whatever_it_does(
    inputs: Path, by_cpu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, device("0", **DEEDS))
    summary = prepare(tmp_path / "out", inputs, gpu=True)
    assert summary.found == summary.prepared + summary.rejected + summary.duplicate
    rows = assert_same(tmp_path / "out", by_cpu)
    used = set(rows.decoder.dropna())
    assert {"openjpeg", "jpeg2000", "jpeg_lossless", "charls", "native"} <= used
    assert used & {"batch", "single", "level"}
    assert set(shards_by_device(tmp_path / "out")) == {"0"}


def test_of_two_devices_one_dies_and_the_other_does_its_shards(
    inputs: Path, by_cpu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = list(range(6))
    on(monkeypatch, device("0", segfault=every), device("1", log=str(tmp_path / "log")))
    prepare(tmp_path / "out", inputs, gpu=True)
    rows = assert_same(tmp_path / "out", by_cpu)
    assert set(rows.decoder) & {"batch", "single", "level"}
    done = shards_by_device(tmp_path / "out")
    assert done["1"] >= 1
    assert done.keys() <= {"0", "1"}  # a shard of which nothing goes to the device does not kill it
    assert json.loads((tmp_path / "out" / "run.json").read_text())["supervision"]["causes"]["SIGSEGV"] >= 1


def test_what_kills_the_only_device_is_done_by_the_cpu(
    inputs: Path, by_cpu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, device("0", exit=[0, 1, 2]))
    prepare(tmp_path / "out", inputs, gpu=True)
    rows = assert_same(tmp_path / "out", by_cpu)
    assert "openjpeg" in set(rows.decoder)
    assert shards_by_device(tmp_path / "out")["cpu"] >= 1


def test_require_gpu_refuses_the_cpu(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, device("0", broken=True))
    with pytest.raises(RunAborted, match="--require-gpu"):
        prepare(tmp_path / "out", inputs, gpu=True, require_gpu=True)
    assert verify(tmp_path / "out").status == "incomplete"


def test_a_device_sees_only_its_own_gpu_in_the_numbers_of_the_run() -> None:
    assert gpus.visible(1, {}) == "1"
    assert gpus.visible(1, {"CUDA_VISIBLE_DEVICES": "3, 5"}) == "5"
    assert gpus.visible(0, {"CUDA_VISIBLE_DEVICES": "GPU-a,MIG-b"}) == "GPU-a"
    execution = ExecutionConfig(gpu=True, devices="0,2", workers=8, gpu_batch=12, gpu_threads=3)
    assert execution.device_numbers(3) == (0, 2)
    assert execution.device_numbers(4) == (0, 2)
    with pytest.raises(ValueError, match="GPU 2 is not among the 2"):
        execution.device_numbers(2)
    one = gpus.device(2, 2, execution)
    assert (one.name, one.cores, one.batch, one.threads) == ("2", 4, 12, 3)


@pytest.mark.parametrize("deed", ["segfault", "hang", "numpy_hog", "killed"])
def test_an_image_that_ends_its_process_costs_itself_and_no_gpu(
    deed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = plant(tmp_path / "in", 8, {2: deed})
    config = ResultConfig(height=64, width=32, shard_images=4, folds=1, roi_detector=DETECTOR)
    limits = {"image_timeout_s": 6.0, "worker_memory": 1 << 30}
    prepare(tmp_path / "cpu", tmp_path / "in", config, **limits)
    on(monkeypatch, dataclasses.replace(device(), item_timeout_s=6.0))
    summary = prepare(tmp_path / "gpu", tmp_path / "in", config, gpu=True, require_gpu=True, **limits)
    assert (summary.prepared, summary.rejected_by_code) == (7, ((next(iter(codes.values())), 1),))
    assert promised(tmp_path / "gpu") == promised(tmp_path / "cpu")
    told = json.loads((tmp_path / "gpu" / "run.json").read_text())["supervision"]
    assert told["shards_by_device"] == {"0": 2}
