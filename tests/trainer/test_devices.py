"""`bcd-train fit` on two devices is `fit` on one: the whole command, on logical devices of the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.trainer.runs import OPTIONS, curve, make_small
from trainer.predictions import Predictions

_PROGRAMS = {
    "tensorflow": """
import sys
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from trainer.cli import main
main(sys.argv[1:])
""",
    "jax": "import sys; from trainer.cli import main; main(sys.argv[1:])",
}
_RELATIVE = 1e-3


def fit(backend: str, devices: str, dataset: Path, out: Path) -> None:
    """Each in a process of its own: a backend's devices are set up once."""
    words = ["fit", str(dataset), "--out", str(out), *OPTIONS, "--backend", backend, "--devices", devices]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAMS[backend], *words, "--dropout", "0"],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_give_the_curve_and_the_predictions_of_one(backend: str, tmp_path: Path) -> None:
    dataset = make_small(tmp_path / "dataset")
    for devices in ("0", "all"):
        fit(backend, devices, dataset, tmp_path / devices)
    used = [
        json.loads((tmp_path / devices / "environment.json").read_bytes())["devices"]
        for devices in ("0", "all")
    ]
    assert [len(names) for names in used] == [1, 2]
    one, two = curve(tmp_path / "0"), curve(tmp_path / "all")
    assert len(one) == len(two) == 2
    for ours, theirs in zip(one, two, strict=True):
        for name in ("train_loss", "gradient_norm", "log_loss"):
            assert theirs[name] == pytest.approx(ours[name], rel=_RELATIVE), name
    ours, theirs = (
        Predictions.read(tmp_path / devices / "fold=0" / "predictions.parquet") for devices in ("0", "all")
    )
    assert ours.image_id.tolist() == theirs.image_id.tolist()
    np.testing.assert_allclose(theirs.probability, ours.probability, rtol=_RELATIVE)
