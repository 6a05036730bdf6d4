"""The device's own clock and counters, through CuPy. Everything is None or absent where there is no device.

In:  nothing, or work to be timed.
Out: bytes, seconds, what the device calls itself.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

from bench.gpu.context import Figures

_COPY_BYTES = 1 << 30


def cupy_with_device() -> Any:  # CuPy is untyped
    """CuPy, or None where it or a device is missing."""
    try:
        import cupy

        cupy.cuda.runtime.getDeviceCount()
    except (ImportError, RuntimeError):
        return None
    return cupy


def bytes_in_use() -> Callable[[], int] | None:
    """A function that tells how much of the device's memory is in use by anybody."""
    cupy = cupy_with_device()
    if cupy is None:
        return None

    def ask() -> int:
        free, total = cupy.cuda.runtime.memGetInfo()
        return int(total) - int(free)

    return ask


def facts() -> Figures:
    """The device's name, memory, compute capability, driver and libraries."""
    cupy = cupy_with_device()
    if cupy is None:
        return {"name": "simulated"}
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    return {
        "name": properties["name"].decode("ascii", "replace"),
        "memory_bytes": int(properties["totalGlobalMem"]),
        "sm": f"{properties['major']}{properties['minor']}",
        "multiprocessors": int(properties["multiProcessorCount"]),
        "driver": int(cupy.cuda.runtime.driverGetVersion()),
        "runtime": int(cupy.cuda.runtime.runtimeGetVersion()),
    }


def seconds_of(work: Callable[[], object], repeats: int = 9) -> float:
    """Median seconds that `work` takes on the device, by its own events, after one warm-up."""
    cupy = cupy_with_device()
    work()
    found = []
    for _ in range(repeats):
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record()
        work()
        end.record()
        end.synchronize()
        found.append(cupy.cuda.get_elapsed_time(begin, end) / 1000)
    return float(median(found))


def copy_bytes_per_second() -> float:
    """What a device-to-device copy moves: bytes read plus bytes written, a second."""
    cupy = cupy_with_device()
    source = cupy.zeros(_COPY_BYTES, cupy.uint8)
    target = cupy.empty_like(source)
    moved: float = 2 * _COPY_BYTES / seconds_of(lambda: cupy.copyto(target, source))
    return moved
