"""Both contenders of `bcd-bench feed` give the batches that they are asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench.cli import main
from bench.feed import feed_works, tf_dataset
from preprocess.config import Format
from preprocess.errors import UsageError
from tests.trainer.sets import BOTH, make, screening


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("feed") / "OUT"
    make(out, screening(3))
    return out


def test_tf_data_reads_the_same_pixels(where: Path) -> None:
    ours, theirs = feed_works(str(where), "none", 4, 0)
    assert ours.items == theirs.items == 12
    batches = [np.asarray(batch) for batch in tf_dataset(theirs.feed)]  # type: ignore[attr-defined]
    assert [batch.shape for batch in batches] == [(4, 32, 16, 1)] * 3
    dataset = make(where, screening(3))
    stored = {dataset.pixels(index).tobytes() for index in range(12)}
    found = {np.rint(image * 65535).astype(np.uint16).tobytes() for batch in batches for image in batch}
    assert found <= stored


def test_feed_measures_both_and_says_how_long_the_consumer_waited(where: Path, tmp_path: Path) -> None:
    out = tmp_path / "feed.json"
    words = ["feed", str(where), "--batch-size", "4", "--repeats", "1", "--cores", "1", "--out", str(out)]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "| tf.data + numpy_function |" in done.output
    result = json.loads(out.read_text())
    assert [one["note"] for one in result["measurements"]] == ["", ""]
    for one in result["measurements"]:
        ((name, waited),) = one["passes"][0]["parts"]
        assert name == "wait"
        assert 0 < waited <= one["passes"][0]["wall_s"]


def test_feed_wants_what_both_can_read(tmp_path: Path) -> None:
    make(tmp_path / "OUT", config=BOTH.model_copy(update={"formats": (Format.PARQUET,)}))
    with pytest.raises(UsageError, match="TFRecord"):
        feed_works(str(tmp_path / "OUT"), "none", 4, 0)
