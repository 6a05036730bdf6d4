"""Identity: layout first, then the header, then hashes; laterality and view."""

from __future__ import annotations

import hashlib

import pytest

from preprocess.config import ResultConfig
from preprocess.dicom import parse, scan
from preprocess.records import Identity
from tests.preprocess.dicom_maker import Elements, image_file, parsed, source_of, sq, text

PATIENT, STUDY, INSTANCE = 0x00100020, 0x0020000D, 0x00080018
IMAGE_LATERALITY, LATERALITY, VIEW, VIEW_CODES = 0x00200062, 0x00200060, 0x00185101, 0x00540220
SHARED, ANATOMY, FRAME_LATERALITY = 0x52009229, 0x00209071, 0x00209072


def identity(tmp_path, changes: Elements | None = None) -> Identity:
    return parsed(tmp_path, image_file(changes)).identity


def test_the_layout_wins_field_by_field(tmp_path):
    layout = Identity(patient_id="10006", laterality="L", site_id="2")
    data = image_file({IMAGE_LATERALITY: text("CS", "R"), VIEW: text("CS", "MLO")})
    source = source_of(tmp_path, data, layout)
    expected = Identity("10006", "1.2.3.4", "L", "MLO", "2")
    assert parse(source, ResultConfig()).identity == expected
    assert scan(source, ResultConfig()).identity == expected


def test_the_header_names_patient_and_image(tmp_path):
    assert identity(tmp_path) == Identity("p1", "1.2.3.4")


def test_without_patient_id_the_study_groups(tmp_path):
    study = hashlib.sha256(b"1.2.3").hexdigest()[:16]
    assert identity(tmp_path, {PATIENT: None}).patient_id == f"study-{study}"
    assert identity(tmp_path, {PATIENT: text("LO", "  ")}).patient_id == f"study-{study}"


def test_without_anything_the_file_names_itself(tmp_path):
    data = image_file({PATIENT: None, STUDY: None, INSTANCE: None})
    instance = parsed(tmp_path, data)
    digest = hashlib.sha256(data).hexdigest()
    assert instance.file_sha256 == digest
    assert instance.identity == Identity(f"file-{digest[:16]}", f"file-{digest[:16]}")
    assert (instance.study_instance_uid, instance.sop_instance_uid) == (None, None)


def test_what_is_no_uid_is_no_key(tmp_path):
    instance = parsed(tmp_path, image_file({INSTANCE: text("UI", "Jane Doe"), STUDY: text("UI", "")}))
    assert (instance.sop_instance_uid, instance.study_instance_uid) == (None, None)


def test_patient_ids_are_decoded_and_of_bounded_length(tmp_path):
    changes = {0x00080005: text("CS", "ISO_IR 192"), PATIENT: ("LO", "Ä-7 ".encode())}
    assert identity(tmp_path, changes).patient_id == "Ä-7"
    long = identity(tmp_path, {PATIENT: text("LO", "9" * 5000)}).patient_id
    assert long is not None
    assert len(long) < 64


@pytest.mark.parametrize(
    ("changes", "side"),
    [
        ({IMAGE_LATERALITY: text("CS", "R")}, "R"),
        ({LATERALITY: text("CS", "l")}, "L"),
        ({IMAGE_LATERALITY: text("CS", "L"), LATERALITY: text("CS", "R")}, "L"),
        ({IMAGE_LATERALITY: text("CS", "B")}, None),
        ({IMAGE_LATERALITY: text("CS", "")}, None),
        ({SHARED: sq({ANATOMY: sq({FRAME_LATERALITY: text("CS", "R")})})}, "R"),
        ({}, None),
    ],
)
def test_laterality_is_left_or_right_or_unknown(tmp_path, changes, side):
    assert identity(tmp_path, changes).laterality == side


def view_code(code: str, meaning: str = "") -> Elements:
    return {VIEW_CODES: sq({0x00080100: text("SH", code), 0x00080104: text("LO", meaning)})}


@pytest.mark.parametrize(
    ("changes", "view"),
    [
        ({VIEW: text("CS", "CC")}, "CC"),
        ({VIEW: text("CS", "mlo")}, "MLO"),
        ({VIEW: text("CS", "RMLO")}, "RMLO"),
        ({VIEW: text("CS", "MLOID")}, "MLOID"),
        ({VIEW: text("CS", "AT")}, "AT"),
        ({VIEW: text("CS", "SMITH")}, None),
        ({VIEW: text("CS", "")} | view_code("R-10242"), "CC"),
        (view_code("R-10226"), "MLO"),
        (view_code("R-10224"), "ML"),
        (view_code("R-10228"), "LM"),
        (view_code("R-10230"), "LMO"),
        (view_code("399162004"), "CC"),
        (view_code("399368009"), "MLO"),
        (view_code("Y-X1771"), "XCCL"),
        (view_code("LOCAL-1", "cranio-caudal "), "CC"),
        (view_code("LOCAL-2", "Medio-lateral oblique"), "MLO"),
        (view_code("LOCAL-3", "Jane Doe"), None),
        ({VIEW: text("CS", "JANE DOE 1970")}, None),
        ({VIEW_CODES: sq()}, None),
        ({}, None),
    ],
)
def test_view_is_that_of_position_code_or_meaning(tmp_path, changes, view):
    assert identity(tmp_path, changes).view == view


@pytest.mark.parametrize(
    "raw",
    [
        b"a\0b",
        b"a\x1bb",
        b"a\\b",
        b"a\\c",
        b"a\xe2\x80\xaeb",
        b"\xff\xfe",
        b"\xff\xfd",
        b"x" * 65,
        b"ab\n\x0bc",
    ],
)
def test_a_patient_id_that_cannot_be_shown_exactly_is_hashed_and_stays_distinct(tmp_path, raw):
    utf8 = {0x00080005: text("CS", "ISO_IR 192")}
    patient = identity(tmp_path, utf8 | {PATIENT: ("LO", raw)}).patient_id
    assert patient == f"patient-{hashlib.sha256(raw).hexdigest()[:16]}"
    assert identity(tmp_path, utf8 | {PATIENT: ("LO", raw + b" \0 ")}).patient_id == patient
    assert identity(tmp_path, utf8 | {PATIENT: ("LO", b"ab")}).patient_id == "ab"
