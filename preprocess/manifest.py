"""manifest.json and instances.parquet: the end of a run, and the beginning of reading a dataset.

In:  results of all shards, rows of all other inputs, the result config.
Out: instances.parquet, then, last and atomically, manifest.json: its presence says that the dataset is
     complete. Deterministic: no time, host, device or decoder. It carries its own sha256.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydantic import ValidationError

from preprocess.atomic import (
    NewFile,
    aborting_on_io_error,
    clean_leftovers,
    new_file,
    remove_file,
    remove_folder,
    write_atomically,
)
from preprocess.config import SCHEMA_VERSION, ResultConfig
from preprocess.errors import DatasetDamaged, DatasetUnreadable, RunAborted, UsageError
from preprocess.failures import describe
from preprocess.images import SHARD_COLUMNS
from preprocess.leakage import LeakageGroup, find_leakage
from preprocess.parquet import read_instances, write_instances
from preprocess.places import Place, open_bytes, read_bytes, size_of
from preprocess.plan import positive_label, utf8_key
from preprocess.records import Label, LabelColumn, LabelValue, Status
from preprocess.results import ShardResult, canonical_json, storable
from preprocess.schema import COLUMN_NAMES, InstanceRow, RowCodec
from preprocess.spill import Sorted
from preprocess.summaries import (
    Counts,
    FoldEntry,
    Frozen,
    LabelEntry,
    ShardEntry,
    StatisticsEntry,
    counts_of,
    folds_of,
    labels_of,
    shard_of,
    statistics_of,
)

__all__ = [
    "Counts",
    "FoldEntry",
    "LabelEntry",
    "Manifest",
    "ShardEntry",
    "StatisticsEntry",
    "files_are_there",
    "files_are_whole",
    "finish",
    "iterate_rows",
    "journal_of",
    "read_manifest",
    "read_rows",
    "reopen",
    "require_files",
    "rows_sha256",
    "unsealed",
    "write_journal",
]

MANIFEST = "manifest.json"
INSTANCES = "instances.parquet"
RUN = "run.json"
STAMPS = "input_stamps"
"""In run.json: shard → `ShardResult.stamp`, for the next run on the same dataset."""
JOURNALS = ".bcd/shards"
_SEAL = b',\n "sha256": '


class Manifest(Frozen):
    """What manifest.json says; see docs/dataset.md."""

    schema_version: int
    config: ResultConfig
    config_sha256: str
    plan_sha256: str
    counts: Counts
    columns: tuple[str, ...]
    """Columns of instances.parquet, without labels."""
    shard_columns: tuple[str, ...]
    """Those of them that shards carry beside the image."""
    labels: tuple[LabelEntry, ...]
    positive_label: str | None
    """The label that folds are stratified by."""
    folds: tuple[FoldEntry, ...]
    shards: tuple[ShardEntry, ...]
    statistics: StatisticsEntry
    possible_leakage: tuple[LeakageGroup, ...]
    """The same pixels under several patients."""
    identifiers_key_check: str | None
    """Tells the key of --identifiers hash from others; None with keep."""
    rows_sha256: str
    """Over all rows of instances.parquet without `decoder`, in source order."""

    def label_columns(self) -> tuple[LabelColumn, ...]:
        """Labels as the writers take them."""
        return tuple(LabelColumn(entry.name, entry.kind, entry.level) for entry in self.labels)

    def to_bytes(self) -> bytes:
        """The one text of this value, ending in the sha256 of what precedes it; lists one item a line."""
        lines = []
        for name, value in self.model_dump(mode="json").items():
            if isinstance(value, list) and value and isinstance(value[0], dict):
                items = ",\n".join(f"  {canonical_json(item)}" for item in value)
                lines.append(f' "{name}": [\n{items}\n ]')
            else:
                lines.append(f' "{name}": {canonical_json(value)}')
        body = ("{\n" + ",\n".join(lines)).encode()
        return body + _SEAL + _seal_value(body)


def finish(
    out: Place,
    results: Collection[ShardResult],
    other_rows: Iterable[InstanceRow],
    *,
    config: ResultConfig,
    label_columns: Sequence[LabelColumn] = (),
    ignored: int = 0,
    key_check: str | None = None,
) -> Manifest:
    """Write instances.parquet, then manifest.json, then drop the journals. All workers are done by now.

    Where both are there already, nothing is written; where they change, the journals come first, so that
    nothing is lost in between.

    `other_rows` (inputs in no shard) have gone through Pseudonyms.row, as the shards' rows have.

    Raises:
        RunAborted: the disk does not take it, or a source has two rows.
    """
    clean_leftovers(out)
    rows = _in_source_order(results, other_rows)
    manifest = _manifest(rows, results, config, tuple(label_columns), ignored, key_check)
    with new_file(out / INSTANCES) as table:
        write_instances(cast(BinaryIO, table), rows, label_columns)
        if not (_holds(out / MANIFEST, manifest.to_bytes()) and _is_same(out / INSTANCES, table)):
            reopen(out, results)
            table.commit()
            write_atomically(out / MANIFEST, manifest.to_bytes())
    remove_folder(out / JOURNALS)
    return manifest


def _in_source_order(
    results: Iterable[ShardResult], other_rows: Iterable[InstanceRow]
) -> Sorted[InstanceRow]:
    rows = chain((row for result in results for row in result.rows), map(storable, other_rows))
    in_order = Sorted(RowCodec(), ((utf8_key(row.source), row) for row in rows))
    return in_order.checked("a source has two rows: the accounting of inputs is broken")


def _is_same(path: Place, file: NewFile) -> bool:
    """True if a file is there already and holds what is written into the new one."""
    with aborting_on_io_error(path):
        return size_of(path) == file.size and _file_sha256(path) == file.sha256()


def require_files(out: Place, results: Iterable[ShardResult]) -> None:
    """Raise RunAborted if a finished shard is not there any more: somebody removed it during the run."""
    for result in results:
        if not files_are_there(out, result):
            raise RunAborted(f"{result.name} was finished, but is not there any more")


def _holds(path: Place, data: bytes) -> bool:
    with aborting_on_io_error(path):
        return size_of(path) == len(data) and read_bytes(path) == data


def reopen(out: Place, keep: Iterable[ShardResult]) -> None:
    """Turn a complete dataset into an unfinished one: journals first, then the manifest goes."""
    with aborting_on_io_error(out / MANIFEST):
        if size_of(out / MANIFEST) is None:
            return
    for result in keep:
        write_journal(out, result)
    remove_file(out / MANIFEST)
    remove_file(out / INSTANCES)
    remove_file(out / RUN)


def files_are_there(out: Place, result: ShardResult) -> bool:
    """True if all of a shard's files are there and have the right size. Raises RunAborted."""
    with aborting_on_io_error(out):
        return all(size_of(out / file.path) == file.bytes for file in result.files)


def files_are_whole(out: Place, result: ShardResult) -> bool:
    """True if all of a shard's files are there and are what was written; at a URL, only their sizes count.

    Raises RunAborted.
    """
    if not files_are_there(out, result):
        return False
    if not isinstance(out, Path):
        return True
    with aborting_on_io_error(out):
        return all(_file_sha256(out / file.path) == file.sha256 for file in result.files)


def _file_sha256(path: Place) -> str:
    digest = hashlib.sha256()
    with open_bytes(path) as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def journal_of(out: Place, name: str) -> Place:
    """Where a shard's journal lies."""
    return out / JOURNALS / f"{name}.json"


def write_journal(out: Place, result: ShardResult) -> None:
    """Say that a shard is finished. Raises RunAborted."""
    write_atomically(journal_of(out, result.name), result.to_json())


def read_manifest(out: Place) -> Manifest:
    """Read and check manifest.json.

    Raises:
        UsageError: there is none, or it has another schema version.
        DatasetDamaged: it is not what was written, or cannot be read (DatasetUnreadable).
    """
    try:
        data = read_bytes(out / MANIFEST)
    except FileNotFoundError:
        raise UsageError(f"{out} has no {MANIFEST}: not a complete dataset of bcd-prep") from None
    except OSError as error:
        raise DatasetUnreadable(f"{MANIFEST} cannot be read: {describe(error)}") from None
    document = unsealed(data)
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UsageError(f"{out} has schema version {version}; this program reads {SCHEMA_VERSION}")
    try:
        return Manifest.model_validate(document)
    except ValidationError:
        raise UsageError(f"{out} was made by another version of bcd-prep") from None


def unsealed(data: bytes) -> dict[str, Any]:
    """The JSON of manifest.json's bytes. Raises DatasetDamaged if its seal is broken."""
    body, _, tail = data.rpartition(_SEAL)
    if tail != _seal_value(body):
        raise DatasetDamaged(f"{MANIFEST} is not what was written")
    document: dict[str, Any] = json.loads(body + b"}")
    return document


def _seal_value(body: bytes) -> bytes:
    return f'"{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()


def read_rows(out: Place, label_columns: Sequence[LabelColumn]) -> list[InstanceRow]:
    """Rows of instances.parquet in source order, page checksums verified. Raises DatasetDamaged."""
    return list(iterate_rows(out, label_columns))


def iterate_rows(out: Place, label_columns: Sequence[LabelColumn]) -> Iterator[InstanceRow]:
    """The same one by one: a row group in memory."""
    try:
        for values in read_instances(out / INSTANCES):
            labels = tuple(Label(c.name, values[c.name]) for c in label_columns if values[c.name] is not None)
            fields = {name: values[name] for name in COLUMN_NAMES} | {"status": Status(str(values["status"]))}
            yield InstanceRow(labels=labels, **fields)  # type: ignore[arg-type]  # checked
    except (KeyError, ValueError):
        raise DatasetDamaged(f"{INSTANCES} lacks a column or has an unknown status") from None


def rows_sha256(rows: Iterable[InstanceRow], label_columns: Sequence[LabelColumn]) -> str:
    """Hex sha256 over rows in the order given, `decoder` left out: it may differ between devices."""
    names = [name for name in COLUMN_NAMES if name != "decoder"]
    digest = hashlib.sha256(canonical_json([names, [column.name for column in label_columns]]).encode())
    for row in rows:
        labels = {label.name: label.value for label in row.labels}
        values = [getattr(row, name) for name in names]
        values += [_typed(labels.get(column.name), column.kind) for column in label_columns]
        digest.update(b"\n" + canonical_json(values).encode())
    return digest.hexdigest()


def _typed(value: LabelValue, kind: str) -> LabelValue:
    """A label as the table gives it back: a whole number in a float64 column is a float."""
    return float(value) if kind == "float64" and value is not None else value


def _manifest(
    rows: Iterable[InstanceRow],
    results: Collection[ShardResult],
    config: ResultConfig,
    label_columns: tuple[LabelColumn, ...],
    ignored: int,
    key_check: str | None,
) -> Manifest:
    positive = positive_label(label_columns, (row.labels for row in rows))
    shards = tuple(shard_of(result) for result in results)
    keys = "\n".join(shard.key for shard in shards)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        config=config,
        config_sha256=config.sha256(),
        plan_sha256=hashlib.sha256(keys.encode()).hexdigest(),
        counts=counts_of(rows, ignored),
        columns=COLUMN_NAMES,
        shard_columns=SHARD_COLUMNS,
        labels=labels_of(label_columns, rows),
        positive_label=positive,
        folds=folds_of(results, config.folds, positive),
        shards=shards,
        statistics=statistics_of(results),
        possible_leakage=find_leakage(rows),
        identifiers_key_check=key_check,
        rows_sha256=rows_sha256(rows, label_columns),
    )
