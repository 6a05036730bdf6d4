"""What a kernel is launched with, in pure Python: jobs packed as the .cu files' structures, and the grid.

In:  arrays on a device, weights, plain numbers.
Out: Launch values. CuPy runs them on a GPU (cuda.py); the tests run the same ones on the CPU, compiled by a
     C++ compiler, so that grids, arguments and structures are proven together with the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
"""An array on the device; CuPy's arrays stand behind NumPy's type."""
Value = Array | int | None

BLOCK = (32, 8, 1)
"""Threads of every block: a warp for 32 columns, 8 warps for rows."""
TILE_ROWS = 64
"""Rows of a block's tile in kernels that go over pixels; 32 columns wide (common.cu)."""
PICTURE_SIDE = 32
"""Output rows and columns of a block of `pictures` (picture.cu)."""
_REDUCING_BLOCKS = 256
"""Most blocks that share one image's reduction."""

SOURCES = ("pixels", "reductions", "masks", "picture")
"""The .cu files; common.cu is put before each."""

_ADDRESS = np.dtype(np.uint64)
PLANE = np.dtype(
    [
        ("data", _ADDRESS),
        ("stride", np.int64),
        ("rows", np.int32),
        ("columns", np.int32),
        ("kind", np.int32),
        ("reserved", np.int32),
    ]
)
JOB = np.dtype(
    [
        ("source", PLANE),
        ("target", PLANE),
        ("mask", PLANE),
        ("table", _ADDRESS),
        ("result", _ADDRESS),
        ("low", np.int32),
        ("high", np.int32),
        ("stored_low", np.int32),
        ("stored_high", np.int32),
        ("shift", np.int32),
        ("precision", np.int32),
        ("row_radius", np.int32),
        ("column_radius", np.int32),
        ("flag", np.int32),
        ("reserved", np.int32),
    ]
)
AXIS = np.dtype([("start", _ADDRESS), ("taps", _ADDRESS), ("outputs", np.int32), ("count", np.int32)])
PICTURE = np.dtype(
    [
        ("source", PLANE),
        ("target", PLANE),
        ("mask", PLANE),
        ("rows", AXIS),
        ("columns", AXIS),
        ("table", _ADDRESS),
        ("kept_rows", _ADDRESS),
        ("kept_columns", _ADDRESS),
        ("fill", _ADDRESS),
        ("content_row", np.int32),
        ("content_column", np.int32),
    ]
)

OPTIONS = (
    "--std=c++17",
    f"-DPLANE_BYTES={PLANE.itemsize}",
    f"-DJOB_BYTES={JOB.itemsize}",
    f"-DPICTURE_BYTES={PICTURE.itemsize}",
)
"""Compiler options, the same for NVRTC and for a C++ compiler."""

_KINDS = {
    np.dtype(np.bool_): 0,
    np.dtype(np.uint8): 0,
    np.dtype(np.int8): 1,
    np.dtype(np.uint16): 2,
    np.dtype(np.int16): 3,
    np.dtype(np.int32): 4,
}


@dataclass(frozen=True, slots=True)
class Launch:
    """Blocks of BLOCK threads, grid (x, y, one for each job); the argument is the address of the jobs."""

    source: str
    kernel: str
    grid: tuple[int, int, int]
    jobs: npt.NDArray[np.void] = field(repr=False)


class Fetched(Protocol):
    """Copies on their way to the host."""

    def wait(self) -> list[npt.NDArray[Any]]:
        """The arrays in NumPy, once they are there. May be called in another thread."""
        ...


class Device(Protocol):
    """Where kernels run. Everything is in the order of one stream; only `to_host` and `wait` wait for it."""

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """A C-order array of anything."""
        ...

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """A C-order array of zeros."""
        ...

    def upload(self, host: npt.NDArray[Any]) -> Array:
        """A copy of a host array, which may be changed as soon as this returns."""
        ...

    def to_host(self, array: Array) -> npt.NDArray[Any]:
        """A copy in host memory, when everything launched so far has run."""
        ...

    def fetch(self, arrays: Sequence[Array]) -> Fetched:
        """Queue copies to host memory; the host goes on at once."""
        ...

    def packed(self, array: Array) -> Array:
        """The array itself if it is in C order, or a copy that is."""
        ...

    def address(self, array: Array) -> int:
        """Address of the first element."""
        ...

    def launch(self, launch: Launch) -> None:
        """Run a kernel over its jobs."""
        ...

    def prepared(self, launch: Launch) -> Callable[[], None]:
        """The launch, its jobs already on the device: what is timed."""
        ...


def source_text(name: str) -> str:
    """The text of one .cu file with what it needs before it."""
    folder = resources.files("preprocess.kernels")
    common = (folder / "common.cu").read_text(encoding="utf-8")
    return f'#line 1 "common.cu"\n{common}\n#line 1 "{name}.cu"\n' + (folder / f"{name}.cu").read_text(
        "utf-8"
    )


def plane(device: Device, array: Array) -> npt.NDArray[np.void]:
    """A Plane of a 2-D array whose rows are contiguous (`rows_of`)."""
    rows, columns = array.shape
    stride = array.strides[0] // array.dtype.itemsize
    values = (device.address(array), stride, rows, columns, _KINDS[array.dtype], 0)
    return np.array(values, PLANE)


def rows_of(device: Device, array: Array) -> Array:
    """The array on the device, with contiguous rows from the top down; a copy only where it must be."""
    if type(array) is np.ndarray:
        return device.upload(np.ascontiguousarray(array))
    step, unit = array.strides
    if step < array.shape[1] * array.dtype.itemsize or unit != array.dtype.itemsize:
        return device.packed(array)
    return array


def job(device: Device, **fields: Value) -> npt.NDArray[np.void]:
    """One Job: planes and addresses of arrays that the caller keeps until the launch; zeros for the rest."""
    packed = np.zeros(1, JOB)
    for name, value in fields.items():
        if value is None or isinstance(value, int):
            packed[name] = value or 0
        elif JOB[name] == PLANE:
            packed[name] = plane(device, value)
        else:
            packed[name] = device.address(value)
    return packed


def over_pixels(source: str, kernel: str, jobs: npt.NDArray[np.void], over: str = "target") -> Launch:
    """A launch whose blocks take a tile each of every job's `over` plane."""
    rows, columns = int(jobs[over]["rows"].max()), int(jobs[over]["columns"].max())
    return Launch(source, kernel, (_ceil(columns, BLOCK[0]), _ceil(rows, TILE_ROWS), len(jobs)), jobs)


def reduction(kernel: str, jobs: npt.NDArray[np.void]) -> Launch:
    """A launch whose blocks walk over the tiles of every job's source."""
    tiles = -(-jobs["source"]["columns"] // BLOCK[0]) * -(-jobs["source"]["rows"] // TILE_ROWS)
    return Launch("reductions", kernel, (min(int(tiles.max()), _REDUCING_BLOCKS), 1, len(jobs)), jobs)


def over_pictures(jobs: npt.NDArray[np.void]) -> Launch:
    """A launch of `pictures`: a block for each tile of the outputs."""
    rows, columns = int(jobs["target"]["rows"].max()), int(jobs["target"]["columns"].max())
    return Launch(
        "picture", "pictures", (_ceil(columns, PICTURE_SIDE), _ceil(rows, PICTURE_SIDE), len(jobs)), jobs
    )


def _ceil(size: int, step: int) -> int:
    return -(-size // step)
