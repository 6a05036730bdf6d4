"""What is finished already: journals of shards, and a complete dataset taken up again.

In:  OUT as a finished, interrupted or killed run left it, and the plans of now.
Out: results of the shards that need not be done again; everything else of ours is removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from preprocess.atomic import aborting_on_io_error, clean_leftovers, remove_file, write_atomically
from preprocess.config import ResultConfig
from preprocess.errors import DatasetDamaged, UsageError
from preprocess.identifiers import Pseudonyms
from preprocess.manifest import INSTANCES, JOURNALS, MANIFEST, read_manifest, read_rows
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


def write_journal(out: Path, result: ShardResult) -> None:
    """Say that a shard is finished. Raises RunAborted."""
    write_atomically(_journal(out, result.name), result.to_json())


def load_finished(
    out: Path, plans: Sequence[ShardPlan], config: ResultConfig, pseudonyms: Pseudonyms | None = None
) -> dict[str, ShardResult]:
    """Finished shards by name: those whose key matches and whose files are there with the right size.

    All other data files in OUT's `fold=*` and `images` are removed, with their journals, and what killed
    workers left. A complete dataset whose shards are not those of the plans loses its manifest first, so that
    it never claims to be complete. Only while no other run writes to OUT.
    """
    if not out.is_dir():
        return {}
    clean_leftovers(out)
    pseudonyms = pseudonyms or Pseudonyms()
    keys = {plan.name: shard_key(plan, config, pseudonyms) for plan in plans}
    complete = (out / MANIFEST).exists()
    results = _of_manifest(out, plans, keys, pseudonyms) if complete else _of_journals(out)
    finished = {r.name: r for r in results if keys.get(r.name) == r.key and _files_are_there(out, r)}
    if complete and len(finished) == len(plans) == _shard_count(out):
        return finished
    if complete:
        _take_apart(out, finished.values())
    _remove_stale(out, finished)
    return {name: finished[name] for name in keys if name in finished}


def _shard_count(out: Path) -> int:
    return len(read_manifest(out).shards)


def _journal(out: Path, name: str) -> Path:
    return out / JOURNALS / f"{name}.json"


def _of_journals(out: Path) -> list[ShardResult]:
    results = []
    for path in sorted((out / JOURNALS).glob("*/*.json")):
        with contextlib.suppress(DatasetDamaged), aborting_on_io_error(path):
            result = ShardResult.from_json(path.read_bytes())
            if _journal(out, result.name) == path:
                results.append(result)
    return results


def _of_manifest(
    out: Path, plans: Sequence[ShardPlan], keys: dict[str, str], pseudonyms: Pseudonyms
) -> list[ShardResult]:
    """Results of a complete dataset's shards that are as planned; none if it is damaged."""
    try:
        manifest = read_manifest(out)
        rows = {row.source: row for row in read_rows(out, manifest.label_columns())}
        shards = {shard.name: shard for shard in manifest.shards if keys.get(shard.name) == shard.key}
        names = {p.name: [pseudonyms.source(storable_text(s.source)) for s in p.sources] for p in plans}
        return [
            ShardResult(
                s.name, s.fold, s.key, tuple(map(rows.__getitem__, names[s.name])), s.files, s.statistics
            )
            for s in shards.values()
        ]
    except (DatasetDamaged, UsageError, KeyError):
        return []


def _files_are_there(out: Path, result: ShardResult) -> bool:
    with aborting_on_io_error(out):
        paths = [(out / file.path, file.bytes) for file in result.files]
        return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def _take_apart(out: Path, keep: Iterable[ShardResult]) -> None:
    """Turn a complete dataset into an unfinished one: journals first, then the manifest goes."""
    for result in keep:
        write_journal(out, result)
    remove_file(out / MANIFEST)
    remove_file(out / INSTANCES)


def _remove_stale(out: Path, finished: dict[str, ShardResult]) -> None:
    journals = {_journal(out, name) for name in finished}
    for path in sorted((out / JOURNALS).glob("*/*.json")):
        if path not in journals:
            remove_file(path)
    wanted = {file.path for result in finished.values() for file in result.files}
    for path in _data_files(out):
        if path.relative_to(out).as_posix() not in wanted:
            remove_file(path)
    _remove_empty_folders(out)


def _data_files(out: Path) -> Iterator[Path]:
    for path in sorted([*out.glob("fold=*/*"), *out.glob("images/*/*")]):
        if _DATA_FILE.fullmatch(path.relative_to(out).as_posix()):
            yield path


def _remove_empty_folders(out: Path) -> None:
    for folder in (*out.glob("images/*"), *out.glob("fold=*"), out / "images"):
        with contextlib.suppress(OSError):  # not empty: somebody's
            folder.rmdir()
