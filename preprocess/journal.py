"""What is finished already: journals of shards, and a complete dataset taken up again.

In:  OUT as a finished, interrupted or killed run left it, and the plans of now.
Out: results of the shards that need not be done again; everything else of ours is removed.

A disk or store that fails to answer ends the run (RunAborted): nothing is removed on its word.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from preprocess._read import read_bytes as read_input
from preprocess.atomic import aborting_on_io_error, clean_leftovers, remove_file
from preprocess.config import ResultConfig
from preprocess.errors import (
    OF_THE_RUN,
    DatasetDamaged,
    DatasetUnreadable,
    RejectedInput,
    RunAborted,
    UsageError,
)
from preprocess.identifiers import Pseudonyms
from preprocess.manifest import (
    JOURNALS,
    MANIFEST,
    RUN,
    STAMPS,
    Manifest,
    files_are_whole,
    iterate_rows,
    journal_of,
    read_manifest,
    reopen,
)
from preprocess.packed import PlainCodec
from preprocess.places import Place, files_below, name_below, names_in, read_bytes, size_of
from preprocess.plan import ShardPlan, utf8_key
from preprocess.records import SourceFile
from preprocess.results import ShardResult, storable_text
from preprocess.schema import InstanceRow, RowCodec
from preprocess.spill import Results, Sorted

_MAY_PASS = frozenset({"unreadable"})
"""What the scan could read and a moment later nobody could."""
_PLACE = struct.Struct(">QQ")  # sorts as the pair of numbers does
DATA_FILE = re.compile(r"fold=\d+/part-\d{5,}\.(tfrecord|parquet)|images/[^/]+/[^/]+\.png")
"""What shards are written to, below OUT."""


def shard_key(plan: ShardPlan, config: ResultConfig, pseudonyms: Pseudonyms) -> str:
    """The plan's key as it may be written: hashed once more with the key of --identifiers hash, if any.

    An unkeyed hash over names in OUT would let anyone test guesses of them.
    """
    key = plan.key(config)
    if pseudonyms.key is None:
        return key
    return hashlib.sha256(pseudonyms.key + key.encode()).hexdigest()


def load_finished(
    out: Place,
    plans: Sequence[ShardPlan],
    config: ResultConfig,
    pseudonyms: Pseudonyms | None = None,
    *,
    retry: bool = False,
) -> Results:
    """Finished shards by name: those whose key matches and whose files are still what was written.

    Not those with an input that could not be read: the next run tries it again; if `retry`, nor those with
    one that the limits or circumstances of an earlier run may have rejected (`OF_THE_RUN`).

    All other data files in OUT's `fold=*` and `images` are removed, with their journals, and what killed
    workers left. A complete dataset whose shards are not those of the plans loses its manifest first, so that
    it never claims to be complete. Only while no other run writes to OUT.
    """
    clean_leftovers(out)
    pseudonyms = pseudonyms or Pseudonyms()
    keys = {plan.name: shard_key(plan, config, pseudonyms) for plan in plans}
    with aborting_on_io_error(out / MANIFEST):
        complete = size_of(out / MANIFEST) is not None
    manifest = _manifest_of(out) if complete else None
    results = _of_manifest(out, manifest, plans, keys, pseudonyms) if manifest else iter(())
    results = results if complete else _of_journals(out)
    by_name = {plan.name: plan for plan in plans}
    finished = Results(
        replace(result, stamp=by_name[result.name].stamp())
        for result in results
        if keys.get(result.name) == result.key
        and _is_settled(result, _MAY_PASS | (OF_THE_RUN if retry else frozenset()))
        and _is_of_these_inputs(result, by_name[result.name], config)
        and files_are_whole(out, result)
    )
    if not (manifest and len(finished) == len(plans) == len(manifest.shards)):
        reopen(out, finished.values())
    _remove_stale(out, finished)
    return finished.in_order(name for name in keys if name in finished)


def _is_settled(result: ShardResult, unsettled: frozenset[str]) -> bool:
    """False if an input was rejected for a reason that another run need not have."""
    return not any(row.reject_code in unsettled for row in result.rows)


def _is_of_these_inputs(result: ShardResult, plan: ShardPlan, config: ResultConfig) -> bool:
    """False if an input was replaced by another of the same size: its time differs, and so does its hash."""
    if plan.stamp() in ("", result.stamp):
        return True
    return all(
        row.file_sha256 is not None and row.file_sha256 == _sha256_of(source, config.max_file_bytes)
        for row, source in zip(result.rows, plan.sources, strict=True)
    )


def _sha256_of(source: SourceFile, max_bytes: int) -> str | None:
    try:
        return hashlib.sha256(read_input(source, max_bytes)).hexdigest()
    except RejectedInput:
        return None


def _of_journals(out: Place) -> Iterator[ShardResult]:
    for path in _journals(out):
        with contextlib.suppress(DatasetDamaged):
            with aborting_on_io_error(path):
                data = read_bytes(path)
            result = ShardResult.from_json(data)
            if journal_of(out, result.name) == path:
                yield result


def _manifest_of(out: Place) -> Manifest | None:
    """The manifest; None if it is damaged or of another version."""
    try:
        return read_manifest(out)
    except DatasetUnreadable as error:
        raise RunAborted(str(error)) from error
    except (DatasetDamaged, UsageError):
        return None


def _of_manifest(
    out: Place, manifest: Manifest, plans: Sequence[ShardPlan], keys: dict[str, str], pseudonyms: Pseudonyms
) -> Iterator[ShardResult]:
    """Results of a complete dataset's shards that are as planned; none if it is damaged."""
    shards = {shard.name: shard for shard in manifest.shards if keys.get(shard.name) == shard.key}
    planned = [plan for plan in plans if plan.name in shards]
    stamps = _stamps(out)
    places = Sorted(
        PlainCodec(),
        (
            (utf8_key(pseudonyms.source(storable_text(source.source))), (number, at))
            for number, plan in enumerate(planned)
            for at, source in enumerate(plan.sources)
        ),
    )
    try:
        rows = Sorted(RowCodec(), _placed(iterate_rows(out, manifest.label_columns()), places))
    except DatasetUnreadable as error:
        raise RunAborted(str(error)) from error
    except DatasetDamaged:
        return
    members = groupby(rows.items(), key=lambda item: _PLACE.unpack(item[0])[0])
    for number, group in members:
        shard, of_shard = shards[planned[number].name], tuple(row for _, row in group)
        if len(of_shard) == len(planned[number].sources):
            stamp = stamps.get(shard.name, "")
            yield ShardResult(
                shard.name, shard.fold, shard.key, of_shard, shard.files, shard.statistics, stamp
            )


def _stamps(out: Place) -> dict[str, str]:
    """What run.json says of the shards' inputs; nothing if it is not there or not whole."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        stamps = json.loads(read_bytes(out / RUN)).get(STAMPS, {})
        return {str(name): str(stamp) for name, stamp in stamps.items()}
    return {}


def _placed(
    rows: Iterable[InstanceRow], places: Sorted[tuple[int, int]]
) -> Iterator[tuple[bytes, InstanceRow]]:
    """Rows that a plan asks for, by shard and place in it; both come in the order of sources."""
    wanted = places.items()
    key, place = next(wanted, (None, (0, 0)))
    for row in rows:
        while key is not None and key < utf8_key(row.source):
            key, place = next(wanted, (None, (0, 0)))
        if key == utf8_key(row.source):
            yield _PLACE.pack(*place), row


def _journals(out: Place) -> list[Place]:
    with aborting_on_io_error(out):
        return [path for path in files_below(out / JOURNALS) if path.name.endswith(".json")]


def _remove_stale(out: Place, finished: Results) -> None:
    journals = {journal_of(out, name) for name in finished}
    for path in _journals(out):
        if path not in journals:
            remove_file(path)
    wanted = {file.path for result in finished.values() for file in result.files}
    with aborting_on_io_error(out):
        names = [name_below(out, path) for path in files_below(out)]
    for name in names:
        if DATA_FILE.fullmatch(name) and name not in wanted:
            remove_file(out / name)
    if isinstance(out, Path):
        remove_empty_folders(out)


def remove_empty_folders(out: Path) -> None:
    """Of those that shards lie in."""
    with aborting_on_io_error(out):
        top = names_in(out)
        inner = [out / "images" / name for name in names_in(out / "images")] if "images" in top else []
    for folder in (*inner, *(out / name for name in top if name.startswith(("fold=", "images")))):
        with contextlib.suppress(OSError):  # not empty, or somebody's file
            folder.rmdir()
