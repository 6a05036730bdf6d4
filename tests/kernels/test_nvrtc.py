"""Every .cu file compiles with NVRTC for every GPU we name, without a GPU; nothing spills to local memory."""

from __future__ import annotations

import re
import sys

import pytest

from preprocess.kernels import cuda_compiler, launches

ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100", "sm_120")


@pytest.mark.parametrize("source", launches.SOURCES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_source_compiles_to_a_cubin_without_spills(
    source: str, architecture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cupy_backends.cuda.libs.nvrtc")
    program = cuda_compiler.compiled(source, architecture)
    with capsys.disabled():
        for kernel in program.kernels:
            sys.stdout.write(f"\n{architecture} {kernel}")
    assert program.cubin.startswith(b"\x7fELF")
    assert {kernel.name for kernel in program.kernels} == kernels_in(source)
    assert [kernel for kernel in program.kernels if kernel.local_bytes] == []
    # A multiprocessor has 65,536 registers: room for two blocks of 256 threads at the least.
    assert max(kernel.registers for kernel in program.kernels) <= 128


def kernels_in(source: str) -> set[str]:
    return set(
        re.findall(r"__global__ void (?:__launch_bounds__\([\w, ]+\) )?(\w+)\(", launches.source_text(source))
    )


def test_every_kernel_is_launched_by_some_function() -> None:
    python = "".join(
        (launches.resources.files("preprocess.kernels") / name).read_text("utf-8")
        for name in ("twins.py", "pictures.py", "launches.py")
    )
    for source in launches.SOURCES:
        for name in kernels_in(source):
            assert f'"{name}"' in python
