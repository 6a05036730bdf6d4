"""One bit of a finished dataset flips: verify says so, and no reader hands out what was not written.

BCD_CHAOS=full: 200 flips in shards, as many elsewhere; otherwise a part of them.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocess.config import Encoding, Format, ResultConfig
from preprocess.errors import BcdError, DatasetDamaged
from preprocess.manifest import read_manifest
from preprocess.reading import read_images
from preprocess.schema import InstanceRow
from preprocess.verify import verify
from tests.factories import CONFIG, inputs, write_dataset

FULL = os.environ.get("BCD_CHAOS") == "full"
FLIPS = 200 if FULL else 20
KINDS = [
    (Format.TFRECORD, Encoding.PNG),
    (Format.TFRECORD, Encoding.RAW),
    (Format.PARQUET, Encoding.PNG),
    (Format.PARQUET, Encoding.RAW),
    (Format.PNG, Encoding.PNG),
]


def config(kind: Format, encoding: Encoding) -> ResultConfig:
    return CONFIG.model_copy(update={"formats": (kind,), "encoding": encoding})


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Format, Encoding], Path]:
    """One small whole dataset of each kind."""
    folder = tmp_path_factory.mktemp("rot")
    made = {}
    for kind in KINDS:
        made[kind] = folder / "-".join(kind)
        write_dataset(made[kind], config(*kind), inputs(4))
    return made


@contextmanager
def flipped(path: Path, bit: int) -> Iterator[None]:
    """One bit of a file turned over, for a while."""
    data = path.read_bytes()
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    try:
        yield
    finally:
        path.write_bytes(data)


def chosen(paths: list[Path], count: int, seed: str) -> Iterator[tuple[Path, int]]:
    """Random bits, every bit of all files as likely as any other."""
    rng = random.Random(seed)
    sizes = [path.stat().st_size for path in paths]
    for path in rng.choices(paths, sizes, k=count):
        yield path, rng.randrange(path.stat().st_size * 8)


def shard_files(out: Path) -> list[Path]:
    return [out / file.path for shard in read_manifest(out).shards for file in shard.files]


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_every_flipped_bit_of_a_shard_is_found_by_verify_and_by_the_reader(
    datasets: dict[tuple[Format, Encoding], Path], kind: tuple[Format, Encoding]
) -> None:
    out = datasets[kind]
    count = FLIPS // len(KINDS)
    by_verify = by_reader = 0
    for path, bit in chosen(shard_files(out), count, "-".join(kind)):
        with flipped(path, bit):
            by_verify += verify(out).status == "damaged"
            try:
                list(read_images(out))
            except DatasetDamaged:
                by_reader += 1
    assert (by_verify, by_reader) == (count, count)
    assert verify(out).status == "whole"


@pytest.mark.parametrize("name", ["manifest.json", "instances.parquet"])
def test_a_flipped_bit_beside_the_shards_is_found_and_never_read_as_something_else(
    datasets: dict[tuple[Format, Encoding], Path], name: str
) -> None:
    out = datasets[KINDS[0]]
    written = list(read_images(out))
    for path, bit in chosen([out / name], FLIPS // 4, name):
        with flipped(path, bit):
            assert verify(out).status == "damaged", bit
            try:
                again = list(read_images(out))
            except BcdError:
                continue
            assert name == "instances.parquet", bit  # bits of its footer that change no row
            assert same(again, written), bit


def same(one: list[tuple[InstanceRow, np.ndarray]], other: list[tuple[InstanceRow, np.ndarray]]) -> bool:
    return len(one) == len(other) and all(
        a == b and np.array_equal(x, y) for (a, x), (b, y) in zip(one, other, strict=True)
    )


def bits_of_images(path: Path, out: Path, count: int) -> list[int]:
    """Random bits of the pixels as they are stored in one shard."""
    data = path.read_bytes()
    rng = random.Random(path.name)
    ours = [pixels.astype("<u2").tobytes() for _, pixels in read_images(out)]
    places = [(data.find(image), len(image)) for image in ours if image in data]
    assert places
    return [8 * rng.randrange(at, at + size) + rng.randrange(8) for at, size in rng.choices(places, k=count)]


def test_pyarrow_finds_flipped_pixels_if_asked_to_verify_page_checksums(
    datasets: dict[tuple[Format, Encoding], Path],
) -> None:
    out = datasets[Format.PARQUET, Encoding.RAW]
    path = shard_files(out)[0]
    for bit in bits_of_images(path, out, FLIPS):
        with flipped(path, bit):
            pq.read_table(path, partitioning=None)  # by default it does not look
            with pytest.raises((OSError, pa.ArrowException)):
                pq.read_table(path, partitioning=None, page_checksum_verification=True)


@pytest.mark.skipif(not FULL, reason="importing TensorFlow takes as long as all of the other tests")
def test_tf_data_finds_every_flipped_bit(datasets: dict[tuple[Format, Encoding], Path]) -> None:
    tf = pytest.importorskip("tensorflow")
    out = datasets[Format.TFRECORD, Encoding.RAW]
    for path, bit in chosen(shard_files(out), FLIPS, "tf.data"):
        with flipped(path, bit), pytest.raises(tf.errors.DataLossError):
            list(tf.data.TFRecordDataset(str(path)))


def test_a_damaged_shard_hides_no_other_shard_from_verify(
    datasets: dict[tuple[Format, Encoding], Path], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(datasets[KINDS[0]], tmp_path / "OUT"))
    first, *_, last = shard_files(out)
    with flipped(first, 99), flipped(last, 99):
        problems = " ".join(verify(out).problems)
    assert first.name in problems
    assert str(last.relative_to(out)) in problems
