"""Any image at any time, and no flipped bit ever comes through."""

from __future__ import annotations

import pickle
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest

from preprocess.config import Encoding, Format
from preprocess.errors import DatasetDamaged, UsageError
from preprocess.images import pixels_sha256
from preprocess.manifest import read_manifest
from preprocess.places import RemotePath
from preprocess.reading import Pixels, read_images
from tests.factories import inputs, write_dataset
from tests.trainer.sets import BOTH, make, screening
from trainer.dataset import Dataset, open_dataset

KINDS = (Format.TFRECORD, Format.PARQUET)


def hash_or_none(dataset: Dataset, index: int) -> str | None:
    try:
        return pixels_sha256(dataset.pixels(index))
    except DatasetDamaged:
        return None


def of_kind(dataset: Dataset, kind: Format) -> Dataset:
    return Dataset(dataset.place, dataset.manifest, dataset.rows, kind)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make(tmp_path_factory.mktemp("set") / "OUT")


def test_rows_are_those_of_the_shards_in_their_order(dataset: Dataset) -> None:
    read = list(read_images(dataset.place))
    assert dataset.rows == tuple(row for row, _ in read)
    assert (dataset.height, dataset.width, dataset.bits) == (32, 16, 16)
    assert len(dataset) == dataset.manifest.counts.prepared == 48


@pytest.mark.parametrize("kind", KINDS)
def test_any_order_gives_the_pixels_that_reading_in_order_gives(dataset: Dataset, kind: Format) -> None:
    same = of_kind(dataset, kind)
    expected = [pixels for _, pixels in read_images(dataset.place)]
    for index in np.random.default_rng(0).permutation(len(same)):
        np.testing.assert_array_equal(same.pixels(int(index)), expected[index])


@pytest.mark.parametrize("kind", KINDS)
def test_threads_and_processes_read_the_same(dataset: Dataset, kind: Format) -> None:
    same = pickle.loads(pickle.dumps(of_kind(dataset, kind)))
    order = np.random.default_rng(1).permutation(np.repeat(np.arange(len(same)), 4)).tolist()
    with ThreadPoolExecutor(8) as pool:
        hashes = list(pool.map(lambda index: pixels_sha256(same.pixels(index)), order))
    assert hashes == [dataset.rows[index].pixels_sha256 for index in order]


@pytest.mark.parametrize(("bits", "encoding"), [(8, Encoding.PNG), (16, Encoding.RAW), (8, Encoding.RAW)])
def test_other_depths_and_encodings_are_read(tmp_path: Path, bits: int, encoding: Encoding) -> None:
    config = BOTH.model_copy(update={"bits": bits, "encoding": encoding})
    found = make(tmp_path / "OUT", inputs(), config)
    for kind in KINDS:
        same = of_kind(found, kind)
        assert [pixels_sha256(same.pixels(i)) for i in range(len(same))] == [
            row.pixels_sha256 for row in found.rows
        ]
    assert found.pixels(0).dtype.itemsize * 8 == found.bits == bits


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_found_or_changes_no_pixel(dataset: Dataset, tmp_path: Path, kind: Format) -> None:
    out = tmp_path / "OUT"
    shutil.copytree(Path(str(dataset.place)), out)
    shard = next(one for one in dataset.manifest.shards if one.rows)
    (file,) = (file for file in shard.files if file.format == kind)
    rows = [index for index, row in enumerate(dataset.rows) if row.shard == shard.name]
    whole = (out / file.path).read_bytes()
    rng, found = np.random.default_rng(7), 0
    for _ in range(150):
        at = int(rng.integers(len(whole)))
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        (out / file.path).write_bytes(damaged)
        again = Dataset(out, dataset.manifest, dataset.rows, kind)
        for index in rows:
            hashed = hash_or_none(again, index)
            assert hashed in (None, dataset.rows[index].pixels_sha256)
            found += hashed is None
    assert found >= 150 if kind is Format.TFRECORD else found > 100


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_record_leaves_the_others_readable(dataset: Dataset, tmp_path: Path, kind: Format) -> None:
    out = tmp_path / "OUT"
    shutil.copytree(Path(str(dataset.place)), out)
    index = 5
    damage(of_kind(Dataset(out, dataset.manifest, dataset.rows, kind), kind), index)
    again = Dataset(out, dataset.manifest, dataset.rows, kind)
    with pytest.raises(DatasetDamaged, match=r"fold=0/part-0000\d: row 5"):
        again.pixels(index)
    far = index + 20
    assert pixels_sha256(again.pixels(far)) == dataset.rows[far].pixels_sha256


def damage(dataset: Dataset, index: int) -> None:
    """Flip a bit in the middle of one image's bytes, in the format that is read."""
    from preprocess.images import encode

    row = dataset.rows[index]
    shard = next(one for one in dataset.manifest.shards if one.name == row.shard)
    (file,) = (file for file in shard.files if file.format == dataset.kind)
    path = Path(str(dataset.place)) / file.path
    encoded = encode(dataset.pixels(index), dataset.manifest.config.encoding)
    data = bytearray(path.read_bytes())
    at = data.find(encoded)
    assert at >= 0
    data[at + len(encoded) // 2] ^= 4
    path.write_bytes(data)


def test_a_short_or_missing_shard_is_found_on_opening(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "OUT"
    shutil.copytree(Path(str(dataset.place)), out)
    path = out / dataset.manifest.shards[0].files[0].path
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetDamaged, match=r"has \d+ bytes instead of"):
        open_dataset(out)
    path.unlink()
    with pytest.raises(DatasetDamaged, match="is missing"):
        open_dataset(str(out))


def test_the_table_must_be_the_manifests(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "OUT"
    shutil.copytree(Path(str(dataset.place)), out)
    other = make(tmp_path / "OTHER", screening(5))
    shutil.copyfile(Path(str(other.place)) / "instances.parquet", out / "instances.parquet")
    with pytest.raises(DatasetDamaged, match="other rows"):
        open_dataset(out)


def test_a_shards_neighbour_is_not_taken_for_it(dataset: Dataset, tmp_path: Path) -> None:
    """A record in another place than its row says is not what was asked for."""
    swapped = list(dataset.rows)
    swapped[0] = replace(swapped[0], shard_row=1)
    with pytest.raises(DatasetDamaged, match="not the image of its row"):
        Dataset(dataset.place, dataset.manifest, tuple(swapped), Format.TFRECORD).pixels(0)


def test_no_dataset_and_no_image_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a complete dataset"):
        open_dataset(tmp_path)
    write_dataset(tmp_path / "EMPTY", BOTH, [])
    with pytest.raises(UsageError, match="no prepared image"):
        open_dataset(tmp_path / "EMPTY")
    only_png = BOTH.model_copy(update={"formats": (Format.PNG,)})
    write_dataset(tmp_path / "PNG", only_png)
    with pytest.raises(UsageError, match="TFRecord"):
        open_dataset(tmp_path / "PNG")


def test_a_grown_dataset_is_seen_at_the_next_open(tmp_path: Path) -> None:
    files = screening(8)
    small = make(tmp_path / "OUT", files[:16])
    grown = make(tmp_path / "OUT", files)
    assert (len(small), len(grown)) == (16, 32)
    assert small.sha256 != grown.sha256 == open_dataset(tmp_path / "OUT").sha256


@pytest.fixture
def remote(dataset: Dataset) -> Iterator[RemotePath]:
    store = fsspec.filesystem("memory")
    root = f"/bucket/{uuid.uuid4()}/OUT"
    store.put(str(dataset.place), root, recursive=True)
    yield RemotePath(f"memory:/{root}")
    store.rm(root, recursive=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_gives_the_same_pixels(dataset: Dataset, remote: RemotePath, kind: Format) -> None:
    there = of_kind(open_dataset(str(remote)), kind)
    order = np.random.default_rng(2).permutation(len(there)).tolist()
    with ThreadPoolExecutor(4) as pool:
        hashes = list(pool.map(lambda index: pixels_sha256(there.pixels(index)), order))
    assert hashes == [dataset.rows[index].pixels_sha256 for index in order]


def test_a_damaged_object_is_found_when_fetched(dataset: Dataset, remote: RemotePath) -> None:
    file = dataset.manifest.shards[0].files[0]
    url = str(remote / file.path)
    with fsspec.open(url, "rb") as stream:
        data = bytearray(stream.read())
    data[len(data) // 2] ^= 1
    with fsspec.open(url, "wb") as stream:
        stream.write(bytes(data))
    there = open_dataset(remote)
    index = next(i for i, row in enumerate(there.rows) if row.shard == dataset.manifest.shards[0].name)
    with pytest.raises(DatasetDamaged, match="another sha256"):
        there.pixels(index)


def test_the_manifest_is_that_of_the_run(dataset: Dataset) -> None:
    assert dataset.manifest == read_manifest(dataset.place)


def test_images_that_are_kept_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make(tmp_path / "OUT")
    expected = [dataset.pixels(index) for index in range(len(dataset))]
    reads: list[int] = []
    original = Dataset._read

    def read(self: Dataset, index: int) -> Pixels:
        reads.append(index)
        return original(self, index)

    monkeypatch.setattr(Dataset, "_read", read)
    dataset.keep(3 * expected[0].nbytes)
    for _ in range(2):
        for index, pixels in enumerate(expected):
            np.testing.assert_array_equal(dataset.pixels(index), pixels)
    assert sorted(reads) == sorted([0, 1, 2, *range(3, len(dataset)), *range(3, len(dataset))])
    with pytest.raises(ValueError, match="read-only"):
        dataset.pixels(0)[0, 0] = 1
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(dataset)).pixels(0), expected[0])
