"""JPEG 2000 and HTJ2K at any wavelet level, through the OpenJPEG library inside Pillow's wheel.

In:  a bare, complete codestream (`codestream.repair`) of one component, and a level.
Out: an int32 array of the level's exact size, as OpenJPEG decodes it (clamped to SIZ's range by the library).

No other package exposes OpenJPEG's resolution reduction with the standard's sizes: Pillow rounds where T.800
takes the ceiling, imagecodecs has no parameter for it. One code path serves all levels, so that level 0 and
level r can never come from different libraries.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import (
    CFUNCTYPE,
    POINTER,
    byref,
    c_char_p,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint16,
    c_uint32,
    c_void_p,
)
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocess._j2k import with_termination_check
from preprocess.errors import RejectedInput

MAX_PIXELS = 100_000_000
"""Larger claims are refused before OpenJPEG allocates; --max-pixels is checked earlier, at parsing."""

_CODEC_J2K = 0
_STREAM_BUFFER = 1 << 20
_PARAMETERS_BYTES = 16_384
"""opj_dparameters_t is 8,252 bytes in 2.5; the rest is room for later fields."""
_END = c_size_t(-1).value or 0
_MAX_MESSAGES = 4

_BLOCK_SAMPLES = 64 * 64
_HEADER_BYTES = 1024
_EXACT_ENCODER = b"Created by OpenJPEG version 2."
"""Comment of an encoder (RSNA's, among others) whose code-blocks end where their bytes end."""
_TERMINATION = b"PTERM check failure"
_INVENTED = b"synthesized"
"""Bytes invented beyond a code-block's end: encoders that meet a rate cut code-blocks short."""
_HARMLESS_WARNINGS = (
    _TERMINATION,
    b"Unknown marker",
    b"Expected SOP marker",  # allowed to be missing (T.800 A.8.1)
    b"Empty SOT marker",
    b"TLM",  # an index, not used when a whole image is decoded
    b"tlm",
    b"COM",
    b"JP2",
    b"number of elements stored",
)
"""What OpenJPEG warns of in valid streams; every other warning says that data are damaged."""


class _Component(ctypes.Structure):
    _fields_ = [
        *((name, c_uint32) for name in ("dx", "dy", "w", "h", "x0", "y0", "prec", "bpp", "sgnd")),
        ("resno_decoded", c_uint32),
        ("factor", c_uint32),
        ("data", POINTER(c_int32)),
        ("alpha", c_uint16),
    ]


class _Image(ctypes.Structure):
    _fields_ = [
        *((name, c_uint32) for name in ("x0", "y0", "x1", "y1", "numcomps")),
        ("color_space", c_int),
        ("comps", POINTER(_Component)),
        ("icc_profile_buf", c_void_p),
        ("icc_profile_len", c_uint32),
    ]


_ImagePointer = POINTER(_Image)
_READ = CFUNCTYPE(c_size_t, c_void_p, c_size_t, c_void_p)
_SKIP = CFUNCTYPE(c_int64, c_int64, c_void_p)
_SEEK = CFUNCTYPE(c_int, c_int64, c_void_p)
_MESSAGE = CFUNCTYPE(None, c_char_p, c_void_p)

_SIGNATURES = {
    "opj_version": (c_char_p, []),
    "opj_create_decompress": (c_void_p, [c_int]),
    "opj_destroy_codec": (None, [c_void_p]),
    "opj_set_default_decoder_parameters": (None, [c_void_p]),
    "opj_setup_decoder": (c_int, [c_void_p, c_void_p]),
    "opj_decoder_set_strict_mode": (c_int, [c_void_p, c_int]),
    "opj_set_error_handler": (c_int, [c_void_p, _MESSAGE, c_void_p]),
    "opj_set_warning_handler": (c_int, [c_void_p, _MESSAGE, c_void_p]),
    "opj_stream_create": (c_void_p, [c_size_t, c_int]),
    "opj_stream_destroy": (None, [c_void_p]),
    "opj_stream_set_read_function": (None, [c_void_p, _READ]),
    "opj_stream_set_skip_function": (None, [c_void_p, _SKIP]),
    "opj_stream_set_seek_function": (None, [c_void_p, _SEEK]),
    "opj_stream_set_user_data": (None, [c_void_p, c_void_p, c_void_p]),
    "opj_stream_set_user_data_length": (None, [c_void_p, c_int64]),
    "opj_read_header": (c_int, [c_void_p, c_void_p, POINTER(_ImagePointer)]),
    "opj_decode": (c_int, [c_void_p, c_void_p, _ImagePointer]),
    "opj_end_decompress": (c_int, [c_void_p, c_void_p]),
    "opj_image_destroy": (None, [_ImagePointer]),
}


def _candidates() -> Iterator[str]:
    """Pillow's own copy in each wheel layout (Linux, macOS, Windows), then the system's."""
    spec = find_spec("PIL")
    if spec is not None and spec.origin is not None:
        package = Path(spec.origin).parent
        for folder in (package.parent / "pillow.libs", package.parent / "Pillow.libs", package / ".dylibs"):
            yield from (str(path) for path in sorted(folder.glob("*openjp2*")))
    system = ctypes.util.find_library("openjp2")
    if system is not None:
        yield system


@cache
def library() -> ctypes.CDLL:
    """The OpenJPEG library, loaded once.

    Raises:
        ImportError: none is found, or it lacks a function that 2.5 has.
    """
    for candidate in _candidates():
        try:
            loaded = ctypes.CDLL(candidate)
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(loaded, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError):
            continue
        return loaded
    raise ImportError("no OpenJPEG 2.5 library, which Pillow's wheel carries: reinstall Pillow")


def version() -> str:
    """OpenJPEG's version, such as 2.5.4."""
    text: bytes = library().opj_version()
    return text.decode("ascii", "replace")


class _Stream:
    """An opj_stream_t over bytes. Keeps its callbacks alive as long as it lives."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        self._address = ctypes.cast(ctypes.c_char_p(data), c_void_p).value or 0
        self._callbacks = (_READ(self._read), _SKIP(self._skip), _SEEK(self._seek))
        lib = library()
        self.handle = lib.opj_stream_create(_STREAM_BUFFER, 1)
        lib.opj_stream_set_read_function(self.handle, self._callbacks[0])
        lib.opj_stream_set_skip_function(self.handle, self._callbacks[1])
        lib.opj_stream_set_seek_function(self.handle, self._callbacks[2])
        lib.opj_stream_set_user_data(self.handle, None, None)
        lib.opj_stream_set_user_data_length(self.handle, len(data))

    def _read(self, target: int, size: int, _: int | None) -> int:
        count = min(size, len(self._data) - self._position)
        if count <= 0:
            return _END
        ctypes.memmove(target, self._address + self._position, count)
        self._position += count
        return count

    def _skip(self, size: int, _: int | None) -> int:
        if size < 0 or self._position + size > len(self._data):
            return -1
        self._position += size
        return size

    def _seek(self, position: int, _: int | None) -> int:
        if not 0 <= position <= len(self._data):
            return 0
        self._position = position
        return 1

    def close(self) -> None:
        library().opj_stream_destroy(self.handle)


class _Messages:
    """What OpenJPEG says, kept instead of printed: the first few errors, or else warnings.

    A warning that data are damaged is an error here: OpenJPEG goes on and returns other pixels.
    """

    def __init__(self, *, lossless: bool) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.unterminated = 0
        """Code-blocks whose passes end elsewhere than their bytes."""
        self._lossless = lossless
        self.error_handler = _MESSAGE(lambda text, _: self._keep(self.errors, text))
        self.warning_handler = _MESSAGE(lambda text, _: self._warn(text))

    def _warn(self, text: bytes | None) -> None:
        text = text or b""
        if _TERMINATION in text and (self._lossless or _INVENTED not in text):
            self.unterminated += 1
            self._keep(self.warnings, text)
            return
        damage = bool(text) and not any(words in text for words in _HARMLESS_WARNINGS)
        self._keep(self.errors if damage else self.warnings, text)

    def tells_of_damage(self, samples: int, codestream: bytes) -> bool:
        """Whether anything said is an error, given how many samples were decoded of what.

        A few code-blocks that end elsewhere than their bytes are damaged. Many are an encoder's habit (old
        OpenJPEG and ClearCanvas leave bytes behind, and every decoder reads their streams alike), unless the
        encoder says that it is one without.
        """
        exact = _EXACT_ENCODER in codestream[:_HEADER_BYTES]
        few = samples if exact else max(2, samples // _BLOCK_SAMPLES // 20)
        return bool(self.errors) or 0 < self.unterminated <= few

    @staticmethod
    def _keep(kept: list[str], text: bytes | None) -> None:
        if text and len(kept) < _MAX_MESSAGES:
            kept.append(" ".join(text.decode("ascii", "replace").split()))

    def failure(self) -> RejectedInput:
        """The reason as a reject: a limit on memory is not the image's fault."""
        text = "; ".join(self.errors or self.warnings) or "no reason given"
        starved = "memory" in text.lower() or "exceeds system limits" in text  # its word for a failed malloc
        code = "out_of_memory" if starved else "decode_failed"
        return RejectedInput(code, f"OpenJPEG: {text}")


@contextmanager
def _codec(level: int, messages: _Messages) -> Iterator[c_void_p]:
    """A strict J2K decompressor set to `level`, destroyed on leaving."""
    lib = library()
    codec = c_void_p(lib.opj_create_decompress(_CODEC_J2K))
    try:
        lib.opj_set_error_handler(codec, messages.error_handler, None)
        lib.opj_set_warning_handler(codec, messages.warning_handler, None)
        parameters = ctypes.create_string_buffer(_PARAMETERS_BYTES)
        lib.opj_set_default_decoder_parameters(parameters)
        c_uint32.from_buffer(parameters).value = level  # cp_reduce is the first field
        if not lib.opj_setup_decoder(codec, parameters) or not lib.opj_decoder_set_strict_mode(codec, 1):
            raise messages.failure()
        yield codec
    finally:
        lib.opj_destroy_codec(codec)


def decode(codestream: bytes, level: int = 0, *, lossless: bool = False) -> npt.NDArray[np.int32]:
    """Decode a one-component codestream at a wavelet level, on this thread, without the GIL.

    Args:
        codestream: bare and complete, EOC included.
        level: wavelet levels to leave out, at most the codestream's own.
        lossless: whether the stream is declared to hold all of the image: no code-block may be cut short.

    Returns:
        int32 (rows, columns), ceil(n / 2^level) of the component's size for origin 0; read-only, for it is
        OpenJPEG's own memory, freed with the array.

    Raises:
        RejectedInput: decode_failed or out_of_memory with OpenJPEG's own words; too_many_pixels;
            unsupported_codestream for more than one component.

    A few code-blocks whose passes end elsewhere than their bytes are damage, and decode_failed: see
    `with_termination_check`.
    """
    lib, messages, stream = (
        library(),
        _Messages(lossless=lossless),
        _Stream(with_termination_check(codestream)),
    )
    decoded = _Decoded()
    try:
        with _codec(level, messages) as codec:
            if not lib.opj_read_header(stream.handle, codec, byref(decoded.image)):
                raise messages.failure()
            _check(decoded.image.contents)
            whole = lib.opj_decode(codec, stream.handle, decoded.image)
            if not whole or not lib.opj_end_decompress(codec, stream.handle):
                raise messages.failure()
    finally:
        stream.close()
    pixels = decoded.pixels()
    if messages.tells_of_damage(pixels.size, codestream):
        raise messages.failure()
    return pixels


def _check(image: _Image) -> None:
    if image.numcomps != 1:
        raise RejectedInput("unsupported_codestream", f"{image.numcomps} components")
    if (image.x1 - image.x0) * (image.y1 - image.y0) > MAX_PIXELS:
        raise RejectedInput("too_many_pixels", f"the codestream claims more than {MAX_PIXELS} pixels")


class _Decoded:
    """OpenJPEG's image; destroyed with this, which the array of its pixels keeps alive."""

    def __init__(self) -> None:
        self.image = _ImagePointer()
        self._destroy = library().opj_image_destroy  # at interpreter exit globals may be gone before this

    def __del__(self) -> None:
        if self.image:
            self._destroy(self.image)

    @property
    def __array_interface__(self) -> dict[str, object]:
        """NumPy's protocol for memory of others. Not numpy.ctypeslib: ctypes keeps a type for every size."""
        component = self.image.contents.comps[0]
        address = ctypes.cast(component.data, c_void_p).value
        return {
            "version": 3,
            "typestr": np.dtype(np.int32).str,
            "shape": (component.h, component.w),
            "data": (address, True),
        }

    def pixels(self) -> npt.NDArray[np.int32]:
        """The component's samples, not copied. Raises RejectedInput decode_failed where there are none."""
        if not self.image or not self.image.contents.comps[0].data:
            raise RejectedInput("decode_failed", "OpenJPEG: no pixels")
        pixels: npt.NDArray[np.int32] = np.asarray(self)
        return pixels
