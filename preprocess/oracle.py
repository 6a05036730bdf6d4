"""An independent second opinion on pixels, for `verify --source` and tests. Never used to prepare data.

In:  an Instance and a level, as for any Decoder.
Out: the same Mammogram by other means: the original file, read and decoded by pydicom and its plugins at full
     size, sign and clamping worked out here, and wavelet levels by the integer transform of `wavelet.py`.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.codestream import compression_of, deepest_level
from preprocess.errors import RejectedInput
from preprocess.records import Compression, ImageHeader, Instance, Mammogram, StoredPixels
from preprocess.wavelet import low_pass_53

_IntArray = npt.NDArray[np.integer[Any]]

_PLUGINS: dict[Compression, tuple[str, ...]] = {
    Compression.NATIVE: ("",),
    Compression.RLE: ("pydicom", "pylibjpeg"),
    Compression.JPEG: ("gdcm", "pillow"),
    Compression.JPEG_LOSSLESS: ("gdcm",),
    Compression.JPEG_LS: ("gdcm",),
    Compression.JPEG_2000: ("pylibjpeg", "gdcm"),
    Compression.HTJ2K: ("pylibjpeg",),
}
"""Per family, plugins whose code is not the one that `CpuDecoder` runs; JPEG 2000 has other builds only."""


_UNCORRECTED: dict[str, Any] = dict.fromkeys(
    ("correct_unused_bits", "apply_j2k_sign_correction", "apply_jls_sign_correction"), False
)


class OracleDecoder:
    """pydicom's decoders behind the Decoder protocol."""

    name = "oracle"

    def decode(self, instance: Instance, level: int = 0) -> Mammogram:
        """Decode by pydicom; levels of reversible streams by transforming its full-size pixels.

        Raises:
            LookupError: nothing independent can decode this: the plugin is missing or refuses, or it is a
                level of an irreversible (9/7) stream.
            RejectedInput: the file cannot be read, or is no longer the one that was parsed.
        """
        image, facts = instance.image, instance.codestream
        if level and (facts is None or not facts.lossless):
            raise LookupError("no independent oracle exists for levels of irreversible streams")
        if not 0 <= level <= deepest_level(image, facts):
            raise ValueError(f"level {level} is not possible for this image")
        raw, corrected, plugin = _full_size(instance)
        if level and facts is not None:
            tiles = (facts.tile_rows, facts.tile_columns)
            band = low_pass_53(raw, level, tiles if facts.tiles > 1 else None)
            low, high = _range(facts.precision, facts.signed)
            pixels, outside = _clamped(band.clip(low, high), image)[0], 0
        else:
            pixels, outside = _stored(raw, corrected, instance)
        return Mammogram(instance, pixels, level, f"pydicom {plugin}".strip(), outside)


def _full_size(instance: Instance) -> tuple[_IntArray, _IntArray, str]:
    """Pixels as the plugin gives them, as pydicom corrects their sign, and the plugin's name."""
    from pydicom.pixels.utils import pixel_array

    data = _file(instance)
    reasons: list[str] = []
    for plugin in _PLUGINS[compression_of(instance.image.transfer_syntax_uid)]:
        options: dict[str, Any] = {"index": instance.image.frame, "decoding_plugin": plugin, "raw": True}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dataset = _dataset(data, instance)
                corrected = pixel_array(dataset, correct_unused_bits=False, **options)
                return pixel_array(dataset, **_UNCORRECTED, **options), corrected, plugin
        except (AttributeError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            reasons.append(f"{plugin or 'native'}: {type(error).__name__}")
    raise LookupError(f"no independent decoder could decode this ({', '.join(reasons)})")


def _dataset(data: bytes, instance: Instance) -> Any:
    from pydicom import dcmread
    from pydicom.uid import UID

    dataset = dcmread(io.BytesIO(data), force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = UID(instance.image.transfer_syntax_uid)
    return dataset


def _file(instance: Instance) -> bytes:
    from preprocess.dicom import read_bytes

    data = read_bytes(instance.source, instance.file_bytes)
    if hashlib.sha256(data).hexdigest() != instance.file_sha256:
        raise RejectedInput("unreadable", "the file has changed since it was parsed")
    return data


def _range(bits: int, signed: bool) -> tuple[int, int]:
    half = 1 << (bits - 1)
    return (-half, half - 1) if signed else (0, 2 * half - 1)


def _stored(raw: _IntArray, corrected: _IntArray, instance: Instance) -> tuple[StoredPixels, int]:
    """Cut out, give the sign, clamp: where pydicom would wrap what exceeds BitsStored (docs/numerics.md)."""
    image = instance.image
    if image.high_bit != image.bits_stored - 1 or image.has_overlay_in_pixels:
        above = image.bits_allocated - 1 - image.high_bit
        return (raw << above) >> (image.bits_allocated - image.bits_stored), 0
    signed = instance.codestream is not None and instance.codestream.signed
    if not image.pixel_representation or signed:
        return _clamped(raw if signed == bool(image.pixel_representation) else corrected, image)
    # A sign that stops at BitsStored reads as up to twice the range; only beyond that is it an overflow.
    half = 1 << (image.bits_stored - 1)
    numbers = corrected.astype(np.int32)
    return _clamped(np.where((numbers >= half) & (numbers < 2 * half), numbers - 2 * half, numbers), image)


def _clamped(values: _IntArray, image: ImageHeader) -> tuple[StoredPixels, int]:
    low, high = _range(image.bits_stored, bool(image.pixel_representation))
    wide = values.astype(np.int32)
    outside = int(np.count_nonzero((wide < low) | (wide > high)))
    kind = "i" if image.pixel_representation else "u"
    return wide.clip(low, high).astype(f"{kind}{image.bits_allocated // 8}"), outside
