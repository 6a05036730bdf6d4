"""The GPU side of the CPU/GPU seam: reference.py's kernels on CuPy arrays, and batches without waiting.

In:  CuPy arrays of the current device. NumPy arrays are copied there (masks, weights, tables).
Out: CuPy arrays, in the order of the current stream (`with stream:`), in memory of CuPy's pool; every name of
     reference.py, with the same bytes. What returns Python integers or histograms waits for the stream;
     nothing else does.

For the decoder and the executor's GPU workers:

  clamp_to_stored(samples, images, scaled)   codec output → stored values; counts and extremes in one array
  undo_range(values, precision)              DALI's multiplier alone
  thumbnails(pixels, shifts)                 block means of a batch, for the breast mask
  low_passes(pixels)                         a wavelet's next level of a batch, for coarse images of full ones
  draw(drawings, output)                     crop, orient, resample, look up, letterbox, blank: two launches
  batch_output(count, height, width, bits)   what `draw` draws into
  pinned, to_device, to_pinned               host memory for copies that run beside kernels
  fetch(arrays), to_host(array)              copies in NumPy: to wait for later; at once

A stage that is given a Mammogram of CuPy pixels runs here by itself (seam.py): render and roi take
either. Arrays made on one stream must not be used on another without an event between. NVRTC compiles the
kernels at first use, for the device at hand, and CuPy keeps them: CUPY_CACHE_DIR must be writable, or
CUPY_CACHE_IN_MEMORY set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import cupy
import cupyx
import numpy as np
import numpy.typing as npt

from preprocess.kernels.launches import BLOCK, OPTIONS, Array, Launch, source_text
from preprocess.kernels.twins import Twins


class CupyFetched:
    """launches.Fetched: page-locked arrays and the event after the last copy into them."""

    def __init__(self, hosts: list[npt.NDArray[Any]], event: Any) -> None:
        self._hosts, self._event = hosts, event

    def wait(self) -> list[npt.NDArray[Any]]:
        """The arrays, when they are there."""
        if self._event is not None:
            self._event.synchronize()
        return self._hosts


class CupyDevice:
    """launches.Device with CuPy: the current device, its current stream, its memory pool."""

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Memory from the pool."""
        array: Array = cupy.empty(shape, dtype)
        return array

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Memory from the pool, set to 0 on the stream."""
        array: Array = cupy.zeros(shape, dtype)
        return array

    def upload(self, host: npt.NDArray[Any]) -> Array:
        """A copy through CuPy's pinned buffers, so that neither the host waits nor the source must stay."""
        array: Array = cupy.array(host)
        return array

    def to_host(self, array: Array) -> npt.NDArray[Any]:
        """A copy in NumPy, after the stream's work."""
        copied: npt.NDArray[Any] = cupy.asnumpy(array)
        return copied

    def fetch(self, arrays: Sequence[Array]) -> CupyFetched:
        """Queue copies into page-locked memory."""
        hosts = [pinned(array.shape, array.dtype) for array in arrays]
        events = [to_pinned(array, host) for array, host in zip(arrays, hosts, strict=True)]
        return CupyFetched(hosts, events[-1] if events else None)

    def packed(self, array: Array) -> Array:
        """In C order."""
        contiguous: Array = cupy.ascontiguousarray(array)
        return contiguous

    def address(self, array: Array) -> int:
        """Device address of the first element."""
        return int(array.data.ptr)  # type: ignore[attr-defined]

    def launch(self, launch: Launch) -> None:
        """Queue a launch after a copy of its jobs, which may be freed then: the pool follows the stream."""
        self.prepared(launch)()

    def prepared(self, launch: Launch) -> Callable[[], None]:
        """Copy a launch's jobs, and give what queues it."""
        jobs = self.upload(launch.jobs.view(np.uint8))
        return partial(_function(launch.source, launch.kernel), launch.grid, BLOCK, (jobs,))


@cache
def _module(source: str) -> Any:
    return cupy.RawModule(code=source_text(source), options=OPTIONS)


@cache
def _function(source: str, kernel: str) -> Any:
    return _module(source).get_function(kernel)


def pinned(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Page-locked host memory for codestreams to leave from or pictures to arrive in. Make it once."""
    array: npt.NDArray[Any] = cupyx.empty_pinned(shape, dtype)
    return array


def to_device(host: npt.NDArray[Any]) -> Array:
    """Queue a copy of pinned memory to the device; `host` must stay as it is until the stream has done it."""
    array: Any = cupy.empty(host.shape, host.dtype)
    array.set(host)
    device_array: Array = array
    return device_array


def to_pinned(array: Array, host: npt.NDArray[Any]) -> Any:
    """Queue a copy into pinned memory; the CUDA event returned says when it is there (`synchronize`)."""
    source: Any = cupy.ascontiguousarray(array)
    source.get(out=host, blocking=False)
    arrived = cupy.cuda.Event(block=True, disable_timing=True)  # who waits for it sleeps
    arrived.record()
    return arrived


_kernels = Twins(CupyDevice())

batch_output = _kernels.batch_output
blank = _kernels.blank
block_mean = _kernels.block_mean
border_connected = _kernels.border_connected
bounds = _kernels.bounds
brightest_of_nine = _kernels.brightest_of_nine
clamp_to_stored = _kernels.clamp_to_stored
count_values = _kernels.count_values
dilate = _kernels.dilate
draw = _kernels.draw
erode = _kernels.erode
fetch = _kernels.fetch
fill_holes = _kernels.fill_holes
histogram = _kernels.histogram
largest_component = _kernels.largest_component
look_up = _kernels.look_up
low_pass = _kernels.low_pass
low_passes = _kernels.low_passes
opened = _kernels.opened
otsu = _kernels.otsu
resample = _kernels.resample
shift_mean = _kernels.shift_mean
side_masses = _kernels.side_masses
thumbnails = _kernels.thumbnails
to_host = _kernels.to_host
to_index = _kernels.to_index
triangle = _kernels.triangle
undo_range = _kernels.undo_range
within = _kernels.within

__all__ = [
    "batch_output",
    "blank",
    "block_mean",
    "border_connected",
    "bounds",
    "brightest_of_nine",
    "clamp_to_stored",
    "count_values",
    "dilate",
    "draw",
    "erode",
    "fetch",
    "fill_holes",
    "histogram",
    "largest_component",
    "look_up",
    "low_pass",
    "low_passes",
    "opened",
    "otsu",
    "pinned",
    "resample",
    "shift_mean",
    "side_masses",
    "thumbnails",
    "to_device",
    "to_host",
    "to_index",
    "to_pinned",
    "triangle",
    "undo_range",
    "within",
]
