"""Whether the GPU kernels can be compiled here, and kept: NVRTC, the GPUs' architectures, CuPy's cache.

In:  the architectures of the GPUs there are; none: the oldest that is supported stands for them.
Out: Checks. Compiling needs no GPU and no driver, so what is missing shows on any machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from preprocess.doctor_checks import OK, Check
from preprocess.kernels.cuda_compiler import compiled
from preprocess.kernels.launches import SOURCES

OLDEST = "sm_75"
"""Turing: the oldest architecture that CUDA 13 compiles for."""
_CACHE = "~/.cupy/kernel_cache"
_EXTRA = "pip install '.[gpu-cu12]' or [gpu-cu13]: CuPy and NVRTC"


def kernel_checks(architectures: Iterable[str], bad: str) -> Iterator[Check]:
    """Compile a source for each architecture; see whether the results can be kept."""
    for architecture in sorted(set(architectures)) or [OLDEST]:
        yield _compiled(architecture, bad)
    yield _cache(bad)


def _compiled(architecture: str, bad: str) -> Check:
    name = f"GPU kernels, {architecture}"
    if not _at_least(architecture, OLDEST):
        return Check(name, bad, f"older than {OLDEST}", "Use another GPU, or --cpu.")
    try:
        made = compiled(SOURCES[-1], architecture)
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return Check(name, bad, f"cannot be compiled: {reason[0]}", _EXTRA)
    used = ", ".join(f"{kernel.name} takes {kernel.registers} registers" for kernel in made.kernels)
    return Check(name, OK, f"NVRTC compiles them ({used})")


def _at_least(architecture: str, oldest: str) -> bool:
    return int(architecture.removeprefix("sm_")) >= int(oldest.removeprefix("sm_"))


def _cache(bad: str) -> Check:
    """CuPy keeps compiled kernels in a folder, or with CUPY_CACHE_IN_MEMORY in memory."""
    if os.environ.get("CUPY_CACHE_IN_MEMORY", "0") not in ("", "0"):
        return Check("GPU kernel cache", OK, "in memory: each process compiles its own")
    folder = Path(os.environ.get("CUPY_CACHE_DIR", _CACHE)).expanduser().absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if os.access(existing, os.W_OK | os.X_OK):
        return Check("GPU kernel cache", OK, str(folder))
    return Check("GPU kernel cache", bad, f"{folder} cannot be written",
                 "Set CUPY_CACHE_DIR to a folder that can, or CUPY_CACHE_IN_MEMORY=1.")  # fmt: skip
