"""The report and the dataset card, on a small dataset made by hand."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess import images, report_charts, tfrecord
from preprocess.card import reject_codes_markdown
from preprocess.card_columns import COLUMN_MEANINGS
from preprocess.config import Encoding, Format, ResultConfig
from preprocess.errors import REJECT_CODES, UsageError
from preprocess.manifest import finish
from preprocess.parquet import ParquetShard, write_instances
from preprocess.records import Identity, Label, LabelColumn, LabelLevel, SourceFile, Status
from preprocess.report import contact_sources, read_thumbnails, write_report
from preprocess.report_data import read_dataset
from preprocess.results import PixelStatistics, ShardFile, ShardResult
from preprocess.schema import COLUMN_NAMES, InstanceRow, arrow_schema
from preprocess.thumbnails import Thumbnail, encode, load, save

DOCS = Path(__file__).parents[2] / "docs"
LABELS = (
    LabelColumn("cancer", "int64", LabelLevel.BREAST),
    LabelColumn("density", "string", LabelLevel.BREAST),
)
MACHINES = (
    ("1.2.840.10008.1.2.4.90", 5355, 4915, "49", "SIGMOID"),
    ("1.2.840.10008.1.2.4.70", 3328, 2560, "21", "LINEAR"),
)


def breast(height: int, width: int, seed: int) -> np.ndarray:
    """A half-ellipse with a bright dot at the left edge, 16 bit."""
    row, column = np.mgrid[0:height, 0:width]
    inside = ((row - height / 2) / (height * 0.42)) ** 2 + (column / (width * 0.8)) ** 2 < 1
    noise = np.random.default_rng(seed).integers(0, 9000, (height, width))
    return np.where(inside, 21000 + noise, 300).astype(np.uint16)


def prepared(number: int) -> InstanceRow:
    syntax, rows, columns, machine, function = MACHINES[number % 2]
    patient = f"p{70 + number // 4}"
    return InstanceRow(
        source=f"train_images/{patient}/{number}.dcm", status=Status.PREPARED, patient_id=patient,
        image_id=str(number), laterality="LR"[number // 2 % 2], view=("CC", "MLO")[number % 2],
        site_id="1", machine_id=machine, manufacturer="MAKER <A&B>", transfer_syntax_uid=syntax,
        rows=rows, columns=columns, bits_stored=(16, 12)[number % 2],
        photometric_interpretation="MONOCHROME2", file_bytes=1_000_000,
        decoder="cpu", decode_level=2 * ((number + 1) % 2), voi_source="window",
        voi_lut_function=function, window_center=2048.0, window_width=4096.0, above_bits_stored=0,
        roi="whole_frame" if number == 5 else "breast", box_row=100, box_column=0, box_rows=3000,
        box_columns=1500, flipped=number % 3 == 0, content_row=0, content_column=0, content_rows=64,
        content_columns=32, height=64, width=32, bits=16, fold=number // 4 % 3,
        shard=f"fold={number // 4 % 3}/part-00000",
        labels=(Label("cancer", int(number % 8 == 0)), Label("density", "ABCD"[number % 4])),
    )  # fmt: skip


def make_dataset(out: Path, config: ResultConfig, count: int = 24) -> list[InstanceRow]:
    """Write instances.parquet, shards, manifest.json and run.json as a run would."""
    rows = [prepared(number) for number in range(count)]
    placed = [
        replace(row, shard_row=sum(other.shard == row.shard for other in rows[:place]))
        for place, row in enumerate(rows)
    ]
    for shard in sorted({str(row.shard) for row in placed}):
        for kind in config.formats:
            write_shard(out, shard, kind, config, [row for row in placed if row.shard == shard])
    known = tuple(Label(column.name, None) for column in LABELS)
    other = [
        InstanceRow(source=f"bad/{number}.dcm", status=Status.REJECTED, reject_stage="decode", labels=known,
                    reject_code="codestream_truncated", reject_message=f"needs {number} bytes")
        for number in range(3)
    ]  # fmt: skip
    other.append(replace(other[0], source="bad/report.dcm", reject_stage="parse",
                         reject_code="structured_report", reject_message="SR"))  # fmt: skip
    other.append(
        InstanceRow(source="again.dcm", status=Status.DUPLICATE, labels=known, duplicate_of=rows[0].source)
    )
    everything = [*placed, *other]
    finish_dataset(out, config, everything)
    run = {"started": "2026-01-02T03:04:05", "seconds": 75.2, "stages": {"decode": 60.0, "render": 12.5},
           "images_per_second": 3.25, "workers": 2,
           "versions": {"numpy": "2.4.6", "absent": None}}  # fmt: skip
    (out / "run.json").write_text(json.dumps(run))
    return everything


def finish_dataset(out: Path, config: ResultConfig, rows: list[InstanceRow]) -> None:
    """Write instances.parquet and the manifest with some statistics."""
    statistics = PixelStatistics(4, 40, 500, 1, 20, (3, 1) + (0,) * 254)
    files = (ShardFile("fold=0/part-00000.tfrecord", "tfrecord", 1500, "0" * 64, 1),)
    shard = ShardResult("fold=0/part-00000", 0, "key", tuple(rows), files, statistics)
    finish(out, [shard], [], config=config, label_columns=LABELS, ignored=7)


def write_shard(out: Path, shard: str, kind: Format, config: ResultConfig, rows: list[InstanceRow]) -> None:
    pictures = [breast(64, 32, int(row.image_id or 0)) for row in rows]
    encoded = [images.encode(picture, config.encoding) for picture in pictures]
    path = out / f"{shard}.{kind.value}"
    path.parent.mkdir(parents=True, exist_ok=True)
    size = {"height": 64, "width": 32, "bits": 16}
    if kind is Format.PARQUET:
        with path.open("wb") as file:
            writer = ParquetShard(file, config, LABELS)
            for row, data in zip(rows, encoded, strict=True):
                image: dict[str, bytes | str] = {"bytes": data, "path": "x.png"}
                writer.add(
                    {"image": image, "format": config.encoding.value, **size, **images.shard_values(row)}
                )
            writer.close()
    elif kind is Format.TFRECORD:
        features = [
            {"image/encoded": data, "image/format": config.encoding.value}
            | {f"image/{k}": v for k, v in size.items()}
            for data in encoded
        ]
        path.write_bytes(b"".join(tfrecord.frame_record(tfrecord.encode_example(item)) for item in features))
    else:
        for row, data in zip(rows, encoded, strict=True):
            picture = out / "images" / images.picture_path(row)
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.write_bytes(data)


def rewrite_table(out: Path, rows: list[InstanceRow]) -> None:
    """Replace instances.parquet behind the manifest's back."""
    with (out / "instances.parquet").open("wb") as file:
        write_instances(file, rows, LABELS)


def config(**fields: object) -> ResultConfig:
    return ResultConfig.model_validate({"height": 64, "width": 32, **fields})


def thumbnail(source: str) -> Thumbnail:
    return Thumbnail(source, encode((breast(60, 40, 1) >> 8).astype(np.uint8)), 0.1, 0.0, 0.8, 0.5)


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.S)))


def test_report_accounts_for_every_input(tmp_path: Path) -> None:
    make_dataset(tmp_path, config())
    text = text_of(write_report(tmp_path).read_text())
    assert "24 prepared + 4 rejected + 1 duplicate = 29 found" in text
    assert "✓" in text
    assert "7 other files ignored" in text


def test_report_says_so_when_the_manifest_counts_otherwise(tmp_path: Path) -> None:
    rows = make_dataset(tmp_path, config())
    rewrite_table(tmp_path, rows[1:])
    text = text_of(write_report(tmp_path).read_text())
    assert "✗" in text
    assert "the manifest says 29" in text


def test_report_is_self_contained_and_runs_no_script(tmp_path: Path) -> None:
    rows = make_dataset(tmp_path, config())
    page = write_report(tmp_path, thumbnails=[thumbnail(rows[0].source)]).read_text()
    assert not re.search(r"https?://|<script|<link|@import|url\(|\son\w+=", page)
    assert all(
        uri.startswith(("data:image/png;base64,", "#")) for uri in re.findall(r'(?:src|href)="([^"]*)"', page)
    )


def test_header_text_is_escaped(tmp_path: Path) -> None:
    make_dataset(tmp_path, config())
    page = write_report(tmp_path).read_text()
    assert "MAKER &lt;A&amp;B&gt;" in page
    assert "MAKER <A&B>" not in page


def test_rejects_are_explained_with_their_remedy(tmp_path: Path) -> None:
    make_dataset(tmp_path, config())
    text = text_of(write_report(tmp_path).read_text())
    known = REJECT_CODES["codestream_truncated"]
    assert known.meaning in text
    assert known.remedy in text
    assert "bad/1.dcm needs 1 bytes" in text
    assert "structured_report not an image" in text


@pytest.mark.parametrize("kind", list(Format))
@pytest.mark.parametrize("encoding", list(Encoding))
def test_contact_sheet_shows_the_prepared_pixels(tmp_path: Path, kind: Format, encoding: Encoding) -> None:
    if kind is Format.PNG and encoding is Encoding.RAW:
        encoding = Encoding.PNG
    make_dataset(tmp_path, config(formats=[kind], encoding=encoding))
    page = write_report(tmp_path).read_text()
    uris = re.findall(r'class="prepared" alt="prepared" src="data:image/png;base64,([^"]+)"', page)
    expected = {encode((breast(64, 32, number) >> 8).astype(np.uint8)) for number in range(24)}
    assert {base64.b64decode(uri) for uri in uris} == expected


def test_a_damaged_shard_leaves_its_pictures_out_and_nothing_else(tmp_path: Path) -> None:
    make_dataset(tmp_path, config())
    shard = tmp_path / "fold=1" / "part-00000.tfrecord"
    data = bytearray(shard.read_bytes())
    data[40] ^= 1
    shard.write_bytes(data)
    page = write_report(tmp_path).read_text()
    assert page.count('class="prepared"') == 16
    assert page.count('<article class="card">') == 24


def test_drawing_again_keeps_the_originals(tmp_path: Path) -> None:
    rows = make_dataset(tmp_path, config())
    shown = [thumbnail(row.source) for row in rows[:3]]
    first = write_report(tmp_path, thumbnails=shown).read_bytes()
    assert read_thumbnails(tmp_path / "report.html") == tuple(sorted(shown, key=lambda item: item.source))
    assert write_report(tmp_path).read_bytes() == first


def test_an_original_without_a_row_is_never_shown(tmp_path: Path) -> None:
    make_dataset(tmp_path, config(identifiers="hash"))
    page = write_report(tmp_path, thumbnails=[thumbnail("Doe_Jane/secret.dcm")]).read_text()
    assert "secret" not in page
    assert 'alt="original"' not in page


def test_hashed_datasets_hide_pictures_with_burned_in_annotation(tmp_path: Path) -> None:
    rows = make_dataset(tmp_path, config(identifiers="hash"), count=4)
    marked = [replace(row, burned_in_annotation="YES" if row.image_id == "2" else "NO") for row in rows]
    rewrite_table(tmp_path, marked)
    page = write_report(tmp_path, thumbnails=[thumbnail(row.source) for row in marked]).read_text()
    assert page.count('<article class="card">') == 3
    assert 'data-source="train_images/p70/2.dcm"' not in page


def test_folds_tell_positives_and_leaks(tmp_path: Path) -> None:
    make_dataset(tmp_path, config())
    text = text_of(write_report(tmp_path).read_text())
    assert "0 patients in more than one fold" in text
    assert "all 6 24 100.0 % 3 3 (12.5 %)" in text


def test_a_damaged_run_json_costs_the_timings_only(tmp_path: Path) -> None:
    make_dataset(tmp_path, config())
    (tmp_path / "run.json").write_text("{ broken")
    text = text_of(write_report(tmp_path).read_text())
    assert "Throughput" not in text
    assert "24 prepared" in text


def test_a_dataset_of_rejects_only_still_has_a_report(tmp_path: Path) -> None:
    rows = make_dataset(tmp_path, config())
    finish_dataset(tmp_path, config(), [row for row in rows if row.status is Status.REJECTED])
    text = text_of(write_report(tmp_path).read_text())
    assert "0 prepared + 4 rejected + 0 duplicate = 4 found" in text


def test_a_folder_without_a_dataset_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"manifest\.json"):
        write_report(tmp_path)


def test_every_chart_is_well_formed(tmp_path: Path) -> None:
    make_dataset(tmp_path, config())
    drawings = re.findall(r"<svg .*?</svg>", write_report(tmp_path).read_text(), flags=re.S)
    assert len(drawings) > 10
    for drawing in drawings:
        assert len(list(ElementTree.fromstring(drawing).iter())) > 1


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
@settings(max_examples=50, deadline=None)
def test_ticks_lie_inside_and_are_few(low: float, span: float) -> None:
    found = report_charts.ticks(low, low + span)
    assert len(found) <= 8
    assert all(low - span * 1e-6 <= tick <= low + span * 1.000001 for tick in found)


def test_a_few_spikes_do_not_flatten_a_histogram() -> None:
    usual, spiky = [10.0] * 64, [900.0] + [10.0] * 63
    assert report_charts.cut_off(usual) == (0, 0.0)
    assert report_charts.cut_off(spiky) == (1, 900 / 1530)
    assert report_charts.cut_off([]) == (0, 0.0)


def test_card_has_front_matter_counts_and_loaders(tmp_path: Path) -> None:
    make_dataset(tmp_path, config(formats=["tfrecord", "parquet"]))
    write_report(tmp_path)
    _, front, body = (tmp_path / "dataset_card.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["configs"][0]["data_files"][0]["path"] == "fold=*/*.parquet"
    assert "| found | 29 |" in body
    assert "| cancer | breast | int64 | 24 | 3 (12.5 %) |" in body
    assert all(f"| `{name}` |" in body for name in COLUMN_NAMES)
    for block in re.findall(r"```python\n(.*?)```", body, flags=re.S):
        compile(block, "card", "exec")


def test_card_names_no_single_input(tmp_path: Path) -> None:
    rows = make_dataset(tmp_path, config())
    write_report(tmp_path)
    card = (tmp_path / "dataset_card.md").read_text()
    assert not [row.source for row in rows if row.source in card or (row.patient_id or "?") in card]


def test_card_describes_exactly_the_columns_there_are() -> None:
    assert tuple(COLUMN_MEANINGS) == COLUMN_NAMES


def test_docs_list_exactly_the_columns_there_are() -> None:
    section = (DOCS / "dataset.md").read_text().split("## instances.parquet\n")[1].split("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+) \|$", section, flags=re.M)
    assert [(name, meaning) for name, _, meaning in listed] == list(COLUMN_MEANINGS.items())
    words = {"string": "text", "double": "float64"}
    types = [words.get(str(field.type), str(field.type)) for field in arrow_schema()]
    assert [kind for _, kind, _ in listed] == types


def test_docs_list_exactly_the_reject_codes_there_are() -> None:
    assert (DOCS / "reject-codes.md").read_text() == reject_codes_markdown()


def test_thumbnails_survive_a_folder(tmp_path: Path) -> None:
    some = [thumbnail(f"träin/{name}.dcm") for name in "ba"]
    for item in some:
        save(item, tmp_path / "thumbnails")
    assert load(tmp_path / "thumbnails") == tuple(reversed(some))
    assert load(tmp_path / "absent") == ()


def sources(count: int) -> list[SourceFile]:
    return [
        SourceFile(
            f"train/{number}.dcm", f"/x/{number}",
            identity=Identity(site_id="1", machine_id=str(number % 50 == 7)),
            labels=(Label("cancer", int(number % 40 == 0)),),
        )
        for number in range(count)
    ]  # fmt: skip


def test_contact_sheet_takes_positives_and_rare_machines() -> None:
    chosen = contact_sources(sources(400), 12)
    positive = [source for source in chosen if source.labels[0].value == 1]
    assert len(chosen) == 12
    assert len(positive) == 6
    assert sum(source.identity.machine_id == "True" for source in chosen) >= 3


@given(st.permutations(range(30)), st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_contact_sheet_does_not_depend_on_the_order_of_inputs(order: list[int], wanted: int) -> None:
    every = sources(30)
    chosen = contact_sources([every[place] for place in order], wanted)
    assert chosen == contact_sources(every, wanted)
    assert len(chosen) == min(30, wanted)


def test_dataset_reads_sizes_and_config(tmp_path: Path) -> None:
    make_dataset(tmp_path, config())
    dataset = read_dataset(tmp_path)
    assert dataset.shard_bytes == 1500
    assert [dataset.count(status) for status in Status] == [24, 4, 1]
    assert dataset.config == config()
