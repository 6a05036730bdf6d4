"""Hostile codestreams end in facts or a reject, soon, and never in anything else."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.codestream import read_facts
from preprocess.errors import RejectedInput
from preprocess.records import Compression
from tests.instances import DATA, needs_data, smooth
from tests.streams import (
    DAMAGE,
    HT,
    J2K,
    JPEG,
    LL,
    LS,
    cod,
    encoded,
    part,
    repaired_or_code,
    siz,
    stream,
)


def code_of(data: bytes, compression: Compression = J2K) -> str:
    with pytest.raises(RejectedInput) as caught:
        read_facts(data, compression)
    return caught.value.code


WHOLE = {c: encoded(c, smooth((40, 33), 12), 12) for c in (J2K, HT, LL, LS, JPEG)}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(WHOLE)), st.data())
def test_changed_bytes_and_cuts_end_in_facts_or_a_reject(
    compression: Compression, data: st.DataObject
) -> None:
    mutant = bytearray(WHOLE[compression])
    header_bytes = min(len(mutant), 200)
    for _ in range(data.draw(st.integers(1, 6))):
        mutant[data.draw(st.integers(2, header_bytes - 1))] = data.draw(st.integers(0, 255))
    payload = bytes(mutant[: data.draw(st.integers(0, len(mutant)))])
    outcome = repaired_or_code(payload, compression)
    assert outcome in DAMAGE or len(outcome) <= len(payload) + 2


@pytest.mark.parametrize(
    "bomb",
    [
        b"\xff\x4f" + siz() + b"\xff\x30" * 2_000_000,
        b"\xff\x4f" + siz() + b"\xff\x64\x00\x02" * 1_000_000,
        b"\x00\x00\x00\x0cjP  \r\n\x87\n" + struct.pack(">I4s", 8, b"free") * 500_000,
        stream(siz(), cod(), parts=part(b"") * 300_000),
    ],
)
def test_endless_markers_are_given_up_before_they_cost_time(bomb: bytes) -> None:
    before = time.process_time()
    assert code_of(bomb) == "codestream_invalid"
    assert time.process_time() - before < 1.5


def test_endless_jpeg_fill_bytes_and_scans_are_given_up_before_they_cost_time() -> None:
    before = time.process_time()
    assert code_of(b"\xff\xd8" + b"\xff" * 5_000_000, LL) == "codestream_invalid"
    start = encoded(LL, smooth((8, 8), 8), 8)[:-2]
    scan = start[start.index(b"\xff\xda") :][:10]
    assert code_of(start + scan * 100_000, LL) == "codestream_invalid"
    assert time.process_time() - before < 1.5


@needs_data
@pytest.mark.parametrize("path", sorted((DATA / "bad_j2k").glob("*")), ids=lambda path: path.name[-40:])
def test_a_malformed_codestream_ends_in_facts_or_a_reject(path: Path) -> None:
    payload = path.read_bytes()
    for compression in (J2K, HT, LL, LS):
        outcome = repaired_or_code(payload, compression)
        assert outcome in DAMAGE or len(outcome) <= len(payload) + 2
