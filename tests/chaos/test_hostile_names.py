"""Ids, paths, archive members, labels and their names that want out: nothing leaves OUT, nothing collides."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import unicodedata
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from bench.phantom_dicom import DicomSpec, dicom_bytes
from preprocess import runner
from preprocess.config import ExecutionConfig, Format, Identifiers, PrepConfig, ResultConfig
from preprocess.images import safe_component
from preprocess.manifest import read_manifest
from preprocess.planning import RunRequest
from preprocess.reading import read_images
from preprocess.runner import RunSummary
from preprocess.verify import verify
from tests.inline import InlineExecutor
from tests.preprocess.dicom_maker import EXPLICIT, Elements, elements_bytes, file_of, image, text

FULL = os.environ.get("BCD_CHAOS") == "full"

IDS = [
    "..", ".", "../../../../tmp/evil", "/etc/passwd", "..\\..\\evil", "C:\\evil", "C:", "\\\\host\\share",
    "//host/x", "a\0b", "a", "A", "ab", "x" * 300, "x" * 301, "x" * 64, "con", "NUL.txt", "com1",
    "trailing.", "trailing..", ".hidden", "-rf", "~", "~root", "$HOME", "`id`", "%2e%2e%2f", "%2E%2E/",
    "%00", "a%2Fb", "a/b", "a\\b", "a:b", "a%3Ab", "pat\u0430", "pata", "\u202egnp.exe", "gnp.exe",
    "zero\u200bwidth", "zerowidth", "line\nbreak", "line break", "tab\tbed", "\x1b[31mred",
    "\N{PILE OF POO}", "\N{FAMILY}\u200d\N{BOY}", "e\u0301te", "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>", "' onmouseover='alert(1)", "{{7*7}}", "{% raw %}",
    "javascript:alert(1)", "=cmd|' /C calc'!A0", "--", "*", "?", "fold=0", "images",
    "part-00000.tfrecord", "manifest.json", ".bcd", "\ufeffbom", "\N{LATIN SMALL LETTER DOTLESS I}",
    "\N{ANGSTROM SIGN}", "OUT.key",
]  # fmt: skip
SOME = IDS if FULL else IDS[::4]
LABELS = {
    "cancer": ["0", "1"],
    "../up": ["../../x", "/etc/x"],
    "<script>alert(2)</script>": ["<img src=x onerror=1>", "</td><script>alert(3)</script>"],
    "pipe|`tick`\nnewline": ["a|b", "c\nd"],
    "quote\"'": ['"', "'"],
    "image/encoded": ["not an image", "nor this"],
    "image/height": ["1", "2"],
    "__proto__": ["x", "y"],
    "n" * 300: ["1", "2"],
    "\u202ereversed": ["\u202ea", "b"],
    "{{7*7}}": ["{{7*7}}", "49"],
    "Fold": ["9", "8"],
}


def picture(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    row, column = np.mgrid[:48, :32]
    return (rng.integers(0, 60, (48, 32)) + 2000 * ((row - 24) ** 2 + column**2 < 400)).astype(np.uint16)


def run(tmp_path: Path, *inputs: Path, labels: Path | None = None, **result: object) -> RunSummary:
    out = tmp_path / "world" / "out"
    known = {"height": 32, "width": 24, "formats": tuple(Format), "folds": 2, "shard_images": 16}
    config = PrepConfig(
        result=ResultConfig(**{**known, **result}),  # type: ignore[arg-type]
        execution=ExecutionConfig(workers=1, max_rejected="100%"),
    )
    request = RunRequest(tuple(map(str, inputs)), out, str(labels) if labels else None, config=config)
    return runner.run(request)


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, so that relative paths that escape are seen; nothing outside OUT may change."""
    monkeypatch.setattr(runner, "LocalExecutor", InlineExecutor)
    (tmp_path / "world" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "world" / "here")
    return tmp_path


def snapshot(tmp_path: Path) -> dict[bytes, str]:
    """Every file and folder with its content, but OUT and its key."""
    there = {}
    for folder, folders, files in os.walk(os.fsencode(tmp_path)):
        if folder == os.fsencode(tmp_path / "world"):
            folders[:] = [name for name in folders if name != b"out"]
            files = [name for name in files if name != b"out.key"]
        there[folder] = "folder"
        for name in files:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                there[path] = hashlib.sha256(file.read()).hexdigest()
    return there


def check(tmp_path: Path, summary: RunSummary) -> pd.DataFrame:
    """Everything is accounted for, in OUT, readable, and nobody's picture is another's."""
    out = tmp_path / "world" / "out"
    report = verify(out)
    assert (report.status, report.problems) == ("whole", ())
    table = pd.read_parquet(out / "instances.parquet")
    assert len(table) == summary.found == summary.prepared + summary.rejected + summary.duplicate
    assert table.source.is_unique
    pictures = [path for path in (out / "images").rglob("*") if path.is_file()]
    assert len(pictures) == summary.prepared == len(list(read_images(out)))
    assert all(path.resolve().is_relative_to(out.resolve()) and not path.is_symlink() for path in pictures)
    assert all(
        len(name) <= 110 and name.isascii() for path in pictures for name in path.relative_to(out).parts
    )
    for source in table.source:
        assert source.isprintable()
        assert not source.startswith("/")
        assert not {"..", ".", ""} & set(re.split("/|::", source))
    check_report(out)
    return table


class Page(HTMLParser):
    """Tags and attributes as a browser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links |= {(value or "")[:15] for name, value in attrs if name in ("src", "href")}


def check_report(out: Path) -> None:
    page = Page()
    page.feed((out / "report.html").read_text(encoding="utf-8"))
    assert not page.tags & {"script", "iframe", "object", "embed", "form", "input", "link", "base", "a-b"}
    assert not [name for name in page.attributes if name.startswith("on")]
    assert all(link.startswith(("#", "data:image/png;")) for link in page.links)
    card = (out / "dataset_card.md").read_text(encoding="utf-8")
    assert "<script" not in card
    assert "<img" not in card
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert code
    for program in code:
        compile(program, "card", "exec")


@pytest.mark.parametrize("identifiers", list(Identifiers) if FULL else [Identifiers.KEEP])
def test_hostile_ids_in_headers(tmp_path: Path, identifiers: Identifiers) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    expected = set()
    for number, name in enumerate(IDS):
        raw = name.encode()
        changes: Elements = {
            0x00080005: text("CS", "ISO_IR 192"),
            0x00100020: ("LO", raw + b" " * (len(raw) % 2)),
            0x00080018: ("UI", raw + b"\0" * (len(raw) % 2)),
            0x0020000D: ("UI", raw + b"\0" * (len(raw) % 2)),
            0x00280101: ("US", (12 + number % 2).to_bytes(2, "little")),
            0x7FE00010: ("OW", np.arange(number, number + 24, dtype="<u2").tobytes()),
        }
        (folder / f"f{number}.dcm").write_bytes(file_of(elements_bytes(image(changes)), EXPLICIT))
        expected.add(name.strip(" \0\t\r\n"))
    before = snapshot(tmp_path)
    summary = run(tmp_path, folder, identifiers=identifiers)
    assert snapshot(tmp_path) == before
    table = check(tmp_path, summary)
    assert summary.prepared == len(IDS)
    assert table.patient_id.nunique() == len(expected)


@pytest.mark.parametrize("layout", ["train_images", "flat"])
def test_hostile_file_and_folder_names(tmp_path: Path, layout: str) -> None:
    folder = tmp_path / "in"
    names = {name.replace("/", "_").replace("\0", "_")[:200] for name in SOME} - {".", ".."}
    raw = [os.fsencode(name) for name in sorted(names)] + [b"\xff\xfe", b"\xff", b"caf\xe9", b"\xc3\xa9\xff"]
    for number, name in enumerate(raw):
        inner = (b"train_images", name) if layout == "train_images" else (b"p",)
        place = os.path.join(os.fsencode(folder), *inner)
        os.makedirs(place, exist_ok=True)
        spec = DicomSpec(
            transfer_syntax_uid=ExplicitVRLittleEndian, patient_id=f"p{number}", instance=str(number)
        )
        with open(os.path.join(place, name + b".dcm"), "wb") as file:
            file.write(dicom_bytes(picture(number), spec))
    before = snapshot(tmp_path)
    table = check(tmp_path, run(tmp_path, folder))
    assert snapshot(tmp_path) == before
    assert set(table.status) == {"prepared"}
    assert table.patient_id.nunique() == len(raw)


def test_hostile_zip_members(tmp_path: Path) -> None:
    path = tmp_path / "in" / "evil ..\\x\n.zip"
    path.parent.mkdir()
    names = [f"{name}{ending}".partition("\0")[0] for name in SOME for ending in ("", ".dcm")]
    with zipfile.ZipFile(path, "w") as packed:
        for number, name in enumerate(dict.fromkeys(names)):
            spec = DicomSpec(patient_id=f"p{number}", instance=str(number))
            packed.writestr(zipfile.ZipInfo(name), dicom_bytes(picture(number), spec))
    before = snapshot(tmp_path)
    summary = run(tmp_path, path)
    assert snapshot(tmp_path) == before
    table = check(tmp_path, summary)
    assert summary.prepared >= len(SOME)
    assert table[table.status == "prepared"].patient_id.nunique() == summary.prepared


def test_hostile_label_names_and_values(tmp_path: Path) -> None:
    folder, table = tmp_path / "in", tmp_path / "labels.csv"
    folder.mkdir()
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["patient_id", *LABELS])
        for number in range(4):
            writer.writerow([f"p{number}", *(values[number % 2] for values in LABELS.values())])
            spec = DicomSpec(patient_id=f"p{number}", instance=str(number))
            (folder / f"{number}.dcm").write_bytes(dicom_bytes(picture(number), spec))
    before = snapshot(tmp_path)
    found = check(tmp_path, run(tmp_path, folder, labels=table))
    assert snapshot(tmp_path) == before
    names = {label.name for label in read_manifest(tmp_path / "world" / "out").labels}
    assert names == set(LABELS) - {"image/encoded", "image/height"}
    assert set(found["../up"]) == {"../../x", "/etc/x"}
    assert json.dumps(sorted(found["cancer"])) == "[0, 0, 1, 1]"


def test_every_component_is_safe_and_different_names_never_share_one() -> None:
    made = {}
    for name in [
        *IDS,
        *(unicodedata.normalize("NFD", one) for one in IDS),
        *map(safe_component, IDS),
        "",
        "\udcff",
    ]:
        made.setdefault(name, safe_component(name))
    assert len(set(made.values())) == len(made)
    for component in made.values():
        assert re.fullmatch(r"[A-Za-z0-9_%-][A-Za-z0-9_.%-]{0,99}", component)
        assert not component.endswith(".")
        assert not re.match(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", component, re.IGNORECASE)
