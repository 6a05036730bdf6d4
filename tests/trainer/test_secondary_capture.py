from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from preprocess.records import Instance
from tests.instances import header, instance
from trainer.secondary_capture import secondary_capture


@pytest.fixture
def explained() -> Instance:
    return instance(bytes(32), header((4, 4), "little"))


def test_the_picture_comes_back(explained: Instance) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    read = pydicom.dcmread(io.BytesIO(secondary_capture(picture, explained, "gradcam of P = 0.5")))
    np.testing.assert_array_equal(read.pixel_array, picture)
    assert read.SOPClassUID.name == "Secondary Capture Image Storage"
    assert read.DerivationDescription == "gradcam of P = 0.5"
    assert str(read.PatientName) == ""
    assert read.PatientID == explained.identity.patient_id


def test_doing_it_again_gives_the_same_object_and_other_words_another(explained: Instance) -> None:
    picture = np.zeros((2, 2, 3), np.uint8)
    first, again, other = (secondary_capture(picture, explained, words) for words in ("a", "a", "b"))
    assert first == again
    uids = {pydicom.dcmread(io.BytesIO(data)).SOPInstanceUID for data in (first, other)}
    assert len(uids) == 2


def test_other_pixels_are_another_object(explained: Instance) -> None:
    pictures = (np.zeros((2, 2, 3), np.uint8), np.ones((2, 2, 3), np.uint8))
    uids = {
        pydicom.dcmread(io.BytesIO(secondary_capture(picture, explained, "a"))).SOPInstanceUID
        for picture in pictures
    }
    assert len(uids) == 2


@pytest.mark.parametrize("patient_id", ["患者7", "Müller-3", "a\\b", "x" * 65, "tab\there"])
def test_any_patient_id_stays_one_id(explained: Instance, patient_id: str) -> None:
    def written(patient: str) -> str:
        identity = replace(explained.identity, patient_id=patient)
        picture = np.zeros((2, 2, 3), np.uint8)
        data = secondary_capture(picture, replace(explained, identity=identity), "a")
        return str(pydicom.dcmread(io.BytesIO(data)).PatientID)

    found = written(patient_id)
    assert found == patient_id or re.fullmatch("[0-9a-f]{64}", found)
    assert (found == patient_id) == (patient_id in ("患者7", "Müller-3"))
    assert found != written(patient_id + "2")


@pytest.mark.parametrize(("told", "written"), [("YES", "YES"), ("NO", "NO"), (None, None)])
def test_burned_in_annotation_is_the_sources(
    explained: Instance, told: str | None, written: str | None
) -> None:
    source = replace(explained, image=replace(explained.image, burned_in_annotation=told))
    data = secondary_capture(np.zeros((2, 2, 3), np.uint8), source, "a")
    assert pydicom.dcmread(io.BytesIO(data)).get("BurnedInAnnotation") == written


@pytest.mark.parametrize("intent", ["PRESENTATION", "PROCESSING"])
def test_the_source_is_named_by_its_class(explained: Instance, intent: str) -> None:
    image = replace(explained.image, presentation_intent_type=f"FOR {intent}")
    source = replace(explained, image=image, sop_instance_uid="1.2.3")
    read = pydicom.dcmread(io.BytesIO(secondary_capture(np.zeros((2, 2, 3), np.uint8), source, "a")))
    (item,) = read.SourceImageSequence
    assert item.ReferencedSOPInstanceUID == "1.2.3"
    assert item.ReferencedSOPClassUID.name.endswith(f"For {intent.capitalize()}")
