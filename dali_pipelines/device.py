"""The one GPU that a worker process sees: its memory and streams, through CuPy.

In:  arrays of NumPy, of DALI, of nvImageCodec (DLPack orders the streams).
Out: arrays of CuPy. Memory belongs to the stream that is current where it is taken (CuPy's pool).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import numpy as np

from dali_pipelines.engines import Rendered, Stored
from dali_pipelines.levels import CudaStream
from dali_pipelines.values import Array
from preprocess import render_batch
from preprocess.config import ResultConfig
from preprocess.doctor_gpu import load_driver
from preprocess.errors import RejectedInput
from preprocess.pipeline import Draw
from preprocess.records import ImageHeader, Prepared
from preprocess.stored import Samples

_BLOCKING_SYNC = 4
"""CU_CTX_SCHED_BLOCKING_SYNC."""


def _plan(draw: Draw, config: ResultConfig) -> render_batch.Plan | None:
    try:
        return render_batch.plan(draw.mammogram, draw.findings, config)
    except (RejectedInput, ValueError):
        return None


def _wait_without_spinning() -> None:
    """Have threads that wait for the device sleep: by default each keeps a core busy, which others need.

    Must come before the device is first used; later, or where the driver refuses, things stay as they are.
    """
    driver, device = load_driver(), ctypes.c_int()
    if driver.cuDeviceGet(ctypes.byref(device), 0) == 0:
        driver.cuDevicePrimaryCtxSetFlags_v2(device, _BLOCKING_SYNC)


class CudaMemory:
    """CuPy's view of the device."""

    def __init__(self) -> None:
        """Raises ImportError without CuPy, RuntimeError without a device."""
        import cupy

        _wait_without_spinning()
        self._cupy: Any = cupy
        cupy.cuda.runtime.getDeviceCount()

    def empty(self, rows: int, columns: int) -> Array:
        """See levels.StreamMemory."""
        return self._cupy.empty((rows, columns), np.uint16)

    def address(self, array: Array) -> int:
        """See levels.StreamMemory."""
        return int(array.data.ptr)

    def new_stream(self) -> CudaStream:
        """See levels.StreamMemory."""
        return cast(CudaStream, self._cupy.cuda.Stream(non_blocking=True))

    def current(self, stream: CudaStream) -> AbstractContextManager[object]:
        """See levels.StreamMemory."""
        return cast(AbstractContextManager[object], stream)

    def lane(self) -> AbstractContextManager[object]:
        """See engines.Memory."""
        return self.current(self.new_stream())

    def adopt(self, output: Any) -> Array:
        """A copy of a decoder's output (rows, columns, 1) that outlives it. Complete when it returns."""
        theirs = self._cupy.from_dlpack(output)[..., 0]
        copy = self._cupy.empty(theirs.shape, theirs.dtype)
        if theirs.flags.c_contiguous:
            copy.data.copy_from_device_async(theirs.data, theirs.nbytes)  # else CuPy compiles a kernel for it
        else:
            copy[...] = theirs
        self.synchronize()
        return copy

    def stored(
        self, samples: Sequence[Samples], images: Sequence[ImageHeader], *, scaled: bool
    ) -> list[Stored]:
        """See engines.Memory."""
        from preprocess.kernels import cuda

        made = cuda.clamp_to_stored(samples, images, scaled)
        facts = cuda.to_host(made.facts)
        return [
            Stored(pixels, *(int(number) for number in row))
            for pixels, row in zip(made.pixels, facts, strict=True)
        ]

    def low_passes(self, pixels: Sequence[Array]) -> list[Array]:
        """See engines.Memory."""
        from preprocess.kernels import cuda

        return cuda.low_passes(pixels)

    def render(self, draws: Sequence[Draw], config: ResultConfig) -> Rendered:
        """See engines.Memory."""
        plans = [_plan(draw, config) for draw in draws]
        drawn = [plan for plan in plans if plan is not None]
        if not drawn:
            return lambda: [None] * len(plans)
        rendering = render_batch.render_batch(drawn, config)

        def wait() -> list[Callable[[], Prepared] | None]:
            arrived = iter(rendering.arrived())
            return [None if plan is None else next(arrived) for plan in plans]

        return wait

    def to_device(self, array: Array) -> Array:
        """See engines.Memory."""
        return self._cupy.asarray(array)

    def to_host(self, array: Array) -> Array:
        """See engines.Memory."""
        return self._cupy.asnumpy(array)

    def synchronize(self) -> None:
        """See engines.Memory."""
        self._cupy.cuda.get_current_stream().synchronize()

    def free_bytes(self) -> int:
        """What the device has left, and what CuPy's pool holds unused."""
        free, _ = self._cupy.cuda.runtime.memGetInfo()
        return int(free) + int(self._cupy.get_default_memory_pool().free_bytes())
