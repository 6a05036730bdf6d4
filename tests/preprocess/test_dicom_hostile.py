"""Mutants of real files: an Instance or a documented code, the same from scan, quietly and soon."""

from __future__ import annotations

import logging
import threading
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import config as pydicom_config
from pydicom.data import get_testdata_file

from preprocess import dicom
from preprocess._attributes import quiet
from preprocess.config import Frames, ResultConfig
from preprocess.errors import REJECT_CODES
from preprocess.records import SourceFile, Stage
from tests.preprocess.dicom_maker import code_of, image_file, parsed, sq, text

NAMES = ["MR_small_implicit.dcm", "MR_small_bigendian.dcm", "MR_small_jp2klossless.dcm", "nested_priv_SQ.dcm",
         "image_dfl.dcm", "MR_small_RLE.dcm", "reportsi.dcm", "UN_sequence.dcm"]  # fmt: skip
FILES = [Path(str(get_testdata_file(name, download=False))).read_bytes() for name in NAMES]
SOURCE = SourceFile("x.dcm", "x.dcm")
NASTY = [
    b"",
    b"\0" * 4,
    b"\xff" * 4,
    b"\xfe\xff\x00\xe0",
    b"\xfe\xff\xdd\xe0",
    b"SQ\0\0\xff\xff\xff\xff",
    b"UN",
]
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=4) | st.sampled_from(NASTY)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(FILES), EDITS, st.sampled_from(list(Frames)), st.sampled_from([1024, 4096, 1 << 16]))
def test_no_mutant_escapes(monkeypatch, data, edits, frames, prefix):
    mutant = bytearray(data)
    for place, removed, inserted in edits:
        position = int(place**3 * len(mutant))  # headers come first: most edits hit them
        mutant[position : position + removed] = inserted
    content = bytes(mutant)
    monkeypatch.setattr(dicom, "read_bytes", lambda source, limit: content)
    monkeypatch.setattr(dicom, "read_prefix", lambda source, limit, wanted: (content[:wanted], len(content)))
    monkeypatch.setattr(dicom, "_PREFIX_BYTES", prefix)
    config = ResultConfig(frames=frames, max_inflate_bytes=5_000_000)
    late, early = code_of(dicom.parse, SOURCE, config), code_of(dicom.scan, SOURCE, config)
    frame_fault = late is not None and (
        late in ("invalid_encapsulation", "pixel_data_length") or REJECT_CODES[late].stage is Stage.DECODE
    )
    assert early == late or (early is None and frame_fault)


BROKEN_VOI = ("SQ", b"\xfe\xff\x00\xe0\x10\x00\x00\x00" + b"\x28\x00\x02\x30US\xff\xff" + b"\1" * 8)


def test_pydicom_neither_warns_nor_logs_nor_keeps_our_settings(tmp_path, caplog):
    mode = pydicom_config.settings.reading_validation_mode
    filters = list(warnings.filters)
    data = image_file({0x00080005: text("CS", "NO_SUCH_SET"), 0x00080070: text("LO", "Maker"),
                       0x00283010: BROKEN_VOI})  # fmt: skip
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG, "pydicom"):
        warnings.simplefilter("always")
        assert parsed(tmp_path, data).image.manufacturer == "Maker"
    assert not caught
    assert not caplog.records
    assert pydicom_config.settings.reading_validation_mode == mode
    assert list(warnings.filters) == filters
    assert logging.getLogger("pydicom").disabled is False


def test_the_last_of_several_threads_restores_pydicoms_settings():
    mode = pydicom_config.settings.reading_validation_mode
    filters = list(warnings.filters)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with quiet():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(10)
    with quiet():
        leave.set()
        thread.join()
        assert pydicom_config.settings.reading_validation_mode == pydicom_config.IGNORE
    assert pydicom_config.settings.reading_validation_mode == mode
    assert list(warnings.filters) == filters


@pytest.mark.parametrize("tag", [0x52009229, 0x52009230, 0x00283000, 0x00283010, 0x00540220])
def test_text_where_a_sequence_belongs_is_no_sequence(tmp_path, tag):
    assert parsed(tmp_path, image_file({tag: text("LO", "not a sequence")})).image.rows == 4


def test_a_deep_item_of_a_sequence_that_is_used_is_refused(tmp_path):
    inner = sq({0x00281050: text("DS", "1")})
    for _ in range(40):
        inner = sq({0x00283010: inner})
    config = ResultConfig()
    path = tmp_path / "x.dcm"
    path.write_bytes(image_file({0x00283010: inner}))
    assert code_of(dicom.parse, SourceFile("x.dcm", str(path)), config) == "sequence_too_deep"
