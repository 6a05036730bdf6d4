"""report.html: one self-contained page that shows what a run did, and works offline.

In:  OUT (instances.parquet, manifest.json, run.json, prepared images), thumbnails of originals.
Out: OUT/report.html: inline style, images as data URIs, charts as inline SVG, no script, no network.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser

import jinja2
import pandas as pd
from markupsafe import Markup

from preprocess import report_charts as charts
from preprocess import report_sections as sections
from preprocess import wording
from preprocess.atomic import write_atomically
from preprocess.card import write_card
from preprocess.config import Identifiers
from preprocess.places import Place, plain_name, read_bytes, size_of
from preprocess.records import Status
from preprocess.report_data import Dataset, RunFacts, read_dataset, read_run
from preprocess.report_images import prepared_pictures
from preprocess.thumbnails import CONTACT_SHEET_IMAGES, Thumbnail, contact_sources

__all__ = ["RunFacts", "contact_sources", "read_thumbnails", "write_report"]

_USUAL_LABELS = ("BIRADS", "density", "implant")
_DATA_URI = "data:image/png;base64,"


@dataclass(frozen=True, slots=True)
class Card:
    """One pair on the contact sheet. `original` and `prepared` are data URIs, empty where unknown."""

    source: str
    title: str
    chips: tuple[tuple[str, str], ...]
    """Text and tone of known labels."""
    lines: tuple[str, ...]
    original: str
    prepared: str
    top: float = 0.0
    left: float = 0.0
    height: float = 0.0
    width: float = 0.0

    @property
    def box(self) -> str:
        """The breast box as CSS, in percent of the original's picture."""
        parts = ("top", self.top), ("left", self.left), ("height", self.height), ("width", self.width)
        return ";".join(f"{name}:{100 * value:.2f}%" for name, value in parts)


def write_report(out: Place, *, thumbnails: Sequence[Thumbnail] = (), run: RunFacts | None = None) -> Place:
    """Write OUT/report.html and OUT/dataset_card.md atomically; returns the report's path.

    Without thumbnails, those of the report that is there are kept; without run, run.json is read.
    Raises UsageError or DatasetDamaged if OUT holds no readable dataset.
    """
    dataset = read_dataset(out)
    path = out / "report.html"
    originals = {item.source: item for item in thumbnails or read_thumbnails(path)}
    page = render_page(dataset, originals, run or read_run(out))
    write_atomically(path, page.encode("utf-8"))
    write_card(dataset)
    return path


def render_page(dataset: Dataset, originals: Mapping[str, Thumbnail], run: RunFacts | None) -> str:
    """The whole page as text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("preprocess"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    table = dataset.table
    return environment.get_template("report.html.j2").render(
        dataset=dataset,
        name=plain_name(dataset.out),
        counts={status.value: dataset.count(status) for status in Status},
        balanced=dataset.manifest.counts.found == len(table),
        outcome=_outcome(dataset),
        cards=contact_sheet(dataset, originals),
        remarks=sections.remarks(table),
        leakage=sections.leakage(dataset.manifest.possible_leakage),
        rejects=sections.rejects(table),
        distributions=(*sections.distributions(table), *_intensities(dataset)),
        folds=sections.folds(table, dataset.manifest.positive_label),
        machines=sections.machines(table, dataset.manifest.positive_label),
        run=run,
        stages=_stages(run),
        config=sorted((name, str(value)) for name, value in dataset.config.model_dump(mode="json").items()),
        number=charts.number,
        duration=wording.duration,
        moment=wording.moment,
        byte_size=wording.byte_size,
    )


def _outcome(dataset: Dataset) -> Markup:
    tones = {Status.PREPARED: "good", Status.REJECTED: "bad", Status.DUPLICATE: "dull"}
    parts = [(status, dataset.count(status), tone) for status, tone in tones.items()]
    return charts.stacked(
        [
            charts.Bar(status.value, count, charts.number(count), tone)
            for status, count, tone in parts
            if count
        ]
    )


def _intensities(dataset: Dataset) -> tuple[sections.Chart, ...]:
    statistics = dataset.manifest.statistics
    if statistics.mean is None or statistics.std is None:
        return ()
    note = (
        f"of the content, without fill; mean {statistics.mean:.0f}, standard deviation {statistics.std:.0f}"
    )
    cut, largest = charts.cut_off(statistics.histogram)
    if cut:
        note += f"; {cut} of {len(statistics.histogram)} bins cut off, the highest {100 * largest:.3g} %"
    labels = ("prepared value", "share of pixels")
    svg = charts.area(statistics.histogram, 0, 2**dataset.config.bits - 1, labels)
    return (sections.Chart("Intensities", svg, note),)


def _stages(run: RunFacts | None) -> Markup | None:
    if run is None or not run.stages:
        return None
    total = sum(seconds for _, seconds in run.stages) or 1
    return charts.bars(
        [
            charts.Bar(
                wording.STAGES.get(name, name), seconds,
                f"{wording.duration(seconds)} · {100 * seconds / total:.3g} %",
            )
            for name, seconds in run.stages
        ]
    )  # fmt: skip


def contact_sheet(dataset: Dataset, originals: Mapping[str, Thumbnail]) -> tuple[Card, ...]:
    """Pairs of original and prepared picture; filled up with prepared ones where originals are few.

    Only inputs with a row are shown, so a thumbnail under an unhashed name never gets in; under
    --identifiers hash, neither does a picture that is declared to carry burned-in annotation.
    """
    prepared = sections.of_status(dataset.table, Status.PREPARED, "source", "burned_in_annotation")
    prepared = prepared.sort_values("source")
    positive = dataset.manifest.positive_label
    if dataset.config.identifiers is Identifiers.HASH:
        prepared = prepared[(prepared["burned_in_annotation"] != "YES").fillna(True)]
    with_original = prepared[prepared["source"].isin(originals.keys())]
    others = prepared[~prepared["source"].isin(originals.keys())]
    missing = max(0, CONTACT_SHEET_IMAGES - len(with_original))
    spread = others.iloc[:: max(1, len(others) // max(1, missing))].head(missing)
    chosen = dataset.table.loc[[*with_original.head(CONTACT_SHEET_IMAGES).index, *spread.index]]
    pictures = prepared_pictures(dataset, chosen)
    return tuple(
        _card(row, positive, originals.get(str(row["source"])), pictures.get(str(row["source"]), b""))
        for _, row in chosen.iterrows()
    )


def _card(row: pd.Series, positive: str | None, original: Thumbnail | None, picture: bytes) -> Card:
    known = {str(name): value for name, value in row.items() if not pd.isna(value)}
    view = " ".join(str(known[name]) for name in ("laterality", "view") if name in known)
    return Card(
        source=str(row["source"]),
        title=" · ".join(filter(None, (str(known.get("patient_id", "")), view))) or str(row["source"]),
        chips=_chips(row, positive, known),
        lines=_facts(known),
        original=_data_uri(original.png) if original else "",
        prepared=_data_uri(picture) if picture else "",
        top=original.top if original else 0.0,
        left=original.left if original else 0.0,
        height=original.height if original else 0.0,
        width=original.width if original else 0.0,
    )


def _chips(row: pd.Series, positive: str | None, known: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Up to three known labels, the one that folds are stratified by first, marked if it is 1."""
    names = [name for name in sections.label_names(row.to_frame().T) if name in known]
    preferred = [name for name in (positive, *_USUAL_LABELS) if name in names]
    chosen = list(dict.fromkeys(name for name in (*preferred, *names) if name))[:3]
    return tuple(
        (f"{name} {known[name]}", "bad" if name == positive and known[name] == 1 else "dull")
        for name in chosen
    )


def _facts(known: Mapping[str, object]) -> tuple[str, ...]:
    syntax = wording.transfer_syntax(str(known.get("transfer_syntax_uid", "")))
    level = wording.decode_level(int(str(known.get("decode_level", 0))))
    voi = str(known.get("voi_lut_function", wording.VOI_SOURCES.get(str(known.get("voi_source")), "")))
    if "window_center" in known:
        voi += f" {float(str(known['window_center'])):g} / {float(str(known['window_width'])):g}"
    original, box, content = (
        f"{known.get(f'{prefix}rows')}×{known.get(f'{prefix}columns')}" for prefix in ("", "box_", "content_")
    )
    sizes = f"{original} → box {box} → {content}"
    roi = str(known.get("roi", ""))
    extra = [wording.ROIS.get(roi, roi)] if roi != "breast" else []
    extra += ["mirrored"] if known.get("flipped") else []
    return f"{syntax} · {level}", " · ".join((voi, *extra)), sizes


def _data_uri(png: bytes) -> str:
    return _DATA_URI + base64.b64encode(png).decode("ascii")


def read_thumbnails(report: Place) -> tuple[Thumbnail, ...]:
    """The originals' thumbnails that an earlier report carries; none if there is no report."""
    if size_of(report) is None:
        return ()
    reader = _ThumbnailReader()
    reader.feed(read_bytes(report).decode("utf-8", "replace"))
    reader.close()
    return tuple(reader.found)


class _ThumbnailReader(HTMLParser):
    """Collects `<img data-source=… data-box=…>`."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Thumbnail] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the originals, which alone carry a box."""
        values = dict(attrs)
        source, box, uri = values.get("data-source"), values.get("data-box"), values.get("src")
        if tag != "img" or not source or not box or not uri or not uri.startswith(_DATA_URI):
            return
        top, left, height, width = (float(part) for part in re.split(r"\s+", box.strip()))
        png = base64.b64decode(uri.removeprefix(_DATA_URI))
        self.found.append(Thumbnail(source, png, top, left, height, width))
