"""RUN/report.html: one self-contained page on a training, to be shown to somebody.

In:  a run, its evaluation on its own dataset.
Out: RUN/report.html: inline style, pictures as data URIs, curves as inline SVG, no script, no network.
"""

from __future__ import annotations

from pathlib import Path

import jinja2

from preprocess.atomic import write_atomically
from preprocess.errors import DatasetDamaged, UsageError
from trainer import report_cases as cases
from trainer import report_tables as tables
from trainer.augment import Augmenter
from trainer.config import BagPooling, Pooling
from trainer.contact import contact_sheet
from trainer.curves import Curve, Line, history
from trainer.dataset import Dataset, open_dataset
from trainer.evaluate import Evaluation
from trainer.run import Run
from trainer.runfolder import AUGMENTATION

_TRAINING = (
    ("Loss", "log loss", (("train_loss", "training (as weighted)"), ("log_loss", "validation"))),
    ("ROC-AUC", "ROC-AUC", (("roc_auc", "image"), ("breast_roc_auc", "breast"))),
    ("PR-AUC", "PR-AUC", (("pr_auc", "image"), ("breast_pr_auc", "breast"))),
    ("Probabilistic F1", "F1", (("pf1", "pF1"), ("best_f1", "F1 at best threshold"), ("f1", "F1 at 0.5"))),
)


def write_report(run: Run, evaluation: Evaluation) -> Path:
    """Write RUN/report.html atomically; returns its path. Raises RunAborted."""
    path = run.folder / "report.html"
    write_atomically(path, render_page(run, evaluation).encode("utf-8"))
    return path


def render_page(run: Run, evaluation: Evaluation) -> str:
    """The whole page as text."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader("trainer"), jinja2.PackageLoader("preprocess")]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    dataset = open_dataset(run.dataset)
    found = evaluation.held_out
    # By its own loader: the other package has a report.html.j2 of its own.
    source, *_ = jinja2.PackageLoader("trainer").get_source(environment, "report.html.j2")
    return environment.from_string(source).render(
        name=run.folder.resolve().name,
        subtitle=_subtitle(run),
        tiles=tables.tiles(found),
        promise=_promise(run, evaluation),
        scores=_scores(evaluation),
        curves=evaluation.curves,
        folds=tables.fold_table(run),
        training=_training(run),
        cases=cases.groups(run, dataset, evaluation.predictions),
        how_explained=_how_explained(run),
        slices=tables.slice_table(found),
        augmented=_augmented(run, dataset),
        augmentation=run.config.data.augment,
        data=tables.data_table(run, dataset),
        model=tables.model_table(run),
        config=tables.config_table(run),
    )


def _how_explained(run: Run) -> str:
    """What the cases' pictures show."""
    if run.config.data.bags is not BagPooling.NONE:
        return "A breast's answer comes from all its views, so there is no map of one image."
    means = "its cells" if run.config.model.pooling is Pooling.TOP else "Grad-CAM"
    return f"What the answer comes from is red (of the model that had not seen the patient: {means})."


def _subtitle(run: Run) -> str:
    config = run.config
    target = config.data.positive or config.data.target
    folds = "fold" if len(run.folds) == 1 else "folds"
    return (
        f"{config.model.model} · {target} · {config.optimization.loss.value} · "
        f"{config.optimization.optimizer.value} · {folds} {', '.join(map(str, run.folds))}"
    )


def _promise(run: Run, evaluation: Evaluation) -> str:
    held = evaluation.held_out
    text = (
        f"{held.images:,} held-out images of {evaluation.dataset}, {held.unknown:,} of them without a label."
    )
    if evaluation.test is not None:
        text += f" Test split: {evaluation.test.images:,} images."
    if evaluation.corrupt:
        text += f" {len(evaluation.corrupt)} damaged records were left out."
    if run.config.data.shuffle_labels:
        text += " Labels were shuffled among patients: a negative control, which should know nothing."
    return text


def _scores(evaluation: Evaluation) -> tuple[tables.Table, ...]:
    found = tables.score_tables(evaluation.held_out)
    if evaluation.test is None:
        return found
    intervals, *_ = tables.score_tables(evaluation.test)
    rows = tuple((f"test, {level}", *rest) for level, *rest in intervals.rows)
    return (*found, tables.Table(intervals.headers, rows, note="Test split: mean over all folds' models."))


def _training(run: Run) -> tuple[Curve, ...]:
    return tuple(_history(run, title, y, columns) for title, y, columns in _TRAINING)


def _history(run: Run, title: str, y: str, columns: tuple[tuple[str, str], ...]) -> Curve:
    lines = []
    for fold in run.folds:
        told = run.history(fold)
        suffix = f", fold {fold}" if len(run.folds) > 1 else ""
        lines += [Line(label + suffix, told.column(name)) for name, label in columns]
    return Curve(title.lower(), title, history(lines, y))


def _augmented(run: Run, dataset: Dataset) -> str:
    """A contact sheet, empty if the run's augmentation or an image is not there any more."""
    try:
        augmenter = Augmenter.from_yaml((run.folder / AUGMENTATION).read_text("utf-8"))
        return cases.data_uri(contact_sheet(dataset, augmenter))
    except (OSError, ValueError, UsageError, DatasetDamaged):
        return ""
