"""A picture as a DICOM Secondary Capture that belongs to the study it explains.

In:  an RGB picture, the Instance that it was made from, what it shows in words.
Out: the bytes of a DICOM file (PS3.3 A.8.1). Nothing that names a person: Patient ID is kept, as predictions
     keep it; UIDs follow from those of the source, so that doing it again gives the same object.
"""

from __future__ import annotations

import hashlib
import io

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from preprocess import __version__
from preprocess.records import Instance

_LONGEST_LO = 64
"""Characters of a value (PS3.5 6.2)."""


def secondary_capture(picture: npt.NDArray[np.uint8], instance: Instance, words: str) -> bytes:
    """Wrap `picture` (rows, columns, 3) uint8.

    words: becomes Derivation Description (0008,2111), and with the hashes of source and picture the UIDs. A
    Patient ID that no DICOM file can hold (more than 64 characters, a backslash) becomes its SHA-256.
    """
    source, image = instance.sop_instance_uid, instance.image
    shown = hashlib.sha256(picture.tobytes()).hexdigest()
    made_of = [instance.file_sha256 or instance.source.source, words, shown]
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=["instance", *made_of])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyInstanceUID = instance.study_instance_uid or generate_uid(entropy_srcs=["study", *made_of])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series", dataset.StudyInstanceUID, words])
    dataset.PatientName, dataset.PatientID = "", _long_string(instance.identity.patient_id or "")
    dataset.PatientBirthDate = dataset.PatientSex = dataset.StudyDate = dataset.StudyTime = ""
    dataset.AccessionNumber = dataset.ReferringPhysicianName = dataset.StudyID = ""
    dataset.Modality, dataset.ConversionType = "OT", "WSD"
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.Manufacturer, dataset.SoftwareVersions = "bcd-mammography", __version__
    dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    dataset.DerivationDescription = words
    if image.burned_in_annotation in ("YES", "NO"):
        dataset.BurnedInAnnotation = image.burned_in_annotation
    if instance.identity.laterality:
        dataset.ImageLaterality = instance.identity.laterality
    if source:
        dataset.SourceImageSequence = Sequence([_reference(source, image.presentation_intent_type)])
    _pixels(dataset, picture)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _long_string(text: str) -> str:
    """`text` where it is a value of VR LO, else its SHA-256: ids that differ stay different."""
    if len(text) <= _LONGEST_LO and text.isprintable() and "\\" not in text:
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _reference(uid: str, intent: str | None) -> Dataset:
    item = Dataset()
    mammography = DigitalMammographyXRayImageStorageForPresentation
    if intent == "FOR PROCESSING":
        mammography = DigitalMammographyXRayImageStorageForProcessing
    item.ReferencedSOPClassUID = mammography
    item.ReferencedSOPInstanceUID = uid
    return item


def _pixels(dataset: Dataset, picture: npt.NDArray[np.uint8]) -> None:
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = picture.shape
    dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    data = np.ascontiguousarray(picture).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
