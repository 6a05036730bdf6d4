"""What is finished already: journals of shards, and a complete dataset taken up again.

In:  OUT as a finished, interrupted or killed run left it, and the plans of now.
Out: results of the shards that need not be done again; everything else of ours is removed.

A disk or store that fails to answer ends the run (RunAborted): nothing is removed on its word.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from preprocess.atomic import aborting_on_io_error, clean_leftovers, remove_file
from preprocess.config import ResultConfig
from preprocess.errors import DatasetDamaged, DatasetUnreadable, RunAborted, UsageError
from preprocess.identifiers import Pseudonyms
from preprocess.manifest import (
    JOURNALS,
    MANIFEST,
    Manifest,
    files_are_whole,
    journal_of,
    read_manifest,
    read_rows,
    reopen,
)
from preprocess.places import Place, files_below, name_below, names_in, read_bytes, size_of
from preprocess.plan import ShardPlan
from preprocess.results import ShardResult, storable_text

_DATA_FILE = re.compile(r"fold=\d+/part-\d{5,}\.(tfrecord|parquet)|images/[^/]+/[^/]+\.png")


def shard_key(plan: ShardPlan, config: ResultConfig, pseudonyms: Pseudonyms) -> str:
    """The plan's key as it may be written: hashed once more with the key of --identifiers hash, if any.

    An unkeyed hash over names in OUT would let anyone test guesses of them.
    """
    key = plan.key(config)
    if pseudonyms.key is None:
        return key
    return hashlib.sha256(pseudonyms.key + key.encode()).hexdigest()


def load_finished(
    out: Place, plans: Sequence[ShardPlan], config: ResultConfig, pseudonyms: Pseudonyms | None = None
) -> dict[str, ShardResult]:
    """Finished shards by name: those whose key matches and whose files are still what was written.

    Not those with an input that could not be read: the next run tries it again.

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
    results = _of_manifest(out, manifest, plans, keys, pseudonyms) if manifest else []
    results = results if complete else _of_journals(out)
    finished = {r.name: r for r in results if keys.get(r.name) == r.key and _is_settled(r)}
    finished = {name: result for name, result in finished.items() if files_are_whole(out, result)}
    if not (manifest and len(finished) == len(plans) == len(manifest.shards)):
        reopen(out, finished.values())
    _remove_stale(out, finished)
    return {name: finished[name] for name in keys if name in finished}


def _is_settled(result: ShardResult) -> bool:
    """False if an input that the scan could read could not be read a moment later: that may pass."""
    return not any(row.reject_code == "unreadable" for row in result.rows)


def _of_journals(out: Place) -> list[ShardResult]:
    results = []
    for path in _journals(out):
        with contextlib.suppress(DatasetDamaged), aborting_on_io_error(path):
            result = ShardResult.from_json(read_bytes(path))
            if journal_of(out, result.name) == path:
                results.append(result)
    return results


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
) -> list[ShardResult]:
    """Results of a complete dataset's shards that are as planned; none if it is damaged."""
    try:
        rows = {row.source: row for row in read_rows(out, manifest.label_columns())}
        shards = {shard.name: shard for shard in manifest.shards if keys.get(shard.name) == shard.key}
        names = {p.name: [pseudonyms.source(storable_text(s.source)) for s in p.sources] for p in plans}
        return [
            ShardResult(
                s.name, s.fold, s.key, tuple(map(rows.__getitem__, names[s.name])), s.files, s.statistics
            )
            for s in shards.values()
        ]
    except DatasetUnreadable as error:
        raise RunAborted(str(error)) from error
    except (DatasetDamaged, KeyError):
        return []


def _journals(out: Place) -> list[Place]:
    with aborting_on_io_error(out):
        return [path for path in files_below(out / JOURNALS) if path.name.endswith(".json")]


def _remove_stale(out: Place, finished: dict[str, ShardResult]) -> None:
    journals = {journal_of(out, name) for name in finished}
    for path in _journals(out):
        if path not in journals:
            remove_file(path)
    wanted = {file.path for result in finished.values() for file in result.files}
    with aborting_on_io_error(out):
        names = [name_below(out, path) for path in files_below(out)]
    for name in names:
        if _DATA_FILE.fullmatch(name) and name not in wanted:
            remove_file(out / name)
    if isinstance(out, Path):
        _remove_empty_folders(out)


def _remove_empty_folders(out: Path) -> None:
    with aborting_on_io_error(out):
        top = names_in(out)
        inner = [out / "images" / name for name in names_in(out / "images")] if "images" in top else []
    for folder in (*inner, *(out / name for name in top if name.startswith(("fold=", "images")))):
        with contextlib.suppress(OSError):  # not empty, or somebody's file
            folder.rmdir()
