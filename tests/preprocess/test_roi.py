"""The breast box on drawn mammograms with the troubles of real ones, and on real pictures where there are."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from preprocess import roi
from preprocess.config import Orientation, ResultConfig, RoiPolicy, VoiPreference
from preprocess.errors import RejectedInput, UsageError
from preprocess.records import (
    ImageHeader,
    Lut,
    Mammogram,
    ModalityTransform,
    Padding,
    RoiMethod,
    VoiHeader,
    Window,
)
from preprocess.wavelet import low_pass_53
from tests.instances import DATA, header, instance, needs_data

ROWS, COLUMNS = 1240, 960
TIGHT = ResultConfig(margin_px=0, margin_mm=0)
Box = tuple[int, int, int, int]
"""row, column, rows, columns"""


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A 12-bit mammogram, brighter where denser, and where its breast is."""

    pixels: np.ndarray
    truth: Box


def draw(seed: int = 0, mlo: bool = False, background: int = 0, noise: int = 0) -> Drawing:
    """A breast with the chest wall at the left: half an ellipse, fading at the skin, fat and gland inside."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[0:ROWS, 0:COLUMNS].astype(np.float64)
    centre, tall, deep = rng.uniform(560, 680), rng.uniform(380, 500), rng.uniform(380, 620)
    inside = ((row - centre) / tall) ** 2 + (column / deep) ** 2
    if mlo:
        inside = np.minimum(inside, (column / (deep * (0.75 - 0.3 * row / ROWS))) ** 2 + (row > centre) * 9)
    coarse = rng.uniform(0.4, 1.6, (32, 25))
    texture = np.asarray(
        Image.fromarray(coarse.astype(np.float32)).resize((COLUMNS, ROWS), Image.Resampling.BICUBIC)
    )
    tissue = (420 + 900 * texture) * np.clip((1 - inside) * 8, 0.25, 1)
    if mlo:
        tissue += 1200 * ((row * 0.5 + column) < 330)
    picture = background + rng.normal(0, noise, inside.shape) if noise else np.full(inside.shape, background)
    picture = np.where(inside < 1, background + tissue, picture)
    rows, columns = np.flatnonzero((inside < 1).any(axis=1)), np.flatnonzero((inside < 1).any(axis=0))
    box = int(rows[0]), int(columns[0]), int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
    return Drawing(np.clip(picture, 0, 4095).astype(np.uint16), box)


def mammogram(
    pixels: np.ndarray, level: int = 0, frame: tuple[int, int] | None = None, **changes: object
) -> Mammogram:
    """Decoded pixels with a header; changes: inverted, spacing (mm), padding, modality_transform, voi."""
    parts = {name: changes.pop(name) for name in ("padding", "modality_transform", "voi") if name in changes}
    spacing = changes.pop("spacing", None)
    changes.setdefault("bits_stored", 12)
    image = header(
        frame or pixels.shape,
        "little",
        pixel_spacing_row_mm=spacing,
        pixel_spacing_column_mm=spacing,
        **changes,
    )
    return Mammogram(dataclasses.replace(instance(b"", image), **parts), pixels, level, "test")


def find(pixels: np.ndarray, config: ResultConfig = TIGHT, **changes: object) -> roi.Findings:
    return roi.find(mammogram(pixels, **changes), config)


def box_of(findings: roi.Findings) -> Box:
    box = findings.box
    return box.row, box.column, box.rows, box.columns


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    rows = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    columns = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(rows, 0) * max(columns, 0)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


def assert_found(findings: roi.Findings, truth: Box, least: float = 0.97, flipped: bool = False) -> None:
    assert findings.box.method is RoiMethod.BREAST
    assert overlap(box_of(findings), truth) >= least, (box_of(findings), truth)
    assert findings.box.flipped is flipped


# --- troubles, each planted into the same drawing ---


def implant(pixels: np.ndarray, drawing: Drawing) -> None:
    row, column = np.ogrid[:ROWS, :COLUMNS]
    top, _, rows, columns = drawing.truth
    centre, inside = top + rows // 2, int(columns * 0.35)
    blob = ((row - centre) / (rows * 0.33)) ** 2 + ((column - inside) / (columns * 0.33)) ** 2 < 1
    pixels[blob] = 4000


def marker(pixels: np.ndarray, drawing: Drawing) -> None:
    pixels[60:130, 840:860] = pixels[110:130, 840:900] = 4095
    pixels[60:130, 910:930] = pixels[60:80, 910:950] = 4095


def label_block(pixels: np.ndarray, drawing: Drawing) -> None:
    pixels[20:150, 740:940] = 4095


def bright_line(pixels: np.ndarray, drawing: Drawing) -> None:
    pixels[:, 900:908] = 4095


def line_across(pixels: np.ndarray, drawing: Drawing) -> None:
    pixels[600:606, :] = 4095


def thin_frame(pixels: np.ndarray, drawing: Drawing) -> None:
    pixels[:10] = pixels[-10:] = 4095
    pixels[:, :10] = pixels[:, -10:] = 4095


def film_edge(pixels: np.ndarray, drawing: Drawing) -> None:
    """A tilted bright strip below and a straight one at the right, as on digitised film."""
    row, column = np.ogrid[:ROWS, :COLUMNS]
    pixels[(row > ROWS - 4 - column // 60) | (column > COLUMNS - 40)] = 4000


def label_and_implant(pixels: np.ndarray, drawing: Drawing) -> None:
    """Three brightnesses above the background: Otsu alone would take the label for the foreground."""
    implant(pixels, drawing)
    pixels //= 4
    label_block(pixels, drawing)


TROUBLES = [
    implant,
    marker,
    label_block,
    bright_line,
    line_across,
    thin_frame,
    film_edge,
    label_and_implant,
]


@pytest.mark.parametrize("mlo", [False, True])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_planted_troubles_do_not_move_the_box(trouble: Callable[[np.ndarray, Drawing], None], mlo: bool):
    drawing = draw(3, mlo)
    pixels = drawing.pixels.copy()
    trouble(pixels, drawing)
    # thin_frame covers 10 of the breast's own pixels at up to two sides.
    assert_found(find(pixels), drawing.truth, 0.95)
    assert_found(find(4095 - pixels, inverted=True), drawing.truth, 0.95)


@pytest.mark.parametrize("mlo", [False, True])
def test_drawn_breasts_are_found(mlo):
    overlaps = [
        overlap(box_of(find(drawing.pixels)), drawing.truth)
        for drawing in (
            draw(seed, mlo, *look) for seed in range(3) for look in ((0, 0), (300, 12), (600, 60))
        )
    ]
    assert np.mean(overlaps) >= 0.97
    assert min(overlaps) >= 0.90


def test_polarity_changes_nothing():
    pixels = draw(1, background=200, noise=20).pixels
    plain, inverted = find(pixels), find(4095 - pixels, inverted=True)
    # Block means round halves up in stored values, so the two thumbnails may differ by one.
    assert overlap(box_of(plain), box_of(inverted)) > 0.99
    assert inverted.inverted
    assert not plain.inverted


def test_a_negative_slope_or_a_falling_lut_turns_the_polarity_round():
    drawing = draw(1)
    falling = Lut(0, 12, tuple(range(4095, -1, -1)))
    window = Window(Fraction(2048), Fraction(4096))
    turned = 4095 - drawing.pixels
    negative = ModalityTransform(slope=Fraction(-1), intercept=Fraction(4095))
    assert_found(find(turned, modality_transform=negative), drawing.truth)
    assert_found(find(turned, modality_transform=ModalityTransform(lut=falling)), drawing.truth)
    assert_found(find(turned, voi=VoiHeader(luts=(falling,))), drawing.truth)
    assert_found(find(drawing.pixels, modality_transform=negative, inverted=True), drawing.truth)
    both = VoiHeader(windows=(window,), luts=(falling,))
    assert_found(find(drawing.pixels, voi=both), drawing.truth)  # the window applies, the LUT does not
    chosen = TIGHT.model_copy(update={"voi": VoiPreference.LUT})
    assert_found(find(turned, chosen, voi=both), drawing.truth)


def test_the_side_comes_from_the_mass_and_never_from_the_header():
    drawing = draw(2)
    row, column, rows, columns = drawing.truth
    mirrored = row, COLUMNS - column - columns, rows, columns
    assert_found(find(drawing.pixels), drawing.truth)
    assert_found(find(drawing.pixels[:, ::-1].copy()), mirrored, flipped=True)
    told = mammogram(drawing.pixels)
    identity = dataclasses.replace(told.instance.identity, laterality="R")
    told = dataclasses.replace(told, instance=dataclasses.replace(told.instance, identity=identity))
    assert roi.find(told, TIGHT) == find(drawing.pixels)


def test_orient_keep_never_flips():
    mirrored = draw(2).pixels[:, ::-1].copy()
    assert not find(mirrored, TIGHT.model_copy(update={"orient": Orientation.KEEP})).box.flipped


def test_equal_masses_do_not_flip():
    pixels = np.zeros((400, 400), np.uint16)
    pixels[100:300, 150:250] = pixels[120:280, 120:280] = 2000
    assert find(pixels).box.method is RoiMethod.BREAST
    assert not find(pixels).box.flipped
    pixels[120:280, 280] = 2000
    assert find(pixels).box.flipped


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("mlo", [False, True])
def test_a_wavelet_level_gives_the_box_of_the_full_image(level, mlo):
    drawing = draw(5, mlo)
    coarse = np.clip(low_pass_53(drawing.pixels, level), 0, 4095).astype(np.uint16)
    findings = find(coarse, level=level, frame=drawing.pixels.shape)
    assert_found(findings, drawing.truth, 0.985)
    assert findings.grid.level == level


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 5), st.integers(0, 3), st.integers(0, 300), st.integers(0, 300))
def test_a_sample_covers_half_a_step_to_each_side_of_its_centre(level, shift, first, more):
    grid, last = roi.CoarseGrid(level, shift), first + more
    # Wavelet samples of the two ends, and their centres 2^level · k + ½.
    low, high = first << shift, ((last + 1) << shift) - 1
    half = Fraction(1 << level, 2)
    start, stop = (
        Fraction(low << level) + Fraction(1, 2) - half,
        Fraction(high << level) + Fraction(1, 2) + half,
    )
    assert grid.start(first) == start.__floor__()
    assert grid.stop(last) == stop.__ceil__()


def test_the_margin_is_in_millimetres_where_the_spacing_is_known():
    pixels = draw(4).pixels
    tight = box_of(find(pixels))
    in_mm = box_of(find(pixels, ResultConfig(margin_mm=3, margin_px=7), spacing=0.13))
    assert in_mm[0] == tight[0] - 24  # ceil(3 / 0.13)
    assert in_mm[3] == tight[3] + 24  # the chest wall is at the frame's edge
    in_pixels = box_of(find(pixels, ResultConfig(margin_mm=3, margin_px=7)))
    assert in_pixels == (tight[0] - 7, 0, tight[2] + 14, tight[3] + 7)


def test_a_margin_is_clipped_to_the_frame():
    assert box_of(find(draw(4).pixels, ResultConfig(margin_px=2000))) == (0, 0, ROWS, COLUMNS)


@pytest.mark.parametrize("spacing", [0.0, -0.1, float("nan"), float("inf")])
def test_a_spacing_that_is_no_length_counts_as_unknown(spacing):
    pixels = draw(4).pixels
    config = ResultConfig(margin_mm=9, margin_px=7)
    assert box_of(find(pixels, config, spacing=spacing)) == box_of(find(pixels, config))


# --- padding ---


def padded_drawing(value: int, tissue_limit: int = 3900) -> Drawing:
    drawing = draw(6, background=150, noise=8)
    pixels = np.full((ROWS + 200, COLUMNS + 160), value, np.uint16)
    pixels[100:-100, 80:-80] = np.minimum(drawing.pixels, tissue_limit)
    row, column, rows, columns = drawing.truth
    return Drawing(pixels, (row + 100, column + 80, rows, columns))


@pytest.mark.parametrize("level", [0, 2])
def test_bright_padding_is_no_breast_and_must_be_replaced(level):
    drawing = padded_drawing(4095)
    pixels = np.clip(low_pass_53(drawing.pixels, level), 0, 4095).astype(np.uint16)
    findings = find(pixels, level=level, frame=drawing.pixels.shape, padding=Padding(4095, 4095))
    assert_found(findings, drawing.truth, 0.96)
    assert findings.padding_replacement is not None
    unpadded = drawing.pixels[drawing.pixels != 4095]
    assert abs(findings.padding_replacement - int(unpadded.min())) <= (0 if level == 0 else 45)


@pytest.mark.parametrize("level", [0, 2])
def test_dark_padding_stays_and_the_field_inside_it_is_searched(level):
    drawing = padded_drawing(0)
    pixels = np.clip(low_pass_53(drawing.pixels, level), 0, 4095).astype(np.uint16)
    for pad in (Padding(0, 0), None):
        findings = find(pixels, level=level, frame=drawing.pixels.shape, padding=pad)
        assert_found(findings, drawing.truth, 0.96)
        assert findings.padding_replacement is None


def test_a_background_that_is_all_padding_is_still_background():
    drawing = draw(7)
    assert_found(find(drawing.pixels, padding=Padding(0, 0)), drawing.truth)


def test_rsna_monochrome1_with_padding_at_the_maximum_and_a_bright_line():
    drawing = draw(8)
    pixels = np.full((2 * ROWS, 2 * COLUMNS), 62000, np.uint16)
    stored = 50000 - 8 * drawing.pixels
    pixels[:ROWS, :COLUMNS] = np.where(drawing.pixels == 0, 62000, stored)
    pixels[:, 1800:1812] = 0
    for level in (0, 2):
        coarse = np.clip(low_pass_53(pixels, level), 0, 65535).astype(np.uint16)
        findings = find(
            coarse,
            level=level,
            frame=pixels.shape,
            inverted=True,
            bits_stored=16,
            padding=Padding(62000, 62000),
        )
        assert_found(findings, drawing.truth)
        assert findings.padding_replacement is None


def test_a_wide_bright_frame_without_a_padding_value_is_no_breast():
    drawing = padded_drawing(4095)
    assert_found(find(drawing.pixels), drawing.truth, 0.95)


def test_8_bit_content_in_16_bit_pixels_is_found():
    drawing = draw(9)
    findings = find((drawing.pixels >> 4), bits_stored=16, padding=Padding(0, 0))
    assert_found(findings, drawing.truth)


def test_signed_pixels_are_found():
    drawing = draw(9)
    pixels = drawing.pixels.astype(np.int16) - 2000
    findings = find(pixels, bits_stored=16, pixel_representation=1, padding=Padding(-2000, -2000))
    assert_found(findings, drawing.truth)


# --- no breast ---


@pytest.mark.parametrize("level", [0, 2])
def test_a_flat_image_is_rejected_as_blank(level):
    with pytest.raises(RejectedInput) as caught:
        find(np.full((90, 70), 5, np.uint16), level=level, frame=(90 << level, 70 << level))
    assert caught.value.code == "blank_image"


def test_an_image_of_padding_only_is_rejected_as_blank():
    pixels = np.random.default_rng(0).integers(0, 9, (90, 70)).astype(np.uint16)
    with pytest.raises(RejectedInput) as caught:
        find(pixels, padding=Padding(0, 10))
    assert caught.value.code == "blank_image"


def test_one_different_pixel_is_not_blank():
    pixels = np.full((1500, 1500), 5, np.uint16)
    pixels[700, 700] = 6
    assert find(pixels).box.method is RoiMethod.WHOLE_FRAME


def noise_only() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 4096, (600, 500)).astype(np.uint16)


def tissue_everywhere() -> np.ndarray:
    """A spot view: tissue fills the frame and there is no background."""
    drawing = draw(11)
    row, column, rows, columns = drawing.truth
    return drawing.pixels[row + rows // 3 : row + 2 * rows // 3, column : column + columns // 2].copy()


def letters_only() -> np.ndarray:
    pixels = np.zeros((600, 500), np.uint16)
    for column in range(100, 400, 30):
        pixels[280:320, column : column + 12] = 3000
    return pixels


def sheet_of_pictures() -> np.ndarray:
    pixels = np.zeros((800, 600), np.uint16)
    for row in range(20, 700, 260):
        for column in range(20, 500, 195):
            pixels[row : row + 200, column : column + 150] = 1500
    return pixels


def gradient() -> np.ndarray:
    return np.add.outer(np.arange(500), np.arange(400)).astype(np.uint16)


@pytest.mark.parametrize(
    "picture", [noise_only, tissue_everywhere, letters_only, sheet_of_pictures, gradient]
)
def test_without_a_plausible_breast_the_whole_frame_is_kept_and_flagged(picture):
    pixels = picture()
    findings = find(pixels)
    assert findings.box.method is RoiMethod.WHOLE_FRAME
    assert box_of(findings) == (0, 0, *pixels.shape)
    assert findings.component is None
    assert not findings.box.flipped


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
    st.sampled_from([np.uint8, np.int8, np.uint16, np.int16]),
    st.booleans(),
)
def test_any_small_image_has_a_box_inside_its_frame_or_is_blank(rows, columns, seed, dtype, inverted):
    limits = np.iinfo(dtype)
    choices = [limits.min, limits.max, 0, 1, 7]
    pixels = np.random.default_rng(seed).choice(choices, (rows, columns)).astype(dtype)
    padding = Padding(int(limits.max), int(limits.max))
    if np.ptp(pixels.astype(int)) == 0:
        with pytest.raises(RejectedInput, match="all pixels have the value"):
            find(pixels, padding=padding, inverted=inverted)
        return
    box = find(pixels, ResultConfig(), padding=padding, inverted=inverted, bits_stored=8).box
    assert 0 <= box.row < box.row + box.rows <= rows
    assert 0 <= box.column < box.column + box.columns <= columns


# --- config ---


def test_roi_none_keeps_the_frame_but_still_orients():
    mirrored = draw(2).pixels[:, ::-1].copy()
    findings = find(mirrored, TIGHT.model_copy(update={"roi": RoiPolicy.NONE}))
    assert box_of(findings) == (0, 0, ROWS, COLUMNS)
    assert findings.box.method is RoiMethod.WHOLE_FRAME
    assert findings.box.flipped


def detect_half(thumbnail: np.ndarray, image: ImageHeader) -> Box:
    """A detector: the upper half, one column too far to each side."""
    assert max(thumbnail.shape) < roi.THUMBNAIL
    return 0, -1, image.rows // 2, image.columns + 2


def detect_nothing(thumbnail: np.ndarray, image: ImageHeader) -> None:
    """A detector that has nothing to say."""


@pytest.fixture
def detectors(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    import sys
    import types

    module = types.ModuleType("bcd_test_detectors")
    module.half, module.nothing, module.number = detect_half, detect_nothing, 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bcd_test_detectors", module)
    roi.detector_of.cache_clear()
    yield "bcd_test_detectors"
    roi.detector_of.cache_clear()


def test_a_detectors_box_is_clipped_and_flagged(detectors):
    findings = find(draw(2).pixels, ResultConfig(roi_detector=f"{detectors}:half"))
    assert findings.box.method is RoiMethod.DETECTOR
    assert box_of(findings) == (0, 0, ROWS // 2, COLUMNS)
    assert not findings.box.flipped


def test_where_a_detector_finds_nothing_the_mask_decides(detectors):
    drawing = draw(2)
    assert find(drawing.pixels, TIGHT.model_copy(update={"roi_detector": f"{detectors}:nothing"})) == find(
        drawing.pixels
    )


@pytest.mark.parametrize(
    "name", ["bcd_test_detectors:none", "bcd_test_detectors:number", "no_such_module:f", "nothing", ""]
)
def test_a_detector_that_does_not_exist_is_a_usage_error(detectors, name):
    with pytest.raises(UsageError, match="module:function"):
        find(draw(2).pixels, ResultConfig(roi_detector=name))


def test_findings_are_a_pure_function_of_pixels_and_config():
    pixels = draw(12).pixels
    before = pixels.copy()
    first, second = find(pixels), find(pixels)
    assert first == second
    assert np.array_equal(first.component, second.component)
    assert np.array_equal(pixels, before)


# --- real pictures ---

# What a person would draw, read off the pictures at a tenth of their size: row, column, rows, columns.
REAL: dict[str, tuple[Box, bool]] = {
    "birads_L_CC": ((0, 0, 2600, 1350), False),
    "birads_R_MLO": ((0, 0, 2600, 1260), False),
    "gmic_0_L_CC": ((0, 0, 2023, 750), False),
    "gmic_0_R_MLO": ((0, 50, 2650, 956), True),
    "nyu_1_L_CC": ((208, 0, 2590, 1212), False),
}


def real(name: str) -> np.ndarray:
    return np.asarray(Image.open(DATA / "png" / f"{name}.png"))


@needs_data
@pytest.mark.parametrize("name", REAL)
def test_real_mammograms_are_found(name):
    pixels = real(name)
    truth, flipped = REAL[name]
    assert_found(find(pixels, bits_stored=16), truth, 0.97, flipped)
    assert_found(
        find(np.iinfo(pixels.dtype).max - pixels, inverted=True, bits_stored=16), truth, 0.97, flipped
    )


@needs_data
def test_digitised_film_with_bright_borders_and_labels_is_found():
    import pydicom

    data = pydicom.dcmread(DATA / "mg" / "wg04_mg1_j2ki.dcm")
    findings = find(data.pixel_array, spacing=None)
    assert_found(findings, (0, 0, 4600, 2060), 0.97)


def phantom_truth(folder: Path) -> dict[str, Box]:
    with (folder / "breast_boxes.csv").open() as file:
        return {
            row["image_id"]: (int(row["row"]), int(row["column"]), int(row["rows"]), int(row["columns"]))
            for row in csv.DictReader(file)
        }


def test_phantoms_boxes_overlap_the_truth_by_97_percent_in_the_mean(tmp_path):
    from bench.phantom import PhantomSpec, generate
    from preprocess.decode import CpuDecoder, coarse_level
    from preprocess.dicom import parse
    from preprocess.records import SourceFile

    out = tmp_path / "phantoms"
    generate(out, PhantomSpec(patients=3, test_patients=0, size_factor=0.25, implants=0.4, seed=7))
    truth = phantom_truth(out)
    overlaps = []
    for path in sorted(out.glob("train_images/*/*.dcm")):
        parsed = parse(SourceFile(path.name, str(path)), TIGHT)
        findings = roi.find(CpuDecoder().decode(parsed, coarse_level(parsed)), TIGHT)
        assert findings.box.method is RoiMethod.BREAST, path.stem
        overlaps.append(overlap(box_of(findings), truth[path.stem]))
    assert len(overlaps) == 12
    assert np.mean(overlaps) >= 0.97
    assert min(overlaps) >= 0.90
