"""Lesion boxes: tables, places in prepared images, maps that move with the pictures, and the loss."""

from __future__ import annotations

import csv
import dataclasses
import json
from fractions import Fraction
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from preprocess.errors import UsageError
from preprocess.records import Status
from preprocess.schema import InstanceRow
from tests.trainer.runs import SMALL, curve, fit, make_small, one_line
from tests.trainer.sets import make
from trainer import models
from trainer.architectures import architecture_of, architectures
from trainer.augment import Augmenter
from trainer.cli import main
from trainer.config import BagPooling, DataConfig, ModelConfig, OptimizationConfig, Pooling, TrainConfig
from trainer.data import train_batches
from trainer.dataset import Dataset, open_dataset
from trainer.folds import split
from trainer.lesions import Box, Footprint, LesionMaps, LesionTable, footprint, lesion_maps, read_lesions
from trainer.losses import LossSpec, per_example
from trainer.models.backbones import make_backbone
from trainer.targets import Labels, labels_of
from trainer.windows import Marks, Windows

PHANTOM = "patient_id,image_id,kind,row,column,rows,columns,malignant\n"
ROW = InstanceRow(
    source="a.dcm", status=Status.PREPARED, patient_id="p", image_id="i", roi="breast", height=64, width=32,
    box_row=100, box_column=40, box_rows=400, box_columns=200, flipped=False,
    content_row=4, content_column=0, content_rows=50, content_columns=25,
)  # fmt: skip


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_phantom_tables_count_malignant_rows(tmp_path: Path) -> None:
    table = read_lesions(
        written(
            tmp_path / "t.csv", f"{PHANTOM}p,1,mass,10,20,5,6,1\np,1,mass,1,2,3,4,0\np,2,x,7,8,9,9,True\n"
        )
    )
    assert table.of("p", "1") == (Box(10, 20, 5, 6),)
    assert table.of("p", "2") == (Box(7, 8, 9, 9),)
    assert table.of("q", "1") == table.of("p", "3") == table.of(None, None) == ()


@pytest.mark.parametrize("rule", [None, "malignant==1", "malignant!=0"])
def test_a_column_of_floats_counts_as_one_of_integers(tmp_path: Path, rule: str | None) -> None:
    """What pandas writes as soon as one value is missing."""
    rows = "p,1,mass,10,20,5,6,1.0\np,1,mass,1,2,3,4,0.0\np,1,mass,1,2,3,4,\n"
    table = read_lesions(written(tmp_path / "t.csv", PHANTOM + rows), rule)
    assert table.of("p", "1") == (Box(10, 20, 5, 6),)


def test_vindr_tables_name_no_patients_and_have_corners(tmp_path: Path) -> None:
    path = written(
        tmp_path / "finding_annotations.csv",
        "study_id,image_id,finding_categories,finding_birads,xmin,ymin,xmax,ymax\n"
        "s,a,\"['Mass', 'Nipple Retraction']\",BI-RADS 5,20.5,10,26.5,15.25\n"
        "s,a,['Mass'],BI-RADS 3,1,2,3,4\ns,b,['No Finding'],,,,,\n",
    )
    assert read_lesions(path).of("s", "a") == (Box(10, 20.5, 5.25, 6), Box(2, 1, 2, 2))
    assert read_lesions(path).of("s", "b") == ()
    serious = read_lesions(path, "finding_birads in {BI-RADS 4,BI-RADS 5}")
    assert serious.of("anyone", "a") == (Box(10, 20.5, 5.25, 6),)


@pytest.mark.parametrize(
    ("text", "rule", "told"),
    [
        ("patient_id,row\n", None, "it has no column, columns, image_id, rows"),
        (f"{PHANTOM}p,1,mass,a,20,5,6,1\n", None, "line 2: .* = a, 20, 5, 6 is no box"),
        (f"{PHANTOM}p,1,mass,1,20,0,6,1\n", None, "1, 20, 0, 6 is no box"),
        (f"{PHANTOM}p,1,mass,1,nan,5,6,1\n", None, "is no box"),
        (f"{PHANTOM}p,1,mass,1,2,5,6,1\n", "size>=2", "has no column size"),
        (f"{PHANTOM}p,1,mass,1,2,5,6,1\n", "kind", "is no rule"),
        (f"{PHANTOM}p,1,mass,1,2,5,6,1\n", "kind>=2", "needs numbers"),
    ],
)
def test_what_is_no_table_is_told(tmp_path: Path, text: str, rule: str | None, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        read_lesions(written(tmp_path / "t.csv", text), rule)
    with pytest.raises(UsageError, match="is no table of lesion boxes"):
        read_lesions(tmp_path)


def test_a_box_lies_where_its_pixels_went() -> None:
    # 400 × 200 original pixels on 50 × 25: an eighth. Row 180 is (180 − 100) / 8 + 4 = 14.
    assert footprint(Box(180, 56, 40, 24), ROW) == Footprint(14, 2, 19, 5)
    assert footprint(Box(181, 57, 1, 1), ROW) == Footprint(14, 2, 15, 3)
    flipped = dataclasses.replace(ROW, flipped=True)
    assert footprint(Box(180, 56, 40, 24), flipped) == Footprint(14, 20, 19, 23)
    assert footprint(Box(0, 0, 2000, 2000), ROW) == Footprint(4, 0, 54, 25)
    assert footprint(Box(20, 56, 80, 24), ROW) is None
    assert footprint(Box(180, 240, 10, 10), ROW) is None


@given(st.integers(100, 480), st.integers(40, 220), st.integers(1, 20), st.integers(1, 20), st.booleans())
def test_footprints_hold_every_corner(row: int, column: int, rows: int, columns: int, flipped: bool) -> None:
    place = footprint(Box(row, column, rows, columns), dataclasses.replace(ROW, flipped=flipped))
    assert place is not None
    for corner_row in (row, row + rows):
        for corner_column in (column, column + columns):
            down = 4 + Fraction(corner_row - 100, 8)
            along = Fraction(corner_column - 40, 8)
            across = 25 - along if flipped else along
            assert place.top <= down <= place.bottom
            assert place.left <= across <= place.right


def some_labels(*targets: float) -> Labels:
    return Labels(np.array(targets, np.float32)[:, None], (), "cancer")


def test_maps_know_what_nobody_knows() -> None:
    rows = [dataclasses.replace(ROW, image_id=name) for name in "abcd"]
    table = LesionTable({("p", name): (Box(180, 56, 40, 24),) for name in "abd"})
    maps = lesion_maps(rows, some_labels(1, 0, 1, np.nan), table, (4, 2))
    assert maps.places == ((Footprint(14, 2, 19, 5),), (), None, None)
    assert (maps.marked, maps.places.count(None)) == (1, 2)
    assert maps.cells(1, maps.mask(1, (64, 32))).tolist() == [[0, 0]] * 4
    assert np.isnan(maps.cells(2, maps.mask(2, (64, 32)))).all()
    with pytest.raises(UsageError, match="no box of a positive image"):
        lesion_maps(rows, some_labels(0, 0, 1, 0), table, (4, 2))
    assert maps.sha256() != lesion_maps(rows, some_labels(1, 1, 1, 0), table, (4, 2)).sha256()


def test_masks_are_ellipses_about_the_middle() -> None:
    maps = LesionMaps((4, 2), ((Footprint(20, 4, 30, 24), Footprint(50, 9, 51, 10)), ()))
    mask = maps.mask(0, (64, 32))
    assert mask is not None
    down, right = np.mgrid[:64, :32] + 0.5
    reach = np.hypot((down - 25) / 5, (right - 14) / 10)
    large = np.s_[:40]
    np.testing.assert_array_equal(mask[large], np.where(reach <= 0.6, 1, np.where(reach <= 1.3, 2, 0))[large])
    assert mask[50, 9] == 1, "a speck of one pixel is a lesion too"
    assert (mask[40:] == 1).sum() <= 9
    assert maps.mask(1, (64, 32)) is None


def test_cells_are_shares_by_the_largest_and_unknown_at_the_edge() -> None:
    maps = LesionMaps((4, 2), ((Footprint(0, 0, 1, 1),), ()))
    mask = np.zeros((64, 32), np.uint8)
    mask[14:18, 2:5] = 1  # two rows of it lie in the first cell, two in the second: equal shares
    np.testing.assert_array_equal(maps.cells(0, mask), [[1, 0], [1, 0], [0, 0], [0, 0]])
    mask[32:36, 2:3] = 1  # four pixels are more than half of six
    mask[10:20, 14:20] = 2  # around a lesion
    mask[14:18, 2:5] = 1
    unknown = np.nan
    np.testing.assert_allclose(maps.cells(0, mask), [[1, unknown], [1, unknown], [4 / 6, 0], [0, 0]])
    mask[35, 2] = mask[34, 2] = 0
    np.testing.assert_array_equal(maps.cells(0, mask)[2], [unknown, 0])
    one = np.zeros((64, 32), np.uint8)
    one[63, 31] = 1
    assert maps.cells(0, one).ravel().tolist() == [0] * 7 + [1]
    assert not maps.cells(0, np.zeros((64, 32), np.uint8)).any(), "moved out of the picture"


@pytest.mark.parametrize("preset", ["light", "heavy"])
def test_a_mask_moves_with_its_lesion_and_changes_no_pixel(preset: str) -> None:
    augmenter = Augmenter.named(preset)
    mask = np.zeros((96, 64), np.uint8)
    mask[30:50, 20:40] = 1
    picture = np.where(mask, np.float32(0.9), np.float32(0.2))
    overlaps = []
    for seed in range(40):
        moved, found = augmenter.apply_both(picture, mask, seed)
        np.testing.assert_array_equal(moved, augmenter.apply(picture, seed))
        assert found is not None
        bright = moved > (moved.max() + moved.min()) / 2
        overlaps.append((bright & (found > 0)).sum() / max(1, (bright | (found > 0)).sum()))
    assert np.median(overlaps) > 0.85
    assert np.mean(np.array(overlaps) > 0.6) >= 0.9, "holes and noise may hide some"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make(tmp_path_factory.mktemp("lesions") / "OUT")


def boxes_of(dataset: Dataset, path: Path, every: int = 1) -> Path:
    """A table with a box in each positive image (or each n-th), in the box that tests.factories crops to."""
    ill = [row for row in dataset.rows if any(one.name == "cancer" and one.value == 1 for one in row.labels)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(PHANTOM.strip().split(","))
        for row in ill[::every]:
            writer.writerow([row.patient_id, row.image_id, "mass", 2, 1, 2, 2, 1])
    return path


@pytest.mark.parametrize("bags", [BagPooling.NONE, BagPooling.MEAN])
def test_batches_hold_the_cells_behind_the_labels(dataset: Dataset, tmp_path: Path, bags: BagPooling) -> None:
    data = DataConfig(batch_size=4, augment="light", positive_share=0.5, bags=bags, bag_views=3)
    config = TrainConfig(data=data, optimization=OptimizationConfig(epochs=2, seed=5))
    labels = labels_of(dataset.rows, data, ("density",))
    table = read_lesions(boxes_of(dataset, tmp_path / "t.csv"))
    maps = lesion_maps(dataset.rows, labels, table, (2, 1))
    train = split(dataset, labels, 0).train
    plain = train_batches(dataset, labels, train, config, 1)
    ours = [train_batches(dataset, labels, train, config, workers, Marks(maps)) for workers in (1, 3)]
    views = 1 if bags is BagPooling.NONE else 3
    for epoch in (0, 1):
        for one, other, without in zip(*(each.iterate(epoch) for each in (*ours, plain)), strict=True):
            np.testing.assert_array_equal(one.labels, other.labels)
            np.testing.assert_array_equal(one.images, without.images)
            np.testing.assert_array_equal(one.labels[:, :2], without.labels)
            cells = one.labels[:, 2:].reshape(4, views, 2)
            ill = one.labels[:, 0] == 1
            assert ill.any()
            rows = one.rows.reshape(4, views)
            assert (np.nanmax(cells[ill], axis=(1, 2)) > 0).all()
            assert not np.nan_to_num(cells[~ill]).any()
            assert np.isnan(cells[rows == -1]).all()
            assert not np.isnan(cells[rows != -1]).all(axis=-1).any()
            assert not np.isnan(cells[~ill][rows[~ill] != -1]).any(), "without a lesion all is known"


def test_the_loss_by_hand() -> None:
    spec = LossSpec(lesion_weight=2.0)
    logits = np.array([[0.0, 1.0, -2.0], [0.0, 3.0, 0.0]], np.float32)
    labels = np.array([[1, 1, 0.5], [0, np.nan, 0]], np.float32)
    found = np.asarray(per_example(logits, labels, spec))
    p, q = 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(2))
    first = -np.log(p) * (1 - p) ** 2
    second = -(0.5 * np.log(q) + 0.5 * np.log(1 - q)) * (0.5 * (1 - q) + 0.5 * q) ** 2
    expected = np.log(2) + 2.0 * np.array([(first + second) / 2.5, np.log(2) / 4])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    none = np.asarray(per_example(logits, labels, LossSpec()))
    np.testing.assert_allclose(none, np.log(2), rtol=1e-6)


@pytest.mark.parametrize("size", [(64, 48), (72, 40), (100, 61)])
def test_the_grid_is_that_of_the_features(size: tuple[int, int]) -> None:
    for name in ("resnet_tiny", "convnext_tiny", "efficientnet_b0", "efficientnetv2_b0"):
        architecture = architecture_of(name)
        shape = make_backbone(architecture, size, 1 if architecture.folds else 3, 0.0).output_shape
        assert shape[1:3] == architecture.grid(size), name


@pytest.mark.slow
@pytest.mark.parametrize("name", [each.name for each in architectures()])
def test_the_grid_of_every_model(name: str) -> None:
    architecture = architecture_of(name)
    for size in ((64, 48), (79, 65)):
        shape = make_backbone(architecture, size, 1 if architecture.folds else 3, 0.0).output_shape
        assert shape[1:3] == architecture.grid(size)
        keras.backend.clear_session()


@pytest.mark.parametrize("bags", [BagPooling.NONE, BagPooling.ATTENTION])
def test_a_map_changes_no_logit_and_comes_off_again(bags: BagPooling) -> None:
    config = ModelConfig(model="resnet_tiny", weights="none", head_filters=8)
    model = models.build(config, (48, 32), (), bags, 3)
    both = models.with_lesion_map(model)
    shape = (2, 48, 32, 1) if bags is BagPooling.NONE else (2, 3, 48, 32, 1)
    images = np.random.default_rng(0).random(shape, np.float32)
    found, views = np.asarray(both(images)), 1 if bags is BagPooling.NONE else 3
    assert found.shape == (2, 1 + views * 3 * 2)
    np.testing.assert_array_equal(found[:, :1], np.asarray(model(images)))
    assert (found[:, 1:] < -2).all(), "lesions are rare to begin with"
    bare = models.without_lesion_map(both)
    np.testing.assert_array_equal(np.asarray(bare(images)), found[:, :1])
    assert [weight.path for weight in bare.weights] == [weight.path for weight in model.weights]
    assert models.without_lesion_map(model) is model


def test_with_pooling_top_the_map_is_what_the_image_is_judged_by() -> None:
    config = ModelConfig(model="resnet_tiny", weights="none", head_blocks=0, pooling=Pooling.TOP)
    model = models.build(config, (80, 48))
    both = models.with_lesion_map(model)
    found = np.asarray(both(np.random.default_rng(0).random((2, 80, 48, 1), np.float32)))
    assert found.shape == (2, 1 + 5 * 3)
    np.testing.assert_allclose(found[:, 0], np.sort(found[:, 1:])[:, -4:].mean(axis=1), rtol=1e-6)
    assert [weight.path for weight in both.weights] == [weight.path for weight in model.weights]
    assert models.without_lesion_map(both).output_shape == (None, 1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small(tmp_path_factory.mktemp("fit") / "dataset")


def test_fit_learns_places_and_saves_a_plain_model(small: Path, tmp_path: Path) -> None:
    table = boxes_of(open_dataset(str(small)), tmp_path / "t.csv", every=2)
    run = tmp_path / "run"
    done = fit(small, run, "--lesions", str(table), "--accumulate", "2")
    assert done.exit_code == 0, done.output
    assert "4 positive images have lesion boxes, 4 have none" in done.output
    model = models.load(run / "fold=0" / "model.keras")
    assert model.output_shape == (None, 1)
    assert models.size_of(model) == (SMALL.height, SMALL.width)
    assert json.loads((run / "inputs.json").read_bytes())["lesions"]
    without = fit(small, tmp_path / "plain", "--accumulate", "2")
    assert without.exit_code == 0, without.output
    ours, plain = curve(run), curve(tmp_path / "plain")
    assert [row["train_loss"] for row in ours] > [row["train_loss"] for row in plain]


def test_a_run_belongs_to_its_boxes(small: Path, tmp_path: Path) -> None:
    dataset = open_dataset(str(small))
    table, run = boxes_of(dataset, tmp_path / "t.csv"), tmp_path / "run"
    assert fit(small, run, "--lesions", str(table)).exit_code == 0
    boxes_of(dataset, table, every=3)
    refused = fit(small, run, "--lesions", str(table))
    assert refused.exit_code == 2
    assert "content of lesions" in one_line(refused)
    plain = fit(small, run)
    assert plain.exit_code == 2
    assert "lesions:" in one_line(plain)
    lost = fit(small, tmp_path / "other", "--lesion-rule", "malignant==1")
    assert lost.exit_code == 2
    assert "--lesion-rule needs --lesions" in one_line(lost)
    assert not (tmp_path / "other").exists()


def test_a_run_of_before_opens(small: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert fit(small, run).exit_code == 0
    config = run / "config.yaml"
    lines = config.read_text().splitlines()
    config.write_text("\n".join(line for line in lines if not line.startswith("lesion")) + "\n")
    inputs = json.loads((run / "inputs.json").read_bytes())
    del inputs["lesions"]
    (run / "inputs.json").write_text(json.dumps(inputs))
    again = fit(small, run)
    assert again.exit_code == 0, again.output
    assert "finished" in again.output or "nothing" in again.output


def windows(places: tuple[tuple[Footprint, ...] | None, ...], size: int = 8) -> Windows:
    content = Footprint(4, 0, 60, 24)
    models = tuple(place for one in places for place in one or ())
    return Windows(size, (64, 32), LesionMaps((2, 2), places), models, (content,) * len(places))


def test_a_window_holds_the_middle_of_a_lesion_or_tissue() -> None:
    stored = np.zeros((64, 32), np.uint16)
    stored[10:50, :20] = 100
    ours = windows(((Footprint(14, 2, 18, 6), Footprint(60, 28, 64, 32)), ()))
    near, seen = 0, set()
    for seed in range(60):
        for row in (0, 1):
            rows, columns = ours.place(row, seed, stored)
            assert (rows.stop - rows.start, columns.stop - columns.start) == (8, 8)
            assert 0 <= rows.start <= rows.stop <= 64
            assert 0 <= columns.start <= columns.stop <= 32
            middles = [(16, 4), (62, 30)]
            held = [
                number
                for number, (down, right) in enumerate(middles)
                if rows.start <= down <= rows.stop and columns.start <= right <= columns.stop
            ]
            if row == 0:
                assert held
                seen.update(held)
            else:
                near += bool(held)
                assert stored[(rows.start + rows.stop) // 2, (columns.start + columns.stop) // 2] == 100
        again = ours.place(0, seed, stored)
        assert again == ours.place(0, seed, stored)
    assert seen == {0, 1}
    assert 10 < near < 50, "half of the windows without a lesion lie where one could"


def test_windows_teach_a_backbone_for_whole_images(small: Path, tmp_path: Path) -> None:
    table = boxes_of(open_dataset(str(small)), tmp_path / "t.csv", every=2)
    parts, options = tmp_path / "parts", ("--lesions", str(table), "--ema", "0")
    done = fit(small, parts, "--window", "32", *options)
    assert done.exit_code == 0, done.output
    weights = parts / "fold=0" / "model.keras"
    assert f"--weights {weights}" in done.output
    assert models.size_of(models.load(weights)) == (32, 32)
    assert not (parts / "report.html").exists()
    refused = CliRunner().invoke(main, ["evaluate", str(parts)])
    assert refused.exit_code == 2
    assert "trained on windows" in one_line(refused)
    whole = fit(small, tmp_path / "whole", "--weights", str(weights), *options)
    assert whole.exit_code == 0, whole.output
    assert models.size_of(models.load(tmp_path / "whole/fold=0/model.keras")) == (48, 32)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--window", "16"), "--window needs --lesions"),
        (("--window", "64", "--lesions", "TABLE"), "--window 64: images are 48x32"),
        (("--window", "16", "--bags", "max", "--lesions", "TABLE"), "not both"),
        (("--lesions", "nowhere.csv"), "is no table of lesion boxes"),
    ],
)
def test_options_that_do_not_go_together(
    small: Path, tmp_path: Path, options: tuple[str, ...], told: str
) -> None:
    table = boxes_of(open_dataset(str(small)), tmp_path / "t.csv")
    refused = fit(small, tmp_path / "run", *(str(table) if one == "TABLE" else one for one in options))
    assert refused.exit_code == 2
    assert told in one_line(refused)
