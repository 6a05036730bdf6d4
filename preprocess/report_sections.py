"""The parts of report.html that are made from the instances table.

In:  instances.parquet as a pandas frame with nullable types.
Out: frozen views (charts, tables, reject lines, remarks) that the template only has to lay out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from preprocess import report_charts as charts
from preprocess import wording
from preprocess.errors import REJECT_CODES, UNCOUNTED_CODES
from preprocess.leakage import LeakageGroup
from preprocess.records import Status
from preprocess.schema import COLUMN_NAMES

_EXAMPLES = 5
_KINDS = 8
_MACHINES = 40
_LEAKS = 20
_RAW = "FOR PROCESSING"
_DISTRIBUTED = (
    "decode_level", "decoder", "voi_source", "voi_lut_function", "window_center", "window_width", "roi",
    "laterality", "view", "box_rows", "content_rows",
)  # fmt: skip
_REMARKED = (
    "roi", "above_bits_stored", "burned_in_annotation", "background_blanked", "presentation_intent_type",
    "flipped", "pixel_spacing_row_mm",
)  # fmt: skip
"""Columns of prepared images that these sections look at."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A titled drawing."""

    title: str
    svg: Markup
    note: str = ""


@dataclass(frozen=True, slots=True)
class TableView:
    """A table: the first `words` columns are text, the others numbers."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1
    note: str = ""


@dataclass(frozen=True, slots=True)
class RejectLine:
    """One reject code that occurred, with what it means and a few of its inputs."""

    code: str
    stage: str
    count: int
    counted: bool
    """False for non-image DICOM, which never counts against --max-rejected."""
    meaning: str
    remedy: str
    examples: tuple[tuple[str, str], ...]


def of_status(table: pd.DataFrame, status: Status, *columns: str) -> pd.DataFrame:
    """The rows with one outcome: a copy, so ask for no more columns than are needed."""
    return table.loc[table["status"] == status.value, list(columns)]


def label_names(table: pd.DataFrame) -> tuple[str, ...]:
    """Label columns: those that the schema does not fix."""
    return tuple(str(name) for name in table.columns if name not in COLUMN_NAMES)


def binary_labels(table: pd.DataFrame) -> tuple[str, ...]:
    """Labels whose known values are 0 and 1 only, both or one of them."""
    numeric = [name for name in label_names(table) if pd.api.types.is_numeric_dtype(table[name])]
    return tuple(
        name for name in numeric if table[name].notna().any() and table[name].dropna().isin((0, 1)).all()
    )


def rejects(table: pd.DataFrame) -> tuple[RejectLine, ...]:
    """Reject codes by frequency, most frequent first."""
    rejected = of_status(table, Status.REJECTED, "source", "reject_code", "reject_stage", "reject_message")
    lines = [_reject_line(str(code), rows) for code, rows in rejected.groupby("reject_code", sort=True)]
    return tuple(sorted(lines, key=lambda line: (-line.count, line.code)))


def _reject_line(code: str, rows: pd.DataFrame) -> RejectLine:
    known = REJECT_CODES.get(code)
    first = rows.sort_values("source").head(_EXAMPLES)
    return RejectLine(
        code=code,
        stage=str(rows["reject_stage"].iloc[0]),
        count=len(rows),
        counted=code not in UNCOUNTED_CODES,
        meaning=known.meaning if known else "",
        remedy=known.remedy if known else "",
        examples=tuple(
            (str(source), str(message))
            for source, message in zip(first["source"], first["reject_message"], strict=True)
        ),
    )


def distributions(table: pd.DataFrame) -> tuple[Chart, ...]:
    """What came in and what was done with it, as small charts; those without data are left out."""
    prepared = of_status(table, Status.PREPARED, *_DISTRIBUTED)
    found = [
        _sizes(table),
        _kinds(
            "Transfer syntaxes", table["transfer_syntax_uid"], lambda uid: wording.transfer_syntax(str(uid))
        ),
        _kinds("Bits stored", table["bits_stored"], lambda bits: f"{bits} bit"),
        _kinds("Photometric interpretation", table["photometric_interpretation"], str),
        _kinds(
            "Wavelet level decoded",
            prepared["decode_level"],
            lambda level: wording.decode_level(int(str(level))),
        ),
        _kinds("Decoder", prepared["decoder"], str),
        _kinds("VOI transformation", _voi(prepared), str),
        _windows(prepared),
        _kinds("Region kept", prepared["roi"], lambda roi: wording.ROIS.get(str(roi), str(roi))),
        _kinds("Laterality and view", _views(prepared), str),
        _shrinking(prepared),
    ]
    return tuple(chart for chart in found if chart is not None)


def _kinds(title: str, column: pd.Series, word: Callable[[Hashable], str]) -> Chart | None:
    counts = column.dropna().value_counts()
    if counts.empty:
        return None
    pairs = sorted(
        ((int(count), word(value)) for value, count in counts.items()), key=lambda p: (-p[0], p[1])
    )
    total = sum(count for count, _ in pairs)
    bars = [charts.Bar(text, count, _share(count, total)) for count, text in pairs[:_KINDS]]
    rest = pairs[_KINDS:]
    if rest:
        amount = sum(count for count, _ in rest)
        bars.append(charts.Bar(f"{len(rest)} other kinds", amount, _share(amount, total), "dull"))
    return Chart(title, charts.bars(bars))


def _share(count: int, total: int) -> str:
    return f"{charts.number(count)} · {100 * count / total:.3g} %"


def _points(table: pd.DataFrame, x: str, y: str) -> tuple[charts.Point, ...]:
    known = table[[x, y]].dropna()
    counts = Counter(zip(known[x].astype(float), known[y].astype(float), strict=True))
    return tuple(charts.Point(a, b, count) for (a, b), count in counts.items())


def _sizes(table: pd.DataFrame) -> Chart | None:
    points = _points(table, "columns", "rows")
    if not points:
        return None
    note = f"{len(points)} sizes; the circle's area is the number of inputs"
    return Chart("Image sizes", charts.bubbles(points, "columns", "rows"), note)


def _windows(prepared: pd.DataFrame) -> Chart | None:
    points = _points(prepared, "window_center", "window_width")
    if not points:
        return None
    return Chart("Windows", charts.bubbles(points, "centre", "width"), f"{len(points)} different windows")


def _voi(prepared: pd.DataFrame) -> pd.Series:
    source = prepared["voi_source"].map(wording.VOI_SOURCES, na_action="ignore")
    function = prepared["voi_lut_function"]
    return source.where(function.isna(), source + " · " + function.fillna(""))


def _views(prepared: pd.DataFrame) -> pd.Series:
    side = prepared["laterality"].fillna("?") + " " + prepared["view"].fillna("?")
    return side.where(prepared["laterality"].notna() | prepared["view"].notna())


def _shrinking(prepared: pd.DataFrame) -> Chart | None:
    factor = (prepared["box_rows"] / prepared["content_rows"]).dropna().astype(float)
    if factor.empty:
        return None
    low, high = float(factor.min()), float(factor.max())
    if high - low < 1e-9:
        low, high = low * 0.9, high * 1.1
    bins = pd.cut(factor, [low + (high - low) * step / 24 for step in range(25)], include_lowest=True)
    counts = [int(count) for count in bins.value_counts(sort=False)]
    svg = charts.area(counts, low, high, ("original pixels per prepared pixel", "share of images"))
    return Chart("Reduction", svg, f"median {float(factor.median()):.3g}")


def folds(table: pd.DataFrame, label: str | None = None) -> TableView | None:
    """Fold balance: patients, images, and positives of each 0/1 label against the whole.

    `label` is the one that folds are stratified by: it comes first, and its patients are counted too.
    """
    prepared = of_status(table, Status.PREPARED, "fold", "patient_id", *label_names(table))
    if prepared["fold"].dropna().empty:
        return None
    labels = binary_labels(prepared)
    if label in labels:
        labels = (label, *(name for name in labels if name != label))
    else:
        label = None
    parts = [(f"fold {fold}", rows) for fold, rows in prepared.groupby("fold")] + [("all", prepared)]
    several = prepared.groupby("patient_id")["fold"].nunique()
    headers = ["", "patients", "images", "share", *([f"{label} = 1, patients"] if label else [])]
    note = f"{int((several > 1).sum())} patients in more than one fold."
    rows = [
        (*_fold_row(name, part, len(prepared), label), *(positives(part[other]) for other in labels))
        for name, part in parts
    ]
    return TableView((*headers, *(f"{name} = 1" for name in labels)), tuple(rows), note=note)


def _fold_row(name: str, rows: pd.DataFrame, whole: int, label: str | None) -> tuple[str, ...]:
    cells = (name, charts.number(rows["patient_id"].nunique()), charts.number(len(rows)))
    share = f"{100 * len(rows) / whole:.1f} %"
    if label is None:
        return (*cells, share)
    positive = rows.loc[(rows[label] == 1).fillna(False), "patient_id"].nunique()
    return (*cells, share, charts.number(positive))


def positives(values: pd.Series) -> str:
    """`12 (2.1 %)`: how many of the known values are 1."""
    known = values.dropna()
    if known.empty:
        return "–"
    count = int((known == 1).sum())
    return f"{charts.number(count)} ({100 * count / len(known):.3g} %)"


def machines(table: pd.DataFrame, label: str | None = None) -> TableView | None:
    """Inputs and outcomes by site, machine, manufacturer and model, largest first; positives of one label."""
    keys = [
        name for name in ("site_id", "machine_id", "manufacturer", "manufacturer_model_name")
        if table[name].notna().any()
    ]  # fmt: skip
    if not keys:
        return None
    labels = [label] if label else []
    seen = table[[*keys, "status", "rows", "columns", "transfer_syntax_uid", *labels]]
    groups = seen.fillna({key: "–" for key in keys}).groupby(keys, sort=True)
    rows = sorted((_machine_row(key, rows, labels) for key, rows in groups), key=lambda row: -row[0])
    headers = (
        *(
            key.removesuffix("_id").replace("_", " ").replace("manufacturer model name", "model")
            for key in keys
        ),
        "syntaxes",
        "inputs",
        "prepared",
        "rejected",
        "typical size",
        *(f"{name} = 1" for name in labels),
    )
    note = f"{len(rows) - _MACHINES} smaller groups are not shown." if len(rows) > _MACHINES else ""
    return TableView(headers, tuple(row[1] for row in rows[:_MACHINES]), len(keys) + 1, note)


def _machine_row(key: Hashable, rows: pd.DataFrame, labels: Sequence[str]) -> tuple[int, tuple[str, ...]]:
    names = key if isinstance(key, tuple) else (key,)
    sizes = rows[["rows", "columns"]].dropna().value_counts()
    size = "–" if sizes.empty else "{} × {}".format(*sizes.index[0])
    syntaxes = sorted({wording.transfer_syntax(str(uid)) for uid in rows["transfer_syntax_uid"].dropna()})
    outcome = rows["status"].value_counts()
    return len(rows), (
        *(str(name) for name in names),
        ", ".join(syntaxes[:3]) + (f" and {len(syntaxes) - 3} more" if len(syntaxes) > 3 else "") or "–",
        charts.number(len(rows)),
        charts.number(int(outcome.get("prepared", 0))),
        charts.number(int(outcome.get("rejected", 0))),
        size,
        *(positives(rows[label]) for label in labels),
    )


@dataclass(frozen=True, slots=True)
class LeakageLine:
    """One group of images with the same pixels under several patients, and a few of its sources."""

    what: str
    counts: str
    across_folds: bool
    sources: tuple[str, ...]
    more: int


def leakage(groups: Sequence[LeakageGroup]) -> tuple[LeakageLine, ...]:
    """The largest groups, those across folds first."""
    chosen = sorted(groups, key=lambda group: len(group.folds) < 2)[:_LEAKS]
    return tuple(
        LeakageLine(
            what=f"{group.same} pixels {group.sha256[:12]}",
            counts=f"{charts.number(group.images)} images of {charts.number(group.patients)} patients",
            across_folds=len(group.folds) > 1,
            sources=group.sources[:_EXAMPLES],
            more=group.images - len(group.sources[:_EXAMPLES]),
        )
        for group in chosen
    )


def remarks(table: pd.DataFrame) -> tuple[tuple[int, str], ...]:
    """What is worth a look although nothing failed: how many prepared images, and what of them."""
    prepared = of_status(table, Status.PREPARED, *_REMARKED)
    counted = (
        (prepared["roi"] == "whole_frame", "kept whole: no plausible breast was found in the frame"),
        (prepared["above_bits_stored"].fillna(0) > 0, "had pixels above Bits Stored, which were clamped"),
        (prepared["burned_in_annotation"] == "YES", "declared to have annotation burned into the pixels"),
        (prepared["background_blanked"].fillna(False), "have fill in place of what lay beside the breast"),
        (prepared["presentation_intent_type"] == _RAW, "are FOR PROCESSING, not meant for display"),
        (prepared["flipped"].fillna(False), "mirrored to bring the chest wall to the left edge"),
        (prepared["pixel_spacing_row_mm"].isna(), "without pixel spacing: the margin was taken in pixels"),
    )  # fmt: skip
    sums = ((int(mask.fillna(False).sum()), text) for mask, text in counted)
    return tuple((amount, text) for amount, text in sums if amount)
