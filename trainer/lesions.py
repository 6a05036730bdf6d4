"""Lesion boxes: from a table in full-size pixels to maps on the grid of a model's features.

In:  a CSV with a row per lesion, as `bcd-bench phantom` and VinDr-Mammo have it; rows of a dataset.
Out: LesionTable (boxes of an image), Footprints (the same in prepared pixels), and `cells`: what is learned.

Boxes are of what makes an image positive. A negative image has none, whatever the table says; a positive one
without a box is one whose lesion nobody has marked: its map is unknown, not empty.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocess.errors import UsageError
from preprocess.failures import describe
from preprocess.records import BreastBox, Geometry, LabelValue, RoiMethod
from preprocess.schema import InstanceRow
from trainer.records import Floats, Mask
from trainer.targets import Labels, Rule

MALIGNANT = "malignant==1"
"""The rule for tables that have a column `malignant`; of others every row counts."""
CORE, AROUND = 0.6, 1.3
"""Ellipses that surely are lesion, and outside of which there surely is none: their axes by the box's."""
_PLACED = ("row", "column", "rows", "columns")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_TRUE = {"true": "1", "false": "0"}


@dataclass(frozen=True, slots=True)
class Box:
    """A true lesion, in full-size rows and columns, half-open."""

    row: float
    column: float
    rows: float
    columns: float

    def holds(self, row: float, column: float) -> bool:
        """Whether a place lies in it."""
        return 0 <= row - self.row < self.rows and 0 <= column - self.column < self.columns


@dataclass(frozen=True, slots=True)
class LesionTable:
    """Boxes by (patient_id, image_id); by ("", image_id) where the table names no patients."""

    boxes: Mapping[tuple[str, str], tuple[Box, ...]] = field(default_factory=dict, repr=False)

    def of(self, patient_id: str | None, image_id: str | None) -> tuple[Box, ...]:
        """Boxes of an image, in the table's order."""
        name = image_id or ""
        return self.boxes.get((patient_id or "", name)) or self.boxes.get(("", name), ())


def read_lesions(path: Path, rule: str | None = None) -> LesionTable:
    """Read a table of boxes.

    Args:
        path: CSV with `image_id`, perhaps `patient_id`, and `row, column, rows, columns` or
            `xmin, ymin, xmax, ymax`, in full-size pixels. Rows without a box (VinDr: no finding) are none.
        rule: which rows count, as `--positive` has it (`finding_birads in {BI-RADS 4,BI-RADS 5}`); None:
            `malignant==1` where there is such a column, else all.

    Raises:
        UsageError: there is no such table, it lacks a column, or a box is none.
    """
    boxes: dict[tuple[str, str], list[Box]] = defaultdict(list)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file)
            columns = frozenset(lines.fieldnames or ())
            names = _box_columns(path, columns)
            wanted = _rule(path, rule, columns)
            for line in lines:
                numbers = [line[name] for name in names]
                if not all(numbers) or not _counts(wanted, line):
                    continue
                box = _box(names, numbers)
                if box is None:
                    told = ", ".join(numbers)
                    raise UsageError(f"{path}, line {lines.line_num}: {', '.join(names)} = {told} is no box")
                boxes[line.get("patient_id") or "", line["image_id"]].append(box)
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UsageError(f"{path} is no table of lesion boxes: {describe(error)}") from None
    return LesionTable({key: tuple(found) for key, found in boxes.items()})


def _box_columns(path: Path, columns: frozenset[str]) -> tuple[str, ...]:
    for names in (_PLACED, _CORNERS):
        if columns >= {"image_id", *names}:
            return names
    missing = ", ".join(sorted({"image_id", *_PLACED} - columns))
    raise UsageError(f"{path} is no table of lesion boxes: it has no {missing} (or {', '.join(_CORNERS)})")


def _rule(path: Path, rule: str | None, columns: frozenset[str]) -> Rule | None:
    if rule is None:
        return Rule.parse(MALIGNANT, "") if "malignant" in columns else None
    parsed = Rule.parse(rule, "")
    if parsed.column not in columns:
        raise UsageError(f"--lesion-rule {rule!r}: {path} has no column {parsed.column or 'named in it'}")
    return parsed


def _counts(rule: Rule | None, line: Mapping[str, str]) -> bool:
    if rule is None:
        return True
    text = line[rule.column] or ""
    return rule.holds(_value(_TRUE.get(text.lower(), text))) is True


def _value(text: str) -> LabelValue | None:
    """1 and 1.0 are one number, as a rule sees them."""
    try:
        number = float(text)
    except ValueError:
        return text or None
    return number if np.isfinite(number) else None


def _box(names: tuple[str, ...], numbers: Sequence[str]) -> Box | None:
    """A box that holds something; None if these numbers are none."""
    try:
        first, second, third, fourth = (float(number) for number in numbers)
    except ValueError:
        return None
    box = (
        Box(first, second, third, fourth)
        if names is _PLACED
        else Box(second, first, fourth - second, third - first)
    )
    is_box = np.isfinite([first, second, third, fourth]).all() and box.rows > 0 and box.columns > 0
    return box if is_box else None


@dataclass(frozen=True, slots=True)
class Footprint:
    """A lesion in a prepared image: half-open, in pixels, inside the image."""

    top: int
    left: int
    bottom: int
    right: int


def footprint(box: Box, row: InstanceRow) -> Footprint | None:
    """Where a box lies in the prepared image of `row`; None if the crop has left it out.

    Every pixel that the box touches counts, so that no lesion vanishes by rounding.
    """
    place = _geometry(row)
    one = place.to_prepared(Fraction(box.row), Fraction(box.column))
    other = place.to_prepared(Fraction(box.row + box.rows), Fraction(box.column + box.columns))
    content = (
        (place.content_row, place.content_row + place.content_rows),
        (place.content_column, place.content_column + place.content_columns),
    )
    edges = []
    for ends, (least, most) in zip(zip(one, other, strict=True), content, strict=True):
        low, high = max(min(ends), Fraction(least)), min(max(ends), Fraction(most))
        if low >= high:
            return None
        edges.append((math.floor(low), math.ceil(high)))
    (top, bottom), (left, right) = edges
    return Footprint(top, left, bottom, right)


def content_of(row: InstanceRow) -> Footprint:
    """The part of a prepared image that is no letterbox."""
    place = _geometry(row)
    top, left = place.content_row, place.content_column
    return Footprint(top, left, top + place.content_rows, left + place.content_columns)


def _geometry(row: InstanceRow) -> Geometry:
    """Of a prepared image, from its row."""
    box = BreastBox(
        method=RoiMethod(row.roi or RoiMethod.WHOLE_FRAME),
        row=row.box_row or 0,
        column=row.box_column or 0,
        rows=row.box_rows or 1,
        columns=row.box_columns or 1,
        flipped=bool(row.flipped),
    )
    return Geometry(
        box=box,
        height=row.height or 1,
        width=row.width or 1,
        content_row=row.content_row or 0,
        content_column=row.content_column or 0,
        content_rows=row.content_rows or 1,
        content_columns=row.content_columns or 1,
    )


@dataclass(frozen=True, slots=True, eq=False)
class LesionMaps:
    """What there is to learn about the places of lesions, for every row of a dataset."""

    grid: tuple[int, int]
    """Rows and columns of the model's features."""
    places: tuple[tuple[Footprint, ...] | None, ...] = field(repr=False)
    """By row: the lesions of a positive image, () for a negative one, None where nobody knows."""

    @property
    def marked(self) -> int:
        """Positive images with a box."""
        return sum(bool(places) for places in self.places)

    def known(self, labels: Labels) -> Labels:
        """The labels without those of rows whose lesions nobody has marked."""
        values = labels.values.copy()
        values[[places is None for places in self.places], 0] = np.nan
        return Labels(values, labels.heads, labels.target)

    def sha256(self) -> str:
        """Hex sha256 of all that they teach: part of what a run is."""
        places = [places and [astuple(place) for place in places] for places in self.places]
        return hashlib.sha256(json.dumps([self.grid, places]).encode()).hexdigest()

    def mask(self, row: int, shape: tuple[int, int]) -> Mask | None:
        """The lesions of `row` in an image of `shape`: 1 in the core of each, 2 around it, 0 elsewhere.

        None where there is none to draw. Cores and what is around them are ellipses about the boxes' middles.
        """
        places = self.places[row]
        if not places:
            return None
        mask = np.zeros(shape, np.uint8)
        for reach, value in ((AROUND, 2), (CORE, 1)):
            for place in places:
                _draw(mask, place, reach, value)
        return mask

    def cells(self, row: int, mask: Mask | None) -> Floats:
        """The map (h, w) in [0, 1] of what is left of the mask after augmentation; NaN where unknown.

        A cell is the share of it that cores cover, by the largest share: a lesion smaller than a cell is one
        cell of 1. Of the cells that a lesion touches those with less than half the largest share are unknown:
        where a lesion ends, a box does not say. One that augmentation has moved out of the picture is none.
        """
        if mask is None:
            return np.full(self.grid, np.nan if self.places[row] is None else 0, np.float32)
        shares = _block_means(mask == 1, self.grid)
        cells = np.asarray(shares / max(float(shares.max()), 1e-6), np.float32)
        cells[(cells < 0.5) & (_block_means(mask > 0, self.grid) > 0)] = np.nan
        return cells


def lesion_maps(
    rows: Sequence[InstanceRow], labels: Labels, table: LesionTable, grid: tuple[int, int]
) -> LesionMaps:
    """Maps for all rows of a dataset, from a table and the labels that are learned.

    Raises:
        UsageError: the table knows no positive image of the dataset.
    """
    places: list[tuple[Footprint, ...] | None] = []
    for row, target in zip(rows, labels.values[:, 0], strict=True):
        boxes = table.of(row.patient_id, row.image_id) if target == 1 else ()
        seen = tuple(found for box in boxes if (found := footprint(box, row)) is not None)
        places.append((seen or None) if target == 1 else None if np.isnan(target) else ())
    maps = LesionMaps(grid, tuple(places))
    if not maps.marked:
        raise UsageError("--lesions: the table has no box of a positive image of this dataset")
    return maps


def _draw(mask: Mask, place: Footprint, reach: float, value: int) -> None:
    """Fill an ellipse whose axes are `reach` times the box's, and at least two pixels."""
    parts, offsets = [], []
    sides = ((place.top, place.bottom), (place.left, place.right))
    for length, (low, high) in zip(mask.shape, sides, strict=True):
        middle, radius = (low + high) / 2, max(reach * (high - low) / 2, 1.0)
        part = range(max(0, math.floor(middle - radius)), min(length, math.ceil(middle + radius)))
        parts.append(slice(part.start, part.stop))
        offsets.append((np.arange(part.start, part.stop) + 0.5 - middle) / radius)
    down, across = offsets
    mask[parts[0], parts[1]][down[:, None] ** 2 + across**2 <= 1] = value


def _block_means(mask: npt.NDArray[np.bool_], grid: tuple[int, int]) -> Floats:
    """Means over h × w blocks, whose borders are the nearest pixels to equal shares."""
    means = mask.astype(np.float32)
    for axis, count in enumerate(grid):
        edges = np.round(np.linspace(0, mask.shape[axis], count + 1)).astype(np.intp)
        sizes = np.expand_dims(np.diff(edges).astype(np.float32), 1 - axis)
        means = np.asarray(np.add.reduceat(means, edges[:-1], axis=axis) / sizes, np.float32)
    return means
