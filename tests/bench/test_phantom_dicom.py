from __future__ import annotations

from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels import pixel_array

from bench.phantom_dicom import LOSSY, SYNTAXES, DicomSpec, dicom_bytes, encode, write_dicom

LOSSLESS = sorted(name for name, uid in SYNTAXES.items() if uid not in LOSSY)


def picture(bits: int, rows: int = 70, columns: int = 90) -> np.ndarray:
    rng = np.random.default_rng(bits)
    top = (1 << bits) - 1
    row, column = np.mgrid[:rows, :columns]
    smooth = (np.sin(row / 9) + np.cos(column / 7) + 2) / 4 * top
    image = np.clip(smooth + rng.normal(0, top / 200, smooth.shape), 0, top)
    image[0, 0], image[0, 1] = 0, top
    return image.astype(np.uint8 if bits <= 8 else np.uint16)


def reread(data: bytes) -> np.ndarray:
    return pixel_array(dcmread(BytesIO(data)), raw=True)


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossless_syntaxes_give_back_every_pixel(name: str, bits: int) -> None:
    image = picture(bits)
    spec = DicomSpec(transfer_syntax_uid=SYNTAXES[name], bits_stored=bits)
    np.testing.assert_array_equal(reread(dicom_bytes(image, spec)), image)


@pytest.mark.parametrize("name", sorted(name for name, uid in SYNTAXES.items() if uid in LOSSY))
def test_lossy_syntaxes_stay_near(name: str) -> None:
    bits = 8 if name == "jpeg-baseline" else 12
    image = picture(bits)
    spec = DicomSpec(transfer_syntax_uid=SYNTAXES[name], bits_stored=bits)
    # pydicom's plugins read no 12-bit extended JPEG: that one is read by the codec itself.
    back = (
        imagecodecs.jpeg8_decode(encode(image, spec))
        if name == "jpeg-extended"
        else reread(dicom_bytes(image, spec))
    )
    assert 0 < np.abs(back.astype(int) - image).max() <= (1 << bits) / 25


@pytest.mark.parametrize(
    "name", ["implicit", "explicit", "big-endian", "deflated", "rle", "jpeg-2000", "htj2k"]
)
def test_signed_pixels_come_back_signed(name: str) -> None:
    image = picture(12).astype(np.int16) - 2048
    spec = DicomSpec(transfer_syntax_uid=SYNTAXES[name], bits_stored=12)
    np.testing.assert_array_equal(reread(dicom_bytes(image, spec)), image)


def test_odd_number_of_8_bit_pixels_is_padded_to_even() -> None:
    image = picture(8, 7, 9)
    np.testing.assert_array_equal(reread(dicom_bytes(image, DicomSpec())), image)


def test_rsna_form_is_boxed_16_bit_siz_five_three_five_levels() -> None:
    spec = DicomSpec(
        transfer_syntax_uid=SYNTAXES["jpeg-2000"], bits_stored=12, boxed=True, codestream_bits=16
    )
    frame = encode(picture(12, 320, 400), spec)
    assert frame[4:8] == b"jP  "
    siz = frame.index(b"\xff\x51")
    assert frame[siz + 40] == 15
    cod = frame.index(b"\xff\x52")
    assert frame[cod + 4 : cod + 14].hex() == "00000001000504040001"


def test_small_images_have_fewer_levels_instead_of_an_error() -> None:
    spec = DicomSpec(transfer_syntax_uid=SYNTAXES["jpeg-2000"])
    image = picture(16, 20, 18)
    np.testing.assert_array_equal(reread(dicom_bytes(image, spec)), image)


def test_header_lacks_what_rsna_lacks(tmp_path) -> None:
    dataset = dcmread(write_dicom(tmp_path / "a/b.dcm", picture(12), DicomSpec(bits_stored=12)))
    for keyword in ("Modality", "SOPClassUID", "ViewPosition", "PatientOrientation", "PatientName"):
        assert keyword not in dataset
    assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID


def test_elements_replace_and_delete() -> None:
    spec = DicomSpec(elements=(("BurnedInAnnotation", "NO"), ("RescaleType", None), ("Laterality", None)))
    dataset = dcmread(BytesIO(dicom_bytes(picture(16), spec)))
    assert dataset.BurnedInAnnotation == "NO"
    assert "RescaleType" not in dataset


def test_several_fragments_are_one_frame() -> None:
    image = picture(12)
    data = dicom_bytes(
        image, DicomSpec(transfer_syntax_uid=SYNTAXES["jpeg-2000"], bits_stored=12, fragments=3)
    )
    np.testing.assert_array_equal(reread(data), image)


def test_payload_takes_the_place_of_the_encoded_frame() -> None:
    spec = DicomSpec(transfer_syntax_uid=SYNTAXES["rle"])
    assert b"planted!" in dicom_bytes(picture(8), spec, payload=b"planted!")


@pytest.mark.parametrize(
    ("image", "spec"),
    [
        (picture(12), DicomSpec(transfer_syntax_uid=SYNTAXES["jpeg-baseline"], bits_stored=12)),
        (picture(16), DicomSpec(transfer_syntax_uid=SYNTAXES["jpeg-extended"])),
        (picture(16), DicomSpec(transfer_syntax_uid="1.2.3")),
        (picture(16).astype(np.float32), DicomSpec()),
        (picture(16)[None], DicomSpec()),
    ],
)
def test_what_cannot_be_carried_is_refused(image: np.ndarray, spec: DicomSpec) -> None:
    with pytest.raises(ValueError, match=r"bits|syntax|2-D"):
        dicom_bytes(image, spec)


def test_same_input_gives_same_bytes() -> None:
    spec = DicomSpec(transfer_syntax_uid=SYNTAXES["jpeg-2000"], study="s", instance="i")
    assert dicom_bytes(picture(12), spec) == dicom_bytes(picture(12), spec)
