"""TensorBoard event files, without TensorFlow: TFRecords of tensorflow.Event.

In:  epochs.
Out: fold=K/logs/events.out.tfevents…: one scalar per column of history, at the epoch's number.

    Event { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5; }
    Summary { repeated Value value = 1; }   Value { string tag = 1; float simple_value = 2; }
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable
from pathlib import Path

from preprocess.atomic import aborting_on_io_error, write_atomically
from preprocess.tfrecord import field, frame_record, varint
from trainer.position import EpochRow

NAME = "events.out.tfevents.0.bcd"


def rewrite(path: Path, rows: Iterable[EpochRow]) -> None:
    """A new file of these epochs. Raises RunAborted: the disk."""
    head = frame_record(_wall_time() + field(3, b"brain.Event:2"))
    write_atomically(path, head + b"".join(map(_record, rows)))


def append(path: Path, row: EpochRow) -> None:
    """One epoch more. Raises RunAborted: the disk."""
    with aborting_on_io_error(path), path.open("ab") as file:
        file.write(_record(row))


def _record(row: EpochRow) -> bytes:
    values = b"".join(
        field(1, field(1, _tag(name).encode()) + b"\x15" + struct.pack("<f", value))
        for name, value in row.cells()
        if name != "epoch" and value is not None
    )
    return frame_record(_wall_time() + b"\x10" + varint(row.epoch) + field(5, values))


def _tag(name: str) -> str:
    """Grouped in TensorBoard by what is before the slash."""
    return f"breast/{name.removeprefix('breast_')}" if name.startswith("breast_") else f"train/{name}"


def _wall_time() -> bytes:
    return b"\x09" + struct.pack("<d", time.time())
