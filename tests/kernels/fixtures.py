"""The kernels under every library there is: NumPy, the .cu files compiled for the CPU, CuPy."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from preprocess.kernels import reference
from tests.kernels import shim
from tests.kernels.shim import DeviceArray, ShimDevice, ShimKernels


class OnHost:
    """Kernels of a device that take and give NumPy arrays, for tests that are written for those."""

    def __init__(self, kernels: Any, upload: Callable[[np.ndarray], Any]) -> None:
        self._kernels, self._upload = kernels, upload

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self._kernels, name)

        def called(*args: Any, **kwargs: Any) -> Any:
            args = tuple(self._there(arg) for arg in args)
            return self._here(function(*args, **{key: self._there(arg) for key, arg in kwargs.items()}))

        return called

    def blank(self, picture: np.ndarray, *args: Any) -> None:
        there = self._upload(picture)
        self._kernels.blank(there, *args)
        picture[...] = self._kernels.to_host(there)

    def _there(self, value: Any) -> Any:
        picture = isinstance(value, np.ndarray) and value.ndim == 2
        return self._upload(value) if picture else value

    def _here(self, value: Any) -> Any:
        plain = value is None or isinstance(value, (int, tuple, np.ndarray))
        return value if plain else self._kernels.to_host(value)


@pytest.fixture(scope="session")
def compiled_kernels(tmp_path_factory: pytest.TempPathFactory) -> ShimKernels:
    """The .cu files, compiled by a C++ compiler for the CPU, behind the code that launches them on GPUs."""
    if shim.COMPILER is None:
        pytest.skip("the CUDA sources are run on the CPU by a C++ compiler, and there is none")
    return ShimKernels(ShimDevice(shim.compiled(tmp_path_factory.mktemp("kernels"))))


@pytest.fixture(scope="session")
def cupy_kernels() -> ModuleType:
    """The kernels on a GPU."""
    cupy = pytest.importorskip("cupy")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    from preprocess.kernels import cuda

    return cuda


ON_DEVICES = ["compiled", pytest.param("cupy", marks=pytest.mark.gpu)]


def on_host(library: str, request: pytest.FixtureRequest) -> Any:
    if library == "compiled":
        kernels: ShimKernels = request.getfixturevalue("compiled_kernels")
        return OnHost(kernels, kernels.device.upload)
    return OnHost(request.getfixturevalue("cupy_kernels"), uploaded)


def uploaded(array: np.ndarray) -> Any:
    import cupy

    return cupy.array(array)


@pytest.fixture(scope="session", params=["reference", *ON_DEVICES])
def kernels(request: pytest.FixtureRequest) -> Any:
    """reference.py and its twins: the same names, NumPy arrays in and out."""
    return reference if request.param == "reference" else on_host(request.param, request)


@pytest.fixture(scope="session", params=ON_DEVICES)
def twins(request: pytest.FixtureRequest) -> Any:
    """The twins alone, for comparison with reference.py."""
    return on_host(request.param, request)


@pytest.fixture(params=ON_DEVICES)
def device_kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that stages find behind an array of a device; `upload` makes such arrays."""
    from preprocess.kernels import seam

    if request.param == "cupy":
        return DeviceModule(request.getfixturevalue("cupy_kernels"), uploaded)
    compiled: ShimKernels = request.getfixturevalue("compiled_kernels")
    monkeypatch.setattr(seam, "gpu", lambda: compiled)
    return DeviceModule(compiled, compiled.device.upload)


class DeviceModule:
    """Kernels of a device, and how arrays come there."""

    def __init__(self, kernels: Any, upload: Callable[[np.ndarray], Any]) -> None:
        self.kernels, self.upload = kernels, upload

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kernels, name)


__all__ = ["DeviceArray", "compiled_kernels", "cupy_kernels", "device_kernels", "kernels", "twins"]
