"""Each kernel of reference.py, run where its first array lies: compiled.py on the host, cuda.py on a GPU.

In and out: as reference.py says. Stages import this module as `kernels` and run on both without knowing it.
CuPy and its compiler are loaded by the first array that lies on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from preprocess.kernels import compiled, reference

P = ParamSpec("P")
R = TypeVar("R")


def of(array: object) -> ModuleType:
    """The module whose kernels take this array."""
    return compiled if isinstance(array, np.ndarray) else gpu()


def gpu() -> ModuleType:
    """The kernels for CuPy arrays."""
    from preprocess.kernels import cuda

    return cuda


def to_host(array: object) -> npt.NDArray[Any]:
    """The array in NumPy: itself, or copied from the GPU, which then has finished what it was given."""
    if isinstance(array, np.ndarray):
        return array
    copied: npt.NDArray[Any] = gpu().to_host(array)
    return copied


def _where_the_array_lies(kernel: Callable[P, R]) -> Callable[P, R]:
    name = kernel.__name__

    @wraps(kernel)
    def chosen(*args: P.args, **kwargs: P.kwargs) -> R:
        result: R = getattr(of(args[0]), name)(*args, **kwargs)
        return result

    return chosen


blank = _where_the_array_lies(reference.blank)
block_mean = _where_the_array_lies(reference.block_mean)
border_connected = _where_the_array_lies(reference.border_connected)
bounds = _where_the_array_lies(reference.bounds)
brightest_of_nine = _where_the_array_lies(reference.brightest_of_nine)
count_values = _where_the_array_lies(reference.count_values)
dilate = _where_the_array_lies(reference.dilate)
erode = _where_the_array_lies(reference.erode)
fill_holes = _where_the_array_lies(reference.fill_holes)
histogram = _where_the_array_lies(reference.histogram)
largest_component = _where_the_array_lies(reference.largest_component)
look_up = _where_the_array_lies(reference.look_up)
low_pass = _where_the_array_lies(reference.low_pass)
opened = _where_the_array_lies(reference.opened)
otsu = _where_the_array_lies(reference.otsu)
resample = _where_the_array_lies(reference.resample)
shift_mean = _where_the_array_lies(reference.shift_mean)
side_masses = _where_the_array_lies(reference.side_masses)
to_index = _where_the_array_lies(reference.to_index)
triangle = _where_the_array_lies(reference.triangle)
within = _where_the_array_lies(reference.within)

__all__ = [*reference.__all__, "gpu", "of", "to_host"]
