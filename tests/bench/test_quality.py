"""The judge is judged: metrics against their definitions, planted lesions against geometry."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy import ndimage

from bench.cli import main
from bench.phantom_dicom import SYNTAXES, DicomSpec, write_dicom
from bench.quality import CANDIDATES, Fidelity, Nearness, fidelity, judge
from bench.quality_lesions import SIZES_MM, TILE_PX, Kept, LesionRatio, plant, ratios
from bench.quality_metrics import Target, psnr, ssim
from bench.quality_pictures import LEVELS, Picture, from_file, phantoms

RNG = np.random.default_rng(7)


@pytest.fixture(scope="module")
def picture() -> Picture:
    return next(iter(phantoms(1, 0.25, 3)))


def noise(rows: int, columns: int) -> np.ndarray:
    return RNG.integers(0, 4096, (rows, columns)).astype(np.uint16)


def test_psnr_is_peak_over_root_mean_square():
    ideal = np.full((20, 20), 1000, np.uint16)
    assert psnr(ideal, ideal + np.uint16(10), 4095) == pytest.approx(20 * np.log10(4095 / 10))
    assert psnr(ideal, ideal, 4095) == np.inf


def test_ssim_is_the_papers_formula_window_by_window():
    x, y = noise(14, 13), noise(14, 13)
    offset = np.arange(-5, 6)
    line = np.exp(-(offset**2) / (2 * 1.5**2))
    weights = np.outer(line, line) / line.sum() ** 2
    c1, c2 = (0.01 * 4095) ** 2, (0.03 * 4095) ** 2
    values = []
    for row in range(4):
        for column in range(3):
            a, b = (v[row : row + 11, column : column + 11].astype(float) for v in (x, y))
            ma, mb = (weights * a).sum(), (weights * b).sum()
            va, vb = (weights * (a - ma) ** 2).sum(), (weights * (b - mb) ** 2).sum()
            cov = (weights * (a - ma) * (b - mb)).sum()
            values.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    assert ssim(x, y, 4095) == pytest.approx(np.mean(values), abs=1e-9)
    assert ssim(x, x, 4095) == pytest.approx(1)


@pytest.mark.parametrize("ratio", [1.3, 2.25, 5.0])
def test_bilinear_takes_two_by_two_pixels_around_each_centre(ratio):
    full = noise(90, 70)
    target = Target.of((10, 5, 75, 60), ratio)
    part = full[10 : 10 + target.rows, 5 : 5 + target.columns].astype(float)
    places = np.meshgrid(
        (np.arange(target.out_rows) + 0.5) * target.rows / target.out_rows - 0.5,
        (np.arange(target.out_columns) + 0.5) * target.columns / target.out_columns - 0.5,
        indexing="ij",
    )
    expected = ndimage.map_coordinates(part, places, order=1, mode="nearest")
    assert np.abs(target.bilinear(full) - expected).max() <= 0.5 + 1e-6


def test_at_ratio_two_bilinear_and_the_area_mean_are_the_block_mean():
    full = noise(40, 60)
    target = Target.of((0, 0, 40, 60), 2.0)
    mean = full.reshape(20, 2, 30, 2).mean(axis=(1, 3))
    assert np.abs(target.area(full, 0) - mean).max() <= 1
    assert np.abs(target.bilinear(full) - mean).max() <= 0.5


def test_pictures_levels_are_the_decoders(picture, tmp_path):
    path = tmp_path / "phantom.dcm"
    spec = DicomSpec(
        transfer_syntax_uid=SYNTAXES["jpeg-2000"], bits_stored=12, windows=(("2048", "4096"),), boxed=True
    )
    write_dicom(path, picture.levels[0], spec)
    decoded = from_file(path)
    assert decoded.wavelet == "5/3"
    for level in range(LEVELS + 1):
        np.testing.assert_array_equal(decoded.levels[level], picture.levels[level])


def test_a_file_without_levels_is_refused(picture, tmp_path):
    path = tmp_path / "native.dcm"
    write_dicom(path, picture.levels[0], DicomSpec(bits_stored=12))
    with pytest.raises(ValueError, match="wavelet levels"):
        from_file(path)


def test_levels_are_nearer_to_the_ideal_than_bilinear_and_a_lost_phase_shows(picture):
    near = next(one.stored for one in fidelity(picture) if (one.level, one.margin) == (1, 1.25))
    assert near.level_psnr > near.bilinear_psnr
    assert near.level_ssim > near.bilinear_ssim
    target, stack = Target.of(picture.box, 2.5), picture.levels
    ideal, moved = target.area(stack[0], 0), target.area(np.roll(stack[1], 1, 0), 1)
    assert psnr(ideal, moved, float(np.ptp(ideal))) < near.level_psnr - 3


def test_planted_spheres_have_their_volume_and_place(picture):
    planted = plant(picture, 3, 0)
    signal = planted.planted[0].astype(float) - planted.without[0]
    for n, size in enumerate(planted.sizes_mm):
        row, column = divmod(n, 3)
        part = signal[row * TILE_PX : (row + 1) * TILE_PX, column * TILE_PX : (column + 1) * TILE_PX]
        if size < 5:
            continue
        radius = size / picture.pitch_mm / 2
        assert part.sum() == pytest.approx(part.max() * 2 / 3 * np.pi * radius**2, rel=0.03)
        centre = np.array(ndimage.center_of_mass(part)) + 0.5 + (row * TILE_PX, column * TILE_PX)
        np.testing.assert_allclose(centre, planted.centres[n], atol=0.05)


def test_what_equals_the_ideal_keeps_everything_and_a_mass_survives_every_level(picture):
    planted = plant(picture, 3, 0)
    for one in ratios(picture, planted, 1, 1.0):  # ratio 2: bilinear is the area mean
        assert one.bilinear.contrast == pytest.approx(1, abs=0.03)
        assert one.bilinear.noise == pytest.approx(1, abs=0.01)
    for level in (1, 2):  # level 3's samples are half as wide as the mass
        (mass,) = (one for one in ratios(picture, planted, level, 1.25) if one.size_mm == SIZES_MM[-1])
        assert mass.leveled.contrast > 0.9


def figure(margin: float, gain: float) -> Fidelity:
    near = Nearness(40 + gain, 40, 0.95 + gain / 100, 0.95)
    return Fidelity("a", False, "5/3", 1, margin, 100, 100, near, None)


def lesion(margin: float, kept: float, low: float) -> LesionRatio:
    leveled, bilinear = Kept(kept, low, kept, low, 1), Kept(1, 0.5, 1, 0.5, 1)
    return LesionRatio("a", False, 1, margin, 0.5, 2.0, 9, leveled, bilinear)


def test_a_margin_passes_if_all_that_it_allows_does():
    figures = [figure(1.0, -2.0), figure(1.125, 1.0), figure(1.25, 2.0), figure(2.0, 9.0)]
    lesions = [lesion(1.0, 0.7, 0.3), lesion(1.125, 0.96, 0.4), lesion(1.25, 0.97, 0.8), lesion(2.0, 1, 1)]
    verdicts = {one.margin: one for one in judge(figures, lesions).verdicts}
    assert tuple(verdicts) == CANDIDATES
    assert [m for m in CANDIDATES if verdicts[m].nearer] == [m for m in CANDIDATES if m > 1.0]
    assert [m for m in CANDIDATES if verdicts[m].preserves] == [m for m in CANDIDATES if m > 1.0]
    assert not verdicts[1.1875].unlucky_behind
    assert (verdicts[1.0].psnr_behind, verdicts[1.0].ssim_behind, verdicts[1.0].compared) == (1, 1, 4)
    assert verdicts[1.0].least_detectability == pytest.approx(0.7)
    assert verdicts[1.125].unlucky_behind == ("level 1, margin 1.125, 0.5 mm",)


def written(table: dict[str, list[object]], column: str) -> set[object]:
    return {row[table["columns"].index(column)] for row in table["rows"]}


def test_the_command_writes_tables_figures_and_a_picture_without_paths(tmp_path):
    picture_path, json_path, image = tmp_path / "levels.png", tmp_path / "q.json", tmp_path / "real.png"
    Image.fromarray(noise(400, 300)).save(image)
    arguments = ["--phantoms", "1", "--size-factor", "0.2", "--tiles", "3", str(image)]
    done = CliRunner().invoke(
        main, ["quality", *arguments, "--json", str(json_path), "--figure", str(picture_path)]
    )
    assert done.exit_code == 0, done.output
    assert "| margin | compared |" in done.stdout
    text = json_path.read_text()
    assert str(tmp_path) not in text
    document = json.loads(text)
    assert written(document["fidelity"], "real") == {True, False}
    assert written(document["lesions"], "size_mm") == set(SIZES_MM)
    assert None not in written(document["lesions"], "leveled.noise")
    with Image.open(picture_path) as drawn:
        assert drawn.size == (764, 720)


def test_too_few_tiles_are_a_usage_error():
    done = CliRunner().invoke(main, ["quality", "--phantoms", "1", "--size-factor", "0.2", "--tiles", "2"])
    assert done.exit_code == 2
    assert "needs 5 tiles" in done.output


def test_nothing_to_judge_is_a_usage_error():
    done = CliRunner().invoke(main, ["quality", "--phantoms", "0"])
    assert done.exit_code == 2
    assert "no pictures" in done.output


def test_a_broken_file_is_a_usage_error_that_names_it(tmp_path: Path):
    (tmp_path / "broken.dcm").write_bytes(b"nothing")
    done = CliRunner().invoke(main, ["quality", "--phantoms", "0", str(tmp_path / "broken.dcm")])
    assert done.exit_code == 2
    assert "broken.dcm" in done.output
