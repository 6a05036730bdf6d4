"""Our JPEG 2000 decoder: OpenJPEG's pixels at every level, or None; never pixels of what OpenJPEG refuses."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess import jpeg2000, openjpeg
from preprocess.codestream import level_size, read_facts, repair
from preprocess.errors import RejectedInput
from preprocess.jpeg2000 import code_blocks, decoder, headers, mq
from preprocess.jpeg2000.mq import FIRST_BITS, FIRST_SHIFT, HALF, decided, guessed
from preprocess.jpeg2000.synthesis import synthesised
from preprocess.records import Compression
from preprocess.wavelet import low_pass_53
from tests.instances import DATA, needs_data, smooth
from tests.streams import pillow_j2k as encode

J2K = Compression.JPEG_2000
BLOCKS = [(64, 64), (32, 32), (4, 1024), (1024, 4), (8, 16), (4, 4), (128, 32)]


def picture(rows: int, columns: int, bits: int, noise: float, holes: float, seed: int) -> np.ndarray:
    """A smooth picture with noise, and zeros in a share of it."""
    rng = np.random.default_rng(seed)
    top = (1 << bits) - 1
    values = smooth((rows, columns), bits) + rng.normal(0, noise * top, (rows, columns))
    values[rng.random((rows, columns)) < holes] = 0
    values[:, columns // 2 :] *= seed % 3 > 0
    return np.clip(np.rint(values), 0, top).astype(np.uint16 if bits > 8 else np.uint8)


def both(stream: bytes, level: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Ours, and OpenJPEG's: None where it refuses."""
    ours = jpeg2000.decode(stream, read_facts(stream, J2K), level)
    try:
        return ours, openjpeg.decode(stream, level, lossless=True)
    except RejectedInput:
        return ours, None


@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    bits=st.integers(1, 16),
    noise=st.sampled_from([0.0, 0.001, 0.02, 1.0]),
    holes=st.sampled_from([0.0, 0.5, 0.99]),
    seed=st.integers(0, 999),
    progression=st.sampled_from(["LRCP", "RLCP", "RPCL", "PCRL", "CPRL"]),
    block=st.sampled_from(BLOCKS),
    precinct=st.sampled_from([None, None, (64, 128), (128, 128)]),
    signed=st.booleans(),
    resolutions=st.integers(1, 6),
)
def test_the_same_pixels_as_openjpeg(
    shape: tuple[int, int],
    bits: int,
    noise: float,
    holes: float,
    seed: int,
    progression: str,
    block: tuple[int, int],
    precinct: tuple[int, int] | None,
    signed: bool,
    resolutions: int,
) -> None:
    pixels = picture(*shape, bits, noise, holes, seed)
    options: dict[str, object] = {"precinct_size": precinct} if precinct else {}
    if signed and bits > 8:
        options["signed"] = True
    if seed % 4 == 0:
        options["plt"] = True
    resolutions = min(resolutions, min(shape).bit_length())
    stream = encode(
        pixels, progression=progression, codeblock_size=block, num_resolutions=resolutions, **options
    )
    levels = read_facts(stream, J2K).levels
    for level in range(levels + 1):
        ours, theirs = both(stream, level)
        assert theirs is not None
        if ours is None:
            assert progression in ("PCRL", "CPRL")
            assert precinct
            continue
        assert ours.dtype == (np.int32 if options.get("signed") else np.uint16)
        assert ours.shape == level_size(*shape, level)
        np.testing.assert_array_equal(ours, theirs)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    signed=st.booleans(),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_going_on_from_a_coarser_level_changes_nothing(
    shape: tuple[int, int], signed: bool, seed: int, data: st.DataObject
) -> None:
    options = {"signed": True} if signed else {}
    stream = encode(picture(*shape, 12, 0.5, 0.0, seed), **options)
    facts = read_facts(stream, J2K)
    levels = data.draw(st.lists(st.integers(0, facts.levels), min_size=2, max_size=4))
    low, before = None, None
    for level in levels:
        decoded = jpeg2000.decode_from(low, stream, facts, level)
        assert decoded is not None
        np.testing.assert_array_equal(decoded[0], openjpeg.decode(stream, level, lossless=True))
        if before is not None and low is not None:
            np.testing.assert_array_equal(low.samples, before, "what it goes on from was changed")
        low = decoded[1]
        before = None if low is None else low.samples.copy()


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_overshoot_is_clamped_to_siz_at_every_level(bits: int) -> None:
    """A checkerboard of extremes, whose low-pass band leaves the range."""
    rng = np.random.default_rng(bits)
    pixels = (rng.integers(0, 2, (120, 90)) * ((1 << bits) - 1)).astype(np.uint16 if bits > 8 else np.uint8)
    stream = encode(pixels, num_resolutions=4)
    precision = read_facts(stream, J2K).precision
    clamped = 0
    for level in range(4):
        band = low_pass_53(pixels, level)
        ours, theirs = both(stream, level)
        clamped += int(np.count_nonzero((band < 0) | (band >= 1 << precision)))
        np.testing.assert_array_equal(ours, np.clip(band, 0, (1 << precision) - 1))
        np.testing.assert_array_equal(ours, theirs)
    assert clamped, "nothing left the range"


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_damage_is_seen_or_changes_what_openjpeg_sees(data: st.DataObject) -> None:
    """Never pixels of a stream that OpenJPEG refuses, never others than it gives."""
    seed = data.draw(st.integers(0, 20))
    pixels = picture(70, 50, 12, 0.01, 0.0, seed)
    stream = bytearray(encode(pixels, progression=data.draw(st.sampled_from(["LRCP", "RPCL"]))))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(stream) - 1))
        stream[place] = data.draw(st.sampled_from([0, 0xFF, 0x90, stream[place] ^ 1, stream[place] ^ 0x80]))
    try:
        facts = read_facts(bytes(stream), J2K)
        repaired = repair(bytes(stream), facts)
    except RejectedInput:
        return
    if not facts.complete or facts.rows * facts.columns > 200_000:
        return
    for level in range(min(facts.levels, 3) + 1):
        ours = jpeg2000.decode(repaired, facts, level)
        if ours is not None:
            np.testing.assert_array_equal(ours, openjpeg.decode(repaired, level, lossless=True))


def test_a_changed_bit_of_a_code_block_is_noticed() -> None:
    stream = encode(picture(256, 256, 12, 0.02, 0.0, 1))
    facts = read_facts(stream, J2K)
    assert jpeg2000.decode(stream, facts) is not None
    rng = np.random.default_rng(5)
    noticed = 0
    for place in rng.integers(len(stream) // 2, len(stream) - 2, 60):
        damaged = bytearray(stream)
        damaged[place] ^= 1 << int(rng.integers(8))
        noticed += jpeg2000.decode(bytes(damaged), facts) is None
    assert noticed >= 57


@pytest.mark.parametrize(
    "options",
    [
        {"quality_mode": "rates", "quality_layers": [20, 5, 1]},
        {"tile_size": (64, 64)},
        {"irreversible": True},
    ],
    ids=["layers", "tiles", "9/7"],
)
def test_other_kinds_of_streams_are_openjpegs(options: dict[str, object]) -> None:
    stream = encode(picture(150, 130, 12, 0.01, 0.0, 1), **options)
    assert jpeg2000.decode(stream, read_facts(stream, J2K)) is None
    assert openjpeg.decode(stream).shape == (150, 130)


def test_what_the_facts_say_is_enough_to_leave_a_stream_alone() -> None:
    stream = encode(picture(64, 64, 12, 0.0, 0.0, 1))
    facts = read_facts(stream, J2K)
    assert jpeg2000.decode(stream, facts) is not None
    for other in (
        {"offset": True}, {"subsampled": True}, {"has_roi": True}, {"lossless": False}, {"components": 3},
        {"complete": False}, {"compression": Compression.HTJ2K}, {"precision": 17},
    ):  # fmt: skip
        assert jpeg2000.decode(stream, replace(facts, **other)) is None, other


@pytest.mark.parametrize(
    ("offset", "value"),
    [(10, 9), (11, 9), (10, 15), (11, 255), (9, 33), (12, 0x40), (12, 0x01), (12, 0x04), (12, 0x20)],
)
def test_what_no_code_block_may_be_is_not_begun(offset: int, value: int) -> None:
    """Sizes beyond 4,096 samples or 1,024 a side would not fit their room; other styles change the coding."""
    stream = bytearray(encode(picture(64, 64, 12, 0.1, 0.0, 1)))
    at = stream.find(b"\xff\x52")
    before = jpeg2000.decode(bytes(stream), read_facts(bytes(stream), J2K))
    assert before is not None
    facts = read_facts(bytes(stream), J2K)
    stream[at + offset] = value
    assert jpeg2000.decode(bytes(stream), facts) is None


@pytest.mark.parametrize("side", [60_000, 9_000], ids=["not begun", "ends at the packets"])
def test_a_stream_that_claims_more_than_it_holds(side: int) -> None:
    stream = bytearray(encode(picture(64, 64, 12, 0.0, 0.0, 1)))
    at = stream.find(b"\xff\x51")
    struct.pack_into(">2I", stream, at + 6, side, side)
    struct.pack_into(">2I", stream, at + 22, side, side)
    assert jpeg2000.decode(bytes(stream), read_facts(bytes(stream), J2K)) is None


@pytest.mark.parametrize("planes", [1, 2, 5, 9])
def test_planes_that_are_missing_are_taken_in_the_middle(planes: int) -> None:
    """The same code-block with fewer passes: |value| is known to a multiple of 2^p, half of that is added."""
    stream = encode(picture(40, 40, 12, 0.05, 0.0, 2), num_resolutions=1)
    opened = decoder._opened(stream, read_facts(stream, J2K))
    assert opened is not None
    layout = decoder._layout(opened.style, opened.planes, 0, 0)
    assert layout is not None
    data = opened.packets
    table = headers.read_table(data, layout.bands, layout.grids, layout.blocks, sop=False, eph=False)
    assert table is not None
    assert len(table) == 1
    values = np.zeros(layout.samples, np.int32)
    assert code_blocks.decode_blocks(data, table, values)
    row = table[0]
    missing = int(row[code_blocks.PLANES]) - planes
    assert missing > 0
    words = np.empty(8192, np.uint32)
    last, _, _ = mq.unstuffed(data, row[code_blocks.START], row[code_blocks.LENGTH], words)
    maps, magnitudes = np.empty((5, 300), np.uint64), np.empty(16_000, np.uint32)
    code_blocks._decode_block(
        words, last, 40, 40, row[code_blocks.PLANES], 3 * planes - 2,
        maps, np.empty(16_000, np.uint16), magnitudes, mq.INITIAL.copy(), np.uint64(0),
    )  # fmt: skip
    partly = np.zeros_like(values)
    code_blocks._place(magnitudes, 40, 40, partly, 0, 40)
    known = np.abs(values) >> missing
    middle = np.where(known > 0, (known << missing) + (1 << missing >> 1), 0)
    np.testing.assert_array_equal(partly, np.sign(values) * middle)


@settings(max_examples=80, deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40), seed=st.integers(0, 99))
def test_synthesis_undoes_the_forward_transform(rows: int, columns: int, seed: int) -> None:
    """Bands by T.800's formulas (wavelet.py's low-pass; details from their definition), merged again."""
    x = np.random.default_rng(seed).integers(-5000, 5000, (rows, columns)).astype(np.int32)
    low_rows, high_rows = split(x)
    bands = [np.ascontiguousarray(band.T) for half in (low_rows, high_rows) for band in split(half.T)]
    ll, hl, lh, hh = bands
    np.testing.assert_array_equal(ll, low_pass_53(x, 1))
    out = np.empty_like(x)
    synthesised(ll, hl, lh, hh, -(1 << 31), (1 << 31) - 1, out)
    np.testing.assert_array_equal(out, x)


def split(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) along the first axis (T.800 F.4.8.1)."""
    if len(x) == 1:
        return x, x[:0]

    def at(values: np.ndarray, index: int) -> np.ndarray:
        size = len(x)
        mirrored = abs(index) if index < size else 2 * (size - 1) - index
        return values[mirrored]

    high = {n: at(x, n) - ((at(x, n - 1) + at(x, n + 1)) >> 1) for n in range(1, len(x), 2)}

    def detail(index: int) -> np.ndarray:
        mirrored = abs(index) if index < len(x) else 2 * (len(x) - 1) - index
        return high[mirrored]

    low = [x[n] + ((detail(n - 1) + detail(n + 1) + 2) >> 2) for n in range(0, len(x), 2)]
    return np.array(low), np.array([high[n] for n in sorted(high)], x.dtype).reshape(len(high), x.shape[1])


@needs_data
@pytest.mark.parametrize(
    "name",
    [
        "conformance/p0_01.j2k",
        "j2k_cs/opj_cthead1.j2k",
    ],
)
def test_conformance_streams_are_decoded_here(name: str) -> None:
    stream = (DATA / name).read_bytes()
    for level in range(read_facts(stream, J2K).levels + 1):
        ours, theirs = both(stream, level)
        assert ours is not None
        np.testing.assert_array_equal(ours, theirs)


@needs_data
@pytest.mark.parametrize(
    "name", ["conformance/p0_12.j2k", "j2k_cs/opj_test_lossless.j2k", "j2k_cs/xray14_a.j2k"]
)
def test_streams_that_end_otherwise_are_left_alone(name: str) -> None:
    stream = (DATA / name).read_bytes()
    assert jpeg2000.decode(stream, read_facts(stream, J2K)) is None


@numba.njit
def decide(words: np.ndarray, last: int, state: int, code: int, out: np.ndarray) -> None:
    """As many decisions as `out` has room for, all in one context."""
    a, c, bits, word = HALF, code << FIRST_SHIFT, np.int64(FIRST_BITS), np.uint64(1)
    for at in range(out.size):
        out[at], state, a, c, bits, word = decided(state, words, last, a, c, bits, word)


@numba.njit
def guess(words: np.ndarray, last: int, state: int, code: int, out: np.ndarray) -> None:
    a, c, bits, word = HALF, code << FIRST_SHIFT, np.int64(FIRST_BITS), np.uint64(1)
    for at in range(out.size):
        out[at], state, a, c, bits, word = guessed(state, words, last, a, c, bits, word)


@pytest.mark.parametrize("decode", [decide, guess])
def test_the_standards_own_example_of_the_arithmetic_decoder(decode: Callable[..., None]) -> None:
    """ITU-T T.88 H.2: 256 decisions in one context."""
    coded = bytes.fromhex("84C73BFCE1A1430402200000410DBB86F4317FFF88FF37471ADB6ADFFFAC")
    plain = bytes.fromhex("00020051000000C00352872AAAAAAAAA82C02000FCD79EF6BF7FED904F46A3BF")
    words = np.empty(32, np.uint32)
    last, _, _ = mq.unstuffed(np.frombuffer(coded, np.uint8), 0, len(coded) - 2, words)
    decisions = np.empty(256, np.uint8)
    decode(words, np.uint64(last), mq._initial()[1], np.uint64(words[0]), decisions)
    assert np.packbits(decisions).tobytes() == plain


def test_no_byte_of_a_marker_is_taken_for_data() -> None:
    data = np.frombuffer(b"\x12\xff\x90\x34", np.uint8)
    assert mq.unstuffed(data, 0, 4, np.empty(16, np.uint32)) == (-1, 0, 0)
