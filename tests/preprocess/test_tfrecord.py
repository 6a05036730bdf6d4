from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.errors import DatasetDamaged
from preprocess.tfrecord import (
    decode_example,
    encode_example,
    frame_record,
    read_records,
    read_span,
    record_spans,
)

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(width=32, allow_nan=False),
    st.text(max_size=20),
    st.binary(max_size=20),
)
examples = st.dictionaries(st.text(min_size=1, max_size=8), values, max_size=6)


def _expected(features: dict[str, object]) -> dict[str, list[object]]:
    return {
        name: [value.encode() if isinstance(value, str) else value]
        for name, value in features.items()
        if value is not None
    }


@given(examples)
@settings(max_examples=80, deadline=None)
def test_examples_survive_a_round_trip(features: dict[str, object]) -> None:
    assert decode_example(encode_example(features)) == _expected(features)  # type: ignore[arg-type]


@given(examples)
@settings(max_examples=40, deadline=None)
def test_bytes_do_not_depend_on_the_order_of_keys(features: dict[str, object]) -> None:
    turned = dict(reversed(features.items()))
    assert encode_example(features) == encode_example(turned)  # type: ignore[arg-type]


def test_tensorflow_reads_and_writes_the_same_bytes(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    features = {
        "b": b"\0\xff",
        "a": "é",
        "n": -3,
        "big": 2**62,
        "zero": 0,
        "flag": True,
        "x": 1.5,
        "none": None,
    }
    data = encode_example(features)
    path = tmp_path / "a.tfrecord"
    path.write_bytes(frame_record(data) + frame_record(b"") + frame_record(data))
    read = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    assert read == [data, b"", data]
    example = tf.train.Example.FromString(data)
    assert example.features.feature["n"].int64_list.value[:] == [-3]
    assert example.features.feature["flag"].int64_list.value[:] == [1]
    assert example.features.feature["x"].float_list.value[:] == [1.5]
    assert example.features.feature["a"].bytes_list.value[:] == ["é".encode()]
    assert sorted(example.features.feature) == ["a", "b", "big", "flag", "n", "x", "zero"]
    with tf.io.TFRecordWriter(str(tmp_path / "b.tfrecord")) as writer:
        for record in read:
            writer.write(record)
    assert (tmp_path / "b.tfrecord").read_bytes() == path.read_bytes()


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    data = frame_record(encode_example({"source": "a", "n": 7})) + frame_record(b"second")
    path = tmp_path / "a.tfrecord"
    for bit in range(len(data) * 8):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(broken))
        with pytest.raises(DatasetDamaged):
            list(read_records(path))


@pytest.mark.parametrize("cut", [1, 5, 12, 13, 20, 27])
def test_a_cut_file_is_damaged(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.tfrecord"
    path.write_bytes(frame_record(b"twelve bytes")[:cut])
    with pytest.raises(DatasetDamaged):
        list(read_records(path))


def test_a_length_beyond_the_file_is_refused_before_reading(tmp_path: Path) -> None:
    lie = struct.pack("<Q", 1 << 60)
    path = tmp_path / "a.tfrecord"
    crc = frame_record(lie)[-4:]
    path.write_bytes(lie + crc + b"rest")
    with pytest.raises(DatasetDamaged, match="ends inside"):
        list(read_records(path))


@given(st.binary(max_size=40))
@settings(max_examples=80, deadline=None)
def test_garbage_never_raises_anything_but_damage(data: bytes) -> None:
    with contextlib.suppress(DatasetDamaged):
        assert isinstance(decode_example(data), dict)


def test_spans_find_what_reading_in_order_finds(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    records = [b"", b"x" * 1000, bytes(range(256))]
    path.write_bytes(b"".join(map(frame_record, records)))
    spans = record_spans(path)
    assert [read_span(path, *span) for span in reversed(spans)] == records[::-1]
    assert list(read_records(path)) == records


def test_spans_see_damaged_lengths_and_ends_and_reads_see_damaged_data(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    whole = frame_record(b"first") + frame_record(b"second")
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(DatasetDamaged):
            [read_span(path, *span) for span in record_spans(path)]
    for end in range(1, len(whole)):
        path.write_bytes(whole[:end])
        if end != len(frame_record(b"first")):
            with pytest.raises(DatasetDamaged):
                record_spans(path)
