"""GPUs: the driver, the devices, and the libraries that decode and compute on them.

In:  whether the GPU is needed (then problems are failures, otherwise warnings).
Out: Checks. The driver is asked through its own library, so that no toolkit and no nvidia-smi is needed.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from preprocess import wording
from preprocess.doctor_checks import FAIL, OK, WARN, Check, installed, release
from preprocess.doctor_kernels import kernel_checks

_DRIVERS = ("libcuda.so.1", "nvcuda.dll")
_CUDA_13_DRIVER = 13000
_ENOUGH_DALI = (2, 3)
_OURS = ("dali_pipelines.decoder", "preprocess.kernels.cuda")
_EXTRA = "pip install '.[gpu-cu12]' or [gpu-cu13]"


@dataclass(frozen=True, slots=True)
class Library:
    """A GPU library: its import name or the start of its file's, and its distributions by CUDA version."""

    name: str
    module: str
    cuda12: str
    cuda13: str


LIBRARIES = (
    Library("DALI", "nvidia.dali", "nvidia-dali-cuda120", "nvidia-dali-cuda130"),
    Library("nvImageCodec", "nvidia.nvimgcodec", "nvidia-nvimgcodec-cu12", "nvidia-nvimgcodec-cu13"),
    Library("nvJPEG2000", "nvidia.nvjpeg2k", "nvidia-nvjpeg2k-cu12", "nvidia-nvjpeg2k-cu13"),
    Library("CuPy", "cupy", "cupy-cuda12x", "cupy-cuda13x"),
    Library("NVRTC", "libnvrtc.so", "nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc"),
)


def gpu_checks(*, needed: bool) -> Iterator[Check]:
    """Driver, devices, libraries, and mixtures of CUDA 12 and 13 that overwrite each other."""
    bad = FAIL if needed else WARN
    version, architectures = None, list[str]()
    try:
        driver = load_driver()
        version = driver_version(driver)
        yield Check("GPU driver", OK, f"CUDA {version // 1000}.{version % 1000 // 10}")
        yield from _devices(driver, bad)
        architectures = list(_architectures(driver))
    except OSError as error:
        yield Check("GPU driver", bad, str(error), "Install NVIDIA's driver; in a container: --gpus all.")
    for library in LIBRARIES:
        yield library_check(library, bad)
    yield from _mixtures(version, bad)
    yield from kernel_checks(architectures, bad)
    yield decoder_check(bad)


def decoder_check(bad: str) -> Check:
    """Whether our own GPU modules are there, and nvJPEG2000 has what they call (no device is asked)."""
    from dali_pipelines import nvjpeg2k

    missing = [module for module in _OURS if not _exists(module)]
    if missing:
        return Check("GPU decoder", bad, f"{missing[0]} is missing", "Install the whole package again.")
    try:
        version = nvjpeg2k.version(nvjpeg2k.load())
    except (OSError, RuntimeError) as error:
        return Check("GPU decoder", bad, str(error), _EXTRA)
    return Check("GPU decoder", OK, f"wavelet levels through nvJPEG2000 {version}")


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def load_driver() -> ctypes.CDLL:
    """The initialised driver library. Raises OSError with the reason it cannot be used."""
    for name in _DRIVERS:
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        code = driver.cuInit(0)
        if code:
            raise OSError(f"{name} is there, but cuInit fails: {_reason(driver, code)}")
        return driver
    raise OSError(f"no driver library ({' or '.join(_DRIVERS)})")


def _reason(driver: ctypes.CDLL, code: int) -> str:
    text = ctypes.c_char_p()
    if driver.cuGetErrorString(code, ctypes.byref(text)) == 0 and text.value:
        return f"{text.value.decode('ascii', 'replace')} ({code})"
    return f"error {code}"


def driver_version(driver: ctypes.CDLL) -> int:
    """The newest CUDA that the driver supports: 1000 × major + 10 × minor. Raises OSError."""
    version = ctypes.c_int()
    code = driver.cuDriverGetVersion(ctypes.byref(version))
    if code:
        raise OSError(f"cuDriverGetVersion fails: {_reason(driver, code)}")
    return version.value


def _devices(driver: ctypes.CDLL, bad: str) -> Iterator[Check]:
    count = ctypes.c_int()
    code = driver.cuDeviceGetCount(ctypes.byref(count))
    if code or not count.value:
        detail = _reason(driver, code) if code else "the driver sees none"
        yield Check("GPUs", bad, detail, "Check CUDA_VISIBLE_DEVICES and the container's devices.")
        return
    for index in range(count.value):
        device, memory = ctypes.c_int(), ctypes.c_size_t()
        name = ctypes.create_string_buffer(256)
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDeviceGetName(name, len(name), device)
        driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        major, minor = (_attribute(driver, device, number) for number in (75, 76))
        text = name.value.decode("ascii", "replace")
        yield Check(f"GPU {index}", OK, f"{text}, {wording.byte_size(memory.value)}, sm_{major}{minor}")


def _architectures(driver: ctypes.CDLL) -> Iterator[str]:
    """sm_90 and the like, of every GPU."""
    count = ctypes.c_int()
    if driver.cuDeviceGetCount(ctypes.byref(count)):
        return
    for index in range(count.value):
        device = ctypes.c_int()
        driver.cuDeviceGet(ctypes.byref(device), index)
        yield "sm_" + "".join(str(_attribute(driver, device, number)) for number in (75, 76))


def _attribute(driver: ctypes.CDLL, device: ctypes.c_int, number: int) -> int:
    value = ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(value), number, device)
    return value.value


def library_check(library: Library, bad: str) -> Check:
    """Whether one library is installed, once, and can be imported."""
    both = [name for name in (library.cuda12, library.cuda13) if installed(name)]
    if len(both) == 2:
        return Check(library.name, bad, f"{both[0]} and {both[1]} overwrite each other's files",
                     f"pip uninstall {both[0]} {both[1]}, then install one of them.")  # fmt: skip
    if not both:
        return Check(library.name, bad, "not installed", _EXTRA)
    version = installed(both[0]) or "?"
    file = library.module.endswith(".so")
    reason = unloadable(both[0], library.module) if file else unusable(library.module)
    if reason:
        return Check(library.name, bad, f"{version} ({both[0]}) cannot be used: {reason}", _EXTRA)
    if library.name == "DALI" and release(version) < _ENOUGH_DALI:
        return Check(library.name, bad, f"{version} has CVE-2026-65148", "Install nvidia-dali 2.3 or newer.")
    return Check(library.name, OK, f"{version} ({both[0]})")


def unusable(module: str) -> str:
    """Why a module cannot be imported; empty if it can."""
    if not _exists(module):
        return f"there is no module {module}"
    try:
        importlib.import_module(module)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def unloadable(distribution: str, name: str) -> str:
    """Why a distribution's shared library cannot be loaded; empty if it can."""
    for file in metadata.files(distribution) or ():
        if file.name.startswith(name):
            try:
                ctypes.CDLL(str(file.locate()))
            except OSError as error:
                return str(error)
            return ""
    return f"there is no {name}"


def _mixtures(driver: int | None, bad: str) -> Iterator[Check]:
    """Libraries for different CUDA versions side by side, and builds that are too new for the driver."""
    twelve = [library.cuda12 for library in LIBRARIES if installed(library.cuda12)]
    thirteen = [library.cuda13 for library in LIBRARIES if installed(library.cuda13)]
    if twelve and thirteen:
        yield Check("CUDA builds", bad, f"{', '.join(twelve)} beside {', '.join(thirteen)}",
                    "Take one of the extras gpu-cu12 and gpu-cu13 into a fresh environment.")  # fmt: skip
    if thirteen and driver is not None and driver < _CUDA_13_DRIVER:
        yield Check("CUDA builds", bad, "CUDA 13 builds need driver 580 or newer", "Use the extra gpu-cu12.")
