"""The same pixels under several patients are told, in manifest, report and at the end of a run."""

from __future__ import annotations

import dataclasses
import itertools
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from bench.phantom_dicom import SYNTAXES, DicomSpec, write_dicom
from preprocess import runner
from preprocess.config import ExecutionConfig, Identifiers, PrepConfig, ResultConfig
from preprocess.leakage import MOST_SOURCES, find_leakage, summary
from preprocess.manifest import read_manifest
from preprocess.planning import RunRequest
from preprocess.progress import Lines
from preprocess.records import Status
from preprocess.schema import InstanceRow
from tests.inline import InlineExecutor

ROW = InstanceRow(
    source="", status=Status.PREPARED, decode_level=0, rows=9, columns=9, bits_stored=12, fold=0
)  # fmt: skip


def row(name: str, patient: str, decoded: str, prepared: str, **changes: object) -> InstanceRow:
    known = dataclasses.replace(
        ROW, source=name, patient_id=patient, decoded_sha256=decoded, pixels_sha256=prepared
    )
    return dataclasses.replace(known, **changes)  # type: ignore[arg-type]


def test_groups_are_told_once_by_what_is_strongest() -> None:
    rows = [
        row("a", "1", "d1", "p1"),
        row("b", "2", "d1", "p1", fold=1),  # equal in both: told as decoded
        row("c", "3", "d2", "p2"),
        row("d", "4", "d3", "p2"),  # equal only after processing
        row("e", "5", "d4", "p4"),
        row("f", "5", "d4", "p5"),  # one patient's
        row("g", "6", "d5", "p6", decode_level=1),
        row("h", "7", "d5", "p7", decode_level=0),  # other levels
        row("i", "8", "d6", "p8"),
        row("j", "9", "d6", "p8", status=Status.DUPLICATE),
        row("k", "10", "d7", "p9"),
    ]
    groups = find_leakage(rows)
    assert [(g.same, g.sha256, g.images, g.patients, g.folds, g.sources) for g in groups] == [
        ("decoded", "d1", 2, 2, (0, 1), ("a", "b")),
        ("prepared", "p2", 2, 2, (0,), ("c", "d")),
    ]
    for order in itertools.islice(itertools.permutations(rows), 0, 5000, 997):
        assert find_leakage(order) == groups
    assert summary(groups) == (
        "possible leakage: 4 images share their pixels with another patient's"
        " (2 groups, 1 of them across folds); see possible_leakage in manifest.json"
    )


def test_nothing_to_tell_is_not_told() -> None:
    assert find_leakage([row("a", "1", "d1", "p1"), row("b", "2", "d2", "p2")]) == ()
    assert summary(()) is None


def test_a_large_group_names_its_first_sources_and_counts_all() -> None:
    rows = [row(f"{n:04d}", str(n), "d", "p") for n in range(MOST_SOURCES + 7)]
    (group,) = find_leakage(rows[::-1])
    assert (group.images, group.patients) == (MOST_SOURCES + 7, MOST_SOURCES + 7)
    assert group.sources == tuple(f"{n:04d}" for n in range(MOST_SOURCES))
    assert "or more" in (summary((group,)) or "")


def picture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:96, :64]
    disc = (row - 48) ** 2 / 40**2 + column**2 / 40**2 < 1
    return (rng.integers(0, 50, (96, 64)) + 2000 * disc).astype(np.uint16)


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """One picture under three patients and in two syntaxes, and another one."""
    for number, (seed, syntax) in enumerate(
        [(1, "explicit"), (1, "rle"), (1, "jpeg-lossless-sv1"), (2, "explicit")]
    ):
        spec = DicomSpec(
            transfer_syntax_uid=SYNTAXES[syntax],
            bits_stored=12,
            patient_id=f"P{number}",
            instance=f"i{number}",
        )
        write_dicom(tmp_path / "in" / f"<b>{number}.dcm", picture(seed), spec)
    return tmp_path / "in"


def test_a_run_tells_of_copies_under_other_patients_and_removes_nothing(
    copies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "LocalExecutor", InlineExecutor)
    manifests = {}
    for identifiers in Identifiers:
        out = tmp_path / identifiers.value
        result = ResultConfig(height=48, width=32, identifiers=identifiers)
        config = PrepConfig(result=result, execution=ExecutionConfig(workers=1))
        told = runner.run(RunRequest((str(copies),), out, config=config), Lines())
        assert (told.prepared, told.rejected, told.duplicate) == (4, 0, 0)
        assert "possible leakage: 3 images" in capsys.readouterr().err
        manifests[identifiers] = read_manifest(out)
    (group,) = manifests[Identifiers.KEEP].possible_leakage
    assert (group.same, group.images, group.patients) == ("decoded", 3, 3)
    assert group.sources == ("<b>0.dcm", "<b>1.dcm", "<b>2.dcm")
    (hashed,) = manifests[Identifiers.HASH].possible_leakage
    assert (hashed.images, hashed.patients, len(hashed.sources)) == (3, 3, 3)
    assert not set(hashed.sources) & set(group.sources)
    page = Sections()
    page.feed((tmp_path / "keep" / "report.html").read_text())
    assert {"<b>0.dcm", "<b>1.dcm", "<b>2.dcm"} <= set(page.text_of["leakage"])


class Sections(HTMLParser):
    """Texts by the section that they are in."""

    def __init__(self) -> None:
        super().__init__()
        self.section, self.text_of = "", {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "section":
            self.section = dict(attrs).get("id") or ""

    def handle_data(self, data: str) -> None:
        self.text_of.setdefault(self.section, []).append(data.strip())
