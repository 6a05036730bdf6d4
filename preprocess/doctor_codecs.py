"""Whether the pinned CPU codecs are there and give back what was put in.

In:  nothing.
Out: one Check per family of transfer syntaxes; each encodes and decodes a small picture of 12-bit values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.doctor_checks import FAIL, OK, Check

_REMEDY = "Reinstall imagecodecs and pillow at the locked versions."
_SHAPE = (48, 40)

Pixels = npt.NDArray[Any]


def codec_checks() -> Iterator[Check]:
    """One check per codec, and one for the wavelet levels."""
    try:
        import imagecodecs
    except ImportError as error:
        yield Check("codecs", FAIL, f"imagecodecs cannot be imported: {error}", _REMEDY)
        return
    words = dict(part.split("-", 1) for part in imagecodecs.version().split(", ") if "-" in part)
    yield from _openjpeg()
    yield checked("JPEG 2000, lossless", f"Numba {version('numba')}, against OpenJPEG", _jpeg_2000_lossless)
    yield checked("JPEG Lossless", f"Numba {version('numba')}", _jpeg_lossless)
    yield checked("JPEG-LS", f"CharLS {words.get('charls', '?')}", _jpeg_ls)
    yield checked("deflate", f"libdeflate {words.get('libdeflate', '?')}", _deflate)
    yield checked("PackBits", f"imcd {words.get('imcd', '?')}", _packbits)


def checked(name: str, library: str, exercise: Callable[[], bool]) -> Check:
    """Run one exercise: ok if it gives back what was put in, otherwise fail with the reason."""
    try:
        same = exercise()
    except (ImportError, AttributeError, RuntimeError, ValueError, OSError) as error:
        return Check(name, FAIL, f"{library}: {type(error).__name__}: {error}", _REMEDY)
    if not same:
        return Check(name, FAIL, f"{library}: other pixels came back", _REMEDY)
    return Check(name, OK, library)


def _picture() -> Pixels:
    row, column = np.indices(_SHAPE)
    return ((row * 89 + column * column * 7) % 4096).astype(np.uint16)


def _openjpeg() -> Iterator[Check]:
    from preprocess import openjpeg

    try:
        library = f"OpenJPEG {openjpeg.version()} in {openjpeg.library()._name}"
    except ImportError as error:
        yield Check("JPEG 2000", FAIL, str(error), _REMEDY)
        return
    yield checked("JPEG 2000", library, _jpeg_2000)
    yield checked("wavelet levels", "OpenJPEG, against an integer 5/3 transform of our own", _levels)
    yield checked("HTJ2K", "OpenJPEG", _htj2k)


def _encoded_j2k(pixels: Pixels) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", level=0, reversible=True))


def _jpeg_2000() -> bool:
    from preprocess import openjpeg

    pixels = _picture()
    return np.array_equal(openjpeg.decode(_encoded_j2k(pixels)), pixels)


def _levels() -> bool:
    from preprocess import openjpeg
    from preprocess.wavelet import low_pass_53

    pixels = _picture()
    stream = _encoded_j2k(pixels)
    expected = (np.clip(low_pass_53(pixels, level), 0, 65535) for level in (1, 2))
    return all(np.array_equal(openjpeg.decode(stream, r + 1), low) for r, low in enumerate(expected))


def _jpeg_2000_lossless() -> bool:
    from preprocess import jpeg2000, openjpeg
    from preprocess.codestream import read_facts
    from preprocess.records import Compression

    stream = _encoded_j2k(_picture())
    facts = read_facts(stream, Compression.JPEG_2000)
    decoded = (jpeg2000.decode(stream, facts, level) for level in range(facts.levels + 1))
    return all(
        pixels is not None and np.array_equal(pixels, openjpeg.decode(stream, level))
        for level, pixels in enumerate(decoded)
    )


def _htj2k() -> bool:
    import imagecodecs

    from preprocess import openjpeg

    pixels = _picture()
    return np.array_equal(openjpeg.decode(bytes(imagecodecs.htj2k_encode(pixels))), pixels)


def _jpeg_lossless() -> bool:
    import imagecodecs

    from preprocess import jpeg_lossless

    pixels = _picture()
    stream = bytes(imagecodecs.jpeg8_encode(pixels, lossless=True, bitspersample=12))
    return np.array_equal(jpeg_lossless.decode(stream), pixels)


def _jpeg_ls() -> bool:
    import imagecodecs

    pixels = _picture()
    return np.array_equal(imagecodecs.jpegls_decode(imagecodecs.jpegls_encode(pixels)), pixels)


def _deflate() -> bool:
    import imagecodecs

    data = _picture().tobytes()
    return bytes(imagecodecs.deflate_decode(imagecodecs.deflate_encode(data), out=len(data))) == data


def _packbits() -> bool:
    import imagecodecs

    data = bytes(100) + _picture().tobytes()
    return bytes(imagecodecs.packbits_decode(imagecodecs.packbits_encode(data), out=len(data))) == data
