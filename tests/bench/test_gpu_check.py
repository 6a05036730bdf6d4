"""The hardware checks, run where there is none: to their end, and their logic on a simulated device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import gpu_check
from bench.gpu import exactness, runs, training
from bench.gpu.checks import CHECKS, Check, named
from bench.gpu.context import Context, Request
from bench.measure import Measurement, Pass
from preprocess import doctor_gpu
from tests.dali_pipelines.simulated import SETTINGS

ENGINES = "tests.dali_pipelines.simulated:open_engines"


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> Request:
    folder = tmp_path_factory.mktemp("inputs")
    gpu_check.prepare_inputs(folder, small=3, patients=1, full=0.15)
    return Request(ENGINES, folder, None, cores=2, seconds=0.05)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(exactness, "_MUTANTS", 24)
    monkeypatch.setenv(SETTINGS, json.dumps({"scale": True}))
    return monkeypatch


def test_without_a_device_it_ends_with_2_and_says_why(tmp_path: Path) -> None:
    if not gpu_check.missing():
        pytest.skip("there is a device")
    command = [sys.executable, "-m", "bench.gpu_check", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=gpu_check.ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no device" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize(
    "name", ["range_rule", "overshoot", "pixels", "damage", "lossy", "lossless_jpeg", "compared", "memory"]
)
def test_a_right_device_passes(request_: Request, name: str) -> None:
    context = Context(request_)
    context.__dict__["small"] = context.small[:6]
    assert named(name).work(context), context.figures
    assert context.figures


def test_a_device_that_wraps_is_told(request_: Request, settings: pytest.MonkeyPatch) -> None:
    settings.setenv(SETTINGS, json.dumps({"wrap": True}))
    context = Context(request_)
    assert not named("overshoot").work(context)
    assert "wraps to its bits" in str(context.figures)


def test_a_device_whose_scaled_values_are_not_known_is_told(
    request_: Request, settings: pytest.MonkeyPatch
) -> None:
    settings.setenv(SETTINGS, json.dumps({"only": []}))
    assert not named("range_rule").work(Context(request_))


def test_shards_are_the_same(request_: Request, settings: pytest.MonkeyPatch) -> None:
    settings.setattr(runs, "DECODES", ("auto",))
    context = Context(request_)
    assert named("shards").work(context), context.figures
    assert context.figures["auto"]["files"] > 3  # type: ignore[index,call-overload]


def test_a_crash_or_a_time_limit_loses_only_its_check(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTINGS, json.dumps({"segfault": list(range(6)), "only": ["batch"]}))
    crashed = gpu_check.run_check(named("range_rule"), request_, tmp_path, 400)
    assert not crashed["ok"]
    assert "ended with -11" in str(crashed["error"])
    late = gpu_check.run_check(named("bare"), request_, tmp_path, 0.2)
    assert "ran out of its" in str(late["error"])
    none_left = gpu_check.run_all([Check("pixels", named("pixels").work, 60)], request_, tmp_path, budget_s=1)
    assert none_left["pixels"] == {"ok": False, "error": "no time was left"}


def test_the_document_has_what_was_agreed(request_: Request) -> None:
    checks: gpu_check.Figures = {
        "pixels": {"ok": True},
        "end_to_end": {
            "ok": True,
            "JPEG 2000, --decode full": {"images_per_second": 100.0},
            "mix, --decode auto": {"images_per_second": None},
        },
        "bare": {
            "ok": True,
            "x level 0 batch 8": {"images_per_second": 125.0},
            "x level 1 threads 8": {"images_per_second": 500.0},
        },
    }
    found = gpu_check.document(checks, {"name": "NVIDIA X-1 80GB"}, request_)
    assert set(found) >= {"device", "commit", "checks", "rates"}
    rates, rest = found["rates"], found["checks"]
    assert isinstance(rates, dict)
    assert isinstance(rest, dict)
    assert set(rest) == {"pixels"}
    projection = rates["projection"]
    assert isinstance(projection, dict)
    assert projection["hours, JPEG 2000, --decode full"] == round(54_706 / 100 / 3600, 3)
    assert "hours, mix, --decode auto" not in projection
    assert projection["full decode, end to end as a share of bare"] == 0.8
    assert (
        gpu_check.file_name({"name": "NVIDIA X-1 80GB"}, "2030-01-02")
        == "gpu-nvidia-x-1-80gb-2030-01-02.json"
    )


def test_names_are_unique_and_the_budget_is_less_than_eight_minutes() -> None:
    assert gpu_check.BUDGET_S <= 480
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def test_the_device_names_itself_or_is_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    if gpu_check.missing():
        assert gpu_check.device_facts() == {"name": "simulated"}
    monkeypatch.setattr(gpu_check, "gpu_checks", lambda needed: iter(()))
    assert gpu_check.missing() == ""
    assert doctor_gpu.LIBRARIES


@pytest.fixture
def small_training(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(training, "JOBS", (training.Job("resnet_tiny", "64x32", 8),))
    monkeypatch.setattr(training, "backend_with_gpu", lambda: "tensorflow")
    return monkeypatch


def test_training_is_measured(request_: Request, small_training: pytest.MonkeyPatch) -> None:
    small_training.setattr(training, "WAIT", 1.0)
    context = Context(request_)
    assert named("training").work(context), context.figures
    found = context.figures["resnet_tiny 64x32"]
    assert isinstance(found, dict)
    assert found["batch"] == 8
    for name in ("images_per_second", "images_per_second_from_memory", "tflops", "peak_bytes"):
        assert float(str(found[name])) > 0, name
    assert found["share_of_peak"] is None


def test_a_batch_that_is_too_large_is_halved_and_what_waits_is_told(
    request_: Request, small_training: pytest.MonkeyPatch
) -> None:
    asked, passes = [], (Pass(2.0, 1.0, (("wait", 0.5),)),)

    def bench(context: Context, job: training.Job, backend: str, dataset: Path, batch: int) -> object:
        asked.append(batch)
        if batch > 2:
            return "the device's memory does not suffice", ()
        return "", tuple(Measurement(name, 10, passes, 9, flops=10**12) for name in ("memory", "dataset"))

    small_training.setattr(training, "_bench", bench)
    small_training.setattr(training, "facts", lambda: {"name": "NVIDIA H100 80GB HBM3"})
    context = Context(request_)
    assert not named("training").work(context)
    assert asked == [8, 4, 2]
    found = context.figures["resnet_tiny 64x32"]
    assert found == {
        "batch": 2,
        "images_per_second": 5.0,
        "images_per_second_from_memory": 5.0,
        "wait_share": 0.25,
        "tflops": 5.0,
        "share_of_peak": round(5e12 / 989.4e12, 4),
        "peak_bytes": 9,
    }


def test_a_training_that_fails_otherwise_is_a_figure(
    request_: Request, small_training: pytest.MonkeyPatch
) -> None:
    small_training.setattr(training, "_bench", lambda *_: ("no such model", ()))
    context = Context(request_)
    assert not named("training").work(context)
    assert context.figures["resnet_tiny 64x32"] == {"batch": 8, "error": "no such model"}


def test_training_is_left_out_where_no_backend_has_a_gpu(request_: Request) -> None:
    if training.backend_with_gpu() is not None:
        pytest.skip("a backend has a GPU here: what it does then is measured by gpu-check")
    context = Context(request_)
    assert named("training").work(context)
    assert "neither JAX nor TensorFlow" in str(context.figures["left_out"])
