"""What the doctor says of compiling the GPU kernels: here, for other GPUs, and where something lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from preprocess import doctor_kernels
from preprocess.doctor_checks import FAIL, OK, WARN
from preprocess.kernels import cuda_compiler


def test_kernels_are_compiled_once_for_each_kind_of_gpu() -> None:
    pytest.importorskip("cupy_backends.cuda.libs.nvrtc")
    checks = list(doctor_kernels.kernel_checks(["sm_90", "sm_90"], FAIL))
    assert [(check.name, check.status) for check in checks[:-1]] == [("GPU kernels, sm_90", OK)]
    assert "registers" in checks[0].detail


def test_an_old_gpu_is_named() -> None:
    check = next(doctor_kernels.kernel_checks(["sm_70"], FAIL))
    assert (check.status, check.detail) == (FAIL, "older than sm_75")


def test_a_missing_compiler_is_reported_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(source: str, architecture: str) -> None:
        raise ImportError("No module named 'cupy_backends'")

    monkeypatch.setattr(doctor_kernels, "compiled", missing)
    check = next(doctor_kernels.kernel_checks([], WARN))
    assert (check.name, check.status) == ("GPU kernels, sm_75", WARN)
    assert "cupy_backends" in check.detail
    assert "NVRTC" in check.remedy


def test_a_source_that_does_not_compile_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cupy_backends.cuda.libs.nvrtc")
    monkeypatch.setattr(cuda_compiler, "source_text", lambda _: "int broken(")
    with pytest.raises(RuntimeError, match=r"masks\.cu, sm_80"):
        cuda_compiler.compiled("masks", "sm_80")


def test_a_cache_that_cannot_be_written_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_kernels.os, "access", lambda *_: False)
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "cache"))
    *_, check = doctor_kernels.kernel_checks(["sm_70"], FAIL)
    assert check.status == FAIL
    assert "CUPY_CACHE_IN_MEMORY" in check.remedy
    monkeypatch.setenv("CUPY_CACHE_IN_MEMORY", "1")
    *_, check = doctor_kernels.kernel_checks(["sm_70"], FAIL)
    assert check.status == OK
