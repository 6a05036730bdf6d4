"""The next shard is begun while the last images of this one are written: once, and never in vain for long."""

from __future__ import annotations

import dataclasses
import errno
import multiprocessing
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from bench.phantom_dicom import SYNTAXES, DicomSpec, write_dicom
from dali_pipelines import helpers
from dali_pipelines.batches import Batches, in_flight
from dali_pipelines.helpers import HelperEnded
from dali_pipelines.tasks import DeviceShardTask, Finished, Station, opened
from preprocess import pipeline
from preprocess.config import ResultConfig
from preprocess.decode import CpuDecoder
from preprocess.records import Reject, SourceFile
from tests.dali_pipelines.simulated import device
from tests.instances import smooth

CONFIG = ResultConfig(height=64, width=48)
BATCH, SHARD = 3, 5


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[DeviceShardTask]:
    folder = tmp_path_factory.mktemp("sources")
    sources = []
    for number in range(3 * SHARD):
        kind = "explicit" if number % SHARD == 3 else "jpeg-2000"
        spec = DicomSpec(
            transfer_syntax_uid=SYNTAXES[kind],
            bits_stored=12,
            windows=(("2048", "4096"),),
            patient_id=f"p{number}",
            instance=f"i{number}",
        )
        path = write_dicom(folder / f"{number:02}.dcm", smooth((150, 120), 12, number), spec)
        sources.append(SourceFile(path.name, str(path), explicit=True))
    one = device(batch=BATCH)
    return [
        DeviceShardTask(tuple(sources[start : start + SHARD]), CONFIG, out=Path(folder), device=one)
        for start in range(0, len(sources), SHARD)
    ]


@pytest.fixture
def station() -> Iterator[Station]:
    at = opened(device(batch=BATCH), 1_000_000, allow_inexact=False)
    yield at
    at.helpers.close()
    at.host.shutdown()


def hashes(results: Batches[Finished]) -> list[str]:
    found = []
    for _, outcome in results:
        assert not isinstance(outcome, Reject)
        found.append(outcome.prepared.pixels_sha256)
    return found


def by_cpu(task: DeviceShardTask) -> list[str]:
    prepared = [pipeline.prepare(source, CONFIG, CpuDecoder()) for source in task.sources]
    return [each.pixels_sha256 for each in prepared if not isinstance(each, Reject)]


def ahead_of(station: Station) -> Batches[Finished]:
    deadline = time.monotonic() + 30
    while station.begun._ahead is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert station.begun._ahead is not None
    return station.begun._ahead[2]


def free(station: Station) -> int:
    return station.room._value


def test_a_shard_larger_than_the_room_is_taken_up_too(
    station: Station, shards: list[DeviceShardTask]
) -> None:
    """What was begun of it fills the room and waits; who takes it up must not wait for that."""
    first, second, third = shards
    following = dataclasses.replace(second, sources=second.sources + third.sources + first.sources)
    assert following.size > in_flight(BATCH)
    with station.begun.of(first, station, following) as batches:
        hashes(batches)
        ahead = ahead_of(station)
    deadline = time.monotonic() + 30
    while free(station) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert free(station) == 0
    taken: Future[list[str]] = Future()

    def take_up() -> None:
        with station.begun.of(following, station, None) as batches:
            assert batches is ahead
            taken.set_result(hashes(batches))

    threading.Thread(target=take_up, daemon=True).start()
    assert taken.result(timeout=60) == by_cpu(following)


def test_a_helper_that_was_killed_while_idle_costs_one_image_and_nothing_waits_for_ever(
    station: Station, shards: list[DeviceShardTask]
) -> None:
    with station.begun.of(shards[0], station, None) as batches:
        assert hashes(batches) == by_cpu(shards[0])
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
    with station.begun.of(shards[1], station, None) as batches, pytest.raises(HelperEnded, match="SIGKILL"):
        hashes(batches)
    with station.begun.of(shards[1], station, None) as batches:
        assert hashes(batches) == by_cpu(shards[1])
    assert free(station) == in_flight(BATCH)


def test_what_was_made_elsewhere_is_not_kept_and_what_was_not_is_cancelled(
    station: Station, shards: list[DeviceShardTask]
) -> None:
    with station.begun.of(shards[0], station, None) as batches:
        assert hashes(batches) == by_cpu(shards[0])
        assert not batches._asked
    some: list[Future[Finished]] = []

    def never(_: SourceFile) -> Future[Finished]:
        some.append(Future())
        return some[-1]

    sources = shards[1].sources[3:4] * 3
    with Batches(
        sources, CONFIG, station.decoder, station.host, BATCH, shards[1].finished, never, station.room
    ):
        deadline = time.monotonic() + 30
        while len(some) < len(sources) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert [each.cancelled() for each in some] == [True] * len(sources)
    assert free(station) == in_flight(BATCH)


def test_a_helper_that_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    some = helpers.Helpers(1)
    with monkeypatch.context() as patch:
        patch.setattr(helpers, "_Helper", none)
        for _ in range(2):
            with pytest.raises(BlockingIOError):
                some.submit(int, "3").result(timeout=30)
    assert some.submit(int, "3").result(timeout=60) == 3
    some.close()


def test_work_of_a_shard_that_is_given_up_is_not_before_the_next_ones() -> None:
    some = helpers.Helpers(1)
    some.submit(int, "1").result(timeout=60)
    begun, waiting = some.submit(time.sleep, 0.5), [some.submit(time.sleep, 60) for _ in range(3)]
    assert all(each.cancel() for each in waiting)
    assert some.submit(int, "3").result(timeout=30) == 3
    assert begun.done()
    some.close()


def begin(station: Station, shards: list[DeviceShardTask]) -> Batches[Finished]:
    """Prepare the first shard; what was begun of the second meanwhile."""
    first, second, _ = shards
    with station.begun.of(first, station, second) as batches:
        assert hashes(batches) == by_cpu(first)
        return ahead_of(station)


def test_what_was_begun_is_taken_up_and_gives_the_cpus_pictures(
    station: Station, shards: list[DeviceShardTask]
) -> None:
    ahead = begin(station, shards)
    with station.begun.of(shards[1], station, None) as batches:
        assert batches is ahead
        assert hashes(batches) == by_cpu(shards[1])
    assert station.begun._ahead is None
    assert free(station) == in_flight(BATCH)


def test_where_another_shard_comes_what_was_begun_is_given_up(
    station: Station, shards: list[DeviceShardTask]
) -> None:
    ahead = begin(station, shards)
    with station.begun.of(shards[2], station, None) as batches:
        assert batches is not ahead
        assert hashes(batches) == by_cpu(shards[2])
    assert not any(lane.is_alive() for lane in ahead._lanes)
    assert free(station) == in_flight(BATCH)


def test_a_shard_of_which_something_is_known_is_not_the_one_that_was_begun(
    station: Station, shards: list[DeviceShardTask]
) -> None:
    ahead = begin(station, shards)
    blamed = shards[1].blamed(1, "timeout", "took too long")
    with station.begun.of(blamed, station, None) as batches:
        assert batches is not ahead
        assert len(hashes(batches)) == SHARD - 1
    assert free(station) == in_flight(BATCH)
