"""`bcd-prep`: DICOM in, verified dataset out.

In:  the command line (and BCD_PREP_* of the environment).
Out: exit codes: 0 done, 1 aborted, 2 usage, 3 too many rejects, 130 interrupted and resumable.

Heavy modules are imported inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from preprocess import __version__, interrupts
from preprocess.config import LogFormat
from preprocess.config_options import Where
from preprocess.errors import OF_THE_RUN, RunAborted, UsageError
from preprocess.exits import INTERRUPTS, DefaultGroup, tell_fault
from preprocess.options import ENVIRONMENT, execution_options, prep_config, result_options
from preprocess.places import Place, size_of

if TYPE_CHECKING:
    from preprocess.runner import RunSummary


@click.group(
    cls=DefaultGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="bcd-prep")
def main() -> None:
    """Turn mammography DICOM into model-ready, sharded datasets. `run` is the default command."""
    sys.excepthook = tell_fault


class _Inputs(click.Argument):
    """Of the environment: several, apart by spaces; or one, where all of it is the path of something."""

    def value_from_envvar(self, ctx: click.Context) -> str | Sequence[str] | None:
        """As click does, but for a path with spaces."""
        whole = self.resolve_envvar_value(ctx)
        return (whole,) if whole and os.path.lexists(whole) else super().value_from_envvar(ctx)


@main.command()
@click.argument("inputs", nargs=-1, metavar="INPUT...", envvar=ENVIRONMENT + "INPUT", cls=_Inputs)
@click.option("--out", type=Where(), required=True, envvar=ENVIRONMENT + "OUT",
              help="Folder of the dataset, or URL of an object store; not inside an input.")  # fmt: skip
@click.option("--labels", envvar=ENVIRONMENT + "LABELS",
              help="Label table (CSV, Parquet), joined on image, breast or patient.")  # fmt: skip
@click.option("--layout", default="auto", show_default=True, envvar=ENVIRONMENT + "LAYOUT",
              help="auto, rsna, vindr, cmmd or pacs (see docs/layouts.md).")  # fmt: skip
@result_options
@execution_options
@click.pass_context
def run(
    ctx: click.Context, /, inputs: tuple[str, ...], out: Place, labels: str | None, layout: str, **_: object
) -> None:
    """Prepare a dataset from files, folders, globs, CSV lists, zip archives or URLs.

    Doing it again finishes what is missing. Every input gets a row in OUT/instances.parquet.
    """
    config = prep_config(ctx)
    as_json = config.execution.log_format is LogFormat.JSON
    if not inputs:
        raise UsageError("give at least one INPUT (or set BCD_PREP_INPUT)")
    interrupts.handle(INTERRUPTS)
    from preprocess.planning import RunRequest
    from preprocess.progress import reporter
    from preprocess.runner import run as run_dataset

    request = RunRequest(inputs=inputs, out=out, labels=labels, layout=layout, config=config)
    with reporter(config.execution.log_format) as progress:
        summary = run_dataset(request, progress)
    with contextlib.suppress(BrokenPipeError):  # whoever read it has seen enough; the run is done
        _tell_json(summary) if as_json else _tell(summary, dry_run=config.execution.dry_run)
    ctx.exit(summary.exit_code)


def _tell_json(summary: RunSummary) -> None:
    """The summary as the log's last object."""
    import json

    counts = {
        name: getattr(summary, name) for name in ("found", "ignored", "prepared", "rejected", "duplicate")
    }
    record = {"event": "summary", **counts, "rejected_by_code": dict(summary.rejected_by_code)}
    record |= {"seconds": round(summary.seconds, 3), "exit_code": summary.exit_code}
    click.echo(json.dumps(record), err=True)


def _tell(summary: RunSummary, *, dry_run: bool) -> None:
    if dry_run:
        click.echo(f"{summary.found} DICOM found, {summary.shards} shards planned, nothing written")
        return
    if 0 < summary.shards == summary.shards_reused:
        click.echo("this dataset is finished; there was nothing left to do")
        if any(code in OF_THE_RUN for code, _ in summary.rejected_by_code):
            click.echo("--retry tries again what took too long or too much memory, or crashed", err=True)
    click.echo(
        f"{summary.found} DICOM found = {summary.prepared} prepared + {summary.rejected} rejected"
        f" + {summary.duplicate} duplicate; {summary.ignored} other files ignored; {summary.seconds:.1f} s"
    )
    for code, count in summary.rejected_by_code:
        click.echo(f"  rejected {code}: {count}")
    click.echo(f"{summary.out}/report.html shows what became of them")
    if summary.exit_code:
        click.echo("more rejects than --max-rejected allows (exit code 3)", err=True)


@main.command()
@click.argument("out", type=Where(existing=True))
@click.option("--source", "inputs", multiple=True, metavar="INPUT",
              help="Also decode inputs again with pydicom as an oracle, render and compare.")  # fmt: skip
@click.option("--sample", default=20, show_default=True, type=click.IntRange(1),
              help="How many inputs to decode again.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Which ones.")
@click.option("--key-file", help="Key of a dataset with hashed identifiers (default: OUT.key).")
@click.pass_context
def verify(
    ctx: click.Context, /, out: Place, inputs: tuple[str, ...], sample: int, seed: int, key_file: str | None
) -> None:
    """Re-read a dataset and check every hash, CRC, count and place.

    Exit code 0: whole, 1: damaged, 3: incomplete.
    """
    from preprocess.verify import verify as verify_dataset

    report = verify_dataset(out)
    for problem in report.problems:
        click.echo(problem, err=True)
    click.echo(f"{out}: {report.status}")
    code = {"whole": 0, "damaged": 1, "incomplete": 3}[report.status]
    if code == 0 and inputs:
        from preprocess.checking import compare_with_source

        comparison = compare_with_source(out, inputs, sample, seed, key_file)
        for problem in comparison.problems:
            click.echo(problem, err=True)
        for source in comparison.beyond_oracle:
            click.echo(f"not compared: {source}")
        click.echo(
            f"{comparison.checked} inputs decoded again by pydicom:"
            f" largest difference {comparison.largest_difference}"
            + (f" ({comparison.worst})" if comparison.worst else "")
        )
        if not comparison.checked:
            click.echo("nothing could be compared (pip install '.[oracle]'?)", err=True)
        failed = comparison.problems or comparison.largest_difference or not comparison.checked
        code = 1 if failed else 0
    ctx.exit(code)


@main.command()
@click.argument("path", metavar="FILE")
@click.option("--png", type=click.Path(dir_okay=False, path_type=Path), help="Write a preview picture here.")
@click.option(
    "--draw/--no-draw", default=None, help="Draw the preview in the terminal.  [default: on a terminal]"
)
@result_options
@click.pass_context
def inspect(ctx: click.Context, /, path: str, png: Path | None, draw: bool | None, **_: object) -> None:
    """Show what a file is, and what would become of it and why.

    Exit code 0, or 1 for a file that would be rejected.
    """
    if "://" not in path and "::" not in path and not Path(path).is_file():
        raise UsageError(f"{path} is {'a folder' if Path(path).is_dir() else 'not there'}; give one file")
    from preprocess.inspection import inspect_file, show

    inspection = inspect_file(path, prep_config(ctx).result)
    show(inspection, png=png, draw=sys.stdout.isatty() if draw is None else draw)
    ctx.exit(1 if inspection.reject is not None else 0)


@main.command()
@click.argument("out", type=Where(existing=True))
def report(out: Place) -> None:
    """Draw OUT/report.html and OUT/dataset_card.md again from the dataset."""
    from preprocess.report import write_report

    if size_of(out / "manifest.json") is None:
        raise RunAborted(f"{out} is not a finished dataset (no manifest.json)")
    click.echo(write_report(out))


@main.command()
@click.option("--gpu", "mode", flag_value="gpu", help="Exit 1 unless `run --gpu` can work.")
@click.option("--cpu", "mode", flag_value="cpu", default="cpu", help="Exit 1 unless `run --cpu` can work.")
@click.option("--train", "mode", flag_value="train", help="Exit 1 unless `bcd-train` can work.")
@click.option("--out", type=click.Path(path_type=Path), help="Also check the disk that OUT would be on.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(ctx: click.Context, mode: str, out: Path | None, as_json: bool) -> None:
    """Show versions, codecs, GPUs, and the reason for whatever cannot be used here."""
    from preprocess.doctor import examine, show

    diagnosis = examine(mode, out)
    if as_json:
        click.echo(diagnosis.to_json())
    else:
        show(diagnosis)
    ctx.exit(0 if diagnosis.works else 1)


if __name__ == "__main__":
    main()
