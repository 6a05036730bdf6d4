"""The key of --identifiers hash: made once, whole, private, outside OUT, and never mixed up with another."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from bench.phantom_dicom import SYNTAXES, DicomSpec, write_dicom
from preprocess import identifiers, runner
from preprocess.checking import compare_with_source
from preprocess.config import ExecutionConfig, Identifiers, PrepConfig, ResultConfig
from preprocess.errors import RunAborted, UsageError
from preprocess.identifiers import Pseudonyms
from preprocess.manifest import read_manifest
from preprocess.planning import RunRequest
from preprocess.runner import RunSummary
from tests.inline import InlineExecutor
from tests.preprocess.test_leakage import picture

HASH = Identifiers.HASH


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LocalExecutor", InlineExecutor)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    for number in range(4):
        spec = DicomSpec(
            transfer_syntax_uid=SYNTAXES["explicit"], patient_id=f"P{number}", instance=f"i{number}"
        )
        write_dicom(tmp_path / "in" / f"{number}.dcm", picture(number), spec)
    return tmp_path / "in"


def run(inputs: Path, out: Path, *, limit: int | None = None, **execution: object) -> RunSummary:
    result = ResultConfig(height=48, width=32, identifiers=HASH, shard_images=1, folds=2, limit=limit)
    config = PrepConfig(result=result, execution=ExecutionConfig(workers=1, **execution))  # type: ignore[arg-type]
    return runner.run(RunRequest((str(inputs),), out, config=config))


def bytes_of(out: Path) -> dict[str, str]:
    files = [
        path for path in out.rglob("*") if path.is_file() and path.name not in ("run.json", "report.html")
    ]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_key_lies_beside_out_and_the_manifest_knows_it_again(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(inputs, out)
    key = tmp_path / "out.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    check = read_manifest(out).identifiers_key_check
    assert check == Pseudonyms.open(HASH, key).check()
    everything = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert key.read_bytes().strip() not in everything
    assert bytes.fromhex(key.read_text()) not in everything
    assert b"out.key" not in everything
    assert run(inputs, out).shards_reused == 4


def test_a_dataset_made_with_keep_has_no_key(inputs: Path, tmp_path: Path) -> None:
    config = PrepConfig(result=ResultConfig(height=48, width=32), execution=ExecutionConfig(workers=1))
    runner.run(RunRequest((str(inputs),), tmp_path / "out", config=config))
    assert read_manifest(tmp_path / "out").identifiers_key_check is None
    assert not (tmp_path / "out.key").exists()


def test_another_key_is_refused_and_changes_nothing(inputs: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other.key"
    run(inputs, out)
    before = bytes_of(out)
    Pseudonyms.open(HASH, other)
    with pytest.raises(UsageError, match=r"other\.key is another dataset's key"):
        run(inputs, out, key_file=str(other))
    with pytest.raises(UsageError, match="another dataset's key"):
        compare_with_source(out, [str(inputs)], 2, 0, str(other))
    assert bytes_of(out) == before


def test_a_lost_key_is_not_replaced_by_a_new_one(inputs: Path, tmp_path: Path) -> None:
    out, key = tmp_path / "out", tmp_path / "out.key"
    run(inputs, out)
    moved = key.rename(tmp_path / "moved.key")
    with pytest.raises(UsageError, match="does not exist; give the one that this dataset was made with"):
        run(inputs, out)
    assert not key.exists()
    assert run(inputs, out, key_file=str(moved)).shards_reused == 4


def test_an_unfinished_dataset_knows_its_key_too(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, other = tmp_path / "out", tmp_path / "other.key"

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(runner, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(inputs, out)
    assert not (out / "manifest.json").exists()
    Pseudonyms.open(HASH, other)
    with pytest.raises(UsageError, match="another dataset's key"):
        run(inputs, out, key_file=str(other))
    assert run(inputs, out).shards_reused == 4
    run(inputs, tmp_path / "fresh", key_file=str(tmp_path / "out.key"))
    assert bytes_of(out) | {"dataset_card.md": ""} == bytes_of(tmp_path / "fresh") | {"dataset_card.md": ""}


def test_overwrite_with_another_config_takes_any_key(inputs: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other.key"
    run(inputs, out)
    Pseudonyms.open(HASH, other)
    run(inputs, out, limit=3, overwrite=True, key_file=str(other))
    assert read_manifest(out).identifiers_key_check == Pseudonyms.open(HASH, other).check()


def test_one_key_for_two_datasets_gives_one_patient_one_name(inputs: Path, tmp_path: Path) -> None:
    names = []
    for out in (tmp_path / "a", tmp_path / "b"):
        run(inputs, out, key_file=str(tmp_path / "shared.key"))
        names.append(set(pd.read_parquet(out / "instances.parquet").patient_id))
    assert names[0] == names[1]
    assert len(names[0]) == 4


@pytest.mark.parametrize("place", ["out/my.key", "out/deeper/my.key", "link/my.key"])
def test_a_key_inside_out_is_refused(inputs: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with pytest.raises(UsageError, match="lies inside"):
        run(inputs, tmp_path / "out", key_file=str(tmp_path / place))
    assert not list(tmp_path.rglob("my.key"))


def test_out_without_a_name_has_its_key_beside_it(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run(inputs, Path("."))
    assert (tmp_path / "here.key").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"not a key", b"00" * 31, b"00" * 33, b"zz" * 32, b"0" * 10_000, b"\xff" * 64, b"0 " * 64],
)
def test_a_malformed_key_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.key"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.key is not a key file of this program"):
        Pseudonyms.open(HASH, path)
    assert path.read_bytes() == content


def test_a_key_that_cannot_be_read_or_made_is_told_clearly(tmp_path: Path) -> None:
    (tmp_path / "folder.key").mkdir()
    with pytest.raises(RunAborted, match=r"folder\.key: Is a directory"):
        Pseudonyms.open(HASH, tmp_path / "folder.key")
    with pytest.raises(UsageError, match="no such folder"):
        Pseudonyms.open(HASH, tmp_path / "nowhere" / "a.key")
    (tmp_path / "dangling.key").symlink_to(tmp_path / "gone")
    with pytest.raises(UsageError, match=r"dangling\.key cannot be made there"):
        Pseudonyms.open(HASH, tmp_path / "dangling.key")


def test_many_who_make_a_key_at_once_get_one(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: Pseudonyms.open(HASH, path), range(32)))
    assert len({one.check() for one in made}) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.key"]


def test_a_process_that_dies_while_it_makes_a_key_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RunAborted, match=r"a\.key: No space left on device"):
            Pseudonyms.open(HASH, tmp_path / "a.key")
    assert list(tmp_path.iterdir()) == []
    assert Pseudonyms.open(HASH, tmp_path / "a.key").check()


def test_without_hard_links_the_key_is_made_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(identifiers.os, "link", refused)
    made = Pseudonyms.open(HASH, tmp_path / "a.key")
    assert Pseudonyms.open(HASH, tmp_path / "a.key") == made
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.key"]


def test_run_json_does_not_say_where_the_key_is(inputs: Path, tmp_path: Path) -> None:
    run(inputs, tmp_path / "out", key_file=str(tmp_path / "elsewhere.key"))
    assert "elsewhere" not in (tmp_path / "out" / "run.json").read_text()
    assert "workers" in json.loads((tmp_path / "out" / "run.json").read_text())["execution"]
