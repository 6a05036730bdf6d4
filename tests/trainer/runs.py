"""`bcd-train fit` in this process, on a small made-up dataset; and what a finished run holds."""

from __future__ import annotations

import io
import json
import signal
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from click.testing import CliRunner, Result

from preprocess.config import ResultConfig
from preprocess.exits import INTERRUPTS
from tests.trainer.sets import make, screening
from trainer.cli import main
from trainer.position import TIMING

SMALL = ResultConfig(height=48, width=32, folds=2, shard_images=8)
OPTIONS = (
    "--model", "resnet_tiny", "--weights", "none", "--head-blocks", "0", "--head-filters", "8",
    "--epochs", "2", "--batch-size", "8", "--learning-rate", "0.001", "--deterministic",
    "--data-workers", "2", "--ema", "0.9", "--mixup", "0.2", "--head-epochs", "1",
)  # fmt: skip


def make_small(folder: Path, patients: int = 10, positive: int = 4) -> Path:
    """A dataset of `patients` patients."""
    make(folder, screening(patients, positive), SMALL)
    return folder


def fit(dataset: Path, out: Path, *options: str) -> Result:
    """Run the command; a later option wins over an earlier one.

    A program that was interrupted ignores further signals until it is gone; this process is still there.
    """
    hook, handlers = sys.excepthook, {number: signal.getsignal(number) for number in INTERRUPTS}
    try:
        return CliRunner().invoke(main, ["fit", str(dataset), "--out", str(out), *OPTIONS, *options])
    finally:
        sys.excepthook = hook
        for number, handler in handlers.items():
            signal.signal(number, handler)


def curve(run: Path, fold: int = 0) -> list[dict[str, Any]]:
    """history.jsonl without what time decides."""
    lines = (run / f"fold={fold}" / "history.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMING} for line in lines]


def learned(run: Path, fold: int = 0) -> dict[str, bytes]:
    """Bits of the saved model's weights by place; opened without a backend, which would draw new seeds."""
    found: dict[str, bytes] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = np.asarray(item).tobytes()

    with zipfile.ZipFile(run / f"fold={fold}" / "model.keras") as archive:
        data = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(data, "r") as weights:
        weights.visititems(note)
    assert found
    return found


def everything(run: Path, fold: int = 0) -> tuple[Any, ...]:
    """All that a run promises to repeat."""
    result = json.loads((run / f"fold={fold}" / "result.json").read_text())
    result.pop("seconds")
    predictions = (run / f"fold={fold}" / "predictions.parquet").read_bytes()
    return curve(run, fold), learned(run, fold), predictions, result


def one_line(result: Result) -> str:
    """What a refused command said, which is one line."""
    assert isinstance(result.exception, SystemExit), result.output
    [line] = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in result.output
    return line
