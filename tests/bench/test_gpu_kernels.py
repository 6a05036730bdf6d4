"""Timing kernels without a GPU: what is launched and counted, and that wrong ones are reported."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from bench.gpu import kernels as measuring
from tests.kernels.shim import ShimKernels


class SteadyTimer:
    """Runs the work once and says that it took a millisecond."""

    def __init__(self) -> None:
        self.runs = 0

    def seconds(self, work: Callable[[], object]) -> float:
        work()
        self.runs += 1
        return 0.001


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "OUTPUT", (64, 32))
    monkeypatch.setattr(measuring, "COPY_BYTES", 1 << 20)


@pytest.mark.usefixtures("small")
def test_every_kernel_of_the_batch_path_is_timed_and_checked(compiled_kernels: ShimKernels) -> None:
    timer = SteadyTimer()
    copied: list[tuple[int, int]] = []
    report = measuring.measure(
        compiled_kernels.device,  # type: ignore[arg-type]  # its arrays only behave as NumPy's
        timer,
        lambda target, source: copied.append((target.size, source.size)),
        "none",
        images=2,
        shapes=[(130, 101)],
    )
    assert copied == [(1 << 20, 1 << 20)]
    assert report.ok
    assert len(report.checks) == 13
    assert report.copy_bytes_per_s == 2 * (1 << 20) / 0.001
    timed = {timing.kernel.split()[0]: timing for timing in report.timings}
    assert {"to_stored", "block_mean", "low_pass", "darkest", "pictures", "components_unite"} <= set(timed)
    assert timer.runs == len(report.timings) + 1
    assert timed["to_stored"].moved_bytes == 2 * 130 * 101 * 4
    # The middle 117 rows and the left 70 columns are read, 64 × 32 pixels are written, of 2 bytes each.
    assert timed["pictures"].moved_bytes == 2 * (117 * 70 * 2 + 64 * 32 * 2)
    for timing in report.timings:
        assert timing.share_of_copy == timing.moved_bytes / 0.001 / report.copy_bytes_per_s
    read = json.loads(report.to_json())
    assert read["ok"]
    assert len(read["timings"]) == len(report.timings)


@pytest.mark.usefixtures("small")
def test_a_kernel_that_wraps_instead_of_clamping_is_reported(
    compiled_kernels: ShimKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = compiled_kernels.clamp_to_stored

    def wrapping(samples, images, scaled=False):  # type: ignore[no-untyped-def]
        made = sound(samples, images, scaled)
        wrapped = samples[0].values.values.astype(made.pixels[0].dtype)
        made.pixels[0].values[...] = wrapped
        return made

    monkeypatch.setattr(compiled_kernels, "clamp_to_stored", wrapping)
    made = measuring.checks(compiled_kernels, compiled_kernels.device.upload)  # type: ignore[arg-type]
    wrong = [check.name for check in made if not check.ok]
    assert wrong == ["overshoot, p = 8", "overshoot, p = 12", "overshoot, p = 16"]


@pytest.mark.gpu
@pytest.mark.usefixtures("cupy_kernels")
def test_the_kernels_of_this_gpu_are_right() -> None:
    report = measuring.measure_gpu()
    assert report.ok, report.to_json()
    assert all(timing.seconds > 0 for timing in report.timings)
