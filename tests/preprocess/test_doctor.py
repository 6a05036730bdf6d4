"""What the doctor says of machines that are fine, and of machines that are not."""

from __future__ import annotations

import ctypes
import io
import json
import tempfile
from importlib import metadata
from pathlib import Path

import pytest
from rich.console import Console

from preprocess import doctor, doctor_codecs, doctor_gpu
from preprocess.doctor_checks import FAIL, OK, WARN, Check, installed, release
from preprocess.errors import UsageError


def named(diagnosis: doctor.Diagnosis, name: str) -> Check:
    return next(check for check in diagnosis.checks if check.name == name)


def fake_installed(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
    for module in (doctor, doctor_gpu):
        monkeypatch.setattr(module, "installed", lambda name: versions.get(name, installed(name)))


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_gpu, "_DRIVERS", ("libno-such-driver.so",))


@pytest.mark.usefixtures("no_gpu")
def test_the_cpu_mode_works_without_a_gpu(tmp_path: Path) -> None:
    diagnosis = doctor.examine("cpu", tmp_path / "not" / "yet")
    assert diagnosis.works
    assert named(diagnosis, "GPU driver").status == WARN
    assert named(diagnosis, "disk of OUT").detail.endswith(str(tmp_path))


@pytest.mark.usefixtures("no_gpu")
def test_the_gpu_mode_says_why_it_cannot_work() -> None:
    diagnosis = doctor.examine("gpu")
    assert not diagnosis.works
    driver = named(diagnosis, "GPU driver")
    assert driver.status == FAIL
    assert "libno-such-driver.so" in driver.detail
    assert driver.remedy


def test_an_unknown_mode_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="turbo"):
        doctor.examine("turbo")


def test_every_codec_gives_back_what_was_put_in() -> None:
    checks = list(doctor_codecs.codec_checks())
    assert {check.name for check in checks} >= {
        "JPEG 2000",
        "wavelet levels",
        "HTJ2K",
        "JPEG Lossless",
        "JPEG-LS",
    }
    assert [check for check in checks if check.status != OK] == []


def test_a_codec_that_changes_pixels_or_breaks_is_a_failure() -> None:
    def broken() -> bool:
        raise RuntimeError("no such thing")

    assert doctor_codecs.checked("x", "lib 1", lambda: False).status == FAIL
    assert "no such thing" in doctor_codecs.checked("x", "lib 1", broken).detail


def test_an_old_pydicom_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_installed(monkeypatch, {"pydicom": "3.0.1"})
    assert any(check.status == FAIL and "CVE" in check.detail for check in doctor._packages())


def test_another_owner_of_an_import_name_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    owners = {"trainer": ["trainer", "bcd-mammography"], "bench": ["bcd-mammography"]}
    monkeypatch.setattr(metadata, "packages_distributions", lambda: owners)
    checks = list(doctor._collisions())
    assert [check.name for check in checks if check.status == FAIL] == ["import trainer"]
    assert "pip uninstall trainer" in checks[0].remedy


def test_tensorflow_twice_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_installed(monkeypatch, {"tensorflow": "2.21.0", "tensorflow-cpu": "2.21.0"})
    assert any(check.name == "tensorflow" and check.status == FAIL for check in doctor._collisions())


def test_cuda_12_and_13_together_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_installed(monkeypatch, {"nvidia-dali-cuda120": "2.3.0", "nvidia-dali-cuda130": "2.3.0"})
    checks = [check for check in doctor_gpu.gpu_checks(needed=True) if check.name in ("DALI", "CUDA builds")]
    assert [check.status for check in checks] == [FAIL, FAIL]
    assert "overwrite" in checks[0].detail


def test_a_library_that_cannot_be_imported_is_reported_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "halfgpu.py").write_text("raise OSError('libnvrtc.so.12: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    fake_installed(monkeypatch, {"half-cu12": "1.2"})
    check = doctor_gpu.library_check(doctor_gpu.Library("Half", "halfgpu", "half-cu12", "half-cu13"), FAIL)
    assert check.status == FAIL
    assert "libnvrtc.so.12" in check.detail


def test_nvrtc_is_looked_for_in_its_distribution_wherever_cuda_keeps_it() -> None:
    pytest.importorskip("cupy", reason="the GPU libraries are for Linux on x86-64")
    assert doctor_gpu.unloadable("nvidia-cuda-nvrtc", "libnvrtc.so") == ""
    assert "no libnothing" in doctor_gpu.unloadable("nvidia-cuda-nvrtc", "libnothing")


def test_our_own_decoder_is_checked_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nvidia.nvjpeg2k", reason="the GPU libraries are for Linux on x86-64")
    monkeypatch.setattr(doctor_gpu, "_OURS", ("dali_pipelines.decoder",))
    assert doctor_gpu.decoder_check(FAIL).status == OK
    monkeypatch.setattr(doctor_gpu, "_OURS", ("dali_pipelines.nowhere",))
    assert "nowhere is missing" in doctor_gpu.decoder_check(FAIL).detail


def test_a_vulnerable_dali_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_installed(monkeypatch, {"old-dali": "2.2.0"})
    check = doctor_gpu.library_check(doctor_gpu.Library("DALI", "json", "old-dali", "none"), WARN)
    assert (check.status, "CVE" in check.detail) == (WARN, True)


class FakeDriver:
    """As much of the driver's interface as is asked."""

    def __init__(self, init: int = 0, count: int = 1) -> None:
        self.init, self.count = init, count

    def cuInit(self, _flags: int) -> int:
        return self.init

    def cuGetErrorString(self, _code: int, _text: object) -> int:
        return 1

    def cuDriverGetVersion(self, version: ctypes._CArgObject) -> int:
        version._obj.value = 12080  # type: ignore[attr-defined]
        return 0

    def cuDeviceGetCount(self, count: ctypes._CArgObject) -> int:
        count._obj.value = self.count  # type: ignore[attr-defined]
        return 0

    def cuDeviceGet(self, _device: object, _index: int) -> int:
        return 0

    def cuDeviceGetName(self, name: ctypes.Array[ctypes.c_char], _size: int, _device: object) -> int:
        name.value = b"Some GPU"
        return 0

    def cuDeviceTotalMem_v2(self, memory: ctypes._CArgObject, _device: object) -> int:
        memory._obj.value = 24_000_000_000  # type: ignore[attr-defined]
        return 0

    def cuDeviceGetAttribute(self, value: ctypes._CArgObject, number: int, _device: object) -> int:
        value._obj.value = {75: 8, 76: 9}[number]  # type: ignore[attr-defined]
        return 0


def gpu_check(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver, name: str) -> Check:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: driver)
    return next(check for check in doctor_gpu.gpu_checks(needed=True) if check.name == name)


def test_devices_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_check(monkeypatch, FakeDriver(), "GPU driver").detail == "CUDA 12.8"
    assert gpu_check(monkeypatch, FakeDriver(), "GPU 0").detail == "Some GPU, 24 GB, sm_89"


def test_a_driver_without_devices_or_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_check(monkeypatch, FakeDriver(count=0), "GPUs").status == FAIL
    assert "cuInit fails: error 100" in gpu_check(monkeypatch, FakeDriver(init=100), "GPU driver").detail


def test_a_folder_that_cannot_be_written_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    diagnosis = doctor.examine("cpu", tmp_path)
    assert not diagnosis.works
    assert "Permission denied" in named(diagnosis, "disk of OUT").detail


def test_a_small_container_is_warned_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1500000000\n")
    monkeypatch.setattr(doctor, "_CGROUP_LIMITS", (str(tmp_path / "memory.max"),))
    check = doctor._memory()
    assert check.status == WARN
    assert check.detail.startswith("1.5 GB (container limit)")


def test_json_and_text_say_the_same() -> None:
    diagnosis = doctor.Diagnosis("gpu", (Check("a", OK, "fine"), Check("b", FAIL, "broken", "mend it")))
    document = json.loads(diagnosis.to_json())
    assert document["works"] is False
    assert document["checks"][1] == {"name": "b", "status": "fail", "detail": "broken", "remedy": "mend it"}
    stream = io.StringIO()
    doctor.show(diagnosis, Console(file=stream, width=100))
    assert "mend it" in stream.getvalue()
    assert "Mode gpu cannot work here." in stream.getvalue()


def test_versions_compare_by_number() -> None:
    assert release("3.0.10") > release("3.0.2rc1") > release("3.0")
