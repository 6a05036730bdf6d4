"""kill -9 at any moment of a training: the same command goes on to the same curve, weights and scores.

Moments are counted in steps, images read, writes, fsyncs and renames, not in seconds: a busy machine changes
nothing. BCD_CHAOS=full (`make chaos-train`) tries 20 of them, each on what the one before left behind until
the command is done; some come after the training, while it is scored and its report drawn.
"""

from __future__ import annotations

from pathlib import Path

from tests.chaos.commands import FULL
from tests.chaos.training import moments, train
from tests.trainer.runs import OPTIONS, everything, make_small

TRIES = moments(20 if FULL else 3)
MOST_KILLS = 6
"""In one training: then it is let finish."""


def arguments(dataset: Path, out: Path) -> list[str]:
    return ["fit", str(dataset), "--out", str(out), *OPTIONS, "--checkpoint-minutes", "0.00001"]


def scored(run: Path) -> tuple[bytes, ...]:
    """What `fit` leaves of the evaluation that ends it; its report is there, too."""
    assert (run / "report.html").stat().st_size
    return tuple((run / "evaluation" / name).read_bytes() for name in ("predictions.parquet", "metrics.json"))


def test_a_training_killed_again_and_again_ends_as_the_undisturbed_one(tmp_path: Path) -> None:
    dataset, log = make_small(tmp_path / "dataset"), tmp_path / "log"
    assert train(arguments(dataset, tmp_path / "whole"), None, log) == 0, log.read_text()
    expected, scores = everything(tmp_path / "whole"), scored(tmp_path / "whole")
    tries, killed = list(TRIES), 0
    for number in range(len(TRIES)):
        out = tmp_path / f"run{number}"
        kills, status = 0, -9
        while status:
            moment = tries.pop(0) if tries and kills < MOST_KILLS else None
            status = train(arguments(dataset, out), moment, log)
            assert status in (0, -9), log.read_text()
            kills += status == -9
            if status == 0 or (out / "run.json").exists():  # whenever it says so, the training is done
                assert everything(out) == expected, f"run {number}"
        killed += kills
        assert scored(out) == scores, f"run {number}"
        if not tries:
            break
    assert killed >= len(TRIES) // 2
    assert not [path for path in tmp_path.rglob("*.tmp*") if path.is_file()]


def test_moments_repeat_and_are_of_every_kind() -> None:
    assert moments(20) == moments(20)
    assert {kind for kind, _ in moments(20)} == {"step", "read", "write", "fsync", "rename"}
