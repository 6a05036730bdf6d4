"""The commands of `bcd-train` that use a finished run: evaluate, predict, explain, report.

In:  RUN, the folder that `fit` left.
Out: files and exit codes as `trainer.cli` says; `predict` has bcd-prep's (3: too many rejects).

RUN is opened before anything heavy is imported: it decides the backend, and a folder that is no run is told
at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from preprocess import interrupts
from preprocess.config_options import Where
from preprocess.errors import UsageError
from preprocess.exits import INTERRUPTS
from preprocess.places import Place

if TYPE_CHECKING:
    from trainer.evaluate import Evaluation
    from trainer.intervals import Interval
    from trainer.run import Run

_RUN = click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
_TTA = click.option(
    "--tta",
    type=click.Choice(["none", "vertical", "flips"]),
    default="none",
    show_default=True,
    help="Mean over mirrored images: upside down, or also left-right.",
)
_WORKERS = click.option(
    "--workers", default=0, type=click.IntRange(0), show_default=True,
    help="Worker threads or processes; 0: one per core.",
)  # fmt: skip
_LAYOUT = click.option(
    "--layout", default="auto", show_default=True, help="auto, rsna, vindr, cmmd or pacs (docs/layouts.md)."
)


@click.command()
@_RUN
@click.argument("dataset", type=Where(existing=True), required=False)
@_TTA
@_WORKERS
def evaluate(run: Path, dataset: Place | None, tta: str, workers: int) -> None:
    """Score RUN on images that it has not seen, or on another DATASET with all folds' models.

    Writes RUN/evaluation[-NAME]/predictions.parquet, metrics.json and curves.
    """
    opened = _open(run)
    from trainer.evaluate import evaluate as score
    from trainer.inference import Tta

    found = score(opened, dataset, tta=Tta(tta), workers=workers)
    tell_scores(found)
    click.echo(f"{found.folder} holds predictions, metrics and curves")


def tell_scores(found: Evaluation) -> None:
    """A line per level: the scores with their intervals."""
    for level in found.held_out.levels:
        shown = ", ".join(_spoken(one) for one in level.intervals if one.name in ("roc_auc", "pr_auc", "pf1"))
        click.echo(
            f"{level.level.value:8} {level.scores.count:6} cases, {level.scores.positives} positive: {shown}"
        )
    for level in found.test.levels if found.test is not None else ():
        shown = ", ".join(_spoken(one) for one in level.intervals if one.name in ("roc_auc", "pr_auc", "pf1"))
        count = f"{level.scores.count} cases, {level.scores.positives} positive"
        click.echo(f"test split, {level.level.value}: {count}: {shown}")
    if found.held_out.unknown:
        click.echo(f"{found.held_out.unknown} images have no label and are in no score")
    if found.trained_on is None:
        click.echo("the run's own dataset is gone: who was trained on cannot be told", err=True)
    elif found.trained_on:
        shared = f"{found.trained_on} patients are in the dataset that was trained on, too: scores flatter"
        click.echo(shared, err=True)
    for message in found.corrupt:
        click.echo(f"left out: {message}", err=True)


def _spoken(one: Interval) -> str:
    if one.value is None:
        return f"{one.name} –"
    spread = "" if one.low is None else f" ({one.low:.3f}–{one.high:.3f})"
    return f"{one.name} {one.value:.3f}{spread}"


def tell_rejects(by_code: Iterable[tuple[str, int]]) -> None:
    """A line per code of docs/reject-codes.md."""
    for code, count in by_code:
        click.echo(f"  rejected {code}: {count}")


@click.command()
@_RUN
@click.argument("inputs", nargs=-1, metavar="INPUT...", required=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="CSV file.")
@click.option("--submission", is_flag=True, help="Write RSNA's prediction_id,cancer: a row per breast.")
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path),
              help="Keep the prepared dataset here; doing it again goes on from it.")  # fmt: skip
@click.option("--max-rejected", default="5%", show_default=True, help="Exit 3 above this many rejects.")
@_LAYOUT
@_TTA
@_WORKERS
@click.pass_context
def predict(ctx: click.Context, /, run: Path, inputs: tuple[str, ...], out: Path, **how: object) -> None:
    """Predict DICOM files, folders, globs, lists or URLs with all folds' models of RUN.

    Images go through the preprocessing that the dataset went through. Every input has its row.
    """
    from preprocess.config import ExecutionConfig, LogFormat

    workers = int(str(how["workers"]))
    try:
        execution = ExecutionConfig(workers=workers, max_rejected=str(how["max_rejected"]))
    except ValueError:
        raise UsageError("--max-rejected must be a count, or a percentage from 0% to 100%") from None
    opened = _open(run)
    from preprocess.progress import reporter
    from trainer.inference import Tta
    from trainer.predict import Request
    from trainer.predict import predict as run_prediction

    keep = how["keep"]
    request = Request(
        inputs=inputs,
        out=out,
        submission=bool(how["submission"]),
        layout=str(how["layout"]),
        keep=keep if isinstance(keep, Path) else None,
        tta=Tta(str(how["tta"])),
        execution=execution,
        workers=workers,
    )
    with reporter(LogFormat.TEXT) as progress:
        answer = run_prediction(opened, request, progress)
    with contextlib.suppress(BrokenPipeError):
        click.echo(
            f"{answer.found} DICOM found = {answer.predicted} predicted + {answer.rejected} rejected"
            f" + {answer.duplicate} duplicate; {out}"
        )
        tell_rejects(answer.rejected_by_code)
        if answer.exit_code:
            click.echo("more rejects than --max-rejected allows (exit code 3)", err=True)
        if answer.guessed:
            click.echo(
                f"{len(answer.guessed)} breasts had no readable image and got validation's share of"
                f" positives: {', '.join(answer.guessed[:5])}",
                err=True,
            )
    ctx.exit(answer.exit_code)


@click.command()
@_RUN
@click.argument("inputs", nargs=-1, metavar="INPUT...", required=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder.")
@click.option("--method", type=click.Choice(["cells", "gradcam", "integrated_gradients"]),
              help="How the map is made.  [default: cells if --pooling is top, else gradcam]")  # fmt: skip
@click.option("--dicom", is_flag=True, help="Also write DICOM Secondary Captures.")
@click.option("--lesions", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="True lesion boxes (docs/training-data.md): count maps that peak in one.")  # fmt: skip
@click.option("--lesion-rule", help="Rows of that table that count, such as 'malignant==1'.")
@click.option("--limit", type=click.IntRange(1), help="Take only the first N inputs.")
@_LAYOUT
@click.pass_context
def explain(ctx: click.Context, /, run: Path, inputs: tuple[str, ...], out: Path, **how: object) -> None:
    """Show where in the original DICOM the answers of RUN come from.

    Writes OUT/NAME.png and NAME.npy for every input (NAME is its source with / as +), and
    OUT/explanations.csv. Exit code 3 if no input could be explained.
    """
    opened = _open(run)
    from trainer.attribution import Method
    from trainer.explain import Request
    from trainer.explain import explain as run_explanation

    lesions, rule, limit, method = (how[name] for name in ("lesions", "lesion_rule", "limit", "method"))
    request = Request(
        inputs=inputs,
        out=out,
        method=Method(method) if isinstance(method, str) else None,
        layout=str(how["layout"]),
        limit=limit if isinstance(limit, int) else None,
        dicom=bool(how["dicom"]),
        lesions=lesions if isinstance(lesions, Path) else None,
        lesion_rule=rule if isinstance(rule, str) else None,
    )
    if request.lesion_rule is not None and request.lesions is None:
        raise UsageError("--lesion-rule needs --lesions")
    answer = run_explanation(opened, request)
    click.echo(f"{answer.explained} explained, {answer.rejected} rejected; {out}/explanations.csv")
    tell_rejects(answer.rejected_by_code)
    if answer.empty:
        click.echo(f"{answer.empty} maps are empty and have no peak: nothing there raised the answer")
    if answer.with_lesions:
        click.echo(
            f"the map peaks in a true lesion in {answer.hits} of {answer.with_lesions} images"
            f" ({answer.hits / answer.with_lesions:.0%}; {answer.chance:.1%} by chance)"
        )
    elif request.lesions is not None:
        click.echo(f"no image has a lesion in {request.lesions.name} (it is asked by image_id)", err=True)
    ctx.exit(0 if answer.explained else 3)


@click.command()
@_RUN
@_TTA
@_WORKERS
def report(run: Path, tta: str, workers: int) -> None:
    """Evaluate RUN on its own dataset and draw RUN/report.html again."""
    click.echo(make_report(run, tta, workers))


def make_report(folder: Path, tta: str = "none", workers: int = 0, *, quiet: bool = False) -> Path:
    """Evaluate a run and write its report; tells the scores unless quiet. Returns the report's path."""
    run = _open(folder)
    from trainer.evaluate import evaluate as score
    from trainer.inference import Tta
    from trainer.report import write_report

    found = score(run, tta=Tta(tta), workers=workers)
    if not quiet:
        tell_scores(found)
    return write_report(run, found)


def _open(folder: Path) -> Run:
    interrupts.handle(INTERRUPTS)
    from trainer.run import open_run

    return open_run(folder)


AFTER_TRAINING = (evaluate, predict, explain, report)
