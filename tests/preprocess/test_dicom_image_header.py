"""Image Pixel module and acquisition facts: what is accepted, what is refused and why."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from preprocess.config import Frames, ResultConfig
from tests.preprocess.dicom_maker import (
    EXPLICIT,
    IMPLICIT,
    element,
    elements_bytes,
    encapsulated,
    file_of,
    image,
    image_file,
    parsed,
    rejection,
    sq,
    text,
    us,
)

SAMPLES, PHOTOMETRIC, FRAMES, ROWS, COLUMNS = 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011
ALLOCATED, STORED, HIGH, SIGNED = 0x00280100, 0x00280101, 0x00280102, 0x00280103
PIXELS, MODALITY, SOP_CLASS = 0x7FE00010, 0x00080060, 0x00080016


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({ROWS: None}, "missing_attribute"),
        ({COLUMNS: ("US", b"")}, "missing_attribute"),
        ({ALLOCATED: None}, "missing_attribute"),
        ({PHOTOMETRIC: None}, "missing_attribute"),
        ({PHOTOMETRIC: text("CS", "")}, "missing_attribute"),
        ({ROWS: us(0)}, "invalid_attribute"),
        ({COLUMNS: us(0)}, "invalid_attribute"),
        ({SAMPLES: us(0)}, "invalid_attribute"),
        ({SAMPLES: us(3)}, "color"),
        ({PHOTOMETRIC: text("CS", "RGB")}, "color"),
        ({PHOTOMETRIC: text("CS", "PALETTE COLOR")}, "color"),
        ({PHOTOMETRIC: text("CS", "YBR_FULL_422")}, "color"),
        *[({ALLOCATED: us(n)}, "unsupported_bits") for n in (1, 32, 64)],
        *[({ALLOCATED: us(n)}, "invalid_attribute") for n in (0, 3, 12, 24, 128)],
        ({STORED: us(0)}, "invalid_attribute"),
        ({STORED: us(17)}, "invalid_attribute"),
        ({STORED: us(1)}, "unsupported_bits"),
        ({SIGNED: us(2)}, "invalid_attribute"),
        ({FRAMES: text("IS", "2")}, "multi_frame"),
        ({FRAMES: text("IS", "-1")}, "invalid_attribute"),
        ({FRAMES: text("IS", "many")}, "invalid_attribute"),
        ({PIXELS: ("OW", b"\0" * 46)}, "pixel_data_length"),
        ({PIXELS: ("OW", b"")}, "pixel_data_length"),
        ({PIXELS: None}, "no_pixel_data"),
        ({PIXELS: None, 0x7FE00008: ("OF", b"\0" * 96)}, "float_pixel_data"),
        ({PIXELS: None, 0x7FE00009: ("OD", b"\0" * 192)}, "float_pixel_data"),
        ({SOP_CLASS: text("UI", "1.2.840.10008.5.1.4.1.1.88.22")}, "structured_report"),
        ({SOP_CLASS: text("UI", "1.2.840.10008.5.1.4.1.1.11.1")}, "presentation_state"),
        ({SOP_CLASS: text("UI", "1.2.840.10008.1.3.10")}, "dicomdir"),
        ({0x00041220: sq()}, "dicomdir"),
    ],
)
def test_what_cannot_be_prepared_is_refused_with_its_code(tmp_path, changes, code):
    assert rejection(tmp_path, image_file(changes)) == code


@pytest.mark.parametrize(
    ("sop_class", "code"),
    [
        ("1.2.840.10008.5.1.4.1.1.104.1", "non_image"),
        ("1.2.840.10008.5.1.4.1.1.9.1.1", "non_image"),
        ("1.2.840.10008.5.1.4.1.1.481.5", "non_image"),
        ("1.3.12.2.1107.5.9.1", "non_image"),
        ("1.2.840.10008.5.1.4.1.1.1.2", "no_pixel_data"),
        ("1.2.840.10008.5.1.4.1.1.13.1.3", "no_pixel_data"),
        (None, "no_pixel_data"),
    ],
    ids=["pdf", "ecg", "plan", "private", "mammogram", "tomosynthesis", "none"],
)
def test_objects_without_pixels_are_told_apart_by_class(tmp_path, sop_class, code):
    elements = {0x0020000D: text("UI", "1.2.3"), 0x00080018: text("UI", "1.2.3.4")}
    if sop_class:
        elements[SOP_CLASS] = text("UI", sop_class)
    data = file_of(elements_bytes(elements))
    if not sop_class:
        data = data.replace(b"1.2.840.10008.5.1.4.1.1.1.2", b"\0" * 27)
    assert rejection(tmp_path, data) == code


def test_absent_attributes_that_have_a_sensible_default_get_it(tmp_path):
    image_header = parsed(
        tmp_path, image_file({STORED: None, HIGH: None, SIGNED: None, FRAMES: None, SAMPLES: None})
    ).image
    assert (image_header.bits_stored, image_header.high_bit) == (16, 15)
    assert (image_header.pixel_representation, image_header.number_of_frames) == (0, 1)


@pytest.mark.parametrize(("given", "taken"), [(11, 11), (15, 15), (12, 12), (16, 11), (0, 11), (10, 11)])
def test_high_bit_is_believed_only_where_it_is_possible(tmp_path, given, taken):
    assert parsed(tmp_path, image_file({HIGH: us(given)})).image.high_bit == taken


def test_pixel_limit_holds_before_anything_is_read(tmp_path):
    huge = image_file({ROWS: us(65535), COLUMNS: us(65535)})
    assert rejection(tmp_path, huge) == "too_many_pixels"
    assert rejection(tmp_path, image_file(), ResultConfig(max_pixels=23)) == "too_many_pixels"
    assert parsed(tmp_path, image_file(), ResultConfig(max_pixels=24)).image.rows == 4


def test_modality_narrows_but_lets_files_without_one_pass(tmp_path):
    config = ResultConfig(modality="MG")
    assert rejection(tmp_path, image_file({MODALITY: text("CS", "CT")}), config) == "modality"
    assert parsed(tmp_path, image_file({MODALITY: text("CS", "MG")}), config).image.modality == "MG"
    assert parsed(tmp_path, image_file(), config).image.modality is None
    assert parsed(tmp_path, image_file({MODALITY: text("CS", "CT")})).image.modality == "CT"


@pytest.mark.parametrize(("policy", "frame"), [(Frames.FIRST, 0), (Frames.MIDDLE, 1)])
def test_a_frame_of_several_is_taken_where_the_config_says_so(tmp_path, policy, frame):
    frames = [struct.pack("<24H", *([n] * 24)) for n in range(3)]
    data = image_file({FRAMES: text("IS", "3"), PIXELS: ("OW", b"".join(frames))})
    instance = parsed(tmp_path, data, ResultConfig(frames=policy))
    assert instance.payload == frames[frame]
    assert (instance.image.frame, instance.image.number_of_frames) == (frame, 3)


def test_padding_is_left_alone_and_undeclared_pixels_are_refused(tmp_path):
    first = struct.pack("<24H", *range(24))
    row = 2 * 6
    for padding in (b"\0" * row, b"\0", b"\xff"):
        assert parsed(tmp_path, image_file({PIXELS: ("OW", first + padding)})).payload == first
    for surplus in (b"\0" * (row + 1), b"\0\1", first):
        assert rejection(tmp_path, image_file({PIXELS: ("OW", first + surplus)})) == "pixel_data_length"
    zero = image_file({FRAMES: text("IS", "0"), PIXELS: ("OW", first)})
    assert parsed(tmp_path, zero).image.number_of_frames == 1


def test_odd_8_bit_frames_are_padded(tmp_path):
    changes = {ROWS: us(3), COLUMNS: us(3), ALLOCATED: us(8), STORED: us(8), HIGH: us(7)}
    data = image_file(changes | {PIXELS: ("OB", bytes(range(10)))})
    assert parsed(tmp_path, data).payload == bytes(range(9))


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME2", None, False),
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME2", "IDENTITY", False),
        ("monochrome1 ", "", True),
    ],
)
def test_polarity_is_inverted_once(tmp_path, photometric, shape, inverted):
    changes = {PHOTOMETRIC: text("CS", photometric)}
    if shape is not None:
        changes[0x20500020] = text("CS", shape)
    assert parsed(tmp_path, image_file(changes)).image.inverted is inverted


MEASURES = sq({0x00289110: sq({0x00280030: text("DS", r"0.3\0.4")})})


@pytest.mark.parametrize(
    ("changes", "spacing"),
    [
        ({}, (None, None)),
        ({0x00280030: text("DS", r"0.1\0.2")}, (0.1, 0.2)),
        ({0x00181164: text("DS", r"0.07\0.08")}, (0.07, 0.08)),
        ({0x00182010: text("DS", r"0.05\0.06")}, (0.05, 0.06)),
        ({0x00280030: text("DS", r"0.1\0.2"), 0x00181164: text("DS", r"1\1")}, (0.1, 0.2)),
        ({0x00280030: text("DS", r"0\0"), 0x00181164: text("DS", r"0.07\0.07")}, (0.07, 0.07)),
        ({0x00280030: text("DS", "0.1")}, (None, None)),
        ({0x00280030: text("DS", r"-1\-1")}, (None, None)),
        ({0x00280030: text("DS", r"a\b")}, (None, None)),
        ({0x00280030: text("DS", r"1e300\1")}, (None, None)),
        ({0x52009229: MEASURES}, (0.3, 0.4)),
        (
            {0x52009230: MEASURES, 0x52009229: sq({0x00289110: sq({0x00280030: text("DS", r"9\9")})})},
            (0.3, 0.4),
        ),
    ],
)
def test_spacing_is_read_wherever_it_is_and_only_if_possible(tmp_path, changes, spacing):
    header = parsed(tmp_path, image_file(changes)).image
    assert (header.pixel_spacing_row_mm, header.pixel_spacing_column_mm) == spacing


def test_acquisition_facts_are_kept_by_allow_list(tmp_path):
    header = parsed(
        tmp_path,
        image_file(
            {
                0x00080005: text("CS", "ISO_IR 100"),
                0x00080068: text("CS", "FOR PROCESSING"),
                0x00080070: ("LO", "M\xfcller\x07 ".encode("latin-1")),
                0x00081090: text("LO", "Selenia Dimensions (3D), v1.9/b"),
                0x00280301: text("CS", "no"),
            }
        ),
    ).image
    assert header.presentation_intent_type == "FOR PROCESSING"
    assert header.manufacturer == "Müller"
    assert header.manufacturer_model_name == "Selenia Dimensions (3D), v1.9/b"
    assert header.burned_in_annotation == "NO"


@pytest.mark.parametrize(
    "name",
    ["Model" * 30, "Doe^Jane", "s/n 20260131", "jane@example.org", "SN: 7", "<b>", "x\u202ey@", "7" * 6],
)
def test_a_model_s_name_that_could_name_a_person_is_dropped(tmp_path, name):
    changes = {0x00080005: text("CS", "ISO_IR 192"), 0x00081090: text("LO", name)}
    assert parsed(tmp_path, image_file(changes)).image.manufacturer_model_name is None


@pytest.mark.parametrize("modality", ["SMITH", "MG1", "DOE JANE"])
def test_a_modality_that_the_standard_does_not_know_is_dropped(tmp_path, modality):
    assert parsed(tmp_path, image_file({MODALITY: text("CS", modality)})).image.modality is None


def test_free_text_where_a_code_belongs_is_dropped(tmp_path):
    header = parsed(
        tmp_path, image_file({0x00080068: text("CS", "Jane Doe"), 0x00280301: text("CS", "1970-01-01")})
    ).image
    assert header.presentation_intent_type is None
    assert header.burned_in_annotation is None


@pytest.mark.parametrize(
    ("group", "bits", "found"), [(0x6000, 1, False), (0x6000, 16, True), (0x6004, 8, True)]
)
def test_overlays_inside_pixels_are_noticed(tmp_path, group, bits, found):
    header = parsed(tmp_path, image_file({group << 16 | 0x0100: us(bits)})).image
    assert header.has_overlay_in_pixels is found


def test_rows_as_integer_string_are_read(tmp_path):
    assert parsed(tmp_path, image_file({ROWS: text("IS", "4")})).image.rows == 4


def test_implicit_and_unknown_vrs_are_those_of_the_dictionary(tmp_path):
    changes = {
        FRAMES: text("IS", "1"),
        0x00280030: text("DS", r"0.1\0.2"),
        0x00280120: us(65_000),
        0x00281050: text("DS", "40"),
        0x00281051: text("DS", "80"),
        0x00281053: text("DS", "2"),
        0x60000100: us(16),
        0x20500020: text("CS", "INVERSE"),
    }
    explicit = parsed(tmp_path, image_file(changes))
    implicit = parsed(tmp_path, image_file(changes, syntax=IMPLICIT))
    unknown = parsed(
        tmp_path,
        image_file({tag: ("UN", value) for tag, (_, value) in image(changes).items() if tag != PIXELS}),
    )
    assert explicit.image.number_of_frames == 1
    for other in (implicit, unknown):
        assert replace(other.image, transfer_syntax_uid=EXPLICIT) == explicit.image
        assert (other.voi, other.padding) == (explicit.voi, explicit.padding)
        assert (other.modality_transform, other.identity) == (explicit.modality_transform, explicit.identity)


def test_unknown_transfer_syntax_is_refused(tmp_path):
    assert rejection(tmp_path, image_file(syntax="1.2.840.10008.1.2.4.100")) == "unsupported_transfer_syntax"
    assert rejection(tmp_path, image_file(syntax="9.9.INVALID")) == "unsupported_transfer_syntax"


def test_native_and_encapsulated_must_be_as_declared(tmp_path):
    header = elements_bytes({t: v for t, v in image().items() if t != PIXELS})
    assert rejection(tmp_path, image_file(syntax="1.2.840.10008.1.2.4.90")) == "invalid_encapsulation"
    assert rejection(tmp_path, file_of(header + encapsulated([], [b"ab"]))) == "invalid_encapsulation"


def test_codestream_that_contradicts_the_header_is_refused_before_decoding(tmp_path):
    header = elements_bytes({t: v for t, v in image().items() if t != PIXELS})
    lie = b"\xff\x4f\xff\x51" + struct.pack(
        ">HHIIIIIIIIHBBB", 41, 0, 30000, 30000, 0, 0, 30000, 30000, 0, 0, 1, 11, 1, 1
    )
    cod = b"\xff\x52" + struct.pack(">HBBHBBBBBB", 12, 0, 0, 1, 0, 5, 4, 4, 0, 1)
    qcd = b"\xff\x5c" + struct.pack(">HB", 19, 0x40) + bytes(16)
    tile = b"\xff\x90" + struct.pack(">HHIBB", 10, 0, 14, 0, 1) + b"\xff\x93"
    data = file_of(
        header + encapsulated([], [lie + cod + qcd + tile + b"\xff\xd9"]), "1.2.840.10008.1.2.4.90"
    )
    assert rejection(tmp_path, data) == "codestream_mismatch"


def test_element_header_needs_no_known_vr(tmp_path):
    body = elements_bytes(image({MODALITY: None}))
    odd = element(MODALITY, ("ZZ", b"MG"))
    assert parsed(tmp_path, file_of(odd + body)).image.modality == "MG"
