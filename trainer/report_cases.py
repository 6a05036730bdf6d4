"""The best and worst cases of a model, as pictures with what its answer comes from.

In:  held-out predictions, the dataset, the run's models.
Out: groups of cases, pictures as data URIs.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from preprocess.records import Status
from trainer.attribution import Explainer
from trainer.dataset import Dataset
from trainer.heatmaps import Rgb, blend
from trainer.predictions import Predictions
from trainer.run import Run

CASES = 4
"""Of each group."""
_ROWS_PX = 320


@dataclass(frozen=True, slots=True)
class Case:
    """An image and what was said of it."""

    title: str
    probability: str
    picture: str
    """A data URI."""


@dataclass(frozen=True, slots=True)
class Group:
    """Cases of one kind."""

    title: str
    cases: tuple[Case, ...]


def groups(run: Run, dataset: Dataset, predictions: Predictions) -> tuple[Group, ...]:
    """Positives scored highest and lowest, negatives scored highest, of images unseen by a fold's model.

    No threshold: what counts as found is in the report's tables. A positive is shown once.
    """
    held = predictions.where((predictions.fold >= 0) & ~np.isnan(predictions.label))
    positive = held.label == 1
    order = np.argsort(held.probability, kind="stable")
    positives = [i for i in order if positive[i]]
    lowest = positives[: min(CASES, len(positives) // 2)]
    chosen = (
        ("Positives scored highest", positives[len(lowest) :][::-1][:CASES]),
        ("Positives scored lowest", lowest),
        ("Negatives scored highest", [i for i in order[::-1] if not positive[i]][:CASES]),
    )
    row_of = {row.source: index for index, row in enumerate(dataset.rows) if row.status is Status.PREPARED}
    explainers: dict[int, Explainer] = {}
    made = []
    for title, places in chosen:
        cases = tuple(_case(run, dataset, held, row_of, explainers, int(place)) for place in places)
        if cases:
            made.append(Group(title, cases))
    return tuple(made)


def _case(
    run: Run,
    dataset: Dataset,
    held: Predictions,
    row_of: dict[str, int],
    explainers: dict[int, Explainer],
    place: int,
) -> Case:
    fold = int(held.fold[place])
    pixels = dataset.pixels(row_of[str(held.source[place])])
    gray = (pixels / np.float32((1 << dataset.bits) - 1)).astype(np.float32)
    picture: Rgb = blend(gray, np.zeros_like(gray))
    if len(run.model(fold).input_shape) == 4:  # of a model of breasts there is no Grad-CAM
        if fold not in explainers:
            explainers[fold] = Explainer(run.model(fold))
        explainer = explainers[fold]
        picture = blend(gray, explainer.explain(gray, explainer.usual).map, explainer.usual.opaque)
    parts = (held.patient_id[place], held.laterality[place], held.view[place])
    title = " ".join(str(part) for part in parts if part)
    return Case(title, f"{held.probability[place]:.3f}", data_uri(_small(picture)))


def _small(picture: Rgb) -> bytes:
    rows, columns = picture.shape[:2]
    image = Image.fromarray(picture)
    if rows > _ROWS_PX:
        image = image.resize((max(1, round(columns * _ROWS_PX / rows)), _ROWS_PX), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    """A PNG inside a page."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
