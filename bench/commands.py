"""What `bcd-bench`'s measuring commands do, as functions.

In:  inputs and settings as the command line gives them.
Out: Results.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import compare, reading, stages
from bench import scale as scaling
from bench.measure import interleaved
from bench.peers import PEERS
from bench.results import Result, begin
from preprocess.errors import UsageError

_PEER_PACKAGES = (
    "dicomsdl", "opencv-python-headless", "pylibjpeg", "pylibjpeg-openjpeg", "python-gdcm",
    "nvidia-dali-cuda120", "nvidia-dali-cuda130", "nvidia-nvimgcodec-cu12", "nvidia-nvimgcodec-cu13",
    "cupy-cuda12x", "cupy-cuda13x", "monai", "torch", "itk",
)  # fmt: skip


_FEED_PACKAGES = ("albumentations", "opencv-python-headless", "tensorflow-cpu")
_TRAIN_PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "jax", "jaxlib")


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """Settings of `feed`."""

    augment: str = "light"
    batch_size: int = 8
    step_ms: float = 0.0
    cores: int = 2
    repeats: int = 5


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """Settings of `peers`."""

    modules: tuple[str, ...] = ()
    syntax: str | None = None
    cores: int = 1
    files: int = 12
    repeats: int = 3


def decode(inputs: Sequence[str], files: int, repeats: int) -> Result:
    """Per syntax × level."""
    paths = stages.spread_out(stages.dicom_paths(inputs), files)
    begun = begin("decode", f"bcd-bench decode {_names(inputs)} --files {files} --repeats {repeats}")
    return begun.finish("our decoder", interleaved(stages.decode_works(paths), repeats))


def prep(
    inputs: Sequence[str], sizes: Sequence[str], policy: str, files: int, repeats: int
) -> Iterator[Result]:
    """Disk, decoding and everything, per size."""
    paths = stages.spread_out(stages.dicom_paths(inputs), files)
    for size in sizes:
        command = f"bcd-bench prep {_names(inputs)} --size {size} --decode {policy}"
        begun = begin("prep", f"{command} --files {files} --repeats {repeats}")
        works = stages.prep_works(paths, parse_size(size), policy)
        yield begun.finish(f"{size}, decode {policy}", interleaved(works, repeats))


def bytes_read(inputs: Sequence[str], sizes: Sequence[str], files: int) -> Result:
    """Bytes that --read needed reads, per syntax and size."""
    paths = stages.spread_out(stages.dicom_paths(inputs), files)
    named = " ".join(f"--size {size}" for size in sizes)
    begun = begin("bytes", f"bcd-bench bytes {_names(inputs)} {named} --files {files}")
    counted = tuple(reading.bytes_read(paths, [parse_size(size) for size in sizes]))
    return replace(begun.finish("--read needed", ()), read=counted)


def scale(
    inputs: Sequence[str], workers: Sequence[int], plan: Sequence[int], shard_images: int, repeats: int
) -> Result:
    """Workers, then planning."""
    images = len(stages.dicom_paths(inputs))
    named = f"--workers {_listed(workers)} --plan {_listed(plan)} --shard-images {shard_images}"
    begun = begin("scale", f"bcd-bench scale {_names(inputs)} {named} --repeats {repeats}")
    measured = scaling.scaled(inputs, images, workers, repeats, shard_images)
    planned = scaling.planned(plan)
    return begun.finish(f"{images} images", measured, max(workers, default=1), planned=planned)


def peers(inputs: Sequence[str], sizes: Sequence[str], options: PeerOptions) -> Iterator[Result]:
    """Ours beside the peers, per size."""
    unknown = sorted(set(options.modules) - set(PEERS))
    if unknown:
        raise UsageError(f"no peer {', '.join(unknown)}: there are {', '.join(PEERS)}")
    groups = dict(stages.by_syntax(stages.dicom_paths(inputs)))
    some = groups.get(options.syntax, ()) if options.syntax else tuple(sorted(sum(groups.values(), ())))
    if not some:
        raise UsageError(f"no file of syntax {options.syntax}: there are {', '.join(groups)}")
    paths = stages.spread_out(some, options.files)
    for size in sizes:
        begun = begin("peers", _peers_command(inputs, size, options), _PEER_PACKAGES)
        with tempfile.TemporaryDirectory(prefix="bcd-bench-") as out:
            found = compare.compare(
                paths, parse_size(size), options.modules or PEERS, Path(out), options.repeats, options.cores
            )
        label = f"{options.syntax or 'mix'} → {size}"
        yield begun.finish(label, found.measurements, options.cores, found.verdicts)


def feed(dataset: str, options: FeedOptions) -> Result:
    """Our loader beside tf.data."""
    from bench import feed as feeding  # imports Albumentations, which other commands do without

    works = feeding.feed_works(dataset, options.augment, options.batch_size, options.step_ms)
    words = f"--augment {options.augment} --batch-size {options.batch_size} --step-ms {options.step_ms:g}"
    command = (
        f"bcd-bench feed {_names([dataset])} {words} --cores {options.cores} --repeats {options.repeats}"
    )
    begun = begin("feed", command, _FEED_PACKAGES)
    measured = interleaved(works, options.repeats, cores=options.cores, threads=True)
    label = f"{options.augment}, batches of {options.batch_size}"
    label += f", {options.step_ms:g} ms a step" if options.step_ms else ""
    return begun.finish(label, measured, options.cores)


def train(dataset: str | None, size: str, options: Mapping[str, object]) -> Result:
    """Training steps."""
    from bench import train as training  # imports Albumentations, which other commands do without

    spec = training.TrainSpec(size=parse_size(size), **options)  # type: ignore[arg-type]  # by name
    words = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items())
    begun = begin("train", f"bcd-bench train {_names([dataset] if dataset else [])} --size {size} {words}",
                  _TRAIN_PACKAGES)  # fmt: skip
    measured = training.measure(spec, dataset)
    label = f"{spec.model} {size}, {spec.precision}, batches of {spec.batch_size}, {spec.backend}"
    return begun.finish(label, measured, len(os.sched_getaffinity(0)))


def numbered(out: Path | None, result: Result) -> Path | None:
    """`out` with the result's size in its name, for commands that make one result per size."""
    size = result.label.split(" → ")[-1].split(",")[0]
    return None if out is None else out.with_name(f"{out.stem}-{size}{out.suffix or '.json'}")


def parse_size(text: str) -> tuple[int, int]:
    """HEIGHTxWIDTH. Raises UsageError."""
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise UsageError(f"{text!r} is not HEIGHTxWIDTH, such as 1024x512")
    return int(height), int(width)


def _peers_command(inputs: Sequence[str], size: str, options: PeerOptions) -> str:
    words = ["bcd-bench peers", _names(inputs), f"--size {size}"]
    words += [f"--peer {module}" for module in options.modules]
    words += [f"--syntax {options.syntax}"] if options.syntax else []
    words += [f"--cores {options.cores} --files {options.files} --repeats {options.repeats}"]
    return " ".join(words)


def _names(inputs: Sequence[str]) -> str:
    return " ".join(Path(one).name for one in inputs)


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers)) or "''"  # as a shell takes nothing
