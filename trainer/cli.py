"""`bcd-train`: a dataset of bcd-prep in, a trained classifier out.

In:  the command line (and BCD_TRAIN_* of the environment).
Out: exit codes: 0 done, 1 aborted (leakage, damage, divergence, disk), 2 usage, 130 interrupted
     and resumable.

Heavy modules are imported inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from preprocess import __version__, interrupts
from preprocess.config import LogFormat
from preprocess.config_options import Where
from preprocess.errors import UsageError
from preprocess.exits import INTERRUPTS, DefaultGroup, tell_fault
from preprocess.places import Place
from trainer.commands import AFTER_TRAINING, make_report
from trainer.options import ENVIRONMENT, train_config, train_options

if TYPE_CHECKING:
    from trainer.train import FitSummary


class _Commands(DefaultGroup):
    """`bcd-train DATASET --out RUN` means `bcd-train fit DATASET --out RUN`."""

    default = "fit"


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="bcd-train")
def main() -> None:
    """Train classifiers on datasets of bcd-prep. `fit` is the default command."""
    sys.excepthook = tell_fault


@main.command()
@click.argument("dataset", type=Where(existing=True), envvar=ENVIRONMENT + "DATASET", required=False)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True,
              envvar=ENVIRONMENT + "OUT", help="Folder of the run.")  # fmt: skip
@train_options
@click.pass_context
def fit(ctx: click.Context, /, dataset: Place | None, out: Path, **_: object) -> None:
    """Train on DATASET, a folder or URL with the manifest.json of bcd-prep.

    Doing it again finishes what is missing: a training may be killed at any moment.
    """
    if dataset is None:
        raise UsageError("give a DATASET (or set BCD_TRAIN_DATASET)")
    config, execution = train_config(ctx)
    from trainer.interrupts import Interrupts
    from trainer.progress import reporter
    from trainer.train import FitRequest
    from trainer.train import fit as train

    with Interrupts() as interrupts, reporter(execution.log_format) as report:
        summary = train(FitRequest(dataset, out, config, execution), report, interrupts)
    with contextlib.suppress(BrokenPipeError):  # whoever read it has seen enough; the run is done
        _tell(summary, as_json=execution.log_format is LogFormat.JSON)
    if config.data.window:
        model = out / f"fold={summary.results[0].fold}" / "model.keras"
        click.echo(f"for a model of whole images: --weights {model}", err=True)
    elif not (summary.was_finished and (out / "report.html").exists()):
        path = make_report(out, quiet=execution.log_format is LogFormat.JSON)
        click.echo(f"{path} shows what it is worth", err=execution.log_format is LogFormat.JSON)


def _tell(summary: FitSummary, *, as_json: bool) -> None:
    from trainer.position import chosen_by

    if as_json:
        results = [
            {"fold": one.fold, "best_epoch": one.best_epoch, **dict([chosen_by(one.monitor, one.score)])}
            for one in summary.results
        ]
        click.echo(json.dumps({"event": "summary", "was_finished": summary.was_finished, "folds": results}))
        return
    if summary.was_finished:
        click.echo("this run is finished; there was nothing left to do")
    for one in summary.results:
        name, value = chosen_by(one.monitor, one.score)
        if value is None:
            told = f"last epoch {one.best_epoch}: no {name}, as its validation has not both classes"
        else:
            told = f"best epoch {one.best_epoch}, {name} {value:.4f}"
        click.echo(f"fold {one.fold}: {told}")
    click.echo(f"{summary.out} holds models, predictions and histories")


@main.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--format", "kind", required=True, type=click.Choice(("savedmodel", "onnx")),
              help="TensorFlow's SavedModel, or ONNX.")  # fmt: skip
@click.option("--fold", default=0, show_default=True, type=click.IntRange(0), help="Whose model.")
@click.option("--out", type=click.Path(path_type=Path),
              help="New folder, or new file that ends in .onnx.  [default: RUN/export/fold=K…]")  # fmt: skip
def export(run: Path, kind: str, fold: int, out: Path | None) -> None:
    """Write the model of one fold of RUN for use without this program, checked against the Keras model."""
    from trainer.backends.base import choose_installed_backend

    interrupts.handle(INTERRUPTS)
    choose_installed_backend()  # ONNX is made in a process of its own
    from trainer.export import Format, export_run

    name = f"fold={fold}.onnx" if kind == "onnx" else f"fold={fold}-savedmodel"
    report = export_run(run, fold, Format(kind), out or run / "export" / name)
    click.echo(f"{report.path}: {report.bytes} bytes, largest difference {report.max_abs_difference:.2e}")


@main.command()
def models() -> None:
    """List the models there are, with the parameters of the backbone; a head comes on top."""
    from trainer.architectures import architectures

    for one in architectures():
        click.echo(f"{one.name:20} {one.parameters / 1e6:6.1f} M parameters in the backbone")


@main.command()
@click.argument("preset")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File.  [default: stdout]")
def augment(preset: str, out: Path | None) -> None:
    """Write an augmentation PRESET (none, light, heavy) as YAML, to be changed and given to --augment."""
    from trainer.augment import Augmenter

    text = Augmenter.named(preset).to_yaml()
    if out is None:
        click.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")


for command in AFTER_TRAINING:
    main.add_command(command)


if __name__ == "__main__":
    main()
