"""`bcd-train explain`: where in the original DICOM a run's answer comes from.

In:  a run, DICOM inputs, a method.
Out: for each input OUT/NAME.png (original under the map), NAME.npy (the map on blocks of original pixels),
     on request NAME.dcm; explanations.csv with probabilities and peaks in full-size rows and columns, and,
     where true lesion boxes are given, whether the peak lies in one.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from preprocess import pipeline
from preprocess.atomic import write_atomically
from preprocess.decode import CpuDecoder
from preprocess.discover import discover
from preprocess.images import safe_component
from preprocess.records import Prepared, SourceFile
from trainer.attribution import Attribution, Explainer, Method
from trainer.heatmaps import OriginalMap, overlay, to_original
from trainer.inference import sigmoid
from trainer.lesions import Box, LesionTable, read_lesions
from trainer.records import Floats
from trainer.run import Run
from trainer.secondary_capture import secondary_capture

COLUMNS = (
    "source", "patient_id", "image_id", "laterality", "view", "probability", "peak_row", "peak_column",
    "lesion", "hit", "reject_code",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """What to explain, and how."""

    inputs: tuple[str, ...]
    out: Path
    method: Method | None = None
    """None: cells where the run's models have them, else Grad-CAM."""
    layout: str = "auto"
    limit: int | None = None
    dicom: bool = False
    """Write a Secondary Capture as well."""
    lesions: Path | None = None
    """Table of true lesion boxes (`trainer.lesions`)."""
    lesion_rule: str | None = None
    """Which of its rows count."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """One input's answer, and where it comes from; `prepared` is None for a reject."""

    source: SourceFile
    prepared: Prepared | None
    reject_code: str | None
    probability: float | None = None
    map: OriginalMap | None = None
    boxes: tuple[Box, ...] = ()

    @property
    def hit(self) -> bool | None:
        """Whether the map peaks inside a true lesion; None where there is none. An empty map does not."""
        if self.map is None or not self.boxes:
            return None
        peak = self.map.peak()
        return peak is not None and any(box.holds(*peak) for box in self.boxes)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it all."""

    explained: int
    rejected: int
    with_lesions: int
    hits: int
    empty: int
    """Maps without a peak: nothing in the image raised the answer."""
    rejected_by_code: tuple[tuple[str, int], ...]
    chance: float | None
    """Hits that peaks anywhere in the breast box would make: mean share of the box that lesions cover."""


def explain(run: Run, request: Request) -> Answer:
    """Explain every input, one by one; a reject is told and no end.

    Raises:
        UsageError: no inputs, no finished fold, or a table of lesions that is none.
        RunAborted: the disk.
    """
    table = LesionTable() if request.lesions is None else read_lesions(request.lesions, request.lesion_rule)
    sources = discover(request.inputs, None, request.layout).sources[: request.limit]
    explainers = [Explainer(run.model(fold)) for fold in run.folds]
    method = request.method or explainers[0].usual
    request.out.mkdir(parents=True, exist_ok=True)
    done: list[Explanation] = []
    try:
        for source in sources:
            explanation, trace = _explained(run, explainers, source, method, table)
            if explanation.prepared is not None:
                _write(explanation, trace, request, method)
            done.append(_light(explanation))
    finally:  # of an interruption, too: the table has what there is
        if done:
            _write_table(done, request.out / "explanations.csv")
    return _answer(done)


def _explained(
    run: Run,
    explainers: Sequence[Explainer],
    source: SourceFile,
    method: Method,
    table: LesionTable,
) -> tuple[Explanation, pipeline.Trace]:
    trace = pipeline.steps(source, run.preprocessing, CpuDecoder())
    prepared = trace.prepared
    if prepared is None:
        return Explanation(source, None, trace.outcome_reject().code), trace
    picture = (prepared.pixels / np.float32((1 << prepared.bits) - 1)).astype(np.float32)
    found = [explainer.explain(picture, method) for explainer in explainers]
    image = prepared.mammogram.instance.image
    heat = to_original(_mean_map(found, method), prepared.geometry, (image.rows, image.columns))
    identity = prepared.mammogram.instance.identity
    lesions = table.of(identity.patient_id, identity.image_id)
    probability = float(np.mean([sigmoid(np.array([one.logit]))[0] for one in found]))
    return Explanation(source, prepared, None, probability, heat, lesions), trace


def _mean_map(found: Sequence[Attribution], method: Method) -> Floats:
    """The mean over models, each scaled to its own largest value so that none speaks for all.

    Probabilities are averaged as they are.
    """
    scaled = [one.map / (method.opaque or np.abs(one.map).max() or 1) for one in found]
    return np.asarray(np.mean(scaled, axis=0), np.float32)


def _write(explanation: Explanation, trace: pipeline.Trace, request: Request, method: Method) -> None:
    assert explanation.map is not None
    assert explanation.prepared is not None
    assert trace.coarse is not None
    name = safe_component(explanation.source.source).replace("%2F", "+")
    picture = overlay(trace.coarse, explanation.map, method.opaque)
    png, array = io.BytesIO(), io.BytesIO()
    Image.fromarray(picture).save(png, "PNG")
    np.save(array, explanation.map.values)
    write_atomically(request.out / f"{name}.png", png.getvalue())
    write_atomically(request.out / f"{name}.npy", array.getvalue())
    if request.dicom:
        words = f"{method.value} of P = {explanation.probability:.4f}"
        instance = explanation.prepared.mammogram.instance
        write_atomically(request.out / f"{name}.dcm", secondary_capture(picture, instance, words))


def _light(explanation: Explanation) -> Explanation:
    """Without stored values: they are as large as the image, and no table needs them."""
    prepared = explanation.prepared
    if prepared is None:
        return explanation
    mammogram = dataclasses.replace(
        prepared.mammogram,
        pixels=np.empty((0, 0), np.uint16),
        instance=dataclasses.replace(prepared.mammogram.instance, payload=b""),
    )
    return dataclasses.replace(explanation, prepared=dataclasses.replace(prepared, mammogram=mammogram))


def _write_table(done: Sequence[Explanation], path: Path) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_lines(done))
    write_atomically(path, text.getvalue().encode())


def _lines(done: Sequence[Explanation]) -> Iterator[tuple[str, ...]]:
    for one in done:
        identity = one.prepared.mammogram.instance.identity if one.prepared else one.source.identity
        found = one.map.peak() if one.map is not None else None
        peak = ("", "") if found is None else tuple(str(place) for place in found)
        hit = "" if one.hit is None else str(int(one.hit))
        yield (
            one.source.source, identity.patient_id or "", identity.image_id or "", identity.laterality or "",
            identity.view or "", "" if one.probability is None else repr(one.probability), *peak,
            str(len(one.boxes)), hit, one.reject_code or "",
        )  # fmt: skip


def _answer(done: Sequence[Explanation]) -> Answer:
    judged = [one for one in done if one.hit is not None]
    return Answer(
        explained=sum(one.prepared is not None for one in done),
        rejected=sum(one.prepared is None for one in done),
        with_lesions=len(judged),
        hits=sum(bool(one.hit) for one in judged),
        empty=sum(one.map is not None and one.map.peak() is None for one in done),
        rejected_by_code=tuple(sorted(Counter(one.reject_code for one in done if one.reject_code).items())),
        chance=float(np.mean([_chance(one) for one in judged])) if judged else None,
    )


def _chance(one: Explanation) -> float:
    assert one.prepared is not None
    breast = one.prepared.geometry.box
    covered = sum(box.rows * box.columns for box in one.boxes)
    return min(1.0, covered / (breast.rows * breast.columns))
