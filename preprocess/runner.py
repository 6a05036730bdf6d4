"""A run: discover → scan → plan → prepare shard by shard → manifest, resumable at every point.

In:  inputs, OUT and the config.
Out: the dataset of docs/dataset.md in OUT, and a RunSummary. `run` is the whole program as one function.
"""

from __future__ import annotations

import contextlib
import platform
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from typing import NamedTuple, Self

from preprocess import interrupts, output, report_task
from preprocess.atomic import aborting_on_io_error
from preprocess.columns import Texts, missing_from
from preprocess.discover import contains, inside
from preprocess.errors import UNCOUNTED_CODES, BcdError, DatasetDamaged, RunAborted, UsageError
from preprocess.executors.base import Executor, Record
from preprocess.executors.local import LocalExecutor
from preprocess.gpus import devices_of
from preprocess.identifiers import Pseudonyms
from preprocess.keyring import pseudonyms_of
from preprocess.leakage import summary as leakage_summary
from preprocess.locks import Lock
from preprocess.manifest import INSTANCES, MANIFEST, RUN, STAMPS, finish, require_files
from preprocess.parquet import read_sources
from preprocess.places import Place, size_of
from preprocess.plan import ShardPlan
from preprocess.planning import Plan, RunRequest, make_plan
from preprocess.progress import Reporter, Silent
from preprocess.records import SourceFile, Status
from preprocess.results import storable_text
from preprocess.roi import detector_of
from preprocess.schema import InstanceRow, duplicate_row, rejected_row
from preprocess.shards import ShardResult, load_finished
from preprocess.tasks import ShardTask
from preprocess.thumbnails import CONTACT_SHEET_IMAGES, contact_sources

_PACKAGES = ("bcd-mammography", "imagecodecs", "numpy", "pillow", "pyarrow", "pydicom", "scipy")


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What came of a run. found = prepared + rejected + duplicate; other files are `ignored`."""

    out: Place
    found: int
    ignored: int
    prepared: int
    rejected: int
    duplicate: int
    rejected_by_code: tuple[tuple[str, int], ...]
    shards: int
    shards_reused: int
    seconds: float
    exit_code: int


def run(request: RunRequest, reporter: Reporter | None = None) -> RunSummary:
    """Prepare a dataset; doing it again finishes what is missing.

    Raises UsageError (exit 2) or RunAborted (exit 1); KeyboardInterrupt leaves a resumable OUT (130).
    """
    reporter = reporter or Silent()
    result, execution = request.config.result, request.config.execution
    if contains(request.inputs, str(request.out)):
        raise UsageError(f"--out {request.out} lies inside an input; give a folder outside of it")
    if (within := inside(request.inputs, str(request.out))) is not None:
        raise UsageError(f"input {within} lies inside --out {request.out}; give another folder for --out")
    output.refuse_foreign(request.out)
    if result.roi_detector is not None:
        detector_of(result.roi_detector)  # a name that is none is told now, not image by image
    devices = devices_of(execution)
    workers = partial(
        LocalExecutor,
        execution.worker_count(),
        execution.image_timeout_s,
        execution.worker_memory,
        devices=devices,
        require_device=execution.require_gpu,
    )
    if execution.dry_run:
        with workers() as executor:
            plan = make_plan(request, executor, reporter)
            return _summary(request, plan, _Planned.of(plan), [], 0, time.monotonic())
    # The lock goes last: no worker of this run writes once another may hold it.
    with output.opened(request.out, result, overwrite=execution.overwrite) as lock, workers() as executor:
        return _run(request, executor, lock, reporter, len(devices))


class Spent(NamedTuple):
    """What the shards of this run cost."""

    stages: dict[str, float]
    """Seconds."""
    bytes_read: int
    """Of inputs, while preparing; planning reads headers besides."""


class _Planned(NamedTuple):
    """How much was planned: what the end of a run still needs of its shards' plans."""

    names: tuple[str, ...]
    """Of shards."""
    images: int

    @classmethod
    def of(cls, plan: Plan) -> Self:
        return cls(tuple(shard.name for shard in plan.shards), sum(len(each.sources) for each in plan.shards))


def _run(request: RunRequest, executor: Executor, lock: Lock, reporter: Reporter, devices: int) -> RunSummary:
    started, begin = datetime.now(UTC), time.monotonic()
    pseudonyms = pseudonyms_of(request.out, request.config.result, request.config.execution.key_file)
    plan = make_plan(request, executor, reporter)
    if not request.config.execution.overwrite:
        _refuse_to_forget(request.out, plan, pseudonyms)
    retry = request.config.execution.retry
    done = load_finished(request.out, plan.shards, request.config.result, pseudonyms, retry=retry)
    todo = [shard for shard in plan.shards if shard.name not in done]
    if done:
        reporter.note(f"{len(done)} of {len(plan.shards)} shards are finished already")
    seconds: Counter[str] = Counter()
    bytes_read = 0
    reporter.phase("prepare", sum(len(shard.sources) for shard in todo))
    tasks = _shard_tasks(request, plan, todo, pseudonyms, devices)
    for outcome in executor.run(tasks):
        lock.check()
        done.add(outcome.result)
        seconds.update(dict(outcome.seconds))
        bytes_read += outcome.bytes_read
        interrupts.check()
        bad = sum(row.status is Status.REJECTED for row in outcome.result.rows)
        reporter.step(len(outcome.result.rows), bad)
    planned, reused = _Planned.of(plan), len(plan.shards) - len(todo)
    plan = replace(plan, shards=())  # of a million images, half a gigabyte that the report needs
    del todo, tasks
    results = done.in_order(planned.names).values()
    lock.check()
    require_files(request.out, results)
    manifest = finish(
        request.out,
        results,
        map(pseudonyms.row, _other_rows(plan)),
        config=request.config.result,
        label_columns=plan.label_columns,
        ignored=plan.discovery.ignored,
        key_check=pseudonyms.check(),
    )
    if note := leakage_summary(manifest.possible_leakage):
        reporter.note(note)
    summary = _summary(request, plan, planned, results, reused, begin)
    if executor.record.lost:
        reporter.note(executor.record.as_text())
    if (left := executor.record.devices["cpu"]) and executor.record.devices.total():
        reporter.note(
            f"{left} of {executor.record.devices.total()} shards were left to the CPU by failed GPUs"
        )
    try:
        stamps = {result.name: result.stamp for result in results if result.stamp}
        spent = Spent(dict(seconds), bytes_read)
        _write_run_json(request, summary, started, spent, executor.record, stamps)
        _write_report(request.out, executor, planned.images)
    except (BcdError, OSError) as error:
        raise RunAborted(f"the dataset is complete, but its report could not be written: {error}") from error
    return summary


def _write_report(out: Place, executor: Executor, images: int) -> None:
    """Where there are many images, a worker makes it; here, where none can, which also says why."""
    task = report_task.ReportTask(out)
    if images > report_task.LARGE:
        with contextlib.suppress(RunAborted):
            list(executor.run([task]))
            return
    task.run(lambda _: None)


def _shard_tasks(
    request: RunRequest, plan: Plan, todo: Sequence[ShardPlan], pseudonyms: Pseudonyms, devices: int
) -> Iterator[ShardTask]:
    """One for each shard; with devices, which take them in turn, a hint of who comes after."""
    # More than the sheet shows: some will turn out to be rejects.
    contact = {source.source for source in contact_sources(_Sources(plan.shards), 4 * CONTACT_SHEET_IMAGES)}
    kind = _kind_of_task(gpu=request.config.execution.gpu)

    def task_of(planned: ShardPlan) -> ShardTask:
        shard = planned.unpacked()
        return kind(
            tuple(shard.sources),
            request.config.result,
            out=request.out,
            plan=shard,
            label_columns=plan.label_columns,
            pseudonyms=pseudonyms,
            contact=frozenset(source.source for source in shard.sources if source.source in contact),
        )

    waiting: deque[ShardTask] = deque()
    for planned in todo:
        waiting.append(task_of(planned))
        if len(waiting) > devices:
            task = waiting.popleft()
            yield task.before(waiting[-1]) if devices else task
    yield from waiting


def _kind_of_task(*, gpu: bool) -> type[ShardTask]:
    if not gpu:
        return ShardTask
    from dali_pipelines.tasks import DeviceShardTask

    return DeviceShardTask


@dataclass(frozen=True, slots=True)
class _Sources:
    """The inputs of all shards, again and again, one at a time."""

    shards: Sequence[ShardPlan]

    def __iter__(self) -> Iterator[SourceFile]:
        return (source for shard in self.shards for source in shard.sources)


def _refuse_to_forget(out: Place, plan: Plan, pseudonyms: Pseudonyms) -> None:
    """A finished dataset may grow; that it would lose inputs is told before anything is removed."""
    with aborting_on_io_error(out / MANIFEST):
        if size_of(out / MANIFEST) is None:
            return
    rejected = (reject.source for reject in plan.rejects)
    duplicate = (item.scanned.source for item in plan.duplicates)
    sources = chain(_Sources(plan.shards), rejected, duplicate)
    try:
        known = Texts(read_sources(out / INSTANCES))
    except DatasetDamaged:
        return  # what it has is not known; it will be made again
    missing = missing_from(known, (pseudonyms.source(storable_text(source.source)) for source in sources))
    if missing:
        raise UsageError(
            f"{out} has {len(missing)} inputs that are not among these, such as {min(missing)}; give all"
            " inputs together, or --overwrite to keep only these"
        )


def _other_rows(plan: Plan) -> Iterator[InstanceRow]:
    """Rows of inputs that are in no shard."""
    yield from map(rejected_row, plan.rejects)
    for item in plan.duplicates:
        yield duplicate_row(item.scanned, item.original.source.source, item.file_sha256)


def _summary(
    request: RunRequest,
    plan: Plan,
    planned: _Planned,
    results: Iterable[ShardResult],
    reused: int,
    begin: float,
) -> RunSummary:
    codes: Counter[str] = Counter()
    prepared = 0
    for result in results:
        codes.update(row.reject_code or "" for row in result.rows if row.status is Status.REJECTED)
        prepared += sum(row.status is Status.PREPARED for row in result.rows)
    codes.update(reject.code for reject in plan.rejects)
    rejected, duplicate = sum(codes.values()), len(plan.duplicates)
    counted = sum(count for code, count in codes.items() if code not in UNCOUNTED_CODES)
    found = planned.images + len(plan.rejects) + duplicate
    allowed = request.config.execution.rejects_allowed(found - (rejected - counted))
    return RunSummary(
        out=request.out,
        found=found,
        ignored=plan.discovery.ignored,
        prepared=prepared,
        rejected=rejected,
        duplicate=duplicate,
        rejected_by_code=tuple(sorted(codes.items())),
        shards=len(planned.names),
        shards_reused=reused,
        seconds=time.monotonic() - begin,
        exit_code=3 if counted > allowed else 0,
    )


def _write_run_json(
    request: RunRequest,
    summary: RunSummary,
    started: datetime,
    spent: Spent,
    record: Record,
    stamps: dict[str, str],
) -> None:
    document = {
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(summary.seconds, 3),
        "images_per_second": round(summary.prepared / max(summary.seconds, 1e-9), 3),
        "workers": request.config.execution.worker_count(),
        "supervision": record.as_json(),
        "execution": request.config.execution.model_dump(mode="json", exclude={"key_file"}),
        "shards_reused": summary.shards_reused,
        "host": {
            "machine": platform.machine(),
            "system": platform.system(),
            "python": platform.python_version(),
        },
        "versions": {name: _version(name) for name in _PACKAGES},
        STAMPS: stamps,
        "stages": {name: round(value, 3) for name, value in sorted(spent.stages.items())},
        "input_bytes_read": spent.bytes_read,
    }
    output.write_json(request.out / RUN, document)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
