"""Images that crash, hang or starve their worker: exactly those are rejected, all others kept."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest

from preprocess.verify import verify
from tests.chaos.commands import FULL, finish, inline, start
from tests.chaos.planted import CODES, DETECTOR, disarm, plant

TIMEOUT_S = 5
WORKERS = 2 if FULL else 1
# Alone in a shard, first, last, side by side, and all of one shard's last patient.
FEW = {9: "hang", 10: "segfault"}
MANY = {
    0: "exit", 9: "hang", 10: "numpy_hog", 11: "native_hog", 39: "killed", 60: "abort", 61: "abort",
    80: "leave", 81: "fault", 82: "segfault", 83: "hang", 84: "segfault", 120: "killed", 150: "native_hog",
    177: "numpy_hog", 199: "segfault",
}  # fmt: skip
COUNT, PLANTED = (200, MANY) if FULL else (40, FEW)


def arguments(inputs: Path, out: Path, workers: int = WORKERS) -> list[str]:
    options = ["--roi-detector", DETECTOR, "--size", "32x24", "--format", "tfrecord", "--format", "parquet"]
    options += ["--shard-images", "12", "--image-timeout-s", str(TIMEOUT_S), "--max-rejected", "100%"]
    options += ["--workers", str(workers), "--worker-memory", "500000000", "--folds", "2"]
    return [str(inputs), "--out", str(out), *options]


def shards(out: Path) -> dict[str, str]:
    files = [path for path in out.glob("fold=*/*") if path.is_file()]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("planted") / "in"
    return folder, plant(folder, COUNT, PLANTED)


@pytest.fixture(scope="module")
def run(planted: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("run") / "out"
    status, told = finish(start(arguments(planted[0], out)))
    assert status == 0, told
    return out, told


@pytest.fixture(scope="module")
def rows(run: tuple[Path, str]) -> pd.DataFrame:
    return pd.read_parquet(run[0] / "instances.parquet").set_index("source")


def test_exactly_the_planted_images_are_rejected_each_for_what_it_did(
    planted: tuple[Path, dict[str, str]], rows: pd.DataFrame
) -> None:
    assert len(rows) == COUNT
    assert rows[rows.status != "prepared"].reject_code.to_dict() == planted[1]


def test_the_dataset_is_whole(run: tuple[Path, str]) -> None:
    assert verify(run[0]).status == "whole"


def test_all_others_are_as_in_a_run_without_them(
    planted: tuple[Path, dict[str, str]],
    run: tuple[Path, str],
    rows: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disarm(planted[0], tmp_path / "in", planted[1])
    status, told = inline(arguments(tmp_path / "in", tmp_path / "out"), monkeypatch)
    assert status == 0, told
    others = pd.read_parquet(tmp_path / "out" / "instances.parquet").set_index("source")
    assert set(others[others.status != "prepared"].index) == set(planted[1])
    assert shards(tmp_path / "out") == shards(run[0])
    kept = rows.query("status == 'prepared'")
    pd.testing.assert_frame_equal(others.query("status == 'prepared'"), kept, check_dtype=False)


def test_the_run_tells_what_its_workers_went_through(run: tuple[Path, str]) -> None:
    told = json.loads((run[0] / "run.json").read_text())["supervision"]
    survived = {"numpy_hog", "native_hog", "fault"}  # their process lived on to reject them itself
    blamed = [CODES[deed] for deed in PLANTED.values() if deed not in survived]
    assert told["blamed"] == {code: blamed.count(code) for code in sorted(set(blamed))}
    assert told["workers_lost"] > len(blamed)
    # Trials also take the place of idle workers that have worked before.
    spare = told["workers_started"] - told["workers_lost"]
    assert 1 <= spare <= WORKERS + told["tried_alone"]
    assert 50_000_000 < told["peak_worker_bytes"] < 700_000_000
    assert f"{told['workers_lost']} worker processes were lost and replaced" in run[1]


def test_nothing_of_a_fault_but_type_and_place_is_told(run: tuple[Path, str]) -> None:
    assert "Traceback" not in run[1]
    assert "Doe" not in run[1]


@pytest.mark.skipif(not FULL, reason="BCD_CHAOS=full")
def test_blame_depends_neither_on_workers_nor_on_chance(
    planted: tuple[Path, dict[str, str]], run: tuple[Path, str], tmp_path: Path
) -> None:
    assert finish(start(arguments(planted[0], tmp_path / "out", workers=1)))[0] == 0
    assert shards(tmp_path / "out") == shards(run[0])
    names = ("manifest.json", "instances.parquet")
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (run[0] / name).read_bytes()
