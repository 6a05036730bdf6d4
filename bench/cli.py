"""In: the command line of `bcd-bench`. Out: an exit code: 0 done, 1 aborted, 2 usage.

Heavy modules are imported inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bench.results import Result

SYNTAX_NAMES = (
    "implicit", "explicit", "big-endian", "deflated", "rle", "jpeg-baseline", "jpeg-extended",
    "jpeg-lossless", "jpeg-lossless-sv1", "jpeg-ls", "jpeg-ls-near",
    "jpeg-2000", "jpeg-2000-lossy", "htj2k", "htj2k-rpcl",
    "htj2k-lossy",
)  # fmt: skip
"""Keys of `bench.phantom_dicom.SYNTAXES`, repeated so that --help imports no codec (a test compares)."""


class _Commands(click.Group):
    """Tells a mistake in the command line in one line."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; UsageError becomes click's, exit code 2, and what else we raise exit code 1."""
        from pydantic import ValidationError

        from preprocess.errors import BcdError, UsageError

        try:
            return super().invoke(ctx)
        except UsageError as error:
            raise click.UsageError(str(error)) from error
        except ValidationError as error:  # a config that cannot be: its first mistake
            first = error.errors()[0]
            raise click.UsageError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        except BcdError as error:
            raise click.ClickException(str(error)) from error


_SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110}


@click.group(cls=_Commands, context_settings=_SETTINGS)
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
    help="Breasts to simulate for ceiling.json: AUCs of observers that know each lesion's form. 0: none.",
)
@click.option("--workers", default=1, type=click.IntRange(1), help="Processes; changes no byte.")
def phantom(out: Path, **options: int | float | str | bool | None) -> None:
    """Write RSNA-shaped synthetic mammograms into the new folder OUT."""
    from bench.phantom import PhantomSpec, generate

    started = time.perf_counter()
    try:
        summary = generate(out, PhantomSpec(**options))  # type: ignore[arg-type]  # by name
    except FileExistsError as error:
        raise click.UsageError(str(error)) from error
    seconds = time.perf_counter() - started
    click.echo(
        f"{summary.images} images of {summary.patients} patients ({summary.positive_patients} with cancer, "
        f"{summary.lesions} lesion boxes) in {seconds:.1f} s, {summary.images / seconds:.2f} img/s: {out}"
    )


@main.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--phantoms", default=6, type=click.IntRange(0), help="Phantoms beside FILES.")
@click.option("--size-factor", default=1.0, type=click.FloatRange(0.1, 2), help="Scale of the phantoms.")
@click.option(
    "--tiles", default=8, type=click.IntRange(0), help="Planted lesions a picture, squared; 0: none."
)
@click.option("--seed", default=1, type=click.IntRange(0), help="Same seed, same phantoms and lesions.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="All figures.")
@click.option(
    "--figure",
    "figure_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Crops of a phantom, PNG.",
)
def quality(
    files: tuple[Path, ...],
    phantoms: int,
    size_factor: float,
    tiles: int,
    seed: int,
    json_path: Path | None,
    figure_path: Path | None,
) -> None:
    """Judge wavelet levels by PSNR, SSIM and planted lesions against full decode and area mean.

    FILES: mammograms as pictures, or as DICOM with wavelet levels; phantoms come beside them. docs/levels.md
    explains the tables.
    """
    from bench import quality_report
    from bench.quality_run import QualitySpec, run

    spec = QualitySpec(files, phantoms, size_factor, tiles, seed)
    try:
        result = run(spec, figure_path, lambda text: click.echo(text, err=True))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if json_path is not None:
        quality_report.write_json(json_path, result, spec.command)
    click.echo(quality_report.markdown(result))


_INPUTS = click.argument("inputs", nargs=-1, required=True)
_OUT = click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="JSON file to write.")
_FILES = click.option("--files", default=12, type=click.IntRange(1), help="Files to take, evenly spaced.")
_REPEATS = click.option("--repeats", default=3, type=click.IntRange(1), help="Passes, after one to warm up.")
_CORES = click.option("--cores", default=1, type=click.IntRange(1), help="Processes, each pinned to a core.")


@main.command()
@_INPUTS
@_FILES
@_REPEATS
@_OUT
def decode(inputs: tuple[str, ...], files: int, repeats: int, out: Path | None) -> None:
    """Time our decoder: each transfer syntax × each wavelet level, one core."""
    from bench import commands

    _show(commands.decode(inputs, files, repeats), out)


@main.command()
@_INPUTS
@click.option("--size", "sizes", multiple=True, default=("512x256", "1024x512", "2048x1024"))
@click.option("--decode", "policy", default="auto", help="auto, full, or a level.")
@_FILES
@_REPEATS
@_OUT
def prep(
    inputs: tuple[str, ...], sizes: tuple[str, ...], policy: str, files: int, repeats: int, out: Path | None
) -> None:
    """Time DICOM → stored image stage by stage, beside disk alone and decoding alone, one core."""
    from bench import commands

    for result in commands.prep(inputs, sizes, policy, files, repeats):
        _show(result, commands.numbered(out, result))


@main.command("bytes")
@_INPUTS
@click.option("--size", "sizes", multiple=True, default=("512x256", "1024x512", "2048x1024"))
@_FILES
@_OUT
def bytes_(inputs: tuple[str, ...], sizes: tuple[str, ...], files: int, out: Path | None) -> None:
    """Count the bytes that bcd-prep's --read needed reads of files, and compare the pixels."""
    from bench import commands

    _show(commands.bytes_read(inputs, sizes, files), out)


@main.command()
@_INPUTS
@click.option("--workers", default="1,2", help="Numbers of workers.")
@click.option("--plan", default="", help="Numbers of inputs to plan with --dry-run, as 100,1000,10000.")
@click.option("--shard-images", default=4, type=click.IntRange(1), help="Images a shard: the unit of work.")
@click.option("--repeats", default=3, type=click.IntRange(1), help="Rounds; none warms up.")
@_OUT
def scale(
    inputs: tuple[str, ...], workers: str, plan: str, shard_images: int, repeats: int, out: Path | None
) -> None:
    """Time whole runs with 1 … N workers, and planning of ever more inputs."""
    from bench import commands

    _show(commands.scale(inputs, _numbers(workers), _numbers(plan), shard_images, repeats), out)


@main.command()
@_INPUTS
@click.option("--size", "sizes", multiple=True, default=("1024x512",))
@click.option("--peer", "modules", multiple=True, help="Only these (see bench/peers). [default: all]")
@click.option("--syntax", help="Only files of this transfer syntax, as .90 or .70.")
@_CORES
@_FILES
@_REPEATS
@_OUT
def peers(inputs: tuple[str, ...], sizes: tuple[str, ...], out: Path | None, **options: object) -> None:
    """Ours and what people use today, in turns, on the same files and cores, and how right each is."""
    from bench import commands

    for result in commands.peers(inputs, sizes, commands.PeerOptions(**options)):  # type: ignore[arg-type]  # by name
        _show(result, commands.numbered(out, result))


@main.command()
@click.argument("dataset")
@click.option("--augment", default="light", help="none, light, heavy, or a YAML file.")
@click.option("--batch-size", default=8, type=click.IntRange(1), help="Images a batch.")
@click.option("--step-ms", default=0.0, type=click.FloatRange(0), help="Time the consumer takes a batch.")
@click.option("--cores", default=2, type=click.IntRange(1), help="Cores that each contender may use.")
@click.option("--repeats", default=5, type=click.IntRange(1), help="Epochs, after one to warm up.")
@_OUT
def feed(dataset: str, out: Path | None, **options: object) -> None:
    """Shards to augmented batches: our loader and tf.data with numpy_function, in turns, on equal cores."""
    from bench import commands

    _show(commands.feed(dataset, commands.FeedOptions(**options)), out)  # type: ignore[arg-type]  # by name


@main.command()
@click.argument("dataset", required=False)
@click.option("--model", default="convnext_tiny", help="As of bcd-train.")
@click.option("--size", default="1024x512", help="HEIGHTxWIDTH; has to be that of DATASET's images.")
@click.option("--batch-size", default=8, type=click.IntRange(1))
@click.option("--precision", default="float32",
              type=click.Choice(("float32", "mixed_bfloat16", "mixed_float16")))  # fmt: skip
@click.option("--backend", default="tensorflow", type=click.Choice(("tensorflow", "jax")))
@click.option("--devices", default="all", help="As of bcd-train.")
@click.option("--parts", default=1, type=click.IntRange(1), help="Parts of a batch, as --accumulate.")
@click.option("--augment", default="light", help="Of the dataset's batches.")
@click.option("--steps", default=10, type=click.IntRange(1), help="Steps of a pass.")
@click.option("--repeats", default=3, type=click.IntRange(1), help="Passes, after one to warm up.")
@_OUT
def train(dataset: str | None, size: str, out: Path | None, **options: object) -> None:
    """Training steps: images per second from memory and, with DATASET, from shards; wait share; memory."""
    from bench import commands

    _show(commands.train(dataset, size, options), out)


@main.command()
@click.argument("results", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="For .md, .svg.")
def report(results: Path, out: Path) -> None:
    """Write README-ready tables and plots from the JSON files in RESULTS."""
    from bench import results_report

    for path in results_report.write(results, out):
        click.echo(path.name)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(",") if part)
    except ValueError as error:
        raise click.UsageError(f"{text!r} is not numbers with commas") from error
    if any(number < 1 for number in numbers):
        raise click.UsageError(f"{text!r}: each must be at least 1")
    return numbers


def _show(result: Result, out: Path | None) -> None:
    from bench import results, results_report

    click.echo(results_report.table(result))
    if out is not None:
        results.save(result, out)


if __name__ == "__main__":
    main()
