"""Level 0 is decoded once where it is needed in any case, on the device, too; outcomes stay the CPU's."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bench.phantom_dicom import SYNTAXES, DicomSpec, write_dicom
from dali_pipelines.batches import Batches
from dali_pipelines.decoder import DaliDecoder
from dali_pipelines.engines import Wish
from dali_pipelines.full_first import FullFirst
from preprocess import pipeline
from preprocess.config import ResultConfig
from preprocess.decode import CpuDecoder, Request, coarse_level
from preprocess.dicom import parse
from preprocess.errors import RejectedInput
from preprocess.pipeline import Trace
from preprocess.records import Instance, Mammogram, Prepared, Reject, SourceFile
from tests.dali_pipelines.simulated import engines_of
from tests.instances import smooth

SHAPE = (1100, 700)
NEEDED = ResultConfig(height=800, width=600)
PERHAPS = ResultConfig(height=64, width=48)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[SourceFile]:
    """JPEG 2000 and HTJ2K; number 2 has values above Bits Stored, 3 is lossy, 4 is damaged in the middle."""
    folder = tmp_path_factory.mktemp("sources")
    kinds = ["jpeg-2000", "htj2k", "jpeg-2000", "jpeg-2000-lossy", "jpeg-2000", "jpeg-2000"]
    found = []
    for number, kind in enumerate(kinds):
        pixels = smooth(SHAPE, 12, number)
        if number == 2:
            pixels[500:520, 300:320] = 40_000
        spec = DicomSpec(
            transfer_syntax_uid=SYNTAXES[kind],
            bits_stored=12,
            codestream_bits=16 if number == 2 else None,
            windows=(("2048", "4096"),),
            patient_id=f"p{number}",
            instance=f"i{number}",
        )
        path = write_dicom(folder / f"{number}.dcm", pixels, spec)
        if number == 4:
            data = bytearray(path.read_bytes())
            packets = data.index(b"\xff\x93") + 40
            data[packets : packets + 64] = b"\xff" * 64
            path.write_bytes(data)
        found.append(SourceFile(path.name, str(path), explicit=True))
    return found


def decoder(host: ThreadPoolExecutor, **settings: object) -> DaliDecoder:
    return DaliDecoder(engines_of(Wish(1_000_000, 2, batch=3), settings), host)


def levels(log: Path) -> list[int]:
    return [int(line.split()[1]) for line in log.read_text().splitlines()] if log.exists() else []


def outcome(trace: Trace) -> tuple[str, ...]:
    return told(trace.outcome())


def told(one: Prepared | Reject) -> tuple[str, ...]:
    if isinstance(one, Reject):
        return one.source.source, one.code
    return one.mammogram.instance.source.source, one.pixels_sha256, one.decoded_sha256


def same(one: Mammogram | RejectedInput, instance: Instance, level: int) -> None:
    assert isinstance(one, Mammogram)
    expected = CpuDecoder().decode(instance, level)
    assert one.level == level
    assert np.array_equal(one.pixels, expected.pixels)
    assert one.pixels.dtype == expected.pixels.dtype
    assert one.extremes() == expected.extremes()
    assert one.above_bits_stored == expected.above_bits_stored


@pytest.mark.parametrize(("config", "expected"), [(NEEDED, [0, 0]), (PERHAPS, [0, 0, 1, 1])])
def test_levels_are_those_of_the_cpu_and_decoded_no_more_often_than_needed(
    sources: list[SourceFile],
    host: ThreadPoolExecutor,
    tmp_path: Path,
    config: ResultConfig,
    expected: list[int],
) -> None:
    log = tmp_path / "log"
    instances = [parse(source, config) for source in sources[:2]]
    first = FullFirst(decoder(host, log=str(log)), config)
    for level in (1, 0):
        made = first.decode_batch([Request(instance, level) for instance in instances])
        for one, instance in zip(made, instances, strict=True):
            same(one, instance, level)
    assert sorted(levels(log)) == expected
    assert not first._full


def test_where_values_are_clamped_the_level_is_decoded_after_all(
    sources: list[SourceFile], host: ThreadPoolExecutor, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    instance = parse(sources[2], NEEDED)
    first = FullFirst(decoder(host, log=str(log)), NEEDED)
    for level in (1, 0):
        (one,) = first.decode_batch([Request(instance, level)])
        same(one, instance, level)
    assert levels(log) == [0, 1]


@pytest.mark.parametrize("settings", [{}, {"zero": [0, 1]}, {"refuse": [2]}, {"fail": [3]}, {"scale": True}])
@pytest.mark.parametrize("config", [NEEDED, PERHAPS], ids=["needed", "perhaps"])
def test_outcomes_are_the_cpus_whatever_the_device_does(
    sources: list[SourceFile], host: ThreadPoolExecutor, settings: dict[str, object], config: ResultConfig
) -> None:
    with Batches(sources, config, decoder(host, **settings), host, 3, outcome) as batches:
        found = list(batches)
    expected = [told(pipeline.prepare(source, config, CpuDecoder())) for source in sources]
    assert found == expected
    assert expected[4][1] == "decode_failed"
    assert all(len(one) == 3 for one in expected[:4])


def test_a_batch_of_them_asks_the_device_once_for_each(
    sources: list[SourceFile], host: ThreadPoolExecutor, tmp_path: Path
) -> None:
    log, plain = tmp_path / "log", [*sources[:2], sources[5]]
    assert all(coarse_level(parse(source, NEEDED)) > 0 for source in plain)
    with Batches(plain, NEEDED, decoder(host, log=str(log)), host, 3, outcome) as batches:
        assert len(list(batches)) == 3
    assert levels(log) == [0, 0, 0], json.dumps(levels(log))
