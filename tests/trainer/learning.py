"""Small learners for tests, and a way to run one in a process of its own, since backends are chosen once.

Run as `python -m tests.trainer.learning BACKEND FOLDER`: trains on made-up batches.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.records import Batch

ROOT = Path(__file__).resolve().parents[2]
SIZE = (16, 8)


@dataclass(frozen=True)
class Job:
    """What to train and how."""

    devices: str = "0"
    batch: int = 8
    steps: int = 6
    parts: int = 1
    clip_norm: float = 1.0
    ema: float = 0.0
    precision: str = "float32"
    norm: str = "none"
    dropout: float = 0.0
    frozen_steps: int = 0
    resume_at: int = 0
    scale_up: float = 1.0


def batch_of(step: int, size: int, scale_up: float = 1.0) -> Batch:
    """A batch in which the target is the brighter half's; the last row of odd steps is fill."""
    rng = np.random.default_rng(step)
    images = rng.random((size, *SIZE, 1), dtype=np.float32)
    labels = (images[:, : SIZE[0] // 2].mean((1, 2, 3)) > images[:, SIZE[0] // 2 :].mean((1, 2, 3))).astype(
        np.float32
    )[:, None]
    weights = np.ones(size, np.float32)
    weights[-1] = 1 - step % 2
    return Batch(images * np.float32(scale_up), labels, weights, np.arange(size))


def build(job: Job) -> Any:
    """A few layers of which one is named as the trainer's models name theirs.

    No bias before BatchNorm: its gradient is rounding alone, which Adam would blow up.
    """
    import keras

    layers: list[Any] = [
        keras.Input((*SIZE, 1)),
        keras.layers.Conv2D(4, 3, use_bias=job.norm == "none", name="backbone"),
    ]
    layers += [keras.layers.BatchNormalization()] if job.norm == "batch" else []
    layers += [keras.layers.Activation("relu"), keras.layers.GlobalMaxPooling2D()]
    layers += [keras.layers.Dropout(job.dropout)] if job.dropout else []
    return keras.Sequential([*layers, keras.layers.Dense(1, dtype="float32")])


def loss(logits: Any, labels: Any) -> Any:
    """Binary cross-entropy of each row."""
    import keras

    return keras.ops.softplus(logits[:, 0]) - labels[:, 0] * logits[:, 0]


def learner_of(backend: str, job: Job, phase: str) -> Any:
    """A new learner with the weights that seed 3 gives."""
    from trainer.backends.base import Recipe, StepPlan, open_learner, prepare
    from trainer.config import Backend, ExecutionConfig, OptimizationConfig, Precision

    config = OptimizationConfig(
        backend=Backend(backend),
        accumulate=job.parts,
        clip_norm=job.clip_norm,
        precision=Precision(job.precision),
    )
    execution = ExecutionConfig(devices=job.devices, deterministic=True)
    devices = prepare(execution, config)
    import keras

    from trainer.optimizers import GroupedAdam, Phase

    def optimizer(model: Any, _: Phase) -> GroupedAdam:
        made = GroupedAdam(0.01, decay=0.01, average=job.ema)
        made.build(model.trainable_variables)
        return made

    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    keras.config.set_dtype_policy(job.precision)
    recipe = Recipe(lambda: build(job), optimizer, loss, Phase(phase), StepPlan.of(config, execution))
    return open_learner(config.backend, recipe, devices)


def run(backend: str, job: Job) -> dict[str, Any]:
    """Train in this process; everything that came of it."""
    learner, outcomes = learner_of(backend, job, "head" if job.frozen_steps else "all"), []
    initial = learner.arrays()
    for step in range(job.steps):
        if job.frozen_steps and step == job.frozen_steps:
            learner.begin_phase(type(learner.phase)("all"))
        if job.resume_at and step == job.resume_at:
            state = learner.arrays()
            learner = learner_of(backend, job, "head" if step < job.frozen_steps else "all")
            learner.restore(state)
        batch = batch_of(step, job.batch, job.scale_up)
        outcomes.append(asdict(learner.step(batch).outcome()))
    last = batch_of(99, job.batch)
    plain, arrays = learner.predict(last), learner.arrays()
    with learner.averaged():
        averaged = learner.predict(last)
    peaks = [learner.peak_bytes(last, parts) for parts in (1, job.batch // len(learner.devices))]
    return {
        "outcomes": outcomes,
        "initial": initial,
        "arrays": arrays,
        "plain": plain,
        "averaged": averaged,
        "peaks": peaks,
        "after_peaks": learner.arrays(),
        "weights": learner.weights(),
    }


def train(backend: str, jobs: list[Job], folder: Path) -> list[dict[str, Any]]:
    """Train in one new process that has two logical CPU devices."""
    (folder / "jobs.json").write_text(json.dumps([asdict(job) for job in jobs]))
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainer.learning", backend, str(folder)],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results: list[dict[str, Any]] = pickle.loads((folder / "results.pickle").read_bytes())
    return results


def main(backend: str, folder: Path) -> None:
    if backend == "tensorflow":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    jobs = [Job(**job) for job in json.loads((folder / "jobs.json").read_text())]
    results = [run(backend, job) for job in jobs]
    (folder / "results.pickle").write_bytes(pickle.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
