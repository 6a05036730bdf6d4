"""The order of the stages, and nothing else.

In:  one SourceFile and the result config.
Out: Prepared, or a Reject that says which stage stopped it and why. Nothing else ever comes out.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from preprocess import dicom, render, roi
from preprocess.coarse import FullFirst
from preprocess.config import BitsOverflow, ResultConfig
from preprocess.decode import Decoder, Request, coarse_level
from preprocess.errors import RejectedInput, Stage
from preprocess.records import Instance, Mammogram, Prepared, Reject, SourceFile

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Draw:
    """What is to be rendered."""

    mammogram: Mammogram
    findings: roi.Findings


Wanted = Request | Draw
Made = Mammogram | Prepared
Stages = Generator[Wanted, Made, None]


@dataclass(slots=True)
class Trace:
    """How far one input came, and how long each stage took. Exactly one of `prepared`, `reject` is set."""

    instance: Instance | None = None
    coarse: Mammogram | None = None
    findings: roi.Findings | None = None
    mammogram: Mammogram | None = None
    prepared: Prepared | None = None
    reject: Reject | None = None
    stage: Stage = Stage.PARSE
    seconds: dict[Stage, float] = field(default_factory=dict)
    bytes_read: int = 0
    """Of the input, in the course of preparing it."""

    def outcome(self) -> Prepared | Reject:
        """What came of the input."""
        return self.prepared or self.outcome_reject()

    def outcome_reject(self) -> Reject:
        """The Reject that the boundary left; there is one wherever a stage did not finish."""
        assert self.reject is not None
        return self.reject

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Note the stage that is under way, and its time."""
        self.stage = stage
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def prepare(source: SourceFile, config: ResultConfig, decoder: Decoder) -> Prepared | Reject:
    """Prepare one input. Never raises, except KeyboardInterrupt and SystemExit."""
    return steps(source, config, decoder).outcome()


def steps(source: SourceFile, config: ResultConfig, decoder: Decoder) -> Trace:
    """Prepare one input and keep what each stage gave, for `inspect`, timings and the contact sheet."""
    trace, decoder = Trace(), FullFirst(decoder, config)
    guarded(trace, source, config, partial(advance, trace, source, config, decoder))
    return trace


def advance(trace: Trace, source: SourceFile, config: ResultConfig, decoder: Decoder) -> None:
    """The stages themselves, outside the boundary: raises RejectedInput, and whatever a fault raises."""
    run = stages(trace, source, config)
    wanted = next(run)
    while isinstance(wanted, Request):
        with trace.timed(Stage.DECODE):
            mammogram = decoder.decode(wanted.instance, wanted.level)
        wanted = run.send(mammogram)
    with trace.timed(Stage.RENDER):
        prepared = render.render(wanted.mammogram, wanted.findings, config)
    with contextlib.suppress(StopIteration):  # the last halt
        run.send(prepared)


def stages(trace: Trace, source: SourceFile, config: ResultConfig) -> Stages:
    """The stages, with a halt where something is to be decoded or drawn: by whom, with what else, is open.

    Yields Requests and is sent their Mammograms, then a Draw and is sent what it gave. Raises as `advance`.
    """
    with trace.timed(Stage.PARSE):
        instance = trace.instance = dicom.begin(source, config)
        trace.bytes_read = instance.bytes_read
    coarse = yield from _decoded(trace, coarse_level(instance), config)
    low, high = coarse.extremes()
    if coarse.level and low == high:
        coarse = yield from _decoded(trace, 0, config)  # blank only if the full image is
    trace.coarse = coarse
    with trace.timed(Stage.ROI):
        findings = trace.findings = roi.find(coarse, config)
        level = _level(instance, findings, config)
    mammogram = coarse if level == coarse.level else (yield from _decoded(trace, level, config))
    trace.mammogram = mammogram
    _check_overflow(mammogram, config)
    trace.stage = Stage.RENDER
    drawn = yield Draw(mammogram, findings)
    assert isinstance(drawn, Prepared)
    trace.mammogram, trace.prepared = drawn.mammogram, drawn


def _decoded(trace: Trace, level: int, config: ResultConfig) -> Generator[Wanted, Made, Mammogram]:
    assert trace.instance is not None
    with trace.timed(Stage.PARSE):
        instance = trace.instance = dicom.for_level(trace.instance, level, config)
        trace.bytes_read = instance.bytes_read
    trace.stage = Stage.DECODE
    made = yield Request(instance, level)
    assert isinstance(made, Mammogram)
    return made


def _level(instance: Instance, findings: roi.Findings, config: ResultConfig) -> int:
    if config.bits_overflow is BitsOverflow.REJECT:
        return 0  # only full-size data can be counted against BitsStored
    return roi.choose_level(instance, findings, config)


def _check_overflow(mammogram: Mammogram, config: ResultConfig) -> None:
    if mammogram.above_bits_stored and config.bits_overflow is BitsOverflow.REJECT:
        bits = mammogram.instance.image.bits_stored
        raise RejectedInput(
            "pixels_above_bits_stored", f"{mammogram.above_bits_stored} pixels need more than {bits} bits"
        )


def guarded(trace: Trace, source: SourceFile, config: ResultConfig, work: Callable[[], R]) -> R | None:
    """The one boundary that turns anything that goes wrong with one input into a Reject (then None).

    BaseException, because a Rust decoder's PanicException is not an Exception. The text of an unforeseen
    exception may quote the header, so only its type and place are kept.
    """
    try:
        return work()
    except (KeyboardInterrupt, SystemExit):
        raise
    except RejectedInput as error:
        trace.reject = _reject(trace, source, config, error.code, error.message, error.stage)
    except MemoryError:
        trace.reject = _reject(
            trace, source, config, "out_of_memory", "the worker's memory limit was reached"
        )
    except BaseException as error:  # noqa: BLE001 - see the docstring
        message = f"internal fault: {type(error).__name__} at {_place(error)}"
        trace.reject = _reject(trace, source, config, "internal_error", message)
    return None


def _place(error: BaseException) -> str:
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    if step is None:
        return "?"
    module = step.tb_frame.f_globals.get("__name__", "?")
    return f"{module}:{step.tb_lineno}"


def _reject(
    trace: Trace,
    source: SourceFile,
    config: ResultConfig,
    code: str,
    message: str,
    stage: Stage | None = None,
) -> Reject:
    reject = Reject(source, stage or trace.stage, code, message, trace.instance)
    return reject if trace.instance is not None else with_file_facts(reject, config)


def with_file_facts(reject: Reject, config: ResultConfig) -> Reject:
    """The same reject with its file's size and hash, where the file can be read within the limits."""
    try:
        data = dicom.read_bytes(reject.source, config.max_file_bytes)
    except (RejectedInput, OSError, MemoryError):
        return reject
    digest = hashlib.sha256(data).hexdigest()
    return Reject(
        reject.source, reject.stage, reject.code, reject.message, reject.instance, len(data), digest
    )
