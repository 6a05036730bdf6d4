"""What `inspect` tells of a file, in words and as a picture."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from bench.phantom_dicom import SYNTAXES, DicomSpec, write_dicom
from preprocess.config import ResultConfig
from preprocess.errors import REJECT_CODES, UsageError
from preprocess.inspection import Inspection, half_blocks, inspect_file, preview, render_text, show

DATA = Path(os.environ.get("BCD_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
CONFIG = ResultConfig.model_validate({"height": 128, "width": 64})
SECRETS = {"PatientName": "Doe^Jane", "PatientBirthDate": "19610203", "StudyDate": "20200405",
           "InstitutionName": "Saint Elsewhere", "AccessionNumber": "A77123"}  # fmt: skip


def breast(rows: int = 600, columns: int = 440) -> np.ndarray:
    """A 12-bit half-ellipse at the right edge."""
    row, column = np.mgrid[0:rows, 0:columns]
    inside = ((row - rows / 2) / (rows * 0.35)) ** 2 + ((columns - column) / (columns * 0.6)) ** 2 < 1
    noise = np.random.default_rng(7).integers(0, 600, (rows, columns))
    return np.where(inside, 1500 + noise, 20).astype(np.uint16)


@pytest.fixture
def mammogram(tmp_path: Path) -> Path:
    spec = DicomSpec(
        transfer_syntax_uid=SYNTAXES["jpeg-2000"],
        bits_stored=12,
        windows=(("2048", "4096"), ("1500", "900")),
        patient_id="PID-4711",
        image_laterality="R",
        view_position="CC",
        modality="MG",
        pixel_spacing_mm=(0.1, 0.1),
        boxed=True,
        codestream_bits=16,
        elements=tuple(SECRETS.items()),
    )
    return write_dicom(tmp_path / "image.dcm", breast(), spec)


def text_of(inspection: Inspection) -> str:
    stream = io.StringIO()
    Console(file=stream, width=140).print(render_text(inspection))
    return stream.getvalue()


def facts(inspection: Inspection, title: str) -> dict[str, str]:
    return dict(next(group.facts for group in inspection.groups if group.title == title))


def test_a_good_file_shows_what_every_stage_found(mammogram: Path) -> None:
    inspection = inspect_file(str(mammogram), CONFIG)
    assert inspection.reject is None
    assert facts(inspection, "Image")["transfer syntax"] == "JPEG 2000 lossless (.90)"
    assert facts(inspection, "Values")["windows"] == "2048 / 4096, 1500 / 900"
    assert facts(inspection, "Codestream")["says of itself"] == "600 × 440, 16 bit unsigned"
    assert facts(inspection, "Codestream")["notable"] == "inside JP2 boxes"
    assert facts(inspection, "Window")["centre / width"] == "2048 / 4096"
    assert facts(inspection, "Breast")["margin"] == "5 mm"
    assert "mirrored" in facts(inspection, "Breast")
    assert facts(inspection, "Prepared")["size"] == "128 × 64, 16 bit"
    assert "would be prepared" in text_of(inspection)


def test_the_level_is_given_with_its_reason(mammogram: Path) -> None:
    automatic = facts(inspect_file(str(mammogram), CONFIG), "Decoding")
    assert automatic["decoded at"].startswith("level 1 (1/2), 5 offered")
    assert "times its prepared size" in automatic["because"]
    full = CONFIG.model_copy(update={"decode": "full"})
    decoding = facts(inspect_file(str(mammogram), full), "Decoding")
    assert (decoding["decoded at"], decoding["because"]) == ("full size, 5 offered", "--decode full")


def test_nothing_that_names_a_person_is_told(mammogram: Path) -> None:
    text = text_of(inspect_file(str(mammogram), CONFIG))
    assert [secret for secret in (*SECRETS.values(), "Doe", "PID-4711") if secret in text] == []


def test_a_rejected_file_says_why_and_what_to_do(tmp_path: Path) -> None:
    blank = write_dicom(tmp_path / "blank.dcm", np.full((64, 64), 7, np.uint16), DicomSpec())
    inspection = inspect_file(str(blank), CONFIG)
    assert inspection.reject is not None
    assert inspection.reject.code == "blank_image"
    assert facts(inspection, "Reject")["what to do"] == REJECT_CODES["blank_image"].remedy
    assert "would be rejected: blank_image" in text_of(inspection)
    assert inspection.prepared is None


@pytest.mark.parametrize(("content", "code"), [(None, "unreadable"), (b"hello", "not_dicom")])
def test_what_is_not_dicom_is_a_reject_and_no_error(tmp_path: Path, content: bytes | None, code: str) -> None:
    path = tmp_path / "odd.dcm"
    if content is not None:
        path.write_bytes(content)
    inspection = inspect_file(str(path), CONFIG)
    assert inspection.reject is not None
    assert inspection.reject.code == code
    assert preview(inspection) is None


def test_a_member_of_an_archive_can_be_inspected(mammogram: Path, tmp_path: Path) -> None:
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(mammogram, "a/image.dcm")
    inspection = inspect_file(f"{archive}::a/image.dcm", CONFIG)
    assert inspection.name == "all.zip::a/image.dcm"
    assert inspection.reject is None


def test_the_preview_shows_the_box_beside_the_prepared_pixels(mammogram: Path) -> None:
    inspection = inspect_file(str(mammogram), CONFIG)
    picture = preview(inspection)
    assert picture is not None
    assert inspection.original is not None
    assert inspection.prepared is not None
    assert picture.shape == (512, inspection.original.shape[1] + 12 + 64, 3)
    yellow = np.argwhere((picture == (255, 212, 59)).all(axis=2))
    assert yellow[:, 1].max() < inspection.original.shape[1]
    top, left = yellow.min(axis=0) / inspection.original.shape
    assert inspection.box is not None
    assert (top, left) == pytest.approx(inspection.box[:2], abs=0.01)
    first = (512 - 128) // 2
    assert np.array_equal(picture[first : first + 128, -64:, 0], inspection.prepared)


def test_half_blocks_carry_two_pixels_each() -> None:
    picture = np.zeros((4, 2, 3), np.uint8)
    picture[0] = (255, 0, 0)
    picture[3] = (0, 0, 255)
    text = half_blocks(picture, 2)
    assert text.plain == "▀▀\n▀▀\n"
    assert [str(span.style) for span in text.spans] == ["#ff0000 on #000000"] * 2 + ["#000000 on #0000ff"] * 2


def test_show_draws_and_writes_only_if_asked(mammogram: Path, tmp_path: Path) -> None:
    inspection = inspect_file(str(mammogram), CONFIG)
    plain, drawn = (io.StringIO() for _ in range(2))
    show(inspection, console=Console(file=plain, width=100))
    show(inspection, png=tmp_path / "x.png", draw=True, console=Console(file=drawn, width=100))
    assert "▀" not in plain.getvalue()
    assert drawn.getvalue().count("▀") >= 100 * 10
    expected = preview(inspection)
    assert expected is not None
    with Image.open(tmp_path / "x.png") as picture:
        assert np.array_equal(np.asarray(picture), expected)
    with pytest.raises(UsageError, match="cannot write"):
        show(inspection, png=tmp_path / "no" / "x.png", console=Console(file=io.StringIO()))


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no test data at {DATA} (BCD_TEST_DATA)")
def test_real_mammograms_are_inspected() -> None:
    inspection = inspect_file(str(DATA / "mg" / "wg04_mg1_j2ki.dcm"), CONFIG)
    assert inspection.reject is None
    assert facts(inspection, "Codestream")["coding"] == "jpeg_2000, lossy by content"
