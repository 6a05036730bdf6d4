"""In: a 2-D array of stored values and a `DicomSpec`. Out: one DICOM file in any grayscale transfer syntax.

The same input gives the same bytes: encoders run single-threaded, UIDs are hashes, no clock is read.
RSNA's files are the model: by default the data set has no Modality, no SOP Class UID and no view.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

SYNTAXES: dict[str, str] = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big-endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "rle": "1.2.840.10008.1.2.5",
    "jpeg-baseline": "1.2.840.10008.1.2.4.50",
    "jpeg-extended": "1.2.840.10008.1.2.4.51",
    "jpeg-lossless": "1.2.840.10008.1.2.4.57",
    "jpeg-lossless-sv1": "1.2.840.10008.1.2.4.70",
    "jpeg-ls": "1.2.840.10008.1.2.4.80",
    "jpeg-ls-near": "1.2.840.10008.1.2.4.81",
    "jpeg-2000": "1.2.840.10008.1.2.4.90",
    "jpeg-2000-lossy": "1.2.840.10008.1.2.4.91",
    "htj2k": "1.2.840.10008.1.2.4.201",
    "htj2k-rpcl": "1.2.840.10008.1.2.4.202",
    "htj2k-lossy": "1.2.840.10008.1.2.4.203",
}
"""Short name → transfer syntax UID, as `bcd-bench phantom --syntax` takes them."""

LOSSY: frozenset[str] = frozenset(
    SYNTAXES[name]
    for name in ("jpeg-baseline", "jpeg-extended", "jpeg-ls-near", "jpeg-2000-lossy", "htj2k-lossy")
)

MOST_BITS: dict[str, int] = {SYNTAXES["jpeg-baseline"]: 8, SYNTAXES["jpeg-extended"]: 12}
"""Largest BitsStored a transfer syntax can carry where that is less than 16."""

NATIVE: frozenset[str] = frozenset(SYNTAXES[n] for n in ("implicit", "explicit", "big-endian", "deflated"))

StoredArray = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomSpec:
    """How to wrap an array. Everything not given is left out of the file, as RSNA's files leave it out."""

    transfer_syntax_uid: str = ExplicitVRLittleEndian
    bits_stored: int | None = None
    """None: all bits of the array's type. Values above it are written as they are."""
    photometric_interpretation: str = "MONOCHROME2"
    windows: tuple[tuple[str, str], ...] = ()
    """(centre, width) pairs as DS text."""
    voi_lut_function: str | None = None
    padding_value: int | None = None
    patient_id: str | None = None
    image_laterality: str | None = None
    view_position: str | None = None
    modality: str | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    instance_number: int | None = None
    study: str | None = None
    """Text that StudyInstanceUID and SeriesInstanceUID are hashed from; None: left out."""
    instance: str = "instance"
    """Text that SOPInstanceUID is hashed from."""
    full_headers: bool = False
    """SOP Class UID in the data set as well."""
    boxed: bool = False
    """JPEG 2000 as a JP2 file inside DICOM, as RSNA's files have it."""
    codestream_bits: int | None = None
    """Precision that JPEG 2000's SIZ and JPEG's SOF declare; None: bits_stored (RSNA: 16 for 12)."""
    predictor: int | None = None
    """JPEG Lossless predictor 1…7; None: 1 for .70, 4 for .57."""
    quality: float | None = None
    """Lossy: JPEG quality, JPEG-LS NEAR, J2K dB, HTJ2K quantisation step."""
    fragments: int = 1
    elements: tuple[tuple[str, object], ...] = field(default=())
    """Further elements (keyword, value), set last: they replace what is above; None deletes."""

    def stored_bits(self, pixels: StoredArray) -> int:
        """BitsStored of `pixels` under this spec."""
        return self.bits_stored or pixels.dtype.itemsize * 8


def uid_of(text: str) -> UID:
    """UID that is a pure function of `text` (a hash below pydicom's root)."""
    return generate_uid(entropy_srcs=["bcd-phantom", text])


def encode(pixels: StoredArray, spec: DicomSpec) -> bytes:
    """Encode one frame's payload for the spec's transfer syntax.

    Args:
        pixels: (rows, columns) uint8, int8, uint16 or int16 stored values.
        spec: transfer syntax and codec parameters.

    Raises:
        ValueError: the transfer syntax is unknown or cannot carry these pixels.
    """
    uid = spec.transfer_syntax_uid
    bits = spec.stored_bits(pixels)
    if uid not in SYNTAXES.values():
        raise ValueError(f"unknown transfer syntax {uid}")
    if bits > MOST_BITS.get(uid, 16):
        raise ValueError(f"{uid} carries at most {MOST_BITS[uid]} bits, not {bits}")
    if uid in NATIVE:
        return _native(pixels, uid)
    if uid == SYNTAXES["rle"]:
        return _rle(pixels)
    if uid in (SYNTAXES["jpeg-2000"], SYNTAXES["jpeg-2000-lossy"]):
        return _jpeg_2000(pixels, spec, bits)
    if uid in (SYNTAXES["htj2k"], SYNTAXES["htj2k-rpcl"], SYNTAXES["htj2k-lossy"]):
        return _htj2k(pixels, spec)
    return _jpeg(_unsigned(pixels, bits), spec, bits)


def _native(pixels: StoredArray, uid: str) -> bytes:
    big = uid == ExplicitVRBigEndian
    return np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">" if big else "<")).tobytes()


def _rle(pixels: StoredArray) -> bytes:
    """PS3.5 annex G: one PackBits segment per byte plane, most significant first, rows packed apart."""
    planes = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">")).view(np.uint8)
    planes = planes.reshape(*pixels.shape, pixels.dtype.itemsize)
    segments = [
        bytes(imagecodecs.packbits_encode(np.ascontiguousarray(planes[:, :, n])))
        for n in range(planes.shape[2])
    ]
    segments = [s + b"\0" * (len(s) % 2) for s in segments]
    header = np.zeros(16, "<u4")
    header[0] = len(segments)
    header[1 : 1 + len(segments)] = 64 + np.cumsum([0, *map(len, segments[:-1])])
    return header.tobytes() + b"".join(segments)


def _unsigned(pixels: StoredArray, bits: int) -> StoredArray:
    """The bit pattern in BitsStored bits: JPEG and JPEG-LS know no sign."""
    if pixels.dtype.kind == "u":
        return np.ascontiguousarray(pixels)
    pattern = pixels.view(np.dtype(f"u{pixels.dtype.itemsize}"))
    return np.ascontiguousarray(pattern & np.array((1 << bits) - 1, pattern.dtype))


def _jpeg_2000(pixels: StoredArray, spec: DicomSpec, bits: int) -> bytes:
    """One tile, LRCP, one layer, 5 levels (fewer where the image is too small), 64×64 blocks."""
    lossy = spec.transfer_syntax_uid in LOSSY
    return bytes(
        imagecodecs.jpeg2k_encode(
            np.ascontiguousarray(pixels),
            level=int(spec.quality or 70) if lossy else 0,
            codecformat="jp2" if spec.boxed else "j2k",
            bitspersample=spec.codestream_bits or bits,
            reversible=not lossy,
            numthreads=1,
        )
    )


def _htj2k(pixels: StoredArray, spec: DicomSpec) -> bytes:
    """OpenJPH: RPCL, 5 levels, 64×64 blocks; SIZ's precision is that of the array's type."""
    lossy = spec.transfer_syntax_uid in LOSSY
    return bytes(
        imagecodecs.htj2k_encode(
            np.ascontiguousarray(pixels),
            level=(spec.quality or 1e-4) if lossy else None,
            reversible=not lossy,
            tlm=spec.transfer_syntax_uid == SYNTAXES["htj2k-rpcl"],
        )
    )


def _jpeg(pixels: StoredArray, spec: DicomSpec, bits: int) -> bytes:
    """JPEG and JPEG-LS. CharLS takes the precision from the largest value there is."""
    uid = spec.transfer_syntax_uid
    if uid in (SYNTAXES["jpeg-ls"], SYNTAXES["jpeg-ls-near"]):
        near = int(spec.quality or 2) if uid in LOSSY else 0
        return bytes(imagecodecs.jpegls_encode(pixels, level=near))
    precision = spec.codestream_bits or bits
    if uid in LOSSY:
        precision = 8 if precision <= 8 else 12  # a DCT frame has no other (T.81 table B.2)
        return bytes(imagecodecs.jpeg8_encode(pixels, level=int(spec.quality or 95), bitspersample=precision))
    predictor = spec.predictor or (1 if uid == SYNTAXES["jpeg-lossless-sv1"] else 4)
    return bytes(
        imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=predictor, bitspersample=precision)
    )


def make_dataset(pixels: StoredArray, spec: DicomSpec, payload: bytes | None = None) -> Dataset:
    """Build the data set around `pixels`, or around `payload` as its already encoded frame.

    Args:
        pixels: (rows, columns) uint8, int8, uint16 or int16 stored values.
        spec: how to wrap them.
        payload: encoded frame to put in instead of `encode(pixels, spec)`: a way to plant damage.

    Raises:
        ValueError: `pixels` is not a 2-D array of 8- or 16-bit integers, or `encode` refuses it.
    """
    if pixels.ndim != 2 or pixels.dtype.kind not in "iu" or pixels.dtype.itemsize > 2:
        raise ValueError(f"expected a 2-D array of 8- or 16-bit integers, not {pixels.dtype} {pixels.shape}")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = uid_of(spec.instance)
    meta.TransferSyntaxUID = UID(spec.transfer_syntax_uid)
    dataset = Dataset()
    dataset.file_meta = meta
    _fill_identity(dataset, spec)
    _fill_image(dataset, pixels, spec)
    frame = encode(pixels, spec) if payload is None else payload
    if spec.transfer_syntax_uid in NATIVE:
        dataset.PixelData = frame + b"\0" * (len(frame) % 2)
    else:
        dataset.PixelData = encapsulate([frame], fragments_per_frame=spec.fragments, has_bot=False)
    dataset["PixelData"].VR = (
        "OB" if pixels.dtype.itemsize == 1 or spec.transfer_syntax_uid not in NATIVE else "OW"
    )
    for keyword, value in spec.elements:
        if value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            delattr(dataset, keyword)
    return dataset


def _fill_identity(dataset: Dataset, spec: DicomSpec) -> None:
    if spec.full_headers:
        dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID = uid_of(spec.instance)
    if spec.study is not None:
        dataset.StudyInstanceUID = uid_of("study " + spec.study)
        dataset.SeriesInstanceUID = uid_of("series " + spec.study)
    optional = {
        "Modality": spec.modality,
        "PatientID": spec.patient_id,
        "ViewPosition": spec.view_position,
        "ImageLaterality": spec.image_laterality,
        "InstanceNumber": spec.instance_number,
    }
    for keyword, value in optional.items():
        if value is not None:
            setattr(dataset, keyword, value)


def _fill_image(dataset: Dataset, pixels: StoredArray, spec: DicomSpec) -> None:
    bits = spec.stored_bits(pixels)
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = spec.photometric_interpretation
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if spec.pixel_spacing_mm is not None:
        dataset.PixelSpacing = [f"{value:.6g}" for value in spec.pixel_spacing_mm]
    if spec.padding_value is not None:
        dataset.PixelPaddingValue = spec.padding_value
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = -1
    if spec.windows:
        dataset.WindowCenter = [center for center, _ in spec.windows]
        dataset.WindowWidth = [width for _, width in spec.windows]
    dataset.RescaleIntercept = "0"
    dataset.RescaleSlope = "1"
    dataset.RescaleType = "US"
    if spec.voi_lut_function is not None:
        dataset.VOILUTFunction = spec.voi_lut_function


def dicom_bytes(pixels: StoredArray, spec: DicomSpec, payload: bytes | None = None) -> bytes:
    """The file that `write_dicom` writes, as bytes."""
    buffer = BytesIO()
    make_dataset(pixels, spec, payload).save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write_dicom(path: Path, pixels: StoredArray, spec: DicomSpec, payload: bytes | None = None) -> Path:
    """Write `pixels` as a DICOM file and return its path.

    Args:
        path: where to; parent folders are made.
        pixels: (rows, columns) uint8, int8, uint16 or int16 stored values.
        spec: how to wrap them.
        payload: encoded frame to put in instead of `encode(pixels, spec)`.

    Raises:
        ValueError: see `make_dataset`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dicom_bytes(pixels, spec, payload))
    return path
