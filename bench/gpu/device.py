"""The device's own counters, through CuPy. Everything is None or absent where there is no device.

In:  nothing.
Out: bytes in use, what the device calls itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.gpu.context import Figures


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
