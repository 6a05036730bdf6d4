"""--background blank: labels beside the breast go, no tissue goes; --burned-in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import phantom_render
from bench.phantom import PhantomSpec, render_planned
from bench.phantom_plan import plan
from preprocess import background, pipeline, render
from preprocess.config import Background, BurnedIn, ResultConfig, RoiPolicy
from preprocess.decode import CpuDecoder
from preprocess.kernels import reference as kernels
from preprocess.records import BreastBox, RoiMethod, SourceFile
from preprocess.roi import CoarseGrid
from tests.preprocess.dicom_maker import image_file, parsed, rejection, text

BLANK = ResultConfig(height=160, width=96, background=Background.BLANK, margin_px=8)
SPEC = PhantomSpec(patients=10, size_factor=0.12, seed=3)  # that of the fixture `phantoms`


@dataclass(frozen=True)
class Case:
    """A phantom file and its truth: where tissue is, and where the burned-in marker."""

    path: Path
    tissue: np.ndarray
    marker: np.ndarray


@pytest.fixture(scope="module")
def cases(phantoms: Path) -> list[Case]:
    return list(_cases(phantoms))


def _cases(phantoms: Path) -> Iterator[Case]:
    """One image of each of six patients, rendered with and without its marker."""
    frames = []
    with pytest.MonkeyPatch.context() as patched:
        position, marked = phantom_render._position, phantom_render._with_marker
        patched.setattr(
            phantom_render, "_position", lambda *given: frames.append(position(*given)) or frames[-1]
        )
        for number, patient in enumerate(plan(SPEC)[:6]):
            image = patient.images[number % len(patient.images)]
            patched.setattr(phantom_render, "_with_marker", marked)
            with_marker = render_planned(SPEC, patient, image).pixels
            patched.setattr(phantom_render, "_with_marker", lambda stored, *_: np.ascontiguousarray(stored))
            bare = render_planned(SPEC, patient, image).pixels
            tissue = np.zeros(bare.shape, np.bool_)
            frame = frames[-1]
            inside = np.arange(frame.columns)[None, :] + 0.5 < frame.reach_px()[:, None]
            tissue[frame.top : frame.top + frame.rows, : frame.columns] = inside
            folder = "test_images" if patient.test else "train_images"
            yield Case(
                phantoms / folder / str(patient.patient_id) / f"{image.image_id}.dcm",
                tissue[:, ::-1] if image.laterality == "R" else tissue,
                with_marker != bare,
            )


def traced(path: Path, config: ResultConfig) -> pipeline.Trace:
    trace = pipeline.steps(SourceFile(path.name, str(path)), config, CpuDecoder())
    assert trace.prepared is not None, trace.reject
    return trace


def at_originals(trace: pipeline.Trace, truth: np.ndarray) -> np.ndarray:
    """Of each prepared pixel, whether the original pixel at its centre is part of the truth."""
    g = trace.prepared.geometry  # type: ignore[union-attr]
    found = np.zeros((g.height, g.width), np.bool_)
    rows = [int(g.to_original(Fraction(2 * r + 1, 2), Fraction(0))[0]) for r in range(g.height)]
    columns = [int(g.to_original(Fraction(0), Fraction(2 * c + 1, 2))[1]) for c in range(g.width)]
    part = np.s_[
        g.content_row : g.content_row + g.content_rows,
        g.content_column : g.content_column + g.content_columns,
    ]
    found[part] = truth[np.ix_(rows[part[0]], columns[part[1]])]
    return found


@pytest.mark.parametrize("size", [(64, 40), (300, 200)])
@pytest.mark.parametrize("roi", list(RoiPolicy))
def test_no_tissue_is_blanked_and_markers_are_gone(
    cases: list[Case], size: tuple[int, int], roi: RoiPolicy
) -> None:
    markers = 0
    for case in cases:
        config = BLANK.model_copy(update={"height": size[0], "width": size[1], "roi": roi})
        blank = traced(case.path, config)
        keep = traced(case.path, config.model_copy(update={"background": Background.KEEP}))
        changed = blank.prepared.pixels != keep.prepared.pixels  # type: ignore[union-attr]
        assert blank.prepared.background_blanked  # type: ignore[union-attr]
        assert not (changed & at_originals(blank, case.tissue)).any()
        marker = at_originals(blank, case.marker)
        markers += int(marker.sum())
        fill = blank.prepared.pixels.min()  # type: ignore[union-attr]
        assert (blank.prepared.pixels[marker] == fill).all()  # type: ignore[union-attr]
    if roi is RoiPolicy.NONE:
        assert markers >= 5  # with the crop alone some pictures still hold them


def test_keep_is_the_default_and_changes_nothing(cases: list[Case]) -> None:
    assert ResultConfig().background is Background.KEEP
    prepared = traced(cases[0].path, ResultConfig(height=64, width=40)).prepared
    assert prepared is not None
    assert not prepared.background_blanked


def test_an_image_without_a_breast_stays_as_it_is(cases: list[Case]) -> None:
    trace = traced(cases[0].path, BLANK)
    assert trace.mammogram is not None
    assert trace.findings is not None
    lost = dataclasses.replace(trace.findings, component=None)
    kept = BLANK.model_copy(update={"background": Background.KEEP})
    blank, keep = (render.render(trace.mammogram, lost, config) for config in (BLANK, kept))
    assert not blank.background_blanked
    assert (blank.pixels == keep.pixels).all()


def test_a_detector_s_box_without_the_breast_is_not_blanked_to_nothing(cases: list[Case]) -> None:
    trace = traced(cases[0].path, BLANK)
    assert trace.mammogram is not None
    assert trace.findings is not None
    rows, columns = np.nonzero(~kernels.dilate(case_mask(trace), 40, 40))
    box = BreastBox(RoiMethod.DETECTOR, int(rows[0]), int(columns[0]), 2, 2, flipped=False)
    elsewhere = dataclasses.replace(trace.findings, box=box)
    assert not render.render(trace.mammogram, elsewhere, BLANK).background_blanked


def case_mask(trace: pipeline.Trace) -> np.ndarray:
    """The component at full size, near enough."""
    assert trace.findings is not None
    assert trace.findings.component is not None
    grid = trace.findings.grid
    step = 1 << grid.level + grid.shift
    return np.kron(trace.findings.component, np.ones((step, step), np.bool_))


def test_a_mirrored_picture_is_blanked_as_its_mirror_image(cases: list[Case]) -> None:
    trace = traced(cases[0].path, BLANK)
    assert trace.mammogram is not None
    assert trace.findings is not None
    geometry, image = trace.prepared.geometry, trace.instance.image  # type: ignore[union-attr]
    turned = dataclasses.replace(
        geometry, box=dataclasses.replace(geometry.box, flipped=not geometry.box.flipped)
    )
    kept, mirrored = (background.kept_of_content(trace.findings, g, image, BLANK) for g in (geometry, turned))
    assert kept is not None
    assert mirrored is not None
    assert (kept.columns == mirrored.columns[::-1]).all()


def test_thumbnails_of_originals_lose_the_marker_too(cases: list[Case]) -> None:
    shown = 0
    for case in cases:
        trace = traced(case.path, BLANK)
        assert trace.coarse is not None
        assert trace.findings is not None
        coarse = background.blanked_coarse(trace.coarse, trace.findings, BLANK)
        step = 1 << coarse.level
        there = case.marker[::step, ::step][: coarse.pixels.shape[0], : coarse.pixels.shape[1]]
        values = coarse.pixels[there]
        shown += values.size
        assert values.size == 0 or values.min() == values.max()
        assert (trace.coarse.pixels[there] != coarse.pixels[there]).any() or not there.any()
    assert shown > 5


@settings(max_examples=40, deadline=None)
@given(
    start=st.integers(0, 300), size=st.integers(1, 300), outputs=st.integers(1, 50),
    level=st.integers(0, 5), shift=st.integers(0, 3),
)  # fmt: skip
def test_each_pixel_asks_the_sample_nearest_to_its_centre(
    start: int, size: int, outputs: int, level: int, shift: int
) -> None:
    grid, samples = CoarseGrid(level, shift), -(-(start + size) >> level + shift)
    # Wavelet sample k of level r is centred on 2^r·k + ½ (docs/numerics.md); a mean of 2^s in their middle.
    centres = [
        Fraction(1, 2) + sum(Fraction((n << shift) + k, 1 << shift) for k in range(1 << shift)) * (1 << level)
        for n in range(samples)
    ]
    found = background._nearest(start, size, outputs, grid, samples)
    for number, chosen in enumerate(found):
        middle = start + Fraction((2 * number + 1) * size, 2 * outputs)
        assert abs(centres[chosen] - middle) == min(abs(centre - middle) for centre in centres)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_the_kernel_is_one_comparison_a_pixel(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((4, 5)) < 0.5
    rows, columns = rng.integers(0, 4, height, np.int32), rng.integers(0, 5, width, np.int32)
    picture = rng.integers(0, 65536, (height, width)).astype(np.uint16)
    expected = [
        [picture[i, j] if mask[rows[i], columns[j]] else 7 for j in range(width)] for i in range(height)
    ]
    kernels.blank(picture, mask, rows, columns, 7)
    assert picture.tolist() == np.array(expected).tolist()


@pytest.mark.parametrize("value", ["YES", "yes "])
def test_declared_annotation_is_kept_and_recorded_unless_told_to_reject(tmp_path: Path, value: str) -> None:
    data = image_file({0x00280301: text("CS", value)})
    assert parsed(tmp_path, data).image.burned_in_annotation == "YES"
    assert rejection(tmp_path, data, ResultConfig(burned_in=BurnedIn.REJECT)) == "burned_in_annotation"


@pytest.mark.parametrize("value", ["NO", "", "MAYBE"])
def test_only_yes_is_rejected(tmp_path: Path, value: str) -> None:
    data = image_file({0x00280301: text("CS", value)})
    assert parsed(tmp_path, data, ResultConfig(burned_in=BurnedIn.REJECT)).image.rows == 4
