"""What a run will do, decided before anything is written: discover → scan → labels → duplicates → shards.

In:  a RunRequest.
Out: a Plan: the shards in order, and the inputs that are in none, each with its reason. A pure function of
     the inputs' content, the labels and the result config.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from preprocess.config import PrepConfig, ResultConfig
from preprocess.discover import Discovery, discover, source_inside
from preprocess.duplicates import Duplicate, judge, shared_uids
from preprocess.errors import UsageError
from preprocess.executors.base import Executor
from preprocess.labels import join
from preprocess.packed import Packed, RejectCodec, ScannedCodec, SourceCodec
from preprocess.places import Place
from preprocess.plan import ShardPlan, plan_shards, split_ambiguous
from preprocess.progress import Reporter
from preprocess.records import LabelColumn, Reject, ScannedFile, SourceFile
from preprocess.tasks import Probe, ProbeTask, ScanTask

_SCAN_CHUNK = 64


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What to prepare, and where to."""

    inputs: tuple[str, ...]
    out: Place
    labels: str | None = None
    layout: str = "auto"
    config: PrepConfig = field(default_factory=PrepConfig)
    to_learn_from: bool = True
    """False where nobody misses labels."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done: shards, and the rows of inputs that are in none."""

    discovery: Discovery
    label_columns: tuple[LabelColumn, ...]
    shards: tuple[ShardPlan, ...]
    rejects: Sequence[Reject]
    duplicates: tuple[Duplicate, ...]


def make_plan(request: RunRequest, executor: Executor, reporter: Reporter) -> Plan:
    """Decide what is to be done; reads headers, and pixels only of inputs that share a UID."""
    config = request.config.result
    discovery = discover(request.inputs, request.labels, request.layout)
    if (within := source_inside(discovery.sources, str(request.out))) is not None:
        raise UsageError(f"input {within} lies inside --out {request.out}; give another folder for --out")
    for note in discovery.notes:
        reporter.note(note)
    if discovery.tables_missing and request.to_learn_from:
        tables = " or ".join(discovery.tables_missing)
        reporter.note(
            f"no labels: no {tables} with its usual columns lies beside the images;"
            " bcd-train needs a table, given with --labels"
        )
    scanned, rejects = _scan(discovery.sources[: config.limit], request, executor, reporter)
    # What nobody reads again goes at once: these are lists of all inputs.
    table, discovery = discovery.labels, replace(discovery, sources=(), labels=None)
    joined = join(table, scanned, (reject.source for reject in rejects))
    del scanned, table
    if joined.rows_unmatched:
        reporter.note(f"{joined.rows_unmatched} rows of the label tables have no image here")
    if joined.images_unmatched:
        reporter.note(f"{joined.images_unmatched} images have no row in the label tables")
    kept, duplicates, conflicts = _resolve(joined.files, request, executor, reporter)
    kept, ambiguous = split_ambiguous(kept)
    shards = plan_shards(kept, config, discovery.label_columns)
    for reject in (*conflicts, *ambiguous):
        rejects.append(reject)
    return Plan(discovery, discovery.label_columns, shards, rejects, tuple(duplicates))


def _scan(
    sources: Sequence[SourceFile], request: RunRequest, executor: Executor, reporter: Reporter
) -> tuple[Packed[ScannedFile], Packed[Reject]]:
    """What came of every source, in their order, whichever chunk was done first."""
    config = request.config.result
    reporter.phase("scan", len(sources))
    chunk_of: dict[str, int] = {}
    codec = SourceCodec()
    scanned, rejects = Packed(ScannedCodec(codec)), Packed(RejectCodec(codec))
    order, reject_order = array("q"), array("q")
    for outcomes in executor.run(_scan_tasks(sources, config, chunk_of)):
        first = chunk_of[outcomes[0].source.source] * _SCAN_CHUNK
        for place, outcome in enumerate(outcomes, first):
            if isinstance(outcome, Reject):
                rejects.append(outcome)
                reject_order.append(place)
            else:
                scanned.append(outcome)
                order.append(place)
        reporter.step(len(outcomes), sum(isinstance(outcome, Reject) for outcome in outcomes))
    return scanned.take(np.argsort(order)), rejects.take(np.argsort(reject_order))


def _scan_tasks(
    sources: Sequence[SourceFile], config: ResultConfig, chunk_of: dict[str, int]
) -> Iterator[ScanTask]:
    for number, chunk in enumerate(chunks(sources, _SCAN_CHUNK)):
        chunk_of[chunk[0].source] = number
        yield ScanTask(chunk, config)


def _resolve(
    scanned: Packed[ScannedFile], request: RunRequest, executor: Executor, reporter: Reporter
) -> tuple[Packed[ScannedFile], list[Duplicate], list[Reject]]:
    """Decide about inputs that share a SOP Instance UID, by decoding just those."""
    groups = shared_uids(scanned)
    if not groups:
        return scanned, [], []
    reporter.phase("duplicates", sum(map(len, groups)))
    sources = [file.source for group in groups for file in group]
    tasks = (ProbeTask(chunk, request.config.result) for chunk in chunks(sources, 8))
    probes: dict[str, Probe] = {}
    for outcomes in executor.run(tasks):
        probes |= {probe.source.source: probe for probe in outcomes}
        reporter.step(len(outcomes), sum(probe.reject is not None for probe in outcomes))
    duplicates: list[Duplicate] = []
    rejects: list[Reject] = []
    for group in groups:
        same, other = judge(group, probes)
        duplicates += same
        rejects += other
    gone = {item.scanned.source.source for item in duplicates} | {item.source.source for item in rejects}
    kept = scanned.take(row for row, file in enumerate(scanned) if file.source.source not in gone)
    return kept, duplicates, rejects


def chunks(sources: Sequence[SourceFile], size: int) -> Iterator[tuple[SourceFile, ...]]:
    """Cut a sequence into tuples of at most `size`."""
    for start in range(0, len(sources), size):
        yield tuple(sources[start : start + size])
