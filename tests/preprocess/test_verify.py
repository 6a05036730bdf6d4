from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from preprocess.config import Encoding, Format
from preprocess.errors import DatasetDamaged, RejectedInput, UsageError
from preprocess.identifiers import Pseudonyms
from preprocess.images import pixels_sha256
from preprocess.manifest import finish, read_manifest
from preprocess.plan import plan_shards
from preprocess.reading import read_images
from preprocess.records import Prepared, SourceFile
from preprocess.verify import verify, verify_source
from tests.factories import CONFIG, LABELS, inputs, prepared, write_dataset, write_shard

ALL = CONFIG.model_copy(update={"formats": (Format.TFRECORD, Format.PARQUET, Format.PNG)})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "OUT"
    write_dataset(out, ALL)
    return out


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "OUT"))


def test_a_finished_dataset_is_whole(whole: Path) -> None:
    report = verify(whole)
    assert (report.status, report.problems) == ("whole", ())
    assert (report.files, report.images, report.rows) == (4 + 4 + 11, 33, 12)


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("kind", list(Format))
def test_images_are_read_back_exactly(tmp_path: Path, encoding: Encoding, kind: Format) -> None:
    config = CONFIG.model_copy(update={"formats": (kind,), "encoding": encoding})
    write_dataset(tmp_path, config)
    sources = {file.source.source: file.source for file in inputs()}
    seen = 0
    for row, pixels in read_images(tmp_path):
        np.testing.assert_array_equal(pixels, prepared(sources[row.source], config).pixels)
        seen += 1
    assert seen == 11


def test_without_a_manifest_it_is_incomplete(out: Path) -> None:
    (out / "manifest.json").unlink()
    assert verify(out).status == "incomplete"


def _flip(path: Path, bit: int) -> bytes:
    before = path.read_bytes()
    broken = bytearray(before)
    broken[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(broken))
    return before


def test_random_bit_flips_anywhere_are_all_found(out: Path) -> None:
    rng = np.random.default_rng(4)
    files = sorted(path for path in out.rglob("*") if path.is_file())
    for number in range(40):
        path = files[number % len(files)]
        before = _flip(path, int(rng.integers(0, path.stat().st_size * 8)))
        assert verify(out).status == "damaged", path.name
        path.write_bytes(before)
    assert verify(out).status == "whole"


def test_flips_all_over_the_table_are_found(tmp_path: Path) -> None:
    write_dataset(tmp_path, CONFIG, inputs(2))
    path = tmp_path / "instances.parquet"
    rng = np.random.default_rng(5)
    for bit in rng.integers(0, path.stat().st_size * 8, 80):
        before = _flip(path, int(bit))
        assert verify(tmp_path).status == "damaged"
        path.write_bytes(before)


HARMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "removed": (lambda out: next(out.glob("fold=0/*.tfrecord")).unlink(), "is missing"),
    "cut": (lambda out: _cut(next(out.glob("fold=0/*.parquet"))), "bytes instead of"),
    "stray": (lambda out: (out / "fold=0" / "part-00077.tfrecord").write_bytes(b""), "not in the manifest"),
    "leftover": (lambda out: _leave(out / "fold=0" / ".part-00000.tfrecord.1.tmp"), "not in the manifest"),
    "table": (
        lambda out: (out / "instances.parquet").write_bytes(b"PAR1"),
        "instances.parquet cannot be read",
    ),
    "no table": (lambda out: (out / "instances.parquet").unlink(), "instances.parquet cannot be read"),
}


def _leave(path: Path) -> None:
    path.write_bytes(b"")


def test_a_complete_dataset_whose_run_was_killed_at_its_report_is_incomplete(out: Path) -> None:
    _leave(out / ".report.html.6a83ea01.tmp")
    report = verify(out)
    assert report.status == "incomplete"
    assert "run it again" in report.problems[0]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("harm", list(HARMS))
def test_each_harm_is_named(out: Path, harm: str) -> None:
    act, words = HARMS[harm]
    act(out)
    report = verify(out)
    assert report.status == "damaged"
    assert any(words in problem for problem in report.problems)


def test_files_of_users_beside_the_data_are_no_damage(out: Path) -> None:
    for name in ("run.json", "report.html", "notes.txt"):
        (out / name).write_text("x")
    assert verify(out).status == "whole"


def test_rows_that_contradict_the_images_are_found(tmp_path: Path) -> None:
    plans = plan_shards(inputs(), CONFIG, LABELS)
    results = [write_shard(tmp_path, plan) for plan in plans]
    row = dataclasses.replace(results[0].rows[0], pixels_sha256="0" * 64)
    results[0] = dataclasses.replace(results[0], rows=(row, *results[0].rows[1:]))
    finish(tmp_path, results, [], config=CONFIG, label_columns=LABELS)
    assert any("not that of its row" in problem for problem in verify(tmp_path).problems)
    with pytest.raises(DatasetDamaged, match="not that of its row"):
        list(read_images(tmp_path))


def test_a_patient_in_two_folds_is_found(tmp_path: Path) -> None:
    plans = plan_shards(inputs(), CONFIG, LABELS)
    results = [write_shard(tmp_path, plan) for plan in plans]
    every = [tuple(dataclasses.replace(row, patient_id="p") for row in result.rows) for result in results]
    results = [dataclasses.replace(r, rows=rows) for r, rows in zip(results, every, strict=True)]
    finish(tmp_path, results, [], config=CONFIG, label_columns=LABELS)
    assert "1 patients are in more than one fold" in verify(tmp_path).problems


def test_sources_prepared_again_do_not_differ(whole: Path) -> None:
    sources = [file.source for file in inputs()]
    report = verify_source(whole, sources, lambda s: prepared(s, ALL), sample=5, seed=1)
    assert (report.checked, report.largest_difference, report.worst, report.problems) == (5, 0, None, ())


def test_the_largest_difference_is_found_and_named(whole: Path) -> None:
    culprit = inputs()[5].source

    def prepare(source: SourceFile) -> Prepared:
        image = prepared(source, ALL)
        if source == culprit:
            pixels = image.pixels.copy()
            pixels[3, 3] ^= 0x0100
            return dataclasses.replace(image, pixels=pixels, pixels_sha256=pixels_sha256(pixels))
        return image

    report = verify_source(whole, [file.source for file in inputs()], prepare, sample=99)
    assert (report.checked, report.largest_difference, report.worst) == (11, 256, culprit.source)


def test_the_sample_is_a_function_of_the_seed(whole: Path) -> None:
    def chosen(seed: int) -> set[str]:
        seen: set[str] = set()

        def prepare(source: SourceFile) -> Prepared:
            seen.add(source.source)
            return prepared(source, ALL)

        verify_source(whole, [file.source for file in inputs()], prepare, sample=4, seed=seed)
        return seen

    assert chosen(0) == chosen(0)
    assert len({frozenset(chosen(seed)) for seed in range(4)}) > 1


def test_a_source_that_is_now_rejected_is_a_problem(whole: Path) -> None:
    def prepare(source: SourceFile) -> Prepared:
        raise RejectedInput("decode_failed", "no")

    report = verify_source(whole, [file.source for file in inputs()], prepare, sample=1)
    assert len(report.problems) == 1
    assert "decode_failed" in report.problems[0]


def test_inputs_of_another_dataset_are_a_usage_error(whole: Path) -> None:
    with pytest.raises(UsageError, match="none of the dataset's inputs"):
        verify_source(whole, [], lambda s: prepared(s, ALL), sample=3)


def test_pseudonyms_lead_back_to_sources(tmp_path: Path) -> None:
    names = Pseudonyms(b"k" * 32)
    write_dataset(tmp_path, CONFIG, pseudonyms=names)
    sources = [file.source for file in inputs()]
    report = verify_source(tmp_path, sources, prepared, sample=99, pseudonyms=names)
    assert (report.checked, report.largest_difference) == (11, 0)


def test_tf_data_reads_images_ids_and_labels(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    write_dataset(tmp_path, CONFIG)
    expected = {row.source: (row, pixels) for row, pixels in read_images(tmp_path)}
    spec = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/height": tf.io.FixedLenFeature([], tf.int64),
        "source": tf.io.FixedLenFeature([], tf.string),
        "patient_id": tf.io.FixedLenFeature([], tf.string),
        "cancer": tf.io.FixedLenFeature([], tf.int64, default_value=-1),
        "window_width": tf.io.FixedLenFeature([], tf.float32),
    }
    files = sorted(map(str, tmp_path.glob("fold=*/*.tfrecord")))
    count = 0
    for record in tf.data.TFRecordDataset(files, buffer_size=1 << 20):
        example = tf.io.parse_single_example(record, spec)
        row, pixels = expected[example["source"].numpy().decode()]
        decoded = tf.io.decode_png(example["image/encoded"], channels=1, dtype=tf.uint16).numpy()
        np.testing.assert_array_equal(decoded[..., 0], pixels)
        assert example["patient_id"].numpy().decode() == row.patient_id
        assert int(example["cancer"]) == {label.name: label.value for label in row.labels}["cancer"]
        assert float(example["window_width"]) == pytest.approx(row.window_width)
        count += 1
    assert count == read_manifest(tmp_path).counts.prepared == 11


def test_a_folder_that_is_no_dataset_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        list(read_images(tmp_path))
