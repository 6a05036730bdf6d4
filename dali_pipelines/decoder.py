"""DaliDecoder: JPEG 2000 and HTJ2K on a GPU, everything else on the CPU, the same pixels either way.

In:  Requests: instances and the wavelet levels they are wanted at.
Out: a Mammogram or the CPU's RejectedInput for each; pixels on the device.

    route by facts (routes.py) ─GPU→ engine, where proven (proof.py) ─→ range undone, clamped to BitsStored
            │                          │ failed, short, of another shape, constant
            │                          ↓
            └────────CPU─────────→ the next engine, sample by sample; at last CpuDecoder, whose verdict counts
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace

from dali_pipelines.engines import Encoded, Engine, Engines, Stored
from dali_pipelines.proof import Proof, Range, prove
from dali_pipelines.routes import Where, Why, route
from dali_pipelines.values import Array
from preprocess.codestream import check_packets, deepest_level, level_size, repair
from preprocess.decode import CpuDecoder, Request
from preprocess.errors import RejectedInput
from preprocess.records import Instance, Mammogram
from preprocess.stored import Samples

INEXACT = " (inexact)"
"""After the engine's name in column `decoder`, where --allow-inexact-gpu let it decode a lossy stream."""

Decoded = Mammogram | RejectedInput


@dataclass(frozen=True, slots=True)
class _Job:
    """A request on its way through the engines."""

    place: int
    request: Request
    encoded: Encoded
    inexact: bool


class DaliDecoder:
    """Decodes batches on one device. A `preprocess.decode.BatchDecoder`; threads may share it.

    Engines are used by one thread at a time; what falls to the CPU is decoded by `host`'s threads meanwhile.
    """

    name = "dali"

    def __init__(
        self, engines: Engines, host: Executor, *, allow_inexact: bool = False, proof: Proof | None = None
    ) -> None:
        """Tries the engines on known vectors first, unless the proof is given."""
        self._engines, self._host, self._allow_inexact = engines, host, allow_inexact
        self._lock = threading.Lock()
        self._cpu = CpuDecoder()
        self.proof = proof or prove(engines)

    @property
    def engines(self) -> Engines:
        """What it decodes with."""
        return self._engines

    def decode(self, instance: Instance, level: int = 0) -> Mammogram:
        """One instance at a wavelet level, as `Decoder.decode`. Raises RejectedInput, ValueError."""
        (result,) = self.decode_batch([Request(instance, level)])
        if isinstance(result, RejectedInput):
            raise result
        return result

    def takes(self, request: Request) -> bool:
        """Whether an engine is proven for a request; otherwise the CPU is asked at once."""
        job = self._job(0, request)
        return isinstance(job, _Job) and any(self._proven(engine, job) for engine in self._chain(job))

    def decode_batch(self, requests: Sequence[Request]) -> list[Decoded]:
        """What `CpuDecoder.decode` would give for each request; pixels on the device.

        Raises:
            ValueError: a level that the instance may not be decoded at.
            RuntimeError: the device has failed for good.
        """
        results: list[Decoded | None] = [None] * len(requests)
        jobs: list[_Job] = []
        for place, request in enumerate(requests):
            job = self._job(place, request)
            if isinstance(job, _Job):
                jobs.append(job)
            else:
                results[place] = job
        waiting = self._on_cpu(requests, set(range(len(requests))) - {job.place for job in jobs}, results)
        with self._lock:
            left = self._on_device(jobs, results)
        waiting |= self._on_cpu(requests, left, results)
        for place, future in waiting.items():
            results[place] = self._placed(future.result())
        return [result for result in results if result is not None]

    # routing

    def _job(self, place: int, request: Request) -> _Job | RejectedInput | None:
        """A job for the device; the reject of a stream that cannot be repaired; None for the CPU."""
        instance, level = request.instance, request.level
        if not 0 <= level <= deepest_level(instance.image, instance.codestream):
            raise ValueError(f"level {level} is not possible for this image")
        chosen = route(instance, level, allow_inexact=self._allow_inexact)
        facts = instance.codestream
        if chosen.where is Where.CPU or facts is None:
            return None
        try:
            codestream = repair(instance.payload, facts)
            if level == 0:
                check_packets(codestream, facts)
        except RejectedInput as reject:
            return reject
        size = level_size(facts.rows, facts.columns, level)
        encoded = Encoded(codestream, facts.compression, facts.precision, level, *size)
        return _Job(place, request, encoded, chosen.why is Why.INEXACT)

    def _chain(self, job: _Job) -> tuple[Engine, ...]:
        full = self._engines.full if job.encoded.level == 0 else ()
        return (*full, *self._engines.levels)

    def _proven(self, engine: Engine, job: _Job) -> bool:
        return self.proof.range_of(engine, job.encoded) is not None

    # the device

    def _on_device(self, jobs: Sequence[_Job], results: list[Decoded | None]) -> set[int]:
        """Decode what the engines can, one engine after the other; the places that are left for the CPU."""
        left = list(jobs)
        for number, engine in enumerate((*self._engines.full, *self._engines.levels)):
            mine = [job for job in left if engine in self._chain(job) and self._proven(engine, job)]
            if not mine:
                continue
            self._take(engine, mine, self._run(engine, mine, alone=number > 0), results)
            left = [job for job in left if results[job.place] is None]
        return {job.place for job in left}

    def _run(self, engine: Engine, jobs: Sequence[_Job], *, alone: bool) -> Sequence[Array | None]:
        """What an engine makes of the jobs; of its failures, and of too few results, nothing is taken."""
        try:
            values = engine.decode([job.encoded for job in jobs])
        except (RuntimeError, MemoryError):
            values = []
        if len(values) == len(jobs):
            return values
        engine.reset()
        self._engines.memory.synchronize()  # raises where not only the batch has failed
        if not alone or len(jobs) == 1:
            return [None] * len(jobs)
        return [self._run(engine, [job], alone=True)[0] for job in jobs]

    def _take(
        self,
        engine: Engine,
        jobs: Sequence[_Job],
        values: Sequence[Array | None],
        results: list[Decoded | None],
    ) -> None:
        """Stored values of what an engine gave, but for what must not be believed."""
        for kind in Range:
            pairs = [
                (job, each)
                for job, each in zip(jobs, values, strict=True)
                if each is not None
                and tuple(each.shape) == (job.encoded.rows, job.encoded.columns)
                and self.proof.range_of(engine, job.encoded) is kind
            ]
            if not pairs:
                continue
            samples = [Samples(each, job.encoded.precision, False, engine.name) for job, each in pairs]
            images = [job.request.instance.image for job, _ in pairs]
            every = self._engines.memory.stored(samples, images, scaled=kind is Range.SCALED)
            for (job, _), stored in zip(pairs, every, strict=True):
                if stored.low != stored.high:  # blank only if the CPU says so: silent failures give zeros
                    results[job.place] = _mammogram(engine, job, stored)

    # the CPU

    def _on_cpu(
        self, requests: Sequence[Request], places: set[int], results: list[Decoded | None]
    ) -> dict[int, Future[Decoded]]:
        return {
            place: self._host.submit(self._decoded, requests[place])
            for place in sorted(places)
            if results[place] is None
        }

    def _decoded(self, request: Request) -> Decoded:
        try:
            return self._cpu.decode(request.instance, request.level)
        except RejectedInput as reject:
            return reject

    def _placed(self, result: Decoded) -> Decoded:
        """The CPU's pixels on the device, beside the others."""
        if isinstance(result, RejectedInput):
            return result
        pixels = self._engines.memory.to_device(result.pixels)
        return replace(result, pixels=pixels)


def _mammogram(engine: Engine, job: _Job, stored: Stored) -> Mammogram:
    return Mammogram(
        instance=job.request.instance,
        pixels=stored.pixels,
        level=job.encoded.level,
        decoder=engine.name + (INEXACT if job.inexact else ""),
        above_bits_stored=stored.outside if job.encoded.level == 0 else 0,
        value_range=(stored.low, stored.high),
    )
