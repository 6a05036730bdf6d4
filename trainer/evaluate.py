"""`bcd-train evaluate`: what a run's models are worth on images that they have not seen.

In:  a run, and a dataset: its own (each fold's model on its validation images, all models on test images),
     or another one (all models on all images).
Out: RUN/evaluation[-NAME]/: predictions.parquet, metrics.json, curves as SVG.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocess.atomic import remove_file, write_atomically
from preprocess.errors import DatasetDamaged, RunAborted, UsageError
from preprocess.places import Place, plain_name
from preprocess.schema import InstanceRow
from trainer.assessment import Assessment, assess
from trainer.curves import Curve, all_curves
from trainer.dataset import Dataset, open_dataset
from trainer.folds import TEST, split
from trainer.inference import Doubles, Tta, one_by_one, probabilities, with_left_out_views
from trainer.predictions import Level, Predictions
from trainer.records import Rows
from trainer.run import Run
from trainer.targets import Labels, labels_of

NO_FOLD = -1
METRICS = "metrics.json"
"""Written last: its presence says that the rest is complete."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Predictions of some rows of a dataset, and what they are worth."""

    folder: Path
    dataset: str
    """The dataset's name."""
    rows: tuple[InstanceRow, ...]
    predictions: Predictions
    held_out: Assessment
    """Of validation images (or of all images of another dataset)."""
    test: Assessment | None
    """Of labelled images of an official test split."""
    curves: tuple[Curve, ...]
    corrupt: tuple[str, ...]
    """Records that were left out (--on-corrupt skip), with the reason."""
    trained_on: int | None = 0
    """Patients of another dataset who are in the run's own, too: their scores flatter. None: the run's own is
    gone, so that nobody can tell."""


def evaluate(run: Run, where: Place | None = None, *, tta: Tta = Tta.NONE, workers: int = 0) -> Evaluation:
    """Predict, assess and write.

    Args:
        run: at least one finished fold.
        where: another dataset than the run's own; its own, named, is what leaving it out means.
        tta: flips to average over.
        workers: threads that read images; 0: one per core.

    Raises:
        UsageError: no fold is finished, the dataset is not there, or is not the one that was trained on.
        DatasetDamaged: an image is not what was written.
        RunAborted: the disk.
    """
    dataset = open_dataset(run.dataset if where is None else where)
    if dataset.sha256 == run.dataset_sha256:
        where = None  # its own under whatever name: images that were trained on are never scored as unseen
    _require_fit(run, dataset, own=where is None)
    labels = labels_of(dataset.rows, run.config.data, seed=run.config.optimization.seed)
    found, folds, corrupt = _predict(run, dataset, labels, where is None, tta, workers)
    rows = np.flatnonzero(~np.isnan(found))
    predictions = Predictions.of(
        [dataset.rows[row] for row in rows], folds[rows], labels.values[rows, 0], found[rows]
    )
    kept = tuple(dataset.rows[row] for row in rows)
    tested = np.array([where is None and row.split == TEST for row in kept], bool)
    evaluation = Evaluation(
        folder=run.folder / "evaluation" if where is None else _folder(run, dataset),
        dataset=plain_name(dataset.place),
        rows=kept,
        predictions=predictions,
        held_out=_assessed(predictions, kept, ~tested),
        test=_assessed(predictions, kept, tested) if (tested & ~np.isnan(predictions.label)).any() else None,
        curves=all_curves([(level, predictions.where(~tested).cases(level).known()) for level in Level]),
        corrupt=corrupt,
        trained_on=0 if where is None else _shared_patients(run, dataset),
    )
    _write(evaluation, run, dataset, tta)
    return evaluation


def _folder(run: Run, dataset: Dataset) -> Path:
    """RUN/evaluation-NAME, or with a part of its hash where another dataset of that name was here before."""
    folder = run.folder / f"evaluation-{plain_name(dataset.place)}"
    try:
        there = json.loads((folder / METRICS).read_bytes())["dataset_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return folder
    return folder if there == dataset.sha256 else folder.with_name(f"{folder.name}-{dataset.sha256[:8]}")


def _shared_patients(run: Run, dataset: Dataset) -> int | None:
    """How many patients are in the run's own dataset, too; None where that is not there any more."""
    try:
        own = open_dataset(run.dataset)
    except (UsageError, RunAborted, DatasetDamaged):
        return None
    return len({row.patient_id for row in dataset.rows} & {row.patient_id for row in own.rows})


def _require_fit(run: Run, dataset: Dataset, *, own: bool) -> None:
    if own and dataset.sha256 != run.dataset_sha256:
        raise UsageError(
            f"{dataset.place} is not the dataset that was trained on any more; name it to evaluate on it"
        )
    mine, theirs = run.preprocessing, dataset.manifest.config
    ignored = {
        "formats", "encoding", "folds", "seed", "limit", "shard_images", "shard_bytes", "identifiers", "read",
        "modality", "max_file_bytes", "max_pixels", "max_inflate_bytes", "max_inflate_ratio",
        "max_sequence_depth",
    }  # fmt: skip
    fields = type(mine).model_fields.keys() - ignored
    different = sorted(name for name in fields if getattr(mine, name) != getattr(theirs, name))
    if different:
        raise UsageError(
            f"{dataset.place} was prepared in another way than the run's dataset ({', '.join(different)})"
        )


def _predict(
    run: Run, dataset: Dataset, labels: Labels, own: bool, tta: Tta, workers: int
) -> tuple[Doubles, Rows, tuple[str, ...]]:
    """(n,) probabilities, NaN where none is due; (n,) the fold whose model did not see the image."""
    found, folds = np.full(len(dataset), np.nan), np.full(len(dataset), NO_FOLD, np.int64)
    rest = np.arange(len(dataset))
    corrupt: list[str] = []
    if own:
        for fold in run.folds:
            rows = split(dataset, labels, fold).validation
            found[rows] = _of(run, (fold,), dataset, labels, rows, tta, workers, corrupt)[rows]
            folds[rows] = fold
        rest = np.flatnonzero([row.split == TEST for row in dataset.rows])
    if rest.size:
        found[rest] = _of(run, run.folds, dataset, labels, rest, tta, workers, corrupt)[rest]
    return found, folds, tuple(corrupt)


def _of(
    run: Run,
    folds: Sequence[int],
    dataset: Dataset,
    labels: Labels,
    rows: Rows,
    tta: Tta,
    workers: int,
    corrupt: list[str],
) -> Doubles:
    from trainer.data import evaluation_batches

    batches = evaluation_batches(dataset, labels, rows, one_by_one(run.config.data), workers)
    found = probabilities([run.model(fold) for fold in folds], batches.iterate(), len(dataset), tta)
    found = with_left_out_views(found, batches.left_out())
    corrupt += [record.message for record in batches.corrupt]
    return found


def _assessed(predictions: Predictions, rows: Sequence[InstanceRow], mask: np.ndarray) -> Assessment:
    chosen = [row for row, keep in zip(rows, mask, strict=True) if keep]
    return assess(predictions.where(mask), chosen)


def _write(evaluation: Evaluation, run: Run, dataset: Dataset, tta: Tta) -> None:
    document = {
        "dataset_sha256": dataset.sha256,
        "folds": list(run.folds),
        "tta": tta.value,
        "corrupt_records": list(evaluation.corrupt),
        "patients_trained_on": evaluation.trained_on,
        "held_out": dataclasses.asdict(evaluation.held_out),
        "test": None if evaluation.test is None else dataclasses.asdict(evaluation.test),
    }
    evaluation.folder.mkdir(parents=True, exist_ok=True)
    for earlier in (evaluation.folder / METRICS, *evaluation.folder.glob("*.svg")):
        remove_file(earlier)
    evaluation.predictions.write(evaluation.folder / "predictions.parquet")
    for curve in evaluation.curves:
        write_atomically(evaluation.folder / f"{curve.name}.svg", curve.svg.encode())
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    write_atomically(evaluation.folder / METRICS, text.encode())
