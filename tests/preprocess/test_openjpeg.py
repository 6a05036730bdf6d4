"""The OpenJPEG binding: sizes, exactness, errors told in words, nothing leaked or printed."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from preprocess import openjpeg
from preprocess.codestream import level_size, read_facts, repair
from preprocess.errors import RejectedInput
from preprocess.records import Compression
from tests.instances import DATA, needs_data, smooth


def encode(pixels: np.ndarray, bits: int = 12, **options: object) -> bytes:
    return imagecodecs.jpeg2k_encode(
        pixels, level=0, codecformat="j2k", bitspersample=bits, reversible=True, **options
    )


def reject(codestream: bytes, level: int = 0) -> RejectedInput:
    with pytest.raises(RejectedInput) as caught:
        openjpeg.decode(codestream, level)
    return caught.value


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3), (347, 261), (64, 64)])
def test_every_level_has_the_standards_size(shape: tuple[int, int]) -> None:
    data = encode(smooth(shape, 12))
    facts = read_facts(data, Compression.JPEG_2000)
    for level in range(facts.levels + 1):
        assert openjpeg.decode(data, level).shape == level_size(*shape, level)


def test_an_rsna_shaped_file_has_the_right_size_where_rounding_would_not() -> None:
    pixels = smooth((2776 // 8, 2082 // 2), 12)  # 1041 columns: level 3 is 131, rounded it would be 130
    data = encode(pixels, bits=16)
    assert openjpeg.decode(data, 3).shape == (44, 131)
    assert np.array_equal(openjpeg.decode(data), pixels)


@pytest.mark.parametrize("bits", [2, 8, 9, 12, 15, 16])
def test_unsigned_streams_of_any_precision_are_exact(bits: int) -> None:
    pixels = smooth((41, 52), bits)
    assert np.array_equal(openjpeg.decode(encode(pixels.astype(np.uint16), bits)), pixels)


def test_the_library_is_openjpeg_2_5_or_later() -> None:
    assert tuple(int(part) for part in openjpeg.version().split(".")[:2]) >= (2, 5)


def test_a_cut_stream_is_refused_even_if_it_pretends_to_be_whole() -> None:
    data = encode(smooth((120, 90), 12))
    start = data.index(b"\xff\x90\x00\x0a")
    for cut in (start + 40, len(data) // 2, len(data) - 30):
        length = (cut - start).to_bytes(4)
        pretended = data[: start + 6] + length + data[start + 10 : cut] + b"\xff\xd9"
        assert reject(pretended).code == "decode_failed"
        assert reject(data[:cut]).code == "decode_failed"


def test_a_failure_is_told_in_openjpegs_words() -> None:
    assert "OpenJPEG: " in str(reject(b"\xff\x4f\xff\x51nonsense"))
    data = encode(smooth((16, 16), 12))
    assert reject(data, level=9).code == "decode_failed"
    assert reject(b"").code == "decode_failed"


def test_a_claim_of_too_many_pixels_is_refused_before_allocation() -> None:
    data = bytearray(encode(smooth((16, 16), 12)))
    for offset in (8, 12, 24, 28):
        data[offset : offset + 4] = (30_000).to_bytes(4)
    assert reject(bytes(data)).code == "too_many_pixels"


def test_colour_is_refused() -> None:
    assert reject(encode(np.zeros((16, 16, 3), np.uint8), 8)).code == "unsupported_codestream"


def test_nothing_is_printed_and_nothing_leaks_over_many_good_and_bad_decodes() -> None:
    script = """
import resource, sys
import imagecodecs, numpy as np
from preprocess import openjpeg
from preprocess.errors import RejectedInput
data = imagecodecs.jpeg2k_encode(
    np.random.default_rng(0).integers(0, 4096, (256, 256)).astype(np.uint16),
    level=0, codecformat="j2k", bitspersample=12, reversible=True)
def turn():
    openjpeg.decode(data, 1)
    for bad in (data[: len(data) // 2], data[:60], b"x"):
        try:
            openjpeg.decode(bad)
        except RejectedInput:
            pass
for _ in range(10):
    turn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(120):
    turn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert int(done.stdout) < 4_000  # KiB: one leaked image a turn would be 120 x 65 KiB


def test_threads_decode_side_by_side() -> None:
    images = [smooth((90, 80), 12, seed) for seed in range(4)]
    streams = [encode(image) for image in images]
    results: list[bool] = []

    def work(index: int) -> None:
        results.append(all(np.array_equal(openjpeg.decode(streams[index]), images[index]) for _ in range(5)))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4


def read_pgx(path: Path) -> np.ndarray:
    """PGX, the conformance suite's format: `PG ML + 8 128 128`, then big-endian samples."""
    head, _, body = path.read_bytes().partition(b"\n")
    _, order, sign, depth, columns, rows = head.replace(b"+", b"+ ").replace(b"-", b"- ").split()
    kind = f"{'>' if order == b'ML' else '<'}{'i' if sign == b'-' else 'u'}{1 if int(depth) <= 8 else 2}"
    return np.frombuffer(body, dtype=kind).reshape(int(rows), int(columns))


@needs_data
@pytest.mark.parametrize("name", ["p0_01", "p0_03", "p0_12", "p1_01"])
def test_conformance_streams_of_one_component_decode_as_t803_says(name: str) -> None:
    data = (DATA / "conformance" / f"{name}.j2k").read_bytes()
    facts = read_facts(data, Compression.JPEG_2000)
    decoded = openjpeg.decode(repair(data, facts))
    reference = read_pgx(DATA / "conformance" / "ref" / f"c1{name}_0.pgx")
    assert decoded.shape == (facts.rows, facts.columns)
    assert np.abs(decoded - reference.astype(int)).max() <= (0 if facts.lossless else 4)


@needs_data
def test_malformed_codestreams_neither_crash_nor_hang_the_library() -> None:
    script = """
import resource, sys
from pathlib import Path
from preprocess import openjpeg
from preprocess.codestream import read_facts, repair
from preprocess.errors import RejectedInput
from preprocess.records import Compression
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
for path in sorted(Path(sys.argv[1]).glob("*")):
    payload = path.read_bytes()
    try:
        facts = read_facts(payload, Compression.JPEG_2000)
        pixels = openjpeg.decode(repair(payload, facts))
        assert pixels.shape == (facts.rows, facts.columns)
        print("decoded", path.name)
    except RejectedInput as reject:
        print(reject.code, path.name)
"""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", script, str(DATA / "bad_j2k")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == len(list((DATA / "bad_j2k").glob("*")))
