"""Ours and the peers side by side: the same files, the same cores, in turns; each held to the reference.

In:  DICOM paths, a size, peers' module names.
Out: Measurements in turns, and a Verdict for each contender: what it stored, and how far from a full decode
     through the reference kernels with the contender's own crop.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from math import inf, log10
from pathlib import Path
from statistics import median
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from bench import peers
from bench.facts import installed
from bench.measure import Measurement, Parts, Work, interleaved
from bench.peers import PeerBox
from bench.stages import Preparation, picture_name, source
from preprocess import pipeline, render
from preprocess.config import ResultConfig
from preprocess.decode import CpuDecoder
from preprocess.records import BreastBox, Prepared, RoiMethod

OURS = "bcd-prep"
FULL = 65535


@dataclass(frozen=True, slots=True)
class PeerWork:
    """A peer's whole job on all files, one after the other; what it stored is kept for the verdict."""

    module: str
    name: str
    paths: tuple[str, ...]
    size: tuple[int, int]
    out: str

    @property
    def items(self) -> int:
        """Images in one pass."""
        return len(self.paths)

    def share(self, index: int, of: int) -> Self:
        """Every `of`-th file."""
        return replace(self, paths=self.paths[index::of])

    def open(self) -> Callable[[], Parts]:
        """Import the peer."""
        return partial(self._prepare, peers.load(self.module))

    def _prepare(self, peer: peers.Peer) -> Parts:
        from bench.peers._usual import store

        for path in self.paths:
            place = f"{self.out}/{picture_name(path)}"
            try:
                picture = peer.prepare(path, *self.size)
                store(picture, f"{place}.png")
                Path(f"{place}.json").write_text(json.dumps(asdict(picture.box)), encoding="utf-8")
            except Exception as error:  # noqa: BLE001 - whatever a peer raises is its way to refuse
                Path(f"{place}.error").write_text(type(error).__name__, encoding="utf-8")
        return ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """How right one contender's pictures are."""

    name: str
    files: int
    stored: int
    refused: tuple[tuple[str, int], ...]
    """By exception or reject code."""
    polarity_wrong: int
    psnr_median_db: float | None
    """Against the full decode with the same crop, at 65,535; None where nothing was stored."""
    psnr_least_db: float | None
    error_most: int | None
    """Largest difference, of 65,535."""
    box_iou_median: float | None
    """How much its crop has in common with ours."""
    note: str = ""

    @property
    def whole(self) -> bool:
        """Whether it stored every file, the right way up."""
        return self.stored == self.files and not self.polarity_wrong and not self.note


@dataclass(frozen=True, slots=True)
class Comparison:
    """One group of files at one size."""

    measurements: tuple[Measurement, ...]
    verdicts: tuple[Verdict, ...]


def compare(
    paths: Sequence[str],
    size: tuple[int, int],
    modules: Sequence[str],
    out: Path,
    repeats: int = 3,
    cores: int = 1,
) -> Comparison:
    """Run ours and the peers in turns, then judge what they stored under `out`."""
    some = tuple(paths)
    config = ResultConfig(height=size[0], width=size[1])
    works: list[Work] = [Preparation(OURS, some, config, _folder(out, OURS))]
    missing: list[Measurement] = []
    for module in modules:
        name, note = _presence(module)
        if note:
            missing.append(Measurement(name, len(some), note=note))
        else:
            works.append(PeerWork(module, name, some, size, _folder(out, module)))
    measured = interleaved(works, repeats, cores=cores)
    verdicts = [_judge_ours(some, config, out / OURS)]
    verdicts += [_judge_peer(work, config) for work in works if isinstance(work, PeerWork)]
    verdicts += [_absent(one) for one in missing]
    return Comparison((*measured, *missing), tuple(verdicts))


def best_peer(comparison: Comparison) -> Measurement | None:
    """The fastest peer that stored every file with the right polarity."""
    whole = {verdict.name for verdict in comparison.verdicts if verdict.whole}
    rivals = [m for m in comparison.measurements if m.name in whole and m.name != OURS and m.passes]
    return min(rivals, key=lambda one: one.wall.median, default=None)


def _presence(module: str) -> tuple[str, str]:
    """A peer's name, and why it cannot take part (empty if it can)."""
    try:
        peer = peers.load(module)
    except peers.NoGpu:
        return module, "no GPU here"
    except ImportError as error:
        return module, f"not installed ({error.name or error})"
    lacking = [package for package in peer.PACKAGES if installed(package) is None]
    return peer.NAME, f"not installed ({', '.join(lacking)})" if lacking else ""


def _absent(measurement: Measurement) -> Verdict:
    nothing = (None, None, None, None)
    return Verdict(measurement.name, measurement.items, 0, (), 0, *nothing, note=measurement.note)


def _folder(out: Path, name: str) -> str:
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


@dataclass(frozen=True, slots=True)
class _Judged:
    psnr_db: float
    error: int
    upright: bool
    iou: float


def _judge_ours(paths: Sequence[str], config: ResultConfig, out: Path) -> Verdict:
    judged, refused = [], Counter[str]()
    for path in paths:
        trace = pipeline.steps(source(path), config, CpuDecoder())
        if trace.prepared is None:
            refused[trace.outcome_reject().code] += 1
            continue
        box = trace.prepared.geometry.box
        own = PeerBox(box.row, box.column, box.rows, box.columns, box.flipped)
        judged.append(_judged(path, out / f"{picture_name(path)}.png", own, config))
    return _verdict(OURS, len(paths), judged, refused)


def _judge_peer(work: PeerWork, config: ResultConfig) -> Verdict:
    judged, refused = [], Counter[str]()
    for path in work.paths:
        picture, box, error = (
            Path(f"{work.out}/{picture_name(path)}{suffix}") for suffix in (".png", ".json", ".error")
        )
        if error.exists():
            refused[error.read_text(encoding="utf-8")] += 1
        elif box.exists():
            try:
                own = PeerBox(**json.loads(box.read_text(encoding="utf-8")))
                judged.append(_judged(path, picture, own, config))
            except NoReference as missing:  # stored, but nobody can say how right it is
                refused[f"no reference: {missing}"] += 1
    return _verdict(work.name, work.items, judged, refused)


def _verdict(name: str, files: int, judged: Sequence[_Judged], refused: Counter[str]) -> Verdict:
    if not judged:
        return Verdict(name, files, 0, tuple(sorted(refused.items())), 0, None, None, None, None)
    decibels = [min(one.psnr_db, 200.0) for one in judged]
    return Verdict(
        name=name,
        files=files,
        stored=len(judged),
        refused=tuple(sorted(refused.items())),
        polarity_wrong=sum(not one.upright for one in judged),
        psnr_median_db=round(median(decibels), 2),
        psnr_least_db=round(min(decibels), 2),
        error_most=max(one.error for one in judged),
        box_iou_median=round(median(one.iou for one in judged), 3),
    )


def _judged(path: str, picture: Path, box: PeerBox, config: ResultConfig) -> _Judged:
    """One stored picture against the reference with the same crop."""
    reference, ours = reference_picture(path, box, config)
    with Image.open(picture) as image:
        stored = np.asarray(image).astype(np.uint16)
    content = _content(reference)
    wanted, given = reference.pixels[content].astype(np.int64), stored[content].astype(np.int64)
    return _Judged(
        psnr_db=psnr_db(wanted, given),
        error=int(np.abs(wanted - given).max()),
        upright=bool(_covariance(wanted, given) > 0),
        iou=overlap(box, ours),
    )


class NoReference(ValueError):
    """We reject the file: there is nothing to hold a picture of it to. Its text is the reject's code."""


def reference_picture(path: str, box: PeerBox, config: ResultConfig) -> tuple[Prepared, PeerBox]:
    """The full decode through the reference kernels with a given crop; and the crop of our own.

    Raises NoReference.
    """
    full = config.model_copy(update={"decode": "full"})
    trace = _whole(path, full)
    if trace.prepared is None or trace.findings is None or trace.mammogram is None:
        raise NoReference(trace.outcome_reject().code)
    own = trace.prepared.geometry.box
    asked = BreastBox(RoiMethod.DETECTOR, box.row, box.column, box.rows, box.columns, box.flipped)
    prepared = render.render(trace.mammogram, replace(trace.findings, box=asked), full)
    return prepared, PeerBox(own.row, own.column, own.rows, own.columns, own.flipped)


@lru_cache(maxsize=16)
def _whole(path: str, full: ResultConfig) -> pipeline.Trace:
    """A full decode, kept for the next contender."""
    return pipeline.steps(source(path), full, CpuDecoder())


def psnr_db(wanted: npt.NDArray[np.int64], given: npt.NDArray[np.int64]) -> float:
    """Peak signal-to-noise ratio at 16 bits; infinite for equal pictures."""
    mean = float(np.mean((wanted - given).astype(np.float64) ** 2))
    return inf if mean == 0 else 10 * log10(FULL**2 / mean)


def overlap(one: PeerBox, other: PeerBox) -> float:
    """Intersection over union of two boxes."""
    rows = min(one.row + one.rows, other.row + other.rows) - max(one.row, other.row)
    columns = min(one.column + one.columns, other.column + other.columns) - max(one.column, other.column)
    common = max(rows, 0) * max(columns, 0)
    return common / (one.rows * one.columns + other.rows * other.columns - common)


def _content(prepared: Prepared) -> tuple[slice, slice]:
    where = prepared.geometry
    return (
        slice(where.content_row, where.content_row + where.content_rows),
        slice(where.content_column, where.content_column + where.content_columns),
    )


def _covariance(wanted: npt.NDArray[np.int64], given: npt.NDArray[np.int64]) -> float:
    return float(((wanted - wanted.mean()) * (given - given.mean())).mean())
