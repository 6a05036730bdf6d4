"""nvJPEG2000's C interface, as much of it as decodes one component to a wavelet level (ctypes).

In:  a bare codestream, a level, the address of device memory and a CUDA stream.
Out: unsigned 16-bit samples of the stream's own precision at that address.

Neither DALI nor nvImageCodec exposes levels. Signatures are those of nvjpeg2k.h 0.9 … 0.11 inside the wheel.
Loading, parsing and asking for sizes need no driver; decode states and decoding do.

A handle is thread-safe; a Session is for one thread, and its CUDA stream must be waited for between images.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint8, c_uint32, c_void_p
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

STATUS = (
    "SUCCESS",
    "NOT_INITIALIZED",
    "INVALID_PARAMETER",
    "BAD_JPEG",
    "JPEG_NOT_SUPPORTED",
    "ALLOCATOR_FAILURE",
    "EXECUTION_FAILED",
    "ARCH_MISMATCH",
    "INTERNAL_ERROR",
    "IMPLEMENTATION_NOT_SUPPORTED",
)
UINT16 = 1
"""NVJPEG2K_UINT16."""
_LIBRARY = "libnvjpeg2k.so.0"
_MAJOR, _MINOR, _PATCH = 0, 1, 2


class ImageInfo(ctypes.Structure):
    """nvjpeg2kImageInfo_t."""

    _fields_ = [
        (name, c_uint32)
        for name in (
            "image_width",
            "image_height",
            "tile_width",
            "tile_height",
            "num_tiles_x",
            "num_tiles_y",
            "num_components",
        )
    ]


class ComponentInfo(ctypes.Structure):
    """nvjpeg2kImageComponentInfo_t."""

    _fields_ = [
        ("component_width", c_uint32),
        ("component_height", c_uint32),
        ("precision", c_uint8),
        ("sgn", c_uint8),
    ]


class Image(ctypes.Structure):
    """nvjpeg2kImage_t."""

    _fields_ = [
        ("pixel_data", POINTER(c_void_p)),
        ("pitch_in_bytes", POINTER(c_size_t)),
        ("pixel_type", c_int),
        ("num_components", c_uint32),
    ]


SIGNATURES: dict[str, list[Any]] = {
    "nvjpeg2kGetProperty": [c_int, POINTER(c_int)],
    "nvjpeg2kCreateSimple": [POINTER(c_void_p)],
    "nvjpeg2kDestroy": [c_void_p],
    "nvjpeg2kDecodeStateCreate": [c_void_p, POINTER(c_void_p)],
    "nvjpeg2kDecodeStateDestroy": [c_void_p],
    "nvjpeg2kStreamCreate": [POINTER(c_void_p)],
    "nvjpeg2kStreamDestroy": [c_void_p],
    "nvjpeg2kStreamParse": [c_void_p, c_char_p, c_size_t, c_int, c_int, c_void_p],
    "nvjpeg2kStreamGetImageInfo": [c_void_p, POINTER(ImageInfo)],
    "nvjpeg2kStreamGetImageComponentInfo": [c_void_p, POINTER(ComponentInfo), c_uint32],
    "nvjpeg2kStreamGetResolutionsInTile": [c_void_p, c_uint32, POINTER(c_uint32)],
    "nvjpeg2kStreamGetResolutionComponentDim": [
        c_void_p, c_uint32, c_uint32, c_uint32, POINTER(c_uint32), POINTER(c_uint32),
    ],
    "nvjpeg2kDecodeParamsCreate": [POINTER(c_void_p)],
    "nvjpeg2kDecodeParamsDestroy": [c_void_p],
    "nvjpeg2kDecodeParamsSetRGBOutput": [c_void_p, ctypes.c_int32],
    "nvjpeg2kDecodeTile": [
        c_void_p, c_void_p, c_void_p, c_void_p, c_uint32, c_uint32, POINTER(Image), c_void_p,
    ],
}  # fmt: skip
"""Every function that is called, and its arguments. All return nvjpeg2kStatus_t."""

Library = Any
"""The loaded library (ctypes.CDLL), or an object with functions of the same names."""


class Nvjpeg2kError(RuntimeError):
    """A call did not return NVJPEG2K_STATUS_SUCCESS."""

    def __init__(self, function: str, status: int) -> None:
        known = STATUS[status] if 0 <= status < len(STATUS) else "unknown"
        super().__init__(f"{function}: {known} ({status})")
        self.status = status


@dataclass(frozen=True, slots=True)
class Parsed:
    """What the library understands of a codestream."""

    rows: int
    columns: int
    tiles: int
    components: int
    precision: int
    signed: bool
    resolutions: int
    """Wavelet decompositions + 1."""


def library_path() -> Path:
    """The library inside the wheel nvidia-nvjpeg2k-cu12 or -cu13. Raises OSError where there is none."""
    try:
        spec = find_spec("nvidia.nvjpeg2k")
    except ModuleNotFoundError:
        spec = None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "lib" / _LIBRARY
        if path.is_file():
            return path
    raise OSError(f"there is no {_LIBRARY} (nvidia-nvjpeg2k-cu12 or -cu13)")


def load() -> Library:
    """The library with every signature set. Raises OSError, also where a function is missing."""
    library = ctypes.CDLL(str(library_path()))
    for name, arguments in SIGNATURES.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            raise OSError(f"{_LIBRARY} has no {name}") from None
        function.argtypes, function.restype = arguments, c_int
    return library


def version(library: Library) -> str:
    """The library's version, `0.11.0`."""
    numbers = []
    for which in (_MAJOR, _MINOR, _PATCH):
        number = c_int()
        _check(library, "nvjpeg2kGetProperty", which, byref(number))
        numbers.append(str(number.value))
    return ".".join(numbers)


def _check(library: Library, name: str, *arguments: object) -> None:
    status = getattr(library, name)(*arguments)
    if status:
        raise Nvjpeg2kError(name, status)


class _Owned:
    """An opaque handle with the function that destroys it."""

    def __init__(self, library: Library, create: Callable[[c_void_p], None], destroy: str) -> None:
        self.value = c_void_p()
        self._library, self._destroy = library, destroy
        create(self.value)

    def close(self) -> None:
        """Destroy it, once."""
        if self.value:
            getattr(self._library, self._destroy)(self.value)
            self.value = c_void_p()


class Handle:
    """The library's handle: one for a device, shared by its Sessions."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self._owned = _Owned(
            library, lambda value: _check(library, "nvjpeg2kCreateSimple", byref(value)), "nvjpeg2kDestroy"
        )

    @property
    def value(self) -> c_void_p:
        """As the library's functions take it."""
        return self._owned.value

    def close(self) -> None:
        """Destroy it, after all of its Sessions."""
        self._owned.close()


class Stream:
    """A parsed codestream. Works without a driver. The bytes are kept: the library reads them later."""

    def __init__(self, handle: Handle) -> None:
        self._handle, self._library = handle, handle.library
        self._data = b""
        self._owned = self._make("nvjpeg2kStream")

    def _make(self, kind: str) -> _Owned:
        library = self._library
        return _Owned(library, lambda value: _check(library, f"{kind}Create", byref(value)), f"{kind}Destroy")

    @property
    def value(self) -> c_void_p:
        """As the library's functions take it."""
        return self._owned.value

    def parse(self, codestream: bytes) -> Parsed:
        """Parse the headers of a bare codestream or a JP2 file. Raises Nvjpeg2kError."""
        library, value = self._library, self.value
        self._data = codestream
        _check(library, "nvjpeg2kStreamParse", self._handle.value, codestream, len(codestream), 0, 0, value)
        image, component, resolutions = ImageInfo(), ComponentInfo(), c_uint32()
        _check(library, "nvjpeg2kStreamGetImageInfo", value, byref(image))
        _check(library, "nvjpeg2kStreamGetImageComponentInfo", value, byref(component), 0)
        _check(library, "nvjpeg2kStreamGetResolutionsInTile", value, 0, byref(resolutions))
        return Parsed(
            rows=image.image_height,
            columns=image.image_width,
            tiles=image.num_tiles_x * image.num_tiles_y,
            components=image.num_components,
            precision=component.precision,
            signed=bool(component.sgn),
            resolutions=resolutions.value,
        )

    def level_size(self, parsed: Parsed, level: int) -> tuple[int, int]:
        """(rows, columns) of a wavelet level of the only tile, as the library will write it."""
        columns, rows = c_uint32(), c_uint32()
        resolution = parsed.resolutions - 1 - level
        _check(
            self._library, "nvjpeg2kStreamGetResolutionComponentDim",
            self.value, 0, 0, resolution, byref(columns), byref(rows),
        )  # fmt: skip
        return rows.value, columns.value

    def close(self) -> None:
        """Destroy it."""
        self._owned.close()


class Session(Stream):
    """A stream and a decode state: one image in flight."""

    def __init__(self, handle: Handle) -> None:
        super().__init__(handle)
        library = self._library
        self._state = _Owned(
            library,
            lambda value: _check(library, "nvjpeg2kDecodeStateCreate", handle.value, byref(value)),
            "nvjpeg2kDecodeStateDestroy",
        )
        self._parameters = self._make("nvjpeg2kDecodeParams")
        _check(library, "nvjpeg2kDecodeParamsSetRGBOutput", self._parameters.value, 0)

    def decode(self, parsed: Parsed, level: int, address: int, pitch: int, cuda_stream: int) -> None:
        """Queue the decoding of the image that was parsed last, at a wavelet level.

        Args:
            parsed: what `parse` gave: one tile, one unsigned component of 9 to 16 bits.
            level: 0 … parsed.resolutions − 1.
            address: device memory for `level_size` samples of 16 bits.
            pitch: bytes from one row to the next there.
            cuda_stream: what the work is queued on (cudaStream_t as a number).

        Raises:
            Nvjpeg2kError: the library refuses. What fails on the device shows when the stream is awaited.
            ValueError: not such an image, or no such level.
        """
        if parsed.tiles != 1 or parsed.components != 1 or parsed.signed or not 9 <= parsed.precision <= 16:
            raise ValueError("one tile and one unsigned component of 9 to 16 bits are needed")
        if not 0 <= level < parsed.resolutions:
            raise ValueError(f"level {level} of {parsed.resolutions - 1}")
        planes, pitches = (c_void_p * 1)(address), (c_size_t * 1)(pitch)
        image = Image(planes, pitches, UINT16, 1)
        _check(
            self._library, "nvjpeg2kDecodeTile",
            self._handle.value, self._state.value, self.value, self._parameters.value,
            0, parsed.resolutions - level, byref(image), cuda_stream,
        )  # fmt: skip

    def close(self) -> None:
        """Destroy everything, after the CUDA stream was waited for."""
        self._state.close()
        self._parameters.close()
        super().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
