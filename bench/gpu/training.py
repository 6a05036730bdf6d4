"""How fast the device trains, models × sizes in bfloat16, and whether the input keeps up.

In:  a Context; full-size phantoms; JAX or TensorFlow with a GPU.
Out: images a second from memory and from a dataset, share of the device's peak, of time without a batch.

Each measurement is `bcd-bench train` in a process of its own: a backend keeps what memory it once had.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.flops import peak_flops
from bench.gpu.context import Context, Figures
from bench.gpu.device import facts
from bench.measure import Measurement
from bench.results import load
from preprocess import runner
from preprocess.config import ExecutionConfig, PrepConfig, ResultConfig
from preprocess.planning import RunRequest

PRECISION = "mixed_bfloat16"
WAIT = 0.05
"""Share of a step's time that may be spent without a batch."""
_OUT_OF_MEMORY = "memory"
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Job:
    """What is trained, with the batch to begin with: it is halved where memory does not suffice."""

    model: str
    size: str
    batch_size: int


JOBS = (
    Job("convnext_tiny", "1024x512", 32),
    Job("efficientnet_b4", "1024x512", 16),
    Job("convnext_tiny", "2048x1024", 8),
    Job("efficientnet_b4", "2048x1024", 4),
)


def training(context: Context) -> bool:
    """ConvNeXt-Tiny and EfficientNet-B4; ok if all ran and none waited for its input for long."""
    backend = backend_with_gpu()
    if backend is None:
        context.figures["left_out"] = "neither JAX nor TensorFlow has a GPU (extras train-gpu, train-jax-gpu)"
        return True
    context.figures |= {"backend": backend, "precision": PRECISION}
    right = True
    with tempfile.TemporaryDirectory() as folder:
        for job in JOBS:
            dataset = Path(folder) / job.size
            if not dataset.exists():
                _prepare(context, dataset, job.size)
            found = _measured(context, job, backend, dataset)
            context.figures[f"{job.model} {job.size}"] = found
            waits = found.get("wait_share")
            right &= isinstance(waits, float) and waits <= WAIT
    return right


def backend_with_gpu() -> str | None:
    """JAX before TensorFlow, each asked in a process of its own."""
    programs = {
        "jax": "import jax; print(sum(device.platform == 'gpu' for device in jax.devices()))",
        "tensorflow": "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))",
    }
    for backend, program in programs.items():
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        if done.returncode == 0 and done.stdout.split()[-1] != "0":
            return backend
    return None


def _prepare(context: Context, out: Path, size: str) -> None:
    height, width = map(int, size.split("x"))
    config = PrepConfig(
        result=ResultConfig(height=height, width=width),
        execution=ExecutionConfig(workers=context.request.cores),
    )
    runner.run(RunRequest((str(context.request.inputs / "full"),), out, config=config))


def _measured(context: Context, job: Job, backend: str, dataset: Path) -> Figures:
    """The largest batch that fits, by halves."""
    batch = job.batch_size
    while True:
        said, result = _bench(context, job, backend, dataset, batch)
        if result:
            return figures(batch, result)
        if batch == 1 or _OUT_OF_MEMORY not in said:
            return {"batch": batch, "error": said[-500:]}
        batch //= 2


def _bench(
    context: Context, job: Job, backend: str, dataset: Path, batch: int
) -> tuple[str, tuple[Measurement, ...]]:
    out = dataset.with_name(f"{job.model}-{job.size}.json")
    out.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "bench.cli", "train", str(dataset), "--model", job.model, "--size", job.size,
        "--batch-size", str(batch), "--precision", PRECISION, "--backend", backend, "--out", str(out),
        "--steps", str(max(2, round(10 * context.request.seconds))), "--repeats", "2",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
    return done.stderr, load(out).measurements if out.exists() else ()


def figures(batch: int, measured: tuple[Measurement, ...]) -> Figures:
    """What a result says: from memory first, from the dataset second."""
    cached, real = measured
    rates = [one.items / one.wall.median for one in (cached, real)]
    peak = peak_flops(str(facts()["name"]), PRECISION)
    return {
        "batch": batch,
        "images_per_second": round(rates[1], 2),
        "images_per_second_from_memory": round(rates[0], 2),
        "wait_share": round(median(dict(one.parts)["wait"] / one.wall_s for one in real.passes), 4),
        "tflops": round(rates[1] * real.flops / 1e12, 2),
        "share_of_peak": round(rates[1] * real.flops / peak, 4) if peak else None,
        "peak_bytes": real.peak_bytes,
    }
