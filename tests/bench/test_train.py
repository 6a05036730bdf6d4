from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.cli import main
from bench.results import load
from tests.trainer.runs import make_small


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small(tmp_path_factory.mktemp("bench-train") / "dataset")


def test_steps_from_memory_and_from_a_dataset_are_measured(dataset: Path, tmp_path: Path) -> None:
    words = [
        "--model",
        "resnet_tiny",
        "--size",
        "48x32",
        "--batch-size",
        "4",
        "--steps",
        "2",
        "--repeats",
        "2",
    ]
    out = tmp_path / "train.json"
    result = CliRunner().invoke(main, ["train", str(dataset), *words, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "resnet_tiny 48x32" in result.output
    measured = load(out)
    assert [one.items for one in measured.measurements] == [8, 8]
    assert all(len(one.passes) == 2 and one.wall.low > 0 for one in measured.measurements)
    cached, real = (dict(one.passes[0].parts)["wait"] for one in measured.measurements)
    assert cached == 0 <= real
    assert all(one.peak_bytes > 0 for one in measured.measurements)
    assert len({one.flops for one in measured.measurements}) == 1
    assert measured.measurements[0].flops > 1e6
    assert "TFLOP/s" in result.output
    assert json.loads(out.read_bytes())["kind"] == "train"


def test_a_dataset_of_another_size_is_refused(dataset: Path) -> None:
    result = CliRunner().invoke(main, ["train", str(dataset), "--model", "resnet_tiny", "--size", "64x32"])
    assert result.exit_code == 2
    assert "48x32" in result.output
