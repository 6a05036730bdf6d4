"""Tables and tiles of a training's report, as text cells.

In:  Assessment, Run, Dataset.
Out: Table and Tile values; nothing here draws or reads pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.architectures import architecture_of
from trainer.assessment import Assessment, LevelAssessment
from trainer.dataset import Dataset
from trainer.intervals import Interval
from trainer.position import chosen_by
from trainer.predictions import Level
from trainer.run import Run

_NAMES = {
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "pf1": "pF1",
    "f1": "F1",
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}
_SLICE_SCORES = ("roc_auc", "pf1", "sensitivity", "specificity")


@dataclass(frozen=True, slots=True)
class Tile:
    """A large number."""

    value: str
    label: str


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text; the first `words` columns are words, the others numbers."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1
    note: str = ""


def tiles(found: Assessment) -> tuple[Tile, ...]:
    """The breasts' scores, or the images' where no breast is labelled."""
    level = next((one for one in found.levels if one.level is Level.BREAST), found.levels[0])
    shown = [one for one in level.intervals if one.name in ("roc_auc", "pr_auc", "pf1", "f1")]
    first = Tile(f"{level.scores.count:,}", f"breasts, {level.scores.positives:,} positive")
    return (first, *(Tile(number(one.value), f"{_NAMES[one.name]} by breast") for one in shown))


def score_tables(found: Assessment) -> tuple[Table, ...]:
    """Intervals by level, then what needs no interval, confusion and calibration."""
    names = [one.name for one in found.levels[0].intervals]
    intervals = Table(
        ("level", "cases", "positive", *(_NAMES[name] for name in names)),
        tuple(
            (
                one.level.value,
                f"{one.scores.count:,}",
                f"{one.scores.positives:,}",
                *map(spread, one.intervals),
            )
            for one in found.levels
        ),
        note="F1, accuracy, sensitivity and specificity at other patients' best-F1 threshold.",
    )
    return intervals, _plain(found.levels), _confusions(found.levels), _calibrations(found.levels)


def _plain(levels: Sequence[LevelAssessment]) -> Table:
    headers = (
        "level", "F1 at 0.5", "accuracy at 0.5", "sensitivity at 90 % specificity", "best F1", "at threshold",
        "log loss", "Brier",
    )  # fmt: skip
    rows = []
    for one in levels:
        s = one.scores
        values = (s.f1, s.accuracy, s.sensitivity_at_90_specificity, s.best_f1, s.best_threshold)
        rows.append((one.level.value, *map(number, (*values, s.log_loss, s.brier))))
    return Table(
        headers, tuple(rows), note="Best F1 is optimistic: its threshold is chosen on the same cases."
    )


def _confusions(levels: Sequence[LevelAssessment]) -> Table:
    rows = []
    for one in levels:
        m = one.confusion
        counts = (m.true_positives, m.false_negatives, m.false_positives, m.true_negatives)
        thresholds = ", ".join(f"{value:.3g}" for _, value in one.thresholds)
        rows.append((one.level.value, *(f"{count:,}" for count in counts), thresholds))
    headers = ("level", "found", "missed", "false alarms", "rightly negative", "thresholds by group")
    return Table(headers, tuple(rows))


def _calibrations(levels: Sequence[LevelAssessment]) -> Table:
    rows = tuple(
        (one.level.value, part.name, number(part.expected_calibration_error), number(part.brier))
        for one in levels
        for part in one.calibration
    )
    return Table(("level", "calibration", "expected calibration error", "Brier"), rows, words=2)


def slice_table(found: Assessment) -> Table | None:
    """Images by value of a column."""
    if not found.slices:
        return None
    rows = []
    for part in found.slices:
        by_name = {one.name: one for one in part.intervals}
        shown = (spread(by_name[name]) for name in _SLICE_SCORES)
        rows.append((part.column, part.value, f"{part.count:,}", f"{part.positives:,}", *shown))
    headers = ("column", "value", "images", "positive", *(_NAMES[name] for name in _SLICE_SCORES))
    return Table(headers, tuple(rows), words=2)


def fold_table(run: Run) -> Table:
    """What each fold came to."""
    rows = []
    for fold in run.folds:
        one = run.result(fold)
        name, value = chosen_by(one.monitor, one.score)
        rows.append(
            (str(fold), f"{one.best_epoch} of {one.epochs}", name, number(value),
             f"{one.train_images:,}", f"{one.validation_images:,}", f"{one.seconds:.0f}")
        )  # fmt: skip
    headers = ("fold", "best epoch", "chosen by", "score", "training images", "validation images", "seconds")
    return Table(headers, tuple(rows))


def data_table(run: Run, dataset: Dataset) -> Table:
    """What was learned from."""
    manifest = dataset.manifest
    config = manifest.config
    sites = {row.site_id for row in dataset.rows} - {None}
    machines = {row.machine_id for row in dataset.rows} - {None}
    rows = (
        ("images", f"{len(dataset):,} of {len({row.patient_id for row in dataset.rows}):,} patients"),
        ("size", f"{config.height} × {config.width}, {config.bits} bit"),
        ("target", run.config.data.positive or run.config.data.target),
        ("sites, machines", f"{len(sites)}, {len(machines)}"),
        ("not prepared", f"{manifest.counts.rejected:,} rejected, {manifest.counts.duplicate:,} duplicate"),
        ("same pixels under several patients", f"{len(manifest.possible_leakage)} groups"),
        ("manifest", f"sha256 {run.dataset_sha256}"),
        ("preparation", f"sha256 {manifest.config_sha256}"),
    )  # fmt: skip
    return Table(("", ""), rows, words=2)


def model_table(run: Run) -> Table:
    """What was trained, with what."""
    parameters, name = run.model(run.folds[0]).count_params(), run.config.model.model
    backbone = architecture_of(name).parameters
    packages = run.environment.get("packages", {})
    versions = packages if isinstance(packages, dict) else {}
    rows = (
        ("model", f"{name}, {parameters:,} parameters, {backbone:,} of them in the backbone"),
        ("first weights", run.config.model.weights),
        (
            "input",
            f"{run.preprocessing.height} × {run.preprocessing.width} × 1, stored values / (2^bits − 1)",
        ),
        ("output", "logit of the target; normalisation is inside"),
        ("trained with", ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))),
        ("devices", ", ".join(str(one) for one in _items(run.environment.get("devices")))),
    )
    return Table(("", ""), rows, words=2)


def config_table(run: Run) -> Table:
    """Every option that decides what is learned."""
    rows = sorted((name, str(value)) for name, value in run.config.flat().items())
    return Table(("option", "value"), tuple(rows), words=2)


def number(value: float | None) -> str:
    """Three digits; a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"


def spread(one: Interval) -> str:
    """Value (low–high)."""
    if one.low is None or one.high is None:
        return number(one.value)
    return f"{number(one.value)} ({one.low:.3f}–{one.high:.3f})"


def _items(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()
