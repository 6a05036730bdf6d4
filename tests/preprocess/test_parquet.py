from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from PIL import Image

from preprocess.config import Encoding, Format, ResultConfig
from preprocess.errors import DatasetDamaged
from preprocess.parquet import group_images, read_shard
from preprocess.reading import read_images
from tests.factories import CONFIG, LABELS, inputs, write_dataset

PARQUET = CONFIG.model_copy(update={"formats": (Format.PARQUET,), "shard_images": 20})


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parquet") / "OUT"
    write_dataset(folder, PARQUET, inputs(12))
    return folder


def test_pandas_reads_rows_with_pictures(out: Path) -> None:
    path = out / "fold=0" / "part-00000.parquet"
    table = pd.read_parquet(path)
    columns = list(table.columns)
    assert columns[:7] == ["image", "format", "height", "width", "bits", "source", "patient_id"]
    assert columns[-len(LABELS) :] == [label.name for label in LABELS]
    assert not {"decoder", "status", "fold", "shard"} & set(columns)
    expected = {row.source: pixels for row, pixels in read_images(out)}
    for row in table.to_dict("records"):
        with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
            np.testing.assert_array_equal(np.asarray(image), expected[row["source"]])


def test_pyarrow_reads_all_folds_as_one_table_with_the_fold_from_the_path(out: Path) -> None:
    table = pads.dataset(sorted(map(str, out.glob("fold=*/*.parquet"))), partitioning="hive").to_table()
    assert table.num_rows == 23
    assert sorted(set(table["fold"].to_pylist())) == [0, 1]
    assert pd.read_parquet(out / "fold=1").shape[0] + pd.read_parquet(out / "fold=0").shape[0] == 23


def test_hugging_face_datasets_shows_pictures(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datasets = pytest.importorskip("datasets")
        datasets.disable_progress_bars()
        files = sorted(map(str, out.glob("fold=*/*.parquet")))
        table = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
        assert isinstance(table.features["image"], datasets.Image)
        expected = {row.source: pixels for row, pixels in read_images(out)}
        assert len(table) == len(expected) == 23
        for row in table:
            np.testing.assert_array_equal(np.asarray(row["image"]), expected[row["source"]])


def test_pages_have_fixed_groups_and_no_compression_or_statistics(out: Path) -> None:
    metadata = pq.read_metadata(out / "fold=0" / "part-00000.parquet")
    groups = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
    assert groups[:-1] == [8] * (len(groups) - 1)
    image = metadata.row_group(0).column(0)
    assert (image.path_in_schema, image.compression, image.statistics) == (
        "image.bytes",
        "UNCOMPRESSED",
        None,
    )
    assert "RLE_DICTIONARY" not in image.encodings
    assert set(metadata.metadata) == {b"huggingface"}
    assert json.loads(metadata.metadata[b"huggingface"])["info"]["features"]["image"] == {"_type": "Image"}


def test_groups_of_large_images_hold_fewer() -> None:
    sizes = [(1024, 512), (2048, 1024), (4096, 2048), (8192, 8192)]
    assert [group_images(ResultConfig(height=h, width=w)) for h, w in sizes] == [8, 2, 1, 1]


def test_raw_pixels_are_not_declared_as_pictures(tmp_path: Path) -> None:
    config = PARQUET.model_copy(update={"encoding": Encoding.RAW})
    write_dataset(tmp_path, config)
    path = tmp_path / "fold=0" / "part-00000.parquet"
    assert pq.read_metadata(path).metadata is None
    row = next(read_shard(path))
    stored = next(pixels for _, pixels in read_images(tmp_path))
    assert row["format"] == "raw"
    assert row["image"]["bytes"] == stored.astype("<u2").tobytes()  # type: ignore[index,call-overload]


def test_a_flipped_bit_in_any_page_is_found(out: Path, tmp_path: Path) -> None:
    data = (out / "fold=0" / "part-00000.parquet").read_bytes()
    footer = int.from_bytes(data[-8:-4], "little") + 8
    rng = np.random.default_rng(0)
    path = tmp_path / "broken.parquet"
    found = 0
    expected = list(read_shard(out / "fold=0" / "part-00000.parquet"))
    for bit in rng.integers(4 * 8, (len(data) - footer) * 8, 60):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(broken))
        try:
            found += list(read_shard(path)) != expected
        except DatasetDamaged:
            found += 1
            continue
        raise AssertionError("wrong data were read without a word")
    assert found == 60
