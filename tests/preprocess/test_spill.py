"""What a run keeps in files instead of memory: the same values, in order; clear words when the disk fails."""

from __future__ import annotations

import errno
import io
import random
import tempfile
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocess.columns import missing_from
from preprocess.errors import RunAborted
from preprocess.packed import PlainCodec
from preprocess.parquet import write_instances
from preprocess.records import Label, LabelColumn, LabelLevel, Status
from preprocess.results import PixelStatistics, ShardFile, ShardResult
from preprocess.schema import COLUMN_NAMES, InstanceRow, RowCodec, arrow_schema
from preprocess.spill import Results, Sorted

LABELS = (
    LabelColumn("cancer", "int64", LabelLevel.BREAST),
    LabelColumn("weight", "float64", LabelLevel.IMAGE),
)


def row(number: int) -> InstanceRow:
    labels = (Label("cancer", number % 2), Label("weight", number / 7)) if number % 3 else ()
    return InstanceRow(
        source=f"p{number // 4}/i{number}.dcm",
        status=Status.PREPARED if number % 5 else Status.REJECTED,
        reject_code=None if number % 5 else "blank_image",
        patient_id=f"p{number // 4}",
        image_id=f"ü{number}",
        rows=number,
        flipped=bool(number % 2),
        window_center=number / 3,
        labels=labels,
    )


def result(name: str, rows: int) -> ShardResult:
    statistics = PixelStatistics(1, 2, 4, 2, 2, (1,) + (0,) * 255)
    file = ShardFile(f"{name}.tfrecord", "tfrecord", 9, "0" * 64, rows)
    return ShardResult(name, 0, "key", tuple(map(row, range(rows))), (file,), statistics)


def test_rows_come_back_sorted_and_unchanged_as_often_as_asked() -> None:
    rows = [row(number) for number in range(9_000)]
    random.Random(1).shuffle(rows)
    kept = Sorted(RowCodec(), ((one.source.encode(), one) for one in rows))
    expected = sorted(rows, key=lambda one: one.source.encode())
    assert len(kept) == 9_000
    assert list(kept) == expected
    assert list(kept) == expected
    assert list(zip(kept, kept, strict=True)) == list(zip(expected, expected, strict=True))


def test_two_values_with_one_key_are_told_wherever_they_were_added() -> None:
    numbers = [*range(6_000), 17]
    kept = Sorted(PlainCodec[tuple[int]](), ((b"%09d" % number, (number,)) for number in numbers))
    with pytest.raises(RunAborted, match="twice"):
        kept.checked("twice")
    assert list(Sorted(PlainCodec[tuple[int]](), ()).checked("twice")) == []


def test_results_are_a_mapping_in_the_order_asked_for() -> None:
    a, b, again = result("a", 3), result("b", 0), result("a", 5)
    results = Results([a, b])
    assert results == {"a": a, "b": b}
    results.add(again)
    assert list(results.in_order(["b", "a"]).values()) == [b, again]
    assert "c" not in results
    with pytest.raises(KeyError):
        results.in_order(["c"])


def test_a_temporary_folder_without_room_ends_the_run_with_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(RunAborted, match="TMPDIR: No space left on device"):
        Results()


def test_the_table_written_group_by_group_has_the_bytes_of_one_written_at_once() -> None:
    for count in (0, 1, 4096, 9_000):
        rows = [row(number) for number in range(count)]
        columns = {name: [getattr(one, name) for one in rows] for name in COLUMN_NAMES}
        for column in LABELS:
            values = [{label.name: label.value for label in one.labels} for one in rows]
            columns[column.name] = [value.get(column.name) for value in values]
        whole, parts = io.BytesIO(), io.BytesIO()
        pq.write_table(
            pa.table(columns, schema=arrow_schema(LABELS)),
            whole,
            row_group_size=4096,
            version="2.6",
            compression="zstd",
            compression_level=3,
            write_page_checksum=True,
            store_schema=False,
            data_page_size=1 << 20,
            write_batch_size=1024,
            data_page_version="1.0",
        )
        write_instances(parts, iter(rows), LABELS)
        assert parts.getvalue() == whole.getvalue(), count


def test_what_is_missing_is_named_and_nothing_else() -> None:
    texts = [f"t{number}" for number in range(100)]
    assert missing_from(texts, texts[::-1]) == []
    assert missing_from(texts, [*texts[2:], "other"]) == ["t0", "t1"]


def test_statistics_of_nothing_and_of_parts() -> None:
    one = result("a", 1).statistics
    assert PixelStatistics.total(()) == PixelStatistics()
    both = PixelStatistics.total((one, replace(one, minimum=0, maximum=7)))
    assert (both.count, both.minimum, both.maximum, both.histogram[0]) == (2, 0, 7, 2)
