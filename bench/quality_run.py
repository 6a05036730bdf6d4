"""One run of `bcd-bench quality`: pictures one after another, so that only one lies in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.quality import Fidelity, Quality, fidelity, judge, lesion_ratios
from bench.quality_lesions import LesionRatio, plant
from bench.quality_pictures import Picture, from_file, phantoms
from bench.quality_report import figure
from preprocess.errors import RejectedInput

_FIGURE_SIDE, _FIGURE_BRIGHTNESS = 3, 0.5


@dataclass(frozen=True, slots=True)
class QualitySpec:
    """What to judge: files, and how many phantoms of which size; lesions planted are tiles² a picture."""

    files: tuple[Path, ...] = ()
    phantoms: int = 6
    size_factor: float = 1.0
    tiles: int = 8
    seed: int = 1

    @property
    def command(self) -> str:
        """The command line, with names in place of paths."""
        names = " ".join(path.name for path in self.files)
        return (
            f"bcd-bench quality --phantoms {self.phantoms} --size-factor {self.size_factor:g} "
            f"--tiles {self.tiles} --seed {self.seed} {names}".rstrip()
        )


def run(spec: QualitySpec, figure_path: Path | None, tell: Callable[[str], None]) -> Quality:
    """Measure all pictures and judge the margins; `tell` hears what is under way.

    figure_path: where the first phantom's crops go. Raises ValueError: no pictures, or one that cannot be
    used.
    """
    near: list[Fidelity] = []
    lesions: list[LesionRatio] = []
    for picture in _pictures(spec):
        tell(f"{picture.name}: {picture.box[2]} × {picture.box[3]}, {picture.bits} bits, {picture.wavelet}")
        near += fidelity(picture)
        if spec.tiles:
            lesions += lesion_ratios(picture, spec.tiles, spec.seed)
        if figure_path is not None and not picture.real:
            figure(figure_path, plant(picture, _FIGURE_SIDE, spec.seed, _FIGURE_BRIGHTNESS), picture.inverted)
            figure_path = None
    if not near:
        raise ValueError("no picture is large enough" if spec.files or spec.phantoms else "no pictures")
    return judge(near, lesions)


def _pictures(spec: QualitySpec) -> Iterator[Picture]:
    yield from phantoms(spec.phantoms, spec.size_factor, spec.seed)
    for path in spec.files:
        try:
            yield from_file(path)
        except (RejectedInput, OSError) as error:
            raise ValueError(f"{path.name}: {error}") from error
