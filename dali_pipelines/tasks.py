"""A shard on a GPU: what a device's worker process runs.

In:  a shard's plan and the Device of this process.
Out: the ShardOutcome that the CPU would give: same rows but for the decoder's name, same bytes.

While a shard's last images are hashed and written, the device begins with the shard that it will probably be
given next, so that it is not idle between shards; if another comes, that work is thrown away.

Engines and decoder are opened once in a process, with its first shard, and kept. The process is disposable: a
device that fails for good ends it, and the executor decides who does the shard then (executors/devices.py).
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np

from dali_pipelines.batches import Batches, in_flight
from dali_pipelines.decoder import DaliDecoder
from dali_pipelines.engines import Wish, opener
from dali_pipelines.helpers import HelperEnded, Helpers
from dali_pipelines.proof import prove
from preprocess import pipeline
from preprocess.config import ResultConfig
from preprocess.decode import CpuDecoder
from preprocess.executors.base import Heartbeat, ItemEnded
from preprocess.executors.devices import Device
from preprocess.records import Reject, SourceFile
from preprocess.shards import Packed, pack
from preprocess.tasks import ShardOutcome, ShardTask, add_up

_LOOKED_AT = 8
"""Images of a process's first shard whose size says how many are in flight."""
_NO_PIXELS = np.empty((0, 0), np.uint16)
_LEAST_PIXELS = 27_000_000
"""… but at least as for RSNA's largest (5355 × 4915)."""


Finished = tuple[pipeline.Trace, Packed | Reject]


class DeviceUnusable(RuntimeError):
    """The device or its libraries cannot be used, or nothing that they do is right."""


@dataclass(frozen=True, slots=True)
class Station:
    """A device's decoder, and the threads and processes of the host that work for it."""

    decoder: DaliDecoder
    host: ThreadPoolExecutor
    helpers: Helpers
    batch: int
    begun: Begun
    room: threading.Semaphore
    """For images in memory, of two shards together."""


def opened(device: Device, pixels: int, *, allow_inexact: bool) -> Station:
    """Open the device for images of at most so many pixels. Raises DeviceUnusable."""
    host = ThreadPoolExecutor(max(2, device.cores), "host")
    try:
        engines = opener(device.engines)(Wish(pixels, device.cores, device.batch, device.threads))
        proof = prove(engines)
    except (OSError, ImportError, RuntimeError) as error:
        raise DeviceUnusable(str(error)) from error
    if not proof.proven:
        raise DeviceUnusable("no engine decodes any of the known pictures right")
    decoder = DaliDecoder(engines, host, allow_inexact=allow_inexact, proof=proof)
    batch = engines.sizes.batch
    room = threading.Semaphore(in_flight(batch))
    helpers = Helpers(max(2, device.cores), device.item_timeout_s)
    return Station(decoder, host, helpers, batch, Begun(), room)


_stations: dict[tuple[Device, bool], Station] = {}


def station_for(device: Device, sources: Sequence[SourceFile], config: ResultConfig) -> Station:
    """This process's station, opened for images like the first of `sources`. Raises DeviceUnusable."""
    key = device, config.allow_inexact_gpu
    if key not in _stations:
        pixels = max([_LEAST_PIXELS, *(pixels_of(source, config) for source in sources[:_LOOKED_AT])])
        _stations[key] = opened(device, pixels, allow_inexact=config.allow_inexact_gpu)
    return _stations[key]


def pixels_of(source: SourceFile, config: ResultConfig) -> int:
    """Rows × columns by the header; 0 where it cannot be read."""
    trace = pipeline.Trace()
    pipeline.guarded(trace, source, config, partial(next, pipeline.stages(trace, source, config)))
    return trace.instance.image.rows * trace.instance.image.columns if trace.instance is not None else 0


@dataclass(frozen=True)
class DeviceShardTask(ShardTask):
    """A shard that a device may prepare, in batches; without one, the CPU does, image by image."""

    device: Device | None = None
    following: Self | None = None
    """The shard that the same device will probably be given next."""

    def before(self, following: Self) -> Self:
        """The same shard; its device may begin with `following` when it runs dry."""
        return dataclasses.replace(self, following=following)

    def on_device(self, device: Device) -> Self:
        """The same shard, to be run in that device's worker process."""
        return dataclasses.replace(self, device=device)

    def run(self, beat: Heartbeat) -> ShardOutcome:
        """Write the shard atomically. Names no image as in hand: many are; the executor knows what to do.

        Raises OSError if the disk does not take it, ItemEnded where an image ends the process that prepares
        it on the CPU, RuntimeError where the device has failed for good.
        """
        if self.device is None:
            return super().run(beat)
        at = station_for(self.device, self.left(), self.config)
        clock = pipeline.Trace()
        following = self.following
        if following is not None:
            following = dataclasses.replace(following, device=self.device)
        with at.begun.of(self, at, following) as batches:
            finished = iter(batches)

            in_hand = [0]

            def named(index: int | None) -> None:
                in_hand[0] = in_hand[0] if index is None else index
                beat(None)

            def work(_: SourceFile) -> Packed | Reject:
                try:
                    trace, outcome = next(finished)
                except HelperEnded as error:
                    raise ItemEnded(in_hand[0], error.name) from error
                add_up(clock, trace)
                return outcome

            return self.written(named, work, clock)

    def left(self) -> tuple[SourceFile, ...]:
        """The sources that nothing is known of yet."""
        done = {index for index, _ in self.known} | {blame.index for blame in self.blames}
        return tuple(source for index, source in enumerate(self.sources) if index not in done)

    def light(self) -> Self:
        """The task without what no single image needs."""
        return dataclasses.replace(
            self, sources=(), blames=(), known=(), plan=None, label_columns=(), following=None
        )

    def finished(self, trace: pipeline.Trace) -> Finished:
        """What is written of an image, encoded; and its seconds, without what nobody needs any more."""
        outcome = self.outcome_of(trace)
        if not isinstance(outcome, Reject):
            mammogram = outcome.mammogram
            mammogram = dataclasses.replace(mammogram, instance=mammogram.instance.bare(), pixels=_NO_PIXELS)
            outcome = dataclasses.replace(outcome, mammogram=mammogram)
        seconds = pipeline.Trace(seconds=trace.seconds, bytes_read=trace.bytes_read)
        return seconds, outcome if isinstance(outcome, Reject) else pack(outcome, self.config)


class Begun:
    """The images of one shard, or of two: those of the next are begun when the device runs dry."""

    def __init__(self) -> None:
        self._ahead: tuple[DeviceShardTask, tuple[SourceFile, ...], Batches[Finished]] | None = None

    @contextmanager
    def of(
        self, task: DeviceShardTask, at: Station, following: DeviceShardTask | None
    ) -> Iterator[Batches[Finished]]:
        """The batches of a task's images: those begun already, if they are the same."""
        begun, self._ahead = self._ahead, None

        def begin_following() -> None:
            if following is not None:
                ahead = _batches(following, at).__enter__()
                self._ahead = following.light(), following.left(), ahead

        if begun is not None and begun[:2] == (task.light(), task.left()):
            batches = begun[2]
        else:
            if begun is not None:
                begun[2].__exit__()
            batches = _batches(task, at).__enter__()
        batches.when_taken(begin_following)
        try:
            yield batches
        finally:
            batches.__exit__()


def _batches(task: DeviceShardTask, at: Station) -> Batches[Finished]:
    light = task.light()

    def on_cpu(source: SourceFile) -> Future[Finished]:
        return at.helpers.submit(prepared_on_cpu, light, source)

    return Batches(task.left(), task.config, at.decoder, at.host, at.batch, light.finished, on_cpu, at.room)


def prepared_on_cpu(task: DeviceShardTask, source: SourceFile) -> Finished:
    """All stages of one image without a device: what a helper runs."""
    return task.finished(pipeline.steps(source, task.config, CpuDecoder()))
