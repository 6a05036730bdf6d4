"""`bcd-train predict`: DICOM in, probabilities out, through the run's own preprocessing.

In:  a run, and DICOM inputs as `bcd-prep` takes them.
Out: predictions.csv, a row for every input: its probability, or the code of its reject; or RSNA's submission,
     a row for every breast.

Inputs are prepared by bcd-prep's own runner with the config that the run's dataset was made with, into a
dataset that is thrown away (or kept): the same code, the same supervision, the same rejects, so that an image
has here the number that `evaluate` gives it.
"""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from preprocess.atomic import write_atomically
from preprocess.config import ExecutionConfig as PrepExecution
from preprocess.config import Format, Identifiers, PrepConfig, ResultConfig
from preprocess.errors import UsageError
from preprocess.manifest import read_manifest, read_rows
from preprocess.planning import RunRequest
from preprocess.progress import Reporter
from preprocess.records import Status
from preprocess.runner import run as prepare_dataset
from preprocess.schema import InstanceRow
from trainer.data import evaluation_batches
from trainer.dataset import open_dataset
from trainer.inference import Tta, one_by_one, probabilities, with_left_out_views
from trainer.predictions import Level, Predictions
from trainer.run import Run
from trainer.targets import Labels

COLUMNS = (
    "source", "status", "patient_id", "image_id", "laterality", "view", "probability",
    "breast_probability", "reject_code", "reject_message",
)  # fmt: skip
SUBMISSION_COLUMNS = ("prediction_id", "cancer")


@dataclass(frozen=True, slots=True)
class Request:
    """What to predict, and how."""

    inputs: tuple[str, ...]
    out: Path
    submission: bool = False
    layout: str = "auto"
    keep: Path | None = None
    """Where to keep the prepared dataset; None: it is thrown away."""
    tta: Tta = Tta.NONE
    execution: PrepExecution = field(default_factory=PrepExecution)
    workers: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it. found = predicted + rejected + duplicate."""

    found: int
    predicted: int
    rejected: int
    duplicate: int
    breasts: int
    """Rows of a submission (0 without)."""
    guessed: tuple[str, ...]
    """Breasts of a submission with no readable image: they got the validation set's share of positives."""
    rejected_by_code: tuple[tuple[str, int], ...]
    exit_code: int


def predict(run: Run, request: Request, reporter: Reporter | None = None) -> Answer:
    """Prepare, predict and write `request.out`.

    Raises:
        UsageError: no inputs, no finished fold, or `out` cannot be.
        RunAborted: the disk, or preparation cannot go on.
    """
    if request.out.is_dir():
        raise UsageError(f"--out {request.out} is a folder; give a file such as predictions.csv")
    request.out.parent.mkdir(parents=True, exist_ok=True)
    with _workshop(request) as folder:
        summary = prepare_dataset(
            RunRequest(
                inputs=request.inputs,
                out=folder,
                layout=request.layout,
                config=PrepConfig(result=preparation(run.preprocessing), execution=request.execution),
                to_learn_from=False,
            ),
            reporter,
        )
        rows = read_rows(folder, read_manifest(folder).label_columns())
        if request.submission:
            _require_laterality(rows)
        predictions = _predictions(run, request, folder) if summary.prepared else None
    table = _Table(rows, predictions)
    guessed: tuple[str, ...] = ()
    if request.submission:
        lines, guessed = table.submission(run.positive_share)
        _write_csv(request.out, SUBMISSION_COLUMNS, lines)
    else:
        lines = list(table.images())
        _write_csv(request.out, COLUMNS, lines)
    return Answer(
        found=summary.found,
        predicted=summary.prepared,
        rejected=summary.rejected,
        duplicate=summary.duplicate,
        breasts=len(lines) if request.submission else 0,
        guessed=guessed,
        rejected_by_code=summary.rejected_by_code,
        exit_code=summary.exit_code,
    )


def preparation(config: ResultConfig) -> ResultConfig:
    """The config to prepare inputs with: the same pixels, one fold, plain names, quick shards."""
    changes = {"formats": (Format.TFRECORD,), "folds": 1, "limit": None, "identifiers": Identifiers.KEEP}
    return config.model_copy(update=changes)


@contextmanager
def _workshop(request: Request) -> Iterator[Path]:
    if request.keep is not None:
        yield request.keep
        return
    beside = request.out.parent.resolve()
    inside = any(beside.is_relative_to(Path(one).resolve()) for one in request.inputs if Path(one).is_dir())
    with tempfile.TemporaryDirectory(prefix=".bcd-predict-", dir=None if inside else beside) as folder:
        yield Path(folder) / "dataset"


def _predictions(run: Run, request: Request, folder: Path) -> Predictions:
    dataset = open_dataset(folder)
    unknown = Labels(np.full((len(dataset), 1), np.nan, np.float32), (), "")
    batches = evaluation_batches(
        dataset, unknown, np.arange(len(dataset)), one_by_one(run.config.data), request.workers
    )
    models = [run.model(fold) for fold in run.folds]
    found = probabilities(models, batches.iterate(), len(dataset), request.tta)
    found = with_left_out_views(found, batches.left_out())
    return Predictions.of(dataset.rows, np.zeros(len(dataset)), np.full(len(dataset), np.nan), found)


def _require_laterality(rows: Sequence[InstanceRow]) -> None:
    """Before any model is asked. Raises UsageError: an image that could be read has no laterality."""
    nameless = [row.source for row in rows if row.status is Status.PREPARED and not row.laterality]
    if nameless:
        raise UsageError(
            f"--submission needs the laterality of every image; {len(nameless)} have none,"
            f" such as {nameless[0]}"
        )


class _Table:
    """Rows of all inputs, and what was predicted of those that could be prepared."""

    def __init__(self, rows: Sequence[InstanceRow], predictions: Predictions | None) -> None:
        self._rows = rows
        self._image: dict[str, float] = {}
        self._breast: dict[str, float] = {}
        if predictions is not None:
            images, breasts = predictions.cases(Level.IMAGE), predictions.cases(Level.BREAST)
            self._image = dict(zip(images.keys, images.probabilities.tolist(), strict=True))
            found = zip(breasts.keys, breasts.probabilities.tolist(), strict=True)
            self._breast = {key: value for key, value in found if not np.isnan(value)}

    def images(self) -> Iterator[tuple[str, ...]]:
        """COLUMNS of every input, in source order."""
        for row in self._rows:
            image = self._image.get(row.source)
            breast = self._breast.get(f"{row.patient_id}_{row.laterality}", image)
            yield (
                row.source, row.status.value, row.patient_id or "", row.image_id or "", row.laterality or "",
                row.view or "", _number(image), _number(None if image is None else breast),
                row.reject_code or "", row.reject_message or "",
            )  # fmt: skip

    def submission(self, share: float) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
        """SUBMISSION_COLUMNS of every breast, and the breasts that none of the images could be read of."""
        breasts = sorted(
            {f"{row.patient_id}_{row.laterality}" for row in self._rows if row.patient_id and row.laterality}
        )
        guessed = tuple(breast for breast in breasts if breast not in self._breast)
        return [(breast, _number(self._breast.get(breast, share))) for breast in breasts], guessed


def _number(value: float | None) -> str:
    """The shortest text that gives the same float64 back."""
    return "" if value is None or np.isnan(value) else repr(float(value))


def _write_csv(path: Path, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(lines)
    write_atomically(path, text.getvalue().encode())
