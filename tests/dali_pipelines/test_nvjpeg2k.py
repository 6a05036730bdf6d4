"""nvJPEG2000's interface: what works without a driver with the real library, the rest with a double of it."""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from dali_pipelines import nvjpeg2k
from dali_pipelines.engines import Encoded
from dali_pipelines.levels import LevelEngine
from dali_pipelines.proof import encode, expected, jobs, vector
from preprocess import openjpeg
from preprocess.codestream import level_size
from preprocess.records import Compression
from tests.instances import needs_data

pytest.importorskip("nvidia.nvjpeg2k", reason="the wheel is for Linux on x86-64")


@pytest.fixture(scope="module")
def library() -> nvjpeg2k.Library:
    return nvjpeg2k.load()


def header() -> str:
    return (nvjpeg2k.library_path().parents[1] / "include" / "nvjpeg2k.h").read_text(encoding="utf-8")


def test_every_function_is_in_the_library_and_has_as_many_arguments_as_in_its_header(
    library: nvjpeg2k.Library,
) -> None:
    text = re.sub(r"/\*.*?\*/", "", header(), flags=re.DOTALL)
    for name, arguments in nvjpeg2k.SIGNATURES.items():
        assert getattr(library, name)
        declared = re.search(rf"\b{name}\s*\(([^)]*)\)", text)
        assert declared is not None
        assert len(declared[1].split(",")) == len(arguments)


def test_structures_are_as_large_as_a_compiler_makes_them(tmp_path: Path) -> None:
    import shutil
    import subprocess

    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    source = tmp_path / "sizes.c"
    source.write_text(
        "#define _NVJPEG2K_DISABLE_CUDA_TOOLKIT_HEADERS\n"
        '#include <stdio.h>\n#include <stddef.h>\n#include "nvjpeg2k.h"\n'
        'int main(void) { printf("%zu %zu %zu %zu %zu %d", sizeof(nvjpeg2kImageInfo_t),'
        " sizeof(nvjpeg2kImageComponentInfo_t), sizeof(nvjpeg2kImage_t),"
        " offsetof(nvjpeg2kImage_t, pixel_type),"
        " offsetof(nvjpeg2kImage_t, num_components), NVJPEG2K_UINT16); }\n"
    )
    include = nvjpeg2k.library_path().parents[1] / "include"
    subprocess.run([compiler, f"-I{include}", str(source), "-o", str(tmp_path / "sizes")], check=True)
    done = subprocess.run([str(tmp_path / "sizes")], capture_output=True, text=True, check=True)
    ours = [ctypes.sizeof(kind) for kind in (nvjpeg2k.ImageInfo, nvjpeg2k.ComponentInfo, nvjpeg2k.Image)]
    ours += [nvjpeg2k.Image.pixel_type.offset, nvjpeg2k.Image.num_components.offset, nvjpeg2k.UINT16]
    assert [int(word) for word in done.stdout.split()] == ours


def test_the_version_is_asked_of_the_library(library: nvjpeg2k.Library) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", nvjpeg2k.version(library))


@pytest.mark.parametrize("compression", [Compression.JPEG_2000, Compression.HTJ2K])
@pytest.mark.parametrize("precision", [9, 12, 16])
def test_the_library_reads_sizes_levels_and_precision_as_we_do(
    library: nvjpeg2k.Library, compression: Compression, precision: int
) -> None:
    stream = nvjpeg2k.Stream(nvjpeg2k.Handle(library))
    parsed = stream.parse(encode(compression, precision))
    assert (parsed.precision, parsed.signed, parsed.components) == (precision, False, 1)
    assert (parsed.tiles, parsed.resolutions) == (1, 6)
    for level in range(6):
        assert stream.level_size(parsed, level) == level_size(parsed.rows, parsed.columns, level)
    stream.close()
    stream.close()  # once is enough


@needs_data
def test_the_library_reads_real_files_as_we_do(library: nvjpeg2k.Library, real_data: Path) -> None:
    from preprocess.codestream import repair
    from tests.instances import instance_of

    stream = nvjpeg2k.Stream(nvjpeg2k.Handle(library))
    checked = 0
    for path in [*(real_data / "xr").glob("*.dcm"), *(real_data / "j2k").glob("*.dcm")]:
        image = instance_of(path)
        facts = image.codestream
        if facts is None or facts.components != 1 or facts.tiles != 1:
            continue
        if facts.compression is not Compression.JPEG_2000:
            continue
        parsed = stream.parse(repair(image.payload, facts))
        assert (parsed.rows, parsed.columns, parsed.precision) == (facts.rows, facts.columns, facts.precision)
        assert parsed.resolutions == facts.levels + 1
        checked += 1
    assert checked >= 5


def test_a_refusal_is_told_with_its_name(library: nvjpeg2k.Library) -> None:
    with pytest.raises(nvjpeg2k.Nvjpeg2kError, match="BAD_JPEG"):
        nvjpeg2k.Stream(nvjpeg2k.Handle(library)).parse(b"\xff\x4f\xff\x51" + bytes(50))


class Double:
    """The real library, but for what needs a device: states are numbers, tiles are decoded by OpenJPEG.

    `DecodeTile` writes through the address and pitch that it is given, as the library does.
    """

    def __init__(self, library: nvjpeg2k.Library, fail: int = 0) -> None:
        self._library = library
        self.fail = fail
        self.streams: dict[int, bytes] = {}
        self.calls: list[tuple[int, int]] = []
        self.states: set[int] = set()
        self._made = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._library, name)

    def nvjpeg2kDecodeStateCreate(self, handle: ctypes.c_void_p, state: object) -> int:
        assert handle.value
        self._made += 1
        self.states.add(self._made)
        state._obj.value = self._made  # type: ignore[attr-defined]
        return 0

    def nvjpeg2kDecodeStateDestroy(self, state: ctypes.c_void_p) -> int:
        self.states.remove(state.value or 0)
        return 0

    def nvjpeg2kStreamParse(self, handle: object, data: bytes, length: int, *rest: object) -> int:
        assert length == len(data)
        status = self._library.nvjpeg2kStreamParse(handle, data, length, *rest)
        self.streams[rest[-1].value] = data  # type: ignore[attr-defined]
        return int(status)

    def nvjpeg2kDecodeTile(
        self, handle: object, state: object, stream: ctypes.c_void_p, params: ctypes.c_void_p,
        tile: int, resolutions: int, output: object, cuda_stream: int,
    ) -> int:  # fmt: skip
        if self.fail:
            return self.fail
        image = output._obj  # type: ignore[attr-defined]
        assert (tile, image.pixel_type, image.num_components) == (0, nvjpeg2k.UINT16, 1)
        assert params.value
        level = 6 - resolutions
        pixels = openjpeg.decode(self.streams[stream.value or 0], level, lossless=True).astype(np.uint16)
        self.calls.append((level, cuda_stream))
        for row, values in enumerate(pixels):
            address = image.pixel_data[0] + row * image.pitch_in_bytes[0]
            ctypes.memmove(address, values.tobytes(), values.nbytes)
        return 0


class Stream:
    def __init__(self, number: int) -> None:
        self.ptr, self.waits = number, 0

    def synchronize(self) -> None:
        self.waits += 1


class HostMemory:
    """NumPy in the device's place."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []

    def new_stream(self) -> Stream:
        self.streams.append(Stream(len(self.streams) + 100))
        return self.streams[-1]

    def current(self, stream: object) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()

    def empty(self, rows: int, columns: int) -> np.ndarray:
        return np.full((rows, columns), 12345, np.uint16)

    def address(self, array: np.ndarray) -> int:
        return array.ctypes.data


@pytest.fixture
def double(library: nvjpeg2k.Library) -> Double:
    return Double(library)


@pytest.fixture
def engine(double: Double) -> Iterator[LevelEngine]:
    engine = LevelEngine(HostMemory(), 3, library=double)
    yield engine
    engine.close()
    assert not double.states


@pytest.mark.parametrize("compression", [Compression.JPEG_2000, Compression.HTJ2K])
def test_the_engine_asks_for_the_right_level_at_the_right_place(
    engine: LevelEngine, double: Double, compression: Compression
) -> None:
    asked = [job for precision in (9, 12, 16) for job in jobs(compression, precision, range(6))]
    for job, pixels in zip(asked, engine.decode(asked), strict=True):
        assert np.array_equal(pixels, expected(vector(job.precision), job.precision, job.level))
    assert sorted(level for level, _ in double.calls) == sorted(list(range(6)) * 3)
    assert {stream for _, stream in double.calls} <= {100, 101, 102}


def test_the_engine_leaves_alone_what_is_not_as_it_was_told(engine: LevelEngine) -> None:
    (good,) = jobs(Compression.JPEG_2000, 12, [1])
    other_size = Encoded(good.codestream, good.compression, 12, 1, good.rows + 1, good.columns)
    other_precision = Encoded(good.codestream, good.compression, 10, 1, good.rows, good.columns)
    too_deep = Encoded(good.codestream, good.compression, 12, 6, 6, 5)
    no_stream = Encoded(b"nothing", good.compression, 12, 1, good.rows, good.columns)
    results = engine.decode([other_size, good, other_precision, too_deep, no_stream])
    assert [result is None for result in results] == [True, False, True, True, True]


def test_a_failure_of_the_library_costs_only_its_image_and_slots_are_not_lost(
    engine: LevelEngine, double: Double
) -> None:
    (good,) = jobs(Compression.JPEG_2000, 12, [2])
    double.fail = 6
    assert engine.decode([good] * 7) == [None] * 7
    double.fail = 0
    engine.reset()
    assert all(result is not None for result in engine.decode([good] * 7))


@pytest.mark.parametrize("bits", [8])
def test_a_session_refuses_what_it_does_not_decode(double: Double, bits: int) -> None:
    pixels = np.zeros((40, 30), np.uint8)
    data = bytes(imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", reversible=True))
    with nvjpeg2k.Session(nvjpeg2k.Handle(double)) as session:
        parsed = session.parse(data)
        assert parsed.precision == bits
        with pytest.raises(ValueError, match="9 to 16 bits"):
            session.decode(parsed, 0, 1, 60, 0)
