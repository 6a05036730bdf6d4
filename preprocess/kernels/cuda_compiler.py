"""The .cu files through NVRTC, without a driver or a GPU: what `doctor` and the tests ask.

In:  the name of a source, an architecture (sm_90).
Out: the cubin, and registers, spills and shared memory of each kernel as ptxas tells them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from preprocess.kernels.launches import OPTIONS, source_text

_LOCAL = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")


@dataclass(frozen=True, slots=True)
class CompiledKernel:
    """What one kernel takes of a multiprocessor, per thread and per block."""

    name: str
    registers: int
    local_bytes: int
    """Registers spilled and arrays indexed in local memory, which is slow."""
    shared_bytes: int


@dataclass(frozen=True, slots=True)
class CompiledSource:
    """One .cu file for one architecture."""

    cubin: bytes = field(repr=False)
    kernels: tuple[CompiledKernel, ...]


def compiled(source: str, architecture: str) -> CompiledSource:
    """Compile one of launches.SOURCES. Raises ImportError without CuPy, RuntimeError with NVRTC's log."""
    from cupy_backends.cuda.libs import nvrtc

    program = nvrtc.createProgram(source_text(source), f"{source}.cu", [], [])
    try:
        nvrtc.compileProgram(program, [*OPTIONS, f"--gpu-architecture={architecture}", "--ptxas-options=-v"])
        cubin, log = nvrtc.getCUBIN(program), nvrtc.getProgramLog(program)
    except nvrtc.NVRTCError as error:
        raise RuntimeError(f"{source}.cu, {architecture}: {nvrtc.getProgramLog(program)}") from error
    finally:
        nvrtc.destroyProgram(program)
    return CompiledSource(bytes(cubin), tuple(_kernels(log)))


def _kernels(log: str) -> list[CompiledKernel]:
    """The lines of ptxas: one names a kernel, and those after it say what it takes."""
    found = []
    for part in log.split("Compiling entry function ")[1:]:
        name = part.split("'")[1]
        local, used = _LOCAL.search(part), _USED.search(part)
        if local is None or used is None:
            raise RuntimeError(f"ptxas says nothing of {name}")
        local_bytes = sum(int(number) for number in local.groups())
        found.append(CompiledKernel(name, int(used[1]), local_bytes, int(used[2] or 0)))
    return found
