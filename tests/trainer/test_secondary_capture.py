from __future__ import annotations

import io

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
