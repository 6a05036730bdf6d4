"""In: Quality. Out: Markdown tables, a JSON file, a picture of crops."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from bench.facts import machine_facts
from bench.quality import Fidelity, Nearness, Quality, by_setting
from bench.quality_lesions import SIZES_MM, TILE_PX, Kept, Planted
from bench.quality_metrics import Target
from preprocess.records import IndexPixels

SCHEMA = "bcd-bench quality 1"
_SHOWN_MARGINS = (1.0, 1.0625, 1.125, 1.1875, 1.25, 1.5, 2.0)
_FIGURE_RATIOS = ((1, 2.5), (2, 5.0), (3, 10.0))
_FIGURE_TILES = 3
_CELL_PX = 230


def write_json(path: Path, quality: Quality, command: str) -> None:
    """Write everything measured as tables: columns, then a row a line; floats to 4 digits.

    command: without paths.
    """
    parts = {"schema": SCHEMA, "machine": dataclasses.asdict(machine_facts(command))}
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in parts.items()]
    for name, figures in (
        ("verdicts", quality.verdicts),
        ("fidelity", quality.fidelity),
        ("lesions", quality.lesions),
    ):
        rows = [_flat(dataclasses.asdict(one)) for one in figures]
        columns = max(rows, key=len, default={})
        written = (json.dumps([row.get(column) for column in columns]) for row in rows)
        table = ",\n   ".join(written)
        lines.append(
            f' {json.dumps(name)}: {{"columns": {json.dumps(list(columns))},\n  "rows": [\n   {table}\n  ]}}'
        )
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _flat(value: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Nested figures side by side: leveled.noise."""
    flat: dict[str, object] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat.update(_flat(item, f"{prefix}{key}."))
        elif item is not None:
            flat[prefix + key] = round(item, 4) if isinstance(item, float) else item
    return flat


def markdown(quality: Quality) -> str:
    """The three tables of docs/levels.md; that of lesions only where some were planted."""
    tables = [_margins(quality), _fidelity(quality.fidelity)]
    if quality.lesions:
        tables.append(_lesions(quality))
    return "\n\n".join("\n".join(table) for table in tables)


def _margins(quality: Quality) -> list[str]:
    lines = _head(
        "margin", "compared", "PSNR behind", "SSIM behind", "least gain, dB", "d′, lesion ≥ sample",
        "d′, narrower", "unluckiest 5 % behind", "nearer than bilinear", "d′ ≥ 0.95",
    )  # fmt: skip
    for one in quality.verdicts:
        lines.append(
            f"| {one.margin:g} | {one.compared} | {one.psnr_behind} | {one.ssim_behind} "
            f"| {one.least_psnr_gain:+.1f} | {_two_digits(one.least_detectability)} "
            f"| {_two_digits(one.least_detectability_small)} | {len(one.unlucky_behind)} "
            f"| {_yes(one.nearer)} | {_yes(one.preserves)} |"
        )
    return lines


def _two_digits(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _fidelity(figures: Sequence[Fidelity]) -> list[str]:
    lines = _head(
        "level", "margin", "box/output", "phantoms: level", "bilinear", "real: level", "bilinear",
        "least gain, dB", "SSIM: level", "bilinear", "shown, least gain, dB",
    )  # fmt: skip
    settings = sorted({(one.level, one.margin) for one in figures if one.margin in _SHOWN_MARGINS})
    for level, margin in settings:
        here = [one for one in figures if (one.level, one.margin) == (level, margin)]
        cells = [f"{level}", f"{margin:g}", f"{margin * 2**level:g}"]
        for real in (False, True):
            part = [one.stored for one in here if one.real is real]
            cells += [
                _span(part, lambda near: near.level_psnr),
                _span(part, lambda near: near.bilinear_psnr),
            ]
        cells.append(_gain(one.stored for one in here))
        cells.append(f"{min(one.stored.level_ssim for one in here):.3f}")
        cells.append(f"{min(one.stored.bilinear_ssim for one in here):.3f}")
        cells.append(_gain(one.shown for one in here if one.shown is not None))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _span(part: Sequence[Nearness], value: Callable[[Nearness], float]) -> str:
    values = [value(near) for near in part]
    return f"{min(values):.0f}–{max(values):.0f}" if values else ""


def _gain(part: Iterable[Nearness]) -> str:
    gains = [near.level_psnr - near.bilinear_psnr for near in part]
    return f"{min(gains):+.1f}" if gains else ""


def _lesions(quality: Quality) -> list[str]:
    sizes = [f"{size:g} mm" for size in SIZES_MM]
    lines = _head("level", "margin", "way", *sizes, "noise")
    grouped = by_setting(one for one in quality.lesions if one.margin in _SHOWN_MARGINS)
    for level, margin in sorted({setting[:2] for setting in grouped}):
        groups = [grouped.get((level, margin, size), []) for size in SIZES_MM]
        for name, ways in (
            ("level", [[one.leveled for one in group] for group in groups]),
            ("bilinear", [[one.bilinear for one in group] for group in groups]),
        ):
            noise = np.mean([kept.noise for way in ways for kept in way])
            cells = " | ".join(_kept_cell(way) for way in ways)
            lines.append(f"| {level} | {margin:g} | {name} | {cells} | {noise:.2f} |")
    return lines


def _kept_cell(kept: Sequence[Kept]) -> str:
    """Contrast-to-noise, its 5th percentile, detectability: means over the pictures."""
    if not kept:  # no lesion of that size in any picture
        return "–"
    values = [(one.contrast, one.contrast_p5, one.detectability) for one in kept]
    contrast, low, detectability = np.mean(values, axis=0)
    return f"{contrast:.2f} ({low:.2f}) {detectability:.2f}"


def _head(*names: str) -> list[str]:
    return [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]


def figure(path: Path, planted: Planted, inverted: bool) -> None:
    """Draw tiles with planted lesions: full decode and area, the level, full decode and bilinear.

    planted: 3 × 3 tiles; each is shown in its own range.
    """
    full, side = planted.planted[0], _FIGURE_TILES * TILE_PX
    tiles = full[:side, :side].reshape(_FIGURE_TILES, TILE_PX, _FIGURE_TILES, TILE_PX)
    limits = np.percentile(tiles, (1, 99.95), axis=(1, 3))
    head, left, step = 18, 62, _CELL_PX + 4
    page = Image.new("L", (left + 3 * step, head + len(_FIGURE_RATIOS) * step), 255)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for column, name in enumerate(("full decode, area mean", "wavelet level", "full decode, bilinear")):
        draw.text((left + column * step, 2), name, fill=0, font=font)
    for row, (level, ratio) in enumerate(_FIGURE_RATIOS):
        draw.text((2, head + row * step + 90), f"level {level}\n{ratio:g} : 1", fill=0, font=font)
        target = Target.of((0, 0, side, side), ratio)
        made = (target.area(full, 0), target.area(planted.planted[level], level), target.bilinear(full))
        for column, pixels in enumerate(made):
            cell = _cell(pixels, limits, inverted)
            page.paste(cell, (left + column * step, head + row * step))
    page.save(path, optimize=True)


def _cell(pixels: IndexPixels, limits: npt.NDArray[np.float64], inverted: bool) -> Image.Image:
    """Each tile stretched to its limits, in 32 steps of gray, enlarged without smoothing."""
    tile = np.arange(len(pixels)) * _FIGURE_TILES // len(pixels)
    low, high = limits[:, tile[:, None], tile[None, :]]
    values = (pixels - low) / (high - low)
    steps = np.rint(np.clip(1 - values if inverted else values, 0, 1) * 31) * (255 / 31)
    picture = Image.fromarray(steps.astype(np.uint8))
    return picture.resize((_CELL_PX, _CELL_PX), Image.Resampling.NEAREST)
