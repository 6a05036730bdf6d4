"""What the stages found out about one file, in words.

In:  a pipeline Trace and the result config.
Out: groups of facts for people. None of them names a person: no names, ids, dates or UIDs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from preprocess import pipeline, wording
from preprocess.codestream import deepest_level
from preprocess.config import ResultConfig
from preprocess.errors import REJECT_CODES
from preprocess.records import (
    CodestreamFacts,
    ImageHeader,
    Instance,
    Prepared,
    Reject,
    VoiHeader,
    VoiSource,
    Window,
)

Fact = tuple[str, str]


@dataclass(frozen=True, slots=True)
class FactGroup:
    """Facts of one kind: names and values for people."""

    title: str
    facts: tuple[Fact, ...]


def fact_groups(trace: pipeline.Trace, config: ResultConfig) -> Iterator[FactGroup]:
    """Facts of every stage that was reached, in order; the reject, if there is one; the time it took."""
    instance = trace.instance
    if instance is not None:
        yield FactGroup("Image", tuple(_image(instance)))
        yield FactGroup("Values", tuple(_values(instance)))
        if instance.codestream is not None:
            yield FactGroup("Codestream", tuple(_codestream(instance.codestream)))
        yield FactGroup("Decoding", tuple(_decoding(trace, instance, config)))
    if trace.findings is not None:
        yield FactGroup("Breast", tuple(_breast(trace, config)))
    if trace.prepared is not None:
        yield FactGroup("Window", tuple(_window(trace.prepared)))
        yield FactGroup("Prepared", tuple(_prepared(trace.prepared)))
    if trace.reject is not None:
        yield FactGroup("Reject", tuple(_reject(trace.reject)))
    times = tuple(
        (wording.STAGES.get(s.value, s.value), wording.duration(t)) for s, t in trace.seconds.items()
    )
    yield FactGroup("Time", times)


def _image(instance: Instance) -> Iterator[Fact]:
    image, identity = instance.image, instance.identity
    yield "transfer syntax", wording.transfer_syntax(image.transfer_syntax_uid)
    yield "size", f"{image.rows} rows × {image.columns} columns"
    if image.number_of_frames != 1:
        yield "frames", f"{image.number_of_frames}, frame {image.frame + 1} taken"
    yield "file", wording.byte_size(instance.file_bytes)
    view = " ".join(part for part in (identity.laterality, identity.view) if part)
    known = (
        ("modality", image.modality),
        ("breast and view", view),
        ("manufacturer", image.manufacturer),
        ("model", image.manufacturer_model_name),
        ("intent", image.presentation_intent_type),
        ("pixel spacing", _spacing(image)),
        ("burned-in annotation", image.burned_in_annotation),
    )
    yield from ((name, value) for name, value in known if value)


def _spacing(image: ImageHeader) -> str:
    row, column = image.pixel_spacing_row_mm, image.pixel_spacing_column_mm
    return f"{row:g} × {column:g} mm" if row is not None and column is not None else ""


def _values(instance: Instance) -> Iterator[Fact]:
    image, modality = instance.image, instance.modality_transform
    signed = "signed" if image.pixel_representation else "unsigned"
    yield "bits", f"{image.bits_stored} stored of {image.bits_allocated}, high bit {image.high_bit}, {signed}"
    polarity = "larger is darker" if image.inverted else "larger is brighter"
    yield "photometric interpretation", f"{image.photometric_interpretation} ({polarity})"
    if modality.lut is not None:
        yield "modality LUT", f"{len(modality.lut.entries)} entries of {modality.lut.bits} bits"
    elif modality.slope != 1 or modality.intercept != 0:
        yield "rescale", f"× {float(modality.slope):g} + {float(modality.intercept):g}"
    yield from _alternatives(instance.voi)
    if instance.padding is not None:
        low, high = instance.padding.low, instance.padding.high
        yield "padding value", str(low) if low == high else f"{low} to {high}"


def _alternatives(voi: VoiHeader) -> Iterator[Fact]:
    if voi.windows:
        yield "windows", ", ".join(_window_text(window) for window in voi.windows)
        yield "VOI function", voi.function.value
    if voi.luts:
        yield "VOI LUTs", ", ".join(f"{len(lut.entries)} entries of {lut.bits} bits" for lut in voi.luts)
    if not voi.windows and not voi.luts:
        yield "windows", "none in the header"


def _window_text(window: Window) -> str:
    return f"{float(window.center):g} / {float(window.width):g}"


def _codestream(facts: CodestreamFacts) -> Iterator[Fact]:
    signed = "signed" if facts.signed else "unsigned"
    yield "says of itself", f"{facts.rows} × {facts.columns}, {facts.precision} bit {signed}"
    yield "coding", f"{facts.compression.value}, {'lossless' if facts.lossless else 'lossy'} by content"
    if facts.levels:
        yield "wavelet levels", str(facts.levels)
    if facts.tiles != 1:
        yield "tiles", f"{facts.tiles} of {facts.tile_rows} × {facts.tile_columns}"
    optional = (
        ("layers", facts.layers if facts.layers != 1 else None),
        ("progression", facts.progression),
        ("predictor", facts.predictor),
        ("near", facts.near),
    )
    yield from ((name, str(value)) for name, value in optional if value is not None)
    oddities = (
        (facts.boxed, "inside JP2 boxes"),
        (not facts.has_eoc, "no end marker (repaired)"),
        (facts.subsampled, "sub-sampled"),
        (facts.offset, "origin not at (0, 0)"),
        (facts.has_roi, "region of interest"),
    )
    if any(there for there, _ in oddities):
        yield "notable", ", ".join(text for there, text in oddities if there)


def _decoding(trace: pipeline.Trace, instance: Instance, config: ResultConfig) -> Iterator[Fact]:
    if trace.coarse is not None:
        yield "breast sought at", wording.decode_level(trace.coarse.level)
    mammogram = trace.mammogram
    if mammogram is None:
        return
    yield "decoder", mammogram.decoder
    deepest = deepest_level(instance.image, instance.codestream)
    offered = f", {deepest} offered" if deepest else ""
    yield "decoded at", wording.decode_level(mammogram.level) + offered
    yield "because", _why_level(trace, deepest, config)
    if mammogram.above_bits_stored:
        yield "above Bits Stored", f"{mammogram.above_bits_stored} pixels, clamped"


def _why_level(trace: pipeline.Trace, deepest: int, config: ResultConfig) -> str:
    if deepest == 0:
        return "the file offers no wavelet level that would be exact"
    if trace.findings is not None and trace.findings.padding_replacement is not None:
        return "padding must be replaced before anything averages it"
    if config.decode != "auto":
        return f"--decode {config.decode}"
    if trace.prepared is None:
        return "--decode auto"
    geometry = trace.prepared.geometry
    ratio = geometry.box.rows / geometry.content_rows
    return f"the box is {ratio:.3g} times its prepared size, of which {config.decode_margin:g} must remain"


def _breast(trace: pipeline.Trace, config: ResultConfig) -> Iterator[Fact]:
    findings = trace.findings
    if findings is None:
        return
    box = findings.box
    yield "region", wording.ROIS.get(box.method.value, box.method.value)
    yield "box", f"rows {box.row} to {box.row + box.rows}, columns {box.column} to {box.column + box.columns}"
    image = trace.instance.image if trace.instance else None
    known = image is not None and image.pixel_spacing_row_mm is not None
    yield "margin", f"{config.margin_mm:g} mm" if known else f"{config.margin_px} px (no spacing known)"
    if box.flipped:
        yield "mirrored", "to bring the chest wall to the left edge"
    if findings.padding_replacement is not None:
        yield "padding", f"replaced by {findings.padding_replacement}, the darkest unpadded value"


def _window(prepared: Prepared) -> Iterator[Fact]:
    voi = prepared.voi
    yield "chosen", wording.VOI_SOURCES.get(voi.source.value, voi.source.value)
    if voi.function is not None:
        yield "function", voi.function.value
    if voi.window is not None:
        yield "centre / width", _window_text(voi.window)
    if voi.source is VoiSource.LUT and voi.lut is not None:
        yield "LUT", f"{len(voi.lut.entries)} entries of {voi.lut.bits} bits"
    if voi.reason:
        yield "why", voi.reason


def _prepared(prepared: Prepared) -> Iterator[Fact]:
    geometry, pixels = prepared.geometry, prepared.pixels
    yield "size", f"{geometry.height} × {geometry.width}, {prepared.bits} bit"
    content = f"{geometry.content_rows} × {geometry.content_columns}"
    yield "content", f"{content} at row {geometry.content_row}, column {geometry.content_column}"
    yield "values", f"{int(pixels.min())} to {int(pixels.max())}"
    yield "decoded sha256", prepared.decoded_sha256
    yield "pixels sha256", prepared.pixels_sha256


def _reject(reject: Reject) -> Iterator[Fact]:
    known = REJECT_CODES[reject.code]
    yield "code", reject.code
    yield "stage", reject.stage.value
    yield "message", reject.message
    yield "meaning", known.meaning
    yield "what to do", known.remedy
