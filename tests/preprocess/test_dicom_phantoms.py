"""Files of every transfer syntax that the phantoms are written in."""

from __future__ import annotations

import numpy as np
import pytest

from bench.phantom_dicom import SYNTAXES, DicomSpec, dicom_bytes, encode
from preprocess import codestream
from preprocess.records import Compression
from tests.preprocess.dicom_maker import parsed

PIXELS = (np.arange(64 * 48, dtype=np.uint16).reshape(64, 48) * 17) % 4096
NATIVE = {"implicit", "explicit", "big-endian", "deflated"}


@pytest.mark.parametrize("name", sorted(SYNTAXES))
@pytest.mark.parametrize("fragments", [1, 3])
def test_the_frame_is_what_was_written(tmp_path, name, fragments):
    pixels = (PIXELS >> 4).astype(np.uint8) if name == "jpeg-baseline" else PIXELS
    spec = DicomSpec(
        transfer_syntax_uid=SYNTAXES[name],
        bits_stored=8 if pixels.dtype == np.uint8 else 12,
        windows=(("2048", "4096"), ("100.5", "7")),
        voi_lut_function="SIGMOID",
        padding_value=0,
        fragments=1 if name in NATIVE else fragments,
    )
    payload = encode(pixels, spec)
    instance = parsed(tmp_path, dicom_bytes(pixels, spec, payload))
    assert instance.payload.removesuffix(b"\0") == payload.removesuffix(b"\0")
    assert instance.image.transfer_syntax_uid == SYNTAXES[name]
    assert (instance.image.rows, instance.image.columns) == (64, 48)
    assert len(instance.voi.windows) == 2
    plain = codestream.compression_of(SYNTAXES[name]) in (Compression.NATIVE, Compression.RLE)
    assert (instance.codestream is None) is plain
