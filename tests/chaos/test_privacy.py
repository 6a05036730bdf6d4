"""Canaries in every text-valued element: none in any byte of output, state, log, report or traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from preprocess import cli, report_task, runner
from preprocess.config import ExecutionConfig, Format, Identifiers, PrepConfig, ResultConfig
from preprocess.executors.base import Task
from preprocess.planning import RunRequest
from preprocess.progress import Lines
from preprocess.report import write_report
from preprocess.verify import verify
from tests.chaos.canaries import (
    HASHED,
    IMPLICIT,
    J2K,
    JPEG_LOSSLESS,
    KEPT,
    MARK,
    Patient,
    canary,
    file,
    find,
    jpeg_2000,
    jpeg_lossless,
    leaks,
)
from tests.inline import InlineExecutor
from tests.preprocess.dicom_maker import Elements, sq, text, us

FULL = os.environ.get("BCD_CHAOS") == "full"
ROOT = Path(__file__).resolve().parents[2]
PIXELS, SOP_CLASS, WIDTH = 0x7FE00010, 0x00080016, 0x00281051
IMAGE = (PIXELS, 0x00280004, 0x00280010, 0x00280011, 0x00280100)
STORAGE = "1.2.840.10008.5.1.4.1.1."

REJECTS: dict[str, Elements] = {
    "structured_report": {SOP_CLASS: text("UI", STORAGE + "88.11"), PIXELS: None},
    "presentation_state": {SOP_CLASS: text("UI", STORAGE + "11.1"), PIXELS: None},
    "non_image": {SOP_CLASS: text("UI", STORAGE + "104.1"), **dict.fromkeys(IMAGE)},
    "no_pixel_data": {PIXELS: None},
    "float_pixel_data": {PIXELS: None, 0x7FE00008: ("OF", b"\0" * 64)},
    "color": {0x00280004: text("CS", canary(9300))},
    "multi_frame": {0x00280008: text("IS", "7")},
    "missing_attribute": {0x00280010: None},
    "invalid_attribute": {0x00280008: text("IS", canary(9301))},
    "unsupported_bits": {0x00280100: us(32)},
    "too_many_pixels": {0x00280010: us(60000), 0x00280011: us(60000)},
    "pixel_data_length": {PIXELS: ("OW", b"\1\2" * 20)},
    "invalid_voi": {0x00281053: text("DS", canary(9302))},
    "blank_image": {PIXELS: ("OW", b"\0" * (96 * 64 * 2))},
    "modality": {0x00080060: text("CS", canary(9303))},
    "burned_in_annotation": {0x00280301: text("CS", "YES")},
    "internal_error": {0x00080068: text("CS", "FOR PROCESSING")},
}


def make(folder: Path) -> dict[str, set[str]]:
    """An input folder; for each code, or `prepared` and `duplicate`, the names of its files."""
    there: dict[str, set[str]] = {}
    number = iter(range(1, 1000))

    def put(code: str, data: bytes, name: str = "") -> None:
        name = name or f"KEEPXPATH{next(number)}.dcm"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        there.setdefault(code, set()).add(name)

    put("prepared", file(Patient("A", 1)))
    put("duplicate", file(Patient("A", 1)) + b"\0\0", "KEEPXPATH/again.dcm")
    put("prepared", file(Patient("B", 2), J2K, jpeg_2000()))
    put("prepared", file(Patient("B", 3), JPEG_LOSSLESS, jpeg_lossless()))
    put("prepared", file(Patient("C", 4), IMPLICIT))
    put("prepared", file(Patient("D", 5), "1.2.840.10008.1.2.1.99"))
    put("prepared", file(Patient("E", 6, {0x00185101: text("CS", "SMITH")})))
    for place, (code, changes) in enumerate(REJECTS.items()):
        put(code, file(Patient("R", 100 + place, changes)))
    whole = file(Patient("T", 200))
    put("not_dicom", canary(9305).encode() * 300)
    put("corrupt_header", whole[:60_000])
    put("unsupported_transfer_syntax", file(Patient("T", 201), canary(9306)))
    put("codestream_invalid", file(Patient("T", 202), J2K, canary(9307).encode() * 99))
    put("codestream_truncated", file(Patient("T", 203), J2K, jpeg_2000()[:-2000]))
    put("sequence_too_deep", file(Patient("T", 204, {0x00400275: _deep()})))
    return there


def _deep() -> tuple[str, bytes]:
    nested = sq({0x00100010: text("PN", canary(9308))})
    for _ in range(40):
        nested = sq({0x00400275: nested})
    return nested


def _labels(folder: Path) -> Path:
    """A label table that also says what nobody may know."""
    rows = [
        f"KEEPXID{who},1,{canary(9400)}^Jane,19431107,{canary(9401)} {'free text ' * 30}" for who in "ABCDE"
    ]
    path = folder / "labels.csv"
    path.write_text("patient_id,cancer,patient_name,birth_date,finding\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, set[str]], Path]:
    folder = tmp_path_factory.mktemp("canaries")
    return folder / "KEEPXPATHin", make(folder / "KEEPXPATHin"), _labels(folder)


class Watching(InlineExecutor):
    """Runs tasks here, and searches OUT whenever an item is begun: in the middle of shards."""

    out: Path
    marks: tuple[bytes, ...]
    looks: int

    def run(self, tasks: Iterable[Task[object]]) -> Iterator[object]:  # type: ignore[override]
        for task in tasks:
            yield task.run(self.look)

    @classmethod
    def look(cls, index: int | None = None) -> None:
        cls.looks += 1
        if index is None or FULL or (index == 1 and cls.looks % 2):
            assert leaks(cls.out, cls.marks) == []


def watched(
    inputs: tuple[Path, dict[str, set[str]], Path], out: Path, identifiers: Identifiers, monkeypatch
) -> None:
    """A run that is searched while it is under way, state and thumbnails included."""
    marks = (MARK,) if identifiers is Identifiers.KEEP else (MARK, *HASHED)
    monkeypatch.setattr(Watching, "out", out, raising=False)
    monkeypatch.setattr(Watching, "marks", marks, raising=False)
    monkeypatch.setattr(Watching, "looks", 0, raising=False)
    monkeypatch.setattr(runner, "LocalExecutor", Watching)
    seen = []

    def drawn(place: Path, **given: object) -> Path:
        state = {path.name for path in (out / ".bcd").rglob("*") if path.is_file()}
        seen.append(any(name.endswith(".png") for name in state))
        Watching.look()
        return write_report(place, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(report_task, "write_report", drawn)
    result = ResultConfig(
        height=48, width=32, formats=tuple(Format), shard_images=4, folds=2, identifiers=identifiers,
        roi_detector="tests.chaos.leaky:detect", burned_in="reject", modality="MG",
    )  # fmt: skip
    config = PrepConfig(result=result, execution=ExecutionConfig(workers=1, max_rejected="100%"))
    runner.run(RunRequest((str(inputs[0]),), out, labels=str(inputs[2]), config=config), Lines())
    assert seen == [True]
    assert Watching.looks > 20


@pytest.mark.parametrize("identifiers", list(Identifiers))
def test_no_canary_is_in_any_byte_that_a_run_writes_at_any_time(
    inputs: tuple[Path, dict[str, set[str]], Path],
    tmp_path: Path,
    identifiers: Identifiers,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    watched(inputs, out, identifiers, monkeypatch)
    marks = (MARK,) if identifiers is Identifiers.KEEP else (MARK, *HASHED)
    assert leaks(tmp_path, marks) == []
    said = capfd.readouterr()
    assert find((said.out + said.err).encode(), marks) == []
    assert verify(out).status == "whole"
    table = pd.read_parquet(out / "instances.parquet")
    outcomes = table.groupby(table.reject_code.fillna(table.status)).size()
    assert dict(outcomes) == {code: len(names) for code, names in inputs[1].items()}
    assert set(table.manufacturer.dropna()) == {KEPT["maker"]}  # the search sees what is there
    assert leaks(out, (KEPT["maker"].encode(),))
    assert bool(leaks(out, (KEPT["id"].encode(),))) is (identifiers is Identifiers.KEEP)
    assert table.columns[-1] == "cancer"


@pytest.mark.parametrize("log_format", ["text", "json"] if FULL else ["json"])
def test_workers_and_commands_say_no_canary(
    inputs: tuple[Path, dict[str, set[str]], Path], tmp_path: Path, log_format: str
) -> None:
    archive = tmp_path / "KEEPXPATH.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(inputs[0].rglob("*.dcm"))[: None if FULL else 8]:
            packed.write(path, f"KEEPXPATH/{path.name}")
    out = tmp_path / "out"
    words = ["run", str(archive), "--out", str(out), "--size", "48x32", "--identifiers", "hash"]
    words += ["--roi-detector", "tests.chaos.leaky:detect", "--format", "png", "--format", "parquet"]
    words += ["--log-format", log_format, "--workers", "2" if FULL else "1", "--max-rejected", "100%"]
    marks = (MARK, *HASHED)
    done = subprocess.run(
        [sys.executable, "-W", "always", "-X", "faulthandler", "-m", "preprocess.cli", *words],
        cwd=ROOT, capture_output=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert find(done.stdout + done.stderr, marks) == []
    assert leaks(out, marks) == []
    assert (tmp_path / "out.key").stat().st_mode & 0o777 == 0o600
    if FULL:
        words = ["verify", str(out), "--source", str(archive), "--sample", "9"]
        checked = CliRunner().invoke(cli.main, words)
        assert checked.exit_code == 0, checked.output
        assert find(checked.output.encode(), marks) == []


def test_inspect_shows_no_canary_and_no_id(inputs: tuple[Path, dict[str, set[str]], Path]) -> None:
    names = sorted(name for names in inputs[1].values() for name in names)
    for name in names if FULL else names[::4]:
        shown = CliRunner().invoke(cli.main, ["inspect", str(inputs[0] / name), "--no-draw"])
        assert find(shown.output.encode(), (MARK, KEPT["id"].encode(), HASHED[1])) == []
        assert shown.exit_code in (0, 1)


def test_a_fault_of_the_driver_is_told_by_places_without_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(*_: object) -> None:
        raise ValueError("".join(("QXK", "ZV9500^JANE")))  # in parts: source lines may be shown

    monkeypatch.setattr(runner, "make_plan", fault)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    (tmp_path / "in").mkdir()
    done = CliRunner().invoke(cli.main, ["run", str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, ValueError)
    sys.excepthook(ValueError, done.exception, done.exception.__traceback__)  # as Python does at the end
    told = capsys.readouterr().err
    assert "ValueError" in told
    assert find((told + done.output).encode(), (MARK,)) == []


def test_an_error_of_the_disk_names_no_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> None:
        raise PermissionError(13, "Permission denied", f"/data/{canary(9501)}/1.dcm")

    monkeypatch.setattr(runner, "make_plan", fault)
    (tmp_path / "in").mkdir()
    done = CliRunner().invoke(cli.main, ["run", str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "Permission denied" in done.output
    assert find(done.output.encode(), (MARK,)) == []


def test_an_ambiguous_label_table_is_refused_without_naming_patients(
    inputs: tuple[Path, dict[str, set[str]], Path], tmp_path: Path
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("patient_id,cancer\nKEEPXIDA,1\nKEEPXIDA,0\n")
    words = ["run", str(inputs[0]), "--labels", str(table), "--out", str(tmp_path / "out"), "--dry-run"]
    done = CliRunner().invoke(cli.main, words)
    assert done.exit_code == 2
    assert "rows 2 and 3" in done.output
    assert KEPT["id"] not in done.output


def test_the_search_finds_what_is_hidden() -> None:
    hidden = [
        b"qxkzv1", "QXKZV1".encode("utf-16-le"), b"%51XKZV1", rb"\u0051XKZV1", b"&#81;XKZV1",
        json.dumps({"a": "QXKZV1"}).encode(), b"51584B5A56", b"UVhLWlY=", b"AFFYS1pW",
    ]  # fmt: skip
    for data in hidden:
        assert find(b"before " + data + b" after", (MARK,)), data
