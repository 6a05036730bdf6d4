"""One step means the same on both backends, for any number of devices and parts, interrupted or not.

Each backend trains in one process of its own, with two logical CPU devices.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.learning import Job, train

PLAIN = Job(ema=0.5)
NORMED = Job(norm="batch", ema=0.5)
PHASES = Job(frozen_steps=3, dropout=0.3, norm="batch", ema=0.5)
HALF = Job(precision="mixed_float16")
JOBS = {
    "one": PLAIN,
    "two": replace(PLAIN, devices="0,1"),
    "one in parts": replace(PLAIN, parts=2),
    "two in parts": replace(PLAIN, devices="0,1", parts=2),
    "normed one": NORMED,
    "normed two": replace(NORMED, devices="0,1"),
    "phases": PHASES,
    "head only": Job(frozen_steps=99),
    "phases resumed": replace(PHASES, resume_at=2),
    "phases resumed later": replace(PHASES, resume_at=5),
    "unclipped": replace(PLAIN, clip_norm=0.0),
    "clipped": replace(PLAIN, clip_norm=0.01),
    "half": HALF,
    "half overflows": replace(HALF, scale_up=3e38),
    "bfloat": Job(precision="mixed_bfloat16"),
}

Result = dict[str, Any]


@pytest.fixture(scope="module", params=["tensorflow", "jax"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    return dict(zip(JOBS, train(request.param, list(JOBS.values()), folder), strict=True))


def losses(result: Result) -> list[float]:
    return [outcome["loss"] for outcome in result["outcomes"]]


def same_bits(one: Any, other: Any) -> bool:
    return [name for name, _ in one] == [name for name, _ in other] and all(
        a.tobytes() == b.tobytes() for (_, a), (_, b) in zip(one, other, strict=True)
    )


def close(one: Any, other: Any) -> None:
    for (_, a), (_, b) in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize(
    ("one", "other"),
    [("one", "two"), ("one", "one in parts"), ("one", "two in parts"), ("normed one", "normed two")],
)
def test_devices_and_parts_change_nothing_but_rounding(
    trained: dict[str, Result], one: str, other: str
) -> None:
    np.testing.assert_allclose(losses(trained[one]), losses(trained[other]), rtol=1e-4)
    close(trained[one]["weights"], trained[other]["weights"])
    np.testing.assert_allclose(trained[one]["averaged"], trained[other]["averaged"], rtol=2e-3, atol=2e-5)
    assert losses(trained[one])[0] != losses(trained[one])[-1]


@pytest.mark.parametrize("name", ["phases resumed", "phases resumed later"])
def test_a_resumed_training_is_the_same_to_the_last_bit(trained: dict[str, Result], name: str) -> None:
    assert trained[name]["outcomes"] == trained["phases"]["outcomes"]
    assert same_bits(trained[name]["arrays"], trained["phases"]["arrays"])


def test_the_state_holds_dropout_s_seeds(trained: dict[str, Result]) -> None:
    def seeds(arrays: Any) -> list[Any]:
        return [array.tolist() for _, array in arrays if array.dtype.kind in "iu" and array.shape == (2,)]

    assert seeds(trained["phases"]["initial"])
    assert seeds(trained["phases"]["initial"]) != seeds(trained["phases"]["arrays"])


def test_a_frozen_backbone_learns_only_after_its_phase(trained: dict[str, Result]) -> None:
    for name, moved in (("head only", False), ("phases", True)):
        initial, final = dict(trained[name]["initial"]), dict(trained[name]["arrays"])
        assert (initial["model/0000"] != final["model/0000"]).any() == moved
    assert losses(trained["head only"])[0] != losses(trained["head only"])[-1]


def test_gradients_are_clipped_by_their_global_norm(trained: dict[str, Result]) -> None:
    norms = [outcome["gradient_norm"] for outcome in trained["clipped"]["outcomes"]]
    assert norms[0] == pytest.approx(trained["unclipped"]["outcomes"][0]["gradient_norm"], rel=1e-5)
    assert max(norms) > 0.01
    assert losses(trained["clipped"])[0] == pytest.approx(losses(trained["unclipped"])[0], rel=1e-6)


def test_the_average_is_not_the_weights_and_predicting_with_it_changes_nothing(
    trained: dict[str, Result],
) -> None:
    one = trained["one"]
    assert not np.allclose(one["plain"], one["averaged"], rtol=1e-4)


def test_measuring_memory_changes_no_state(trained: dict[str, Result]) -> None:
    for result in trained.values():
        assert same_bits(result["arrays"], result["after_peaks"])
        assert min(result["peaks"]) > 0


def test_reduced_precision_learns_the_same_but_for_rounding(trained: dict[str, Result]) -> None:
    for name in ("half", "bfloat"):
        assert all(outcome["applied"] for outcome in trained[name]["outcomes"])
        np.testing.assert_allclose(losses(trained[name]), losses(trained["one"]), rtol=0.05)


def test_a_step_that_overflows_float16_is_left_out_and_the_scale_halved(trained: dict[str, Result]) -> None:
    result = trained["half overflows"]
    assert not any(outcome["applied"] for outcome in result["outcomes"])
    initial, final = dict(result["initial"]), dict(result["arrays"])
    assert (initial["model/0000"] == final["model/0000"]).all()
    assert final["scale/0000"] == initial["scale/0000"] / 2 ** len(result["outcomes"])
