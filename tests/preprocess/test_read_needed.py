"""--read needed: the part of a file that a wavelet level needs gives the pixels that the whole file gives."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
from click.testing import CliRunner
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.phantom import PhantomSpec, generate
from bench.reading import bytes_read
from preprocess import _packets, _tile, dicom, openjpeg, pipeline
from preprocess.cli import main
from preprocess.codestream import read_facts
from preprocess.config import Read, ResultConfig
from preprocess.decode import CpuDecoder
from preprocess.manifest import read_manifest
from preprocess.reading import written_rows
from preprocess.records import Compression, Prepared, SourceFile
from tests.inline import InlineExecutor
from tests.instances import DATA, needs_data, smooth
from tests.streams import pillow_j2k as encode

J2K = Compression.JPEG_2000


def read_as_asked(codestream: bytes, level: int) -> tuple[bytes, int]:
    """The stream for a level, made of as few bytes as `for_level` asks for, and their number."""
    head = codestream[:1]
    while True:
        try:
            return _packets.for_level(head, level), len(head)
        except _tile.Short as short:
            wanted = short.needed
        assert len(head) < wanted <= len(codestream), "asks for nothing more, or for more than there is"
        head = codestream[:wanted]


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(2, 150),
    columns=st.integers(2, 150),
    seed=st.integers(0, 99),
    resolutions=st.integers(2, 6),
    progression=st.sampled_from(["LRCP", "RLCP", "RPCL", "PCRL", "CPRL"]),
    block=st.sampled_from([(8, 16), (64, 64)]),
    precinct=st.sampled_from([None, (32, 32), (64, 128)]),
)
def test_a_prefix_decodes_as_the_whole(
    rows: int,
    columns: int,
    seed: int,
    resolutions: int,
    progression: str,
    block: tuple[int, int],
    precinct: tuple[int, int] | None,
) -> None:
    noise = np.random.default_rng(seed).integers(0, 1 << 9, (rows, columns))
    pixels = (smooth((rows, columns), 15) // 2 + noise).astype(np.uint16)
    resolutions = min(resolutions, min(rows, columns).bit_length())  # more, and the encoder refuses
    options = {"precinct_size": precinct} if precinct else {}
    data = encode(
        pixels, num_resolutions=resolutions, progression=progression, codeblock_size=block, **options
    )
    for level in range(1, read_facts(data, J2K).levels + 1):
        try:
            part, _ = read_as_asked(data, level)
        except _tile.Unordered:
            assert progression in ("PCRL", "CPRL")
            assert precinct
            continue
        np.testing.assert_array_equal(openjpeg.decode(part, level), openjpeg.decode(data, level))
        facts = read_facts(part, J2K)
        assert facts.complete
        assert facts.has_eoc


def test_coarse_levels_cost_few_bytes() -> None:
    noise = np.random.default_rng(1).integers(0, 1 << 12, (600, 500))
    data = encode(noise.astype(np.uint16))
    lengths = [read_as_asked(data, level)[1] for level in range(1, 6)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] < 0.3 * len(data)
    assert lengths[2] < 0.03 * len(data)


@needs_data
def test_packets_with_sop_and_eph_markers() -> None:
    data = (DATA / "conformance" / "p0_12.j2k").read_bytes()
    facts = read_facts(data, J2K)
    for level in range(1, facts.levels + 1):
        part, _ = read_as_asked(data, level)
        np.testing.assert_array_equal(openjpeg.decode(part, level), openjpeg.decode(data, level))


@needs_data
@pytest.mark.parametrize("name", ["htj2k/rg2_htj2k_rpcl.dcm", "xr/dx966_fixed_20layers.dcm"])
def test_streams_in_tile_parts_and_layers(name: str) -> None:
    [counted] = bytes_read([str(DATA / name)], [(128, 64)])
    assert counted.same == 1
    assert counted.partly == 1
    assert counted.bytes_read < 0.1 * counted.file_bytes


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_never_does_worse_than_ask_for_the_whole(data: st.DataObject) -> None:
    stream = bytearray(encode(smooth((90, 70), 12).astype(np.uint16), progression="RPCL"))
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(dicom.RejectedInput):
        facts = read_facts(bytes(stream), J2K)
        if facts.components == 1 and facts.tiles == 1 and facts.levels and not facts.offset:
            with contextlib.suppress(_tile.Short, _tile.Unordered):
                _packets.for_level(bytes(stream), facts.levels)


def test_claims_of_endless_precincts_are_not_believed() -> None:
    data = bytearray(encode(smooth((90, 70), 12).astype(np.uint16), precinct_size=(32, 32)))
    struct.pack_into(">2I", data, data.index(b"\xff\x51") + 6, 60_000, 60_000)
    struct.pack_into(">2I", data, data.index(b"\xff\x51") + 22, 60_000, 60_000)
    with pytest.raises(_tile.Unordered, match="too many"):
        _packets.for_level(bytes(data), 1)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms large enough for a middle to leave out."""
    data = tmp_path_factory.mktemp("needed") / "in"
    generate(data, PhantomSpec(patients=3, size_factor=0.3, seed=5))
    return data


def steps(path: Path, **changes: object) -> pipeline.Trace:
    return pipeline.steps(
        SourceFile("x", str(path)),
        ResultConfig(height=64, width=32, **changes),  # type: ignore[arg-type]  # by name
        CpuDecoder(),
    )


def jpeg_2000_file(images: Path) -> Path:
    return next(
        p for p in sorted(images.rglob("*.dcm")) if steps(p, read=Read.NEEDED).bytes_read < 65_536 * 3
    )


def test_the_dataset_is_the_same_but_for_file_hashes(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preprocess.runner.LocalExecutor", InlineExecutor)
    said = {}
    for read in ("all", "needed"):
        command = ["run", str(images), "--out", str(tmp_path / read), "--size", "64x32", "--read", read]
        result = CliRunner().invoke(main, command, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        manifest = read_manifest(tmp_path / read)
        run = json.loads((tmp_path / read / "run.json").read_text())
        said[read] = written_rows(tmp_path / read, manifest), run["input_bytes_read"]
    whole, needed = said["all"][0], said["needed"][0]
    parts = [row for row in needed if row.file_sha256 is None]
    assert parts
    assert {row.transfer_syntax_uid for row in parts} == {"1.2.840.10008.1.2.4.90"}
    assert all(row.file_sha256 for row in whole)
    assert [replace(row, file_sha256=None) for row in whole] == [replace(r, file_sha256=None) for r in needed]
    assert said["all"][1] == sum(row.file_bytes or 0 for row in whole)
    assert said["needed"][1] < said["all"][1]
    verified = CliRunner().invoke(
        main, ["verify", str(tmp_path / "needed"), "--source", str(images), "--sample", "4"]
    )
    assert verified.exit_code == 0, verified.output


def test_what_needs_the_whole_file_reads_it(images: Path) -> None:
    path = jpeg_2000_file(images)
    size = path.stat().st_size
    full = steps(path, read=Read.NEEDED, decode="full")
    assert full.prepared is not None
    assert full.prepared.mammogram.instance.file_sha256 is not None
    assert full.bytes_read == size
    counted = steps(path, read=Read.NEEDED, bits_overflow="reject")
    assert counted.prepared is not None
    assert counted.prepared.mammogram.instance.file_sha256 is not None


@pytest.mark.parametrize("kept", [0.3, 0.95, 0.999])
def test_a_file_cut_short_is_the_reject_that_it_is_when_read_whole(
    images: Path, tmp_path: Path, kept: float
) -> None:
    data = jpeg_2000_file(images).read_bytes()
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(data[: int(len(data) * kept)])
    whole, part = steps(cut), steps(cut, read=Read.NEEDED)
    assert whole.outcome_reject().code == part.outcome_reject().code
    assert part.outcome_reject().file_sha256 == whole.outcome_reject().file_sha256


class Counted(MemoryFileSystem):
    """An object store in memory that counts the bytes it is asked for."""

    protocol = "counted"
    store: dict[str, object] = {}  # noqa: RUF012 - MemoryFileSystem's own
    sent = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("counted://")))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: object) -> bytes:
        data: bytes = super().cat_file(path, start=start, end=end)
        Counted.sent += len(data)
        return data


@pytest.fixture
def counted() -> Iterator[type[Counted]]:
    fsspec.register_implementation("counted", Counted, clobber=True)
    yield Counted
    Counted.store.clear()


def test_an_object_store_is_asked_for_ranges(images: Path, counted: type[Counted]) -> None:
    path = jpeg_2000_file(images)
    counted().pipe_file("/bucket/a.dcm", path.read_bytes())
    config = ResultConfig(height=64, width=32, read=Read.NEEDED)
    source = SourceFile("a.dcm", "counted://bucket/a.dcm")
    prepared = pipeline.prepare(source, config, CpuDecoder())
    assert isinstance(prepared, Prepared)
    assert 0 < counted.sent < path.stat().st_size / 2
    wanted = steps(path)
    assert wanted.prepared is not None
    assert prepared.pixels_sha256 == wanted.prepared.pixels_sha256
