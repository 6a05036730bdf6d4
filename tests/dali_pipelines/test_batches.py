"""Batches: the outcomes of the image-by-image pipeline, in order, whatever is in flight."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.phantom_dicom import SYNTAXES, DicomSpec, write_dicom
from dali_pipelines.batches import Batches, in_flight
from dali_pipelines.decoder import DaliDecoder
from dali_pipelines.engines import Wish
from preprocess import pipeline
from preprocess.config import ResultConfig
from preprocess.decode import CpuDecoder
from preprocess.pipeline import Trace
from preprocess.records import Prepared, Reject, SourceFile
from tests.dali_pipelines.simulated import engines_of
from tests.instances import smooth

CONFIG = ResultConfig(height=64, width=48)
BATCH = 3


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[SourceFile]:
    """More than are ever in flight: JPEG 2000, others, and a broken one."""
    folder = tmp_path_factory.mktemp("sources")
    kinds = ["jpeg-2000", "jpeg-2000", "jpeg-ls", "jpeg-2000", "explicit"]
    found = []
    for number in range(in_flight(BATCH) + 8):
        spec = DicomSpec(
            transfer_syntax_uid=SYNTAXES[kinds[number % len(kinds)]],
            bits_stored=12,
            windows=(("2048", "4096"),),
            patient_id=f"p{number}",
            instance=f"i{number}",
        )
        path = write_dicom(folder / f"{number}.dcm", smooth((150, 120), 12, number), spec)
        if number == 4:
            path.write_bytes(b"no DICOM")
        found.append(SourceFile(path.name, str(path), explicit=True))
    return found


def told(outcome: Prepared | Reject) -> tuple[str, ...]:
    if isinstance(outcome, Reject):
        return outcome.source.source, outcome.code, outcome.message
    return outcome.mammogram.instance.source.source, outcome.pixels_sha256, outcome.decoded_sha256


def outcome(trace: Trace) -> tuple[str, ...]:
    return told(trace.outcome())


def decoder(host: ThreadPoolExecutor, **settings: object) -> DaliDecoder:
    return DaliDecoder(engines_of(Wish(1_000_000, 2, batch=BATCH), {"only": ["batch"], **settings}), host)


def test_outcomes_are_the_cpus_in_the_order_of_the_sources(
    sources: list[SourceFile], host: ThreadPoolExecutor
) -> None:
    with Batches(sources, CONFIG, decoder(host, zero=[1]), host, BATCH, outcome) as batches:
        found = list(batches)
    assert found == [told(pipeline.prepare(source, CONFIG, CpuDecoder())) for source in sources]
    assert found[4][1] == "not_dicom"


def test_a_device_that_fails_for_good_is_raised_to_whoever_iterates(
    sources: list[SourceFile], host: ThreadPoolExecutor
) -> None:
    with (
        pytest.raises(RuntimeError, match="illegal memory access"),
        Batches(sources, CONFIG, decoder(host, sticky=list(range(6))), host, BATCH, outcome) as batches,
    ):
        list(batches)


def test_what_finishing_raises_is_raised_to_whoever_iterates(
    sources: list[SourceFile], host: ThreadPoolExecutor
) -> None:
    def full_disk(_: Trace) -> None:
        raise OSError(28, "No space left on device")

    with (
        pytest.raises(OSError, match="No space left"),
        Batches(sources, CONFIG, decoder(host), host, BATCH, full_disk) as batches,
    ):
        list(batches)


def test_leaving_early_ends_the_threads(sources: list[SourceFile], host: ThreadPoolExecutor) -> None:
    with Batches(sources, CONFIG, decoder(host), host, BATCH, outcome) as batches:
        assert next(iter(batches))[0] == "0.dcm"
    assert not any(lane.is_alive() for lane in batches._lanes)
