"""dataset_card.md, in the form that Hugging Face reads, and the table of reject codes for docs/.

In:  a Dataset; REJECT_CODES.
Out: Markdown. Regenerate the docs with `python -m preprocess.card > docs/reject-codes.md`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import jinja2
import pandas as pd
import yaml

from preprocess import report_sections as sections
from preprocess.atomic import write_atomically
from preprocess.card_columns import COLUMN_MEANINGS
from preprocess.config import Format
from preprocess.errors import REJECT_CODES, UNCOUNTED_CODES
from preprocess.places import Place, plain_name
from preprocess.records import LabelColumn, Status
from preprocess.report_charts import number
from preprocess.report_data import Dataset

_MARKUP = frozenset("<>&|`*[]()!#\\~")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True, slots=True)
class LabelLine:
    """One label column in the card."""

    name: str
    level: str
    kind: str
    known: int
    positives: str


def write_card(dataset: Dataset) -> Place:
    """Write OUT/dataset_card.md atomically and return its path."""
    path = dataset.out / "dataset_card.md"
    write_atomically(path, card_markdown(dataset).encode("utf-8"))
    return path


def card_markdown(dataset: Dataset) -> str:
    """The card's text: counts and config only, nothing of a single image."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("preprocess"),
        autoescape=False,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _cell
    table, config = dataset.table, dataset.config
    columns = dataset.manifest.label_columns()
    shown = ("patient_id", "roi", "burned_in_annotation", "background_blanked")
    prepared = sections.of_status(table, Status.PREPARED, *shown, *(column.name for column in columns))
    return environment.get_template("dataset_card.md.j2").render(
        name=plain_name(dataset.out),
        front_matter=_front_matter(dataset, len(prepared)),
        config=config,
        config_fields=sorted(config.model_dump(mode="json").items()),
        config_sha256=dataset.manifest.config_sha256,
        counts={status.value: dataset.count(status) for status in Status},
        found=len(table),
        patients=prepared["patient_id"].nunique(),
        rejects=sections.rejects(table),
        formats=[kind.value for kind in config.formats],
        encoding=config.encoding.value,
        target=_target(columns, dataset.manifest.positive_label),
        labels=[_label_line(column, prepared) for column in columns],
        folds=sections.folds(table, dataset.manifest.positive_label),
        columns=COLUMN_MEANINGS.items(),
        whole_frame=int((prepared["roi"] == "whole_frame").sum()),
        burned_in=int((prepared["burned_in_annotation"] == "YES").sum()),
        blanked=int(prepared["background_blanked"].fillna(False).sum()),
        leaks=len(dataset.manifest.possible_leakage),
        number=number,
    )


def _cell(text: object) -> str:
    """Text of other people as one line of Markdown: no markup, no HTML, no end of a table's cell."""
    line = " ".join(str(text).split())
    return "".join(f"&#{ord(c)};" if c in _MARKUP or not c.isprintable() else c for c in line)


def _target(columns: tuple[LabelColumn, ...], positive: str | None) -> LabelColumn | None:
    """The label that the loading example takes: the one that folds are stratified by, or the first."""
    return next((column for column in columns if column.name == positive), next(iter(columns), None))


def _label_line(column: LabelColumn, prepared: pd.DataFrame) -> LabelLine:
    values = prepared[column.name]
    binary = column.name in sections.binary_labels(prepared)
    positives = sections.positives(values) if binary else "–"
    return LabelLine(column.name, column.level.value, column.kind, int(values.notna().sum()), positives)


def _front_matter(dataset: Dataset, images: int) -> str:
    document: dict[str, object] = {
        "pretty_name": plain_name(dataset.out),
        "license": "other",
        "task_categories": ["image-classification"],
        "tags": ["medical", "mammography", "breast-cancer", "dicom", "bcd-prep"],
        "size_categories": [next((name for limit, name in _SIZES if images < limit), "n>1M")],
    }
    if Format.PARQUET in dataset.config.formats:
        document["configs"] = [
            {"config_name": "default", "data_files": [{"split": "train", "path": "fold=*/*.parquet"}]}
        ]
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def reject_codes_markdown() -> str:
    """The table of all reject codes, by stage: the content of docs/reject-codes.md."""
    lines = [
        "# Reject codes",
        "",
        "Every input that is not prepared has a row in `instances.parquet` with one of these codes in",
        "`reject_code`. Codes are stable: scripts may rely on them. Made from `preprocess/errors.py` by",
        "`python -m preprocess.card > docs/reject-codes.md`.",
        "",
        "| code | stage | meaning | what to do |",
        "|---|---|---|---|",
    ]
    for code, reason in REJECT_CODES.items():
        note = " (not counted by `--max-rejected`)" if code in UNCOUNTED_CODES else ""
        remedy = reason.remedy.replace("|", r"\|")
        lines.append(f"| `{code}` | {reason.stage.value} | {reason.meaning}{note} | {remedy} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reject_codes_markdown())
