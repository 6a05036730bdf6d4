"""Kernel time, and achieved bandwidth as a share of a device copy measured in the same process. Check (f).

In:  a Context.
Out: the report of bench.gpu.kernels; `ok`: right against the host, and streaming kernels near a copy's speed.
"""

from __future__ import annotations

from bench.gpu import kernels
from bench.gpu.context import Context, Figures
from bench.gpu.device import cupy_with_device

ENOUGH = 0.6
_STREAMING = ("to_stored", "pictures", "block_mean")


def bandwidth(context: Context) -> bool:
    """(f) `ok`: all comparisons hold, and kernels that stream through images reach 60 % of a copy."""
    if cupy_with_device() is None:
        context.figures["why not"] = "no device with CuPy"
        return False
    report = kernels.measure_gpu()
    context.figures |= {
        "copy_bytes_per_s": round(report.copy_bytes_per_s),
        "kernels": {timing.kernel: _rounded(timing) for timing in report.timings},
        "wrong": [check.name for check in report.checks if not check.ok],
    }
    shares = [t.share_of_copy for t in report.timings if t.kernel.split()[0] in _STREAMING]
    return report.ok and bool(shares) and min(shares) >= ENOUGH


def _rounded(timing: kernels.KernelTiming) -> Figures:
    return {
        "seconds": timing.seconds,
        "moved_bytes": timing.moved_bytes,
        "share_of_copy": round(timing.share_of_copy, 3),
    }
