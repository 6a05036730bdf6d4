"""Sources → finished images, many at a time: the stages of pipeline.py with a device between them.

In:  sources, the result config, a DaliDecoder, threads of the host.
Out: for each source, in their order, what is made of its Trace, whose outcome is the one of the CPU.

    host threads   parse ──┐              ┌→ mask ─┐           ┌──→ hash, encode, hand out in order
    lane (device)          └→ coarse level┘        └→ level → render
    elsewhere      … what the GPU does not decode: all stages, on the CPU, beside the lanes

Two lanes take turns: one decodes while the other masks and renders. A device never has the last word about an
image: whatever is not Prepared there is done again by the CPU, and that outcome counts.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, Self, TypeVar, cast

import numpy as np

from dali_pipelines.decoder import DaliDecoder
from dali_pipelines.engines import Rendered
from dali_pipelines.full_first import FullFirst, first
from preprocess import pipeline
from preprocess.config import ResultConfig
from preprocess.decode import CpuDecoder, Request
from preprocess.errors import RejectedInput, Stage
from preprocess.pipeline import Draw, Stages, Trace, Wanted
from preprocess.records import Mammogram, Prepared, SourceFile

LANES, _PARSERS, _MASKERS = 2, 4, 8
_POLL_S = 0.2
_EMPTY = np.empty((0, 0), np.uint16)

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Item(Generic[T]):
    """One source on its way."""

    source: SourceFile
    done: Future[T] = field(default_factory=Future)
    trace: Trace = field(default_factory=Trace)
    stages: Stages | None = None
    wanted: Wanted | None = None
    """What is to be made next; None once the stages have ended."""


class Batches(Generic[T]):
    """Prepares sources in batches; iterating gives what `finish` makes of their traces, in order.

    A context manager. `finish` is called on threads of the host, where there is time for encoding.

    At most `in_flight` images are in memory, from the first byte read to handing out; where `room` is given,
    of all that share it. Who shares it begins when the one before has taken all that it has (`when_taken`).

    elsewhere: is handed what the CPU prepares, and gives what `finish` would; None: threads of `host` do it.
    """

    def __init__(
        self,
        sources: Sequence[SourceFile],
        config: ResultConfig,
        decoder: DaliDecoder,
        host: Executor,
        batch: int,
        finish: Callable[[Trace], T],
        elsewhere: Callable[[SourceFile], Future[T]] | None = None,
        room: threading.Semaphore | None = None,
    ) -> None:
        self._items = [_Item[T](source) for source in sources]
        self._config, self._decoder, self._host = config, decoder, host
        self._batch, self._finish, self._elsewhere = batch, finish, elsewhere
        self._taken: Callable[[], None] | None = None
        self._asked: set[Future[T]] = set()
        """What is being made elsewhere; what is done leaves, and takes its picture along."""
        self._room = room or threading.Semaphore(in_flight(batch))
        self._handed_out = 0
        self._taking = threading.Lock()
        self._telling = threading.Lock()
        """Never held while anything is waited for: who waits for room in `_take` may wait for who tells."""
        self._next = 0
        self._parsing = 0
        self._parsed: list[Future[None]] = []
        self._closed = False
        self._parsers = ThreadPoolExecutor(_PARSERS, "parse")  # never behind images that the CPU decodes
        self._maskers = ThreadPoolExecutor(_MASKERS, "mask", initializer=self._enter_lane)
        self._lanes = [threading.Thread(target=self._lane, daemon=True) for _ in range(LANES)]

    def __enter__(self) -> Self:
        for lane in self._lanes:
            lane.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        for lane in self._lanes:
            lane.join()
        for asked in tuple(self._asked):
            asked.cancel()  # what nobody waits for any more must not be before the next shard's
        self._parsers.shutdown()
        self._maskers.shutdown()
        if left := self._parsing - self._handed_out:
            self._room.release(left)

    def __iter__(self) -> Iterator[T]:
        """Raises what a lane raised: RuntimeError where the device has failed for good."""
        for number, item in enumerate(self._items):
            result = item.done.result()
            self._items[number] = _Item[T](item.source)  # nothing of it stays in memory
            self._handed_out += 1
            self._room.release()
            yield result

    # taking

    def _lane(self) -> None:
        try:
            with self._decoder.engines.memory.lane():
                while group := self._take():
                    self._prepare(group)
        except BaseException as error:  # noqa: BLE001 - handed to whoever iterates, in `__iter__`
            self._give_up(error)

    def _enter_lane(self) -> None:
        """This thread's work goes on a stream of its own, for as long as the thread lives."""
        self._decoder.engines.memory.lane().__enter__()

    def _give_up(self, error: BaseException) -> None:
        self._closed = True
        for item in self._items:
            with contextlib.suppress(InvalidStateError):  # it is done already
                item.done.set_exception(error)

    def _take(self) -> list[_Item[T]]:
        """The next images that the device decodes, parsed; the others go to the host's threads."""
        group: list[_Item[T]] = []
        with self._taking:
            while len(group) < self._batch and not self._closed and self._next < len(self._items):
                self._look_ahead(wait=not group)
                if self._next == self._parsing or self._closed:
                    break
                item = self._items[self._next]
                self._parsed[self._next].result()
                self._next += 1
                if isinstance(item.wanted, Request) and self._decoder.takes(first(item.wanted, self._config)):
                    group.append(item)
                else:
                    self._host.submit(self._on_cpu, item)
        self._tell()
        return group

    def when_taken(self, told: Callable[[], None]) -> None:
        """Have `told` called, once, when the lanes have taken all there is and begin to run dry; or now."""
        with self._telling:
            self._taken = told
        self._tell()

    def _tell(self) -> None:
        with self._telling:
            if self._next < len(self._items) or self._closed:
                return
            told, self._taken = self._taken, None
        if told is not None:
            told()

    def _look_ahead(self, *, wait: bool) -> None:
        """Have as many sources parsed as there is room for; if wait, at least the next one."""
        while self._parsing < len(self._items):
            needed = wait and self._next == self._parsing
            while not self._room.acquire(timeout=_POLL_S if needed else 0):
                if not needed or self._closed:
                    return
            if self._closed:
                self._room.release()
                return
            self._parsed.append(self._parsers.submit(self._parse, self._items[self._parsing]))
            self._parsing += 1

    def _parse(self, item: _Item[T]) -> None:
        item.stages = pipeline.stages(item.trace, item.source, self._config)
        self._step(item, partial(next, item.stages))

    # the device

    def _prepare(self, group: Sequence[_Item[T]]) -> None:
        """Everything between parsing and encoding, for a batch."""
        decoder = FullFirst(self._decoder, self._config)
        while waiting := [item for item in group if isinstance(item.wanted, Request)]:
            with waiting[0].trace.timed(Stage.DECODE):
                results = decoder.decode_batch([cast(Request, item.wanted) for item in waiting])
            list(self._maskers.map(self._go_on, waiting, results))
        drawn = [item for item in group if isinstance(item.wanted, Draw)]
        for item in group:
            if item not in drawn:
                self._host.submit(self._on_cpu, item)
        memory = self._decoder.engines.memory
        rendering = memory.render([cast(Draw, item.wanted) for item in drawn], self._config)
        memory.synchronize()  # raises where the device has failed, before an image is blamed for it
        self._host.submit(self._collect, drawn, rendering)

    def _go_on(self, item: _Item[T], made: Mammogram | RejectedInput) -> None:
        self._step(item, partial(_send, item, made))

    def _step(self, item: _Item[T], work: Callable[[], Wanted]) -> None:
        """Go on with an image until it wants something made, inside the boundary that every input has."""
        item.wanted = pipeline.guarded(item.trace, item.source, self._config, partial(_unless_ended, work))

    # the host

    def _collect(self, drawn: Sequence[_Item[T]], rendering: Rendered) -> None:
        """Wait for a batch's pictures, and share out what is left to do with them."""
        try:
            for item, hashed in zip(drawn, rendering(), strict=True):
                self._host.submit(self._complete, item, hashed)
        except BaseException as error:  # noqa: BLE001 - handed to whoever iterates, in `__iter__`
            self._give_up(error)

    def _complete(self, item: _Item[T], hashed: Callable[[], Prepared] | None) -> None:
        """Hash a picture and hand it out; without one, or where its stages have not ended, ask the CPU."""
        try:
            if hashed is not None:
                self._step(item, lambda: _send(item, hashed()))
            if item.trace.prepared is None:
                self._on_cpu(item)
            else:
                _fetch(item.trace, self._decoder.engines.memory.to_host)
                self._hand_out(item)
        except BaseException as error:  # noqa: BLE001 - handed to whoever iterates, in `__iter__`
            self._give_up(error)

    def _on_cpu(self, item: _Item[T]) -> None:
        """All stages on the CPU."""
        try:
            item.stages, item.wanted, item.trace = None, None, Trace()
            if self._closed:  # nobody waits for it any more
                return
            if self._elsewhere is not None:
                asked = self._elsewhere(item.source)
                self._asked.add(asked)
                asked.add_done_callback(partial(_hand_over, item))
                asked.add_done_callback(self._asked.discard)
                return
            item.trace = pipeline.steps(item.source, self._config, CpuDecoder())
            self._hand_out(item)
        except BaseException as error:  # noqa: BLE001 - handed to whoever iterates, in `__iter__`
            self._give_up(error)

    def _hand_out(self, item: _Item[T]) -> None:
        with contextlib.suppress(InvalidStateError):  # a lane has failed meanwhile
            try:
                result = self._finish(item.trace)
            except BaseException as error:  # noqa: BLE001 - handed to whoever iterates, in `__iter__`
                item.done.set_exception(error)
            else:
                item.done.set_result(result)


def _hand_over(item: _Item[T], made: Future[T]) -> None:
    if made.cancelled():
        return
    with contextlib.suppress(InvalidStateError):  # a lane has failed meanwhile
        error = made.exception()
        if error is not None:
            item.done.set_exception(error)
        else:
            item.done.set_result(made.result())


def in_flight(batch: int) -> int:
    """Images in memory at once: both lanes' batches, and as many again before and behind them."""
    return 2 * LANES * batch


def _send(item: _Item[Any], made: Mammogram | Prepared | RejectedInput) -> Wanted:
    assert item.stages is not None
    return item.stages.throw(made) if isinstance(made, RejectedInput) else item.stages.send(made)


def _unless_ended(work: Callable[[], Wanted]) -> Wanted | None:
    try:
        return work()
    except StopIteration:
        return None


def _fetch(trace: Trace, to_host: Callable[[Any], Any]) -> None:
    """Bring what is still needed to the host: the coarse image and the mask; forget the decoded pixels."""
    assert trace.prepared is not None
    mammogram = replace(trace.prepared.mammogram, pixels=_EMPTY)
    trace.mammogram, trace.prepared = mammogram, replace(trace.prepared, mammogram=mammogram)
    if trace.coarse is not None:
        trace.coarse = replace(trace.coarse, pixels=to_host(trace.coarse.pixels))
    findings = trace.findings
    if findings is not None and findings.component is not None:
        trace.findings = replace(findings, component=to_host(findings.component))
