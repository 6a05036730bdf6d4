"""A device without a GPU: the .cu files compiled by a C++ compiler, and arrays that behave as CuPy's do.

In:  Launch values, the same that cuda.py gives to CuPy.
Out: what the kernels wrote. Arrays are filled with rubbish before use and have guards at both ends.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.kernels import launches
from preprocess.kernels.launches import Launch
from preprocess.kernels.twins import Twins

HEADER = Path(__file__).with_name("cuda_shim.h")
COMPILER = shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")
FLAGS = ("-O2", "-U_FORTIFY_SOURCE", "-shared", "-fPIC", "-fwrapv",
         "-Wall", "-Werror", "-Wno-unused-function", "-Wno-unknown-pragmas")  # fmt: skip
_GUARD = 256
_PLAIN, _FIBERS, _RACING = 0, 1, 2

# The NumPy functions that stages call on device arrays; CuPy has them all (test_seam.py).
FUNCTIONS = {np.ones_like, np.zeros_like, np.count_nonzero}


def compiled(folder: Path) -> dict[str, ctypes.CDLL]:
    """Every .cu file as a library, by name."""
    assert COMPILER is not None
    libraries = {}
    for name in launches.SOURCES:
        source, library = folder / f"{name}.cpp", folder / f"{name}.so"
        source.write_text(launches.source_text(name), encoding="utf-8")
        command = [COMPILER, *FLAGS, *_options(), "-include", str(HEADER), "-o", str(library), str(source)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        libraries[name] = ctypes.CDLL(str(library))
    return libraries


def _options() -> list[str]:
    return [option.replace("--std", "-std") for option in launches.OPTIONS]


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array on the shim's device. As CuPy's, it meets NumPy arrays only when it is copied to the host."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    dtype = property(lambda self: self.values.dtype)
    shape = property(lambda self: self.values.shape)
    size = property(lambda self: self.values.size)
    strides = property(lambda self: self.values.strides)
    ndim = property(lambda self: self.values.ndim)

    def __array__(self, *_args: object, **_kwargs: object) -> np.ndarray:
        raise TypeError("implicit conversion to NumPy is not allowed; use to_host")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", None)
        if out is not None:
            kwargs["out"] = tuple(_inside(each) for each in out)
        result = getattr(ufunc, method)(*(_inside(each) for each in inputs), **kwargs)
        return out[0] if out is not None else DeviceArray(np.asarray(result))

    def __array_function__(self, function: Callable[..., Any], _types: Any, args: Any, kwargs: Any) -> Any:
        if function not in FUNCTIONS:
            return NotImplemented
        return DeviceArray(np.asarray(function(*(_inside(each) for each in args), **kwargs)))

    def __getitem__(self, key: Any) -> DeviceArray:
        return DeviceArray(np.asarray(self.values[_key(key)]))

    def __setitem__(self, key: Any, value: Any) -> None:
        self.values[_key(key)] = _inside(value)

    def __bool__(self) -> bool:
        return bool(self.values)

    def __int__(self) -> int:
        return int(self.values)

    def __index__(self) -> int:
        raise TypeError("a device array is no index")

    def __len__(self) -> int:
        return len(self.values)

    def min(self) -> DeviceArray:
        return DeviceArray(np.asarray(self.values.min()))

    def max(self) -> DeviceArray:
        return DeviceArray(np.asarray(self.values.max()))

    def any(self) -> DeviceArray:
        return DeviceArray(np.asarray(self.values.any()))

    def all(self) -> DeviceArray:
        return DeviceArray(np.asarray(self.values.all()))

    def copy(self) -> DeviceArray:
        return DeviceArray(self.values.copy())


def _inside(value: Any) -> Any:
    if isinstance(value, DeviceArray):
        return value.values
    if isinstance(value, np.ndarray):
        raise TypeError("a NumPy array among arrays of the device")
    return value


def _key(key: Any) -> Any:
    return tuple(_inside(each) for each in key) if isinstance(key, tuple) else _inside(key)


class ShimFetched:
    """launches.Fetched."""

    def __init__(self, device: ShimDevice, hosts: list[np.ndarray]) -> None:
        self._device, self._hosts = device, hosts

    def wait(self) -> list[np.ndarray]:
        self._device.waits += 1
        return self._hosts


class ShimDevice:
    """launches.Device on the CPU."""

    def __init__(self, libraries: dict[str, ctypes.CDLL]) -> None:
        self._libraries = libraries
        self._blocks: list[np.ndarray] = []
        self.launches: list[Launch] = []
        self.racing_seed: int | None = None
        """If set, launches without barriers run all their threads at once, in an order of this seed."""
        self.waits = 0
        """How often the host waited for the device."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        block = np.full(size + 2 * _GUARD, 0xA5, np.uint8)
        self._blocks.append(block)
        return DeviceArray(block[_GUARD : _GUARD + size].view(dtype).reshape(shape))

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        array = self.empty(shape, dtype)
        array.values[...] = 0
        return array

    def upload(self, host: np.ndarray) -> DeviceArray:
        assert isinstance(host, np.ndarray)
        array = self.empty(host.shape, host.dtype)
        array.values[...] = host
        return array

    def to_host(self, array: DeviceArray) -> np.ndarray:
        self.waits += 1
        return array.values.copy()

    def fetch(self, arrays: Sequence[DeviceArray]) -> ShimFetched:
        return ShimFetched(self, [array.values.copy() for array in arrays])

    def packed(self, array: DeviceArray) -> DeviceArray:
        return self.upload(array.values)

    def address(self, array: DeviceArray) -> int:
        assert isinstance(array, DeviceArray)
        return int(array.values.ctypes.data)

    def launch(self, launch: Launch) -> None:
        self.launches.append(launch)
        library = self._libraries[launch.source]
        mode = _FIBERS if "__syncthreads" in launches.source_text(launch.source) else _PLAIN
        if mode == _PLAIN and self.racing_seed is not None:
            mode = _RACING
        grid, block = (ctypes.c_int * 3)(*launch.grid), (ctypes.c_int * 3)(*launches.BLOCK)
        kernel = ctypes.cast(getattr(library, launch.kernel), ctypes.c_void_p)
        jobs = np.ascontiguousarray(launch.jobs)
        seed = ctypes.c_uint64(self.racing_seed or len(self.launches))
        divergent = library.shim_launch(
            kernel, ctypes.c_void_p(jobs.ctypes.data), grid, block, ctypes.c_int(mode), seed
        )
        assert not divergent, f"{launch.kernel}: some threads of a block missed a barrier"
        self._check_guards(launch)

    def prepared(self, launch: Launch) -> Callable[[], None]:
        return partial(self.launch, launch)

    def _check_guards(self, launch: Launch) -> None:
        for block in self._blocks:
            intact = (block[:_GUARD] == 0xA5).all() and (block[-_GUARD:] == 0xA5).all()
            assert intact, f"{launch.kernel} wrote outside its arrays"
        if len(self._blocks) > 64:
            del self._blocks[:-64]


class ShimKernels(Twins):
    """What the module cuda.py is with CuPy: the kernels and their device."""

    def __init__(self, device: ShimDevice) -> None:
        super().__init__(device)  # type: ignore[arg-type]
        self.device = device
