"""In: the command line of `bcd-bench`. Out: an exit code: 0 done, 1 aborted, 2 usage.

Heavy modules are imported inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import time
from pathlib import Path

import click

SYNTAX_NAMES = (
    "implicit", "explicit", "big-endian", "deflated", "rle", "jpeg-baseline", "jpeg-extended",
    "jpeg-lossless", "jpeg-lossless-sv1", "jpeg-ls", "jpeg-ls-near",
    "jpeg-2000", "jpeg-2000-lossy", "htj2k", "htj2k-rpcl",
    "htj2k-lossy",
)  # fmt: skip
"""Keys of `bench.phantom_dicom.SYNTAXES`, repeated so that --help imports no codec (a test compares)."""


@click.group(context_settings={"show_default": True, "max_content_width": 110})
def main() -> None:
    """Measure bcd-prep and bcd-train, and make the synthetic mammograms that they are measured on."""


@main.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--patients", default=8, type=click.IntRange(1), help="Training patients, four images each.")
@click.option("--test-patients", default=1, type=click.IntRange(0), help="Patients of test.csv.")
@click.option(
    "--positive-rate",
    default=0.04,
    type=click.FloatRange(0, 1),
    help="Share of patients with cancer; moved so that each of 5 folds can have both kinds.",
)
@click.option(
    "--size-factor",
    default=1.0,
    type=click.FloatRange(0.02, 2),
    help="Scale of the pixel matrices: 1 is full size, 0.1 small and fast.",
)
@click.option("--difficulty", default=0.5, type=click.FloatRange(0, 1), help="0: obvious lesions, 1: faint.")
@click.option(
    "--implants", default=0.03, type=click.FloatRange(0, 1), help="Share of patients with implants."
)
@click.option(
    "--syntax", type=click.Choice(SYNTAX_NAMES), help="One transfer syntax for all. [default: mixed]"
)
@click.option("--full-headers", is_flag=True, help="Add modality, view, SOP class and made-up personal data.")
@click.option("--seed", default=0, type=click.IntRange(0), help="Same seed and options, same bytes.")
@click.option(
    "--ceiling",
    default=0,
    type=click.IntRange(0),
    help="Breasts to simulate for ceiling.json: AUC of a matched filter that knows each lesion. 0: none.",
)
@click.option("--workers", default=1, type=click.IntRange(1), help="Processes; changes no byte.")
def phantom(out: Path, **options: int | float | str | bool | None) -> None:
    """Write RSNA-shaped synthetic mammograms into the new folder OUT."""
    from bench.phantom import PhantomSpec, generate

    started = time.perf_counter()
    try:
        summary = generate(out, PhantomSpec(**options))  # type: ignore[arg-type]
    except FileExistsError as error:
        raise click.UsageError(str(error)) from error
    seconds = time.perf_counter() - started
    click.echo(
        f"{summary.images} images of {summary.patients} patients ({summary.positive_patients} with cancer, "
        f"{summary.lesions} lesion boxes) in {seconds:.1f} s, {summary.images / seconds:.2f} img/s: {out}"
    )


if __name__ == "__main__":
    main()
