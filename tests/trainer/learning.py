"""Small learners for tests, and a way to run one in a process of its own, since backends are chosen once.

Run as `python -m tests.trainer.learning JOB.json`: trains on made-up batches and writes what came of it.
"""

from __future__ import annotations

import json
import os
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

    backend: str = "tensorflow"
    devices: str = "0"
    cpus: int = 1
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
    weights: str = ""
    scale_up: float = 1.0
    jit: bool = False


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


def run(job: Job) -> dict[str, Any]:
    """Train in this process."""
    from trainer.backends.base import Recipe, StepPlan, open_learner, prepare
    from trainer.config import Backend, ExecutionConfig, OptimizationConfig, Precision

    config = OptimizationConfig(
        backend=Backend(job.backend),
        accumulate=job.parts,
        clip_norm=job.clip_norm,
        precision=Precision(job.precision),
    )
    execution = ExecutionConfig(devices=job.devices, deterministic=True, jit=job.jit)
    devices = prepare(execution, config)
    import keras

    from trainer.optimizers import GroupedAdam, Phase

    def build() -> keras.Model:
        layers: list[Any] = [keras.Input((*SIZE, 1)), keras.layers.Conv2D(4, 3, name="backbone")]
        if job.norm == "batch":
            layers.append(keras.layers.BatchNormalization())
        layers += [keras.layers.Activation("relu"), keras.layers.GlobalMaxPooling2D()]
        layers += [keras.layers.Dropout(job.dropout)] if job.dropout else []
        return keras.Sequential([*layers, keras.layers.Dense(1, dtype="float32")])

    def loss(logits: Any, labels: Any) -> Any:
        return keras.ops.binary_crossentropy(labels[:, 0], keras.ops.sigmoid(logits[:, 0]))

    def optimizer(model: keras.Model, phase: Phase) -> GroupedAdam:
        made = GroupedAdam(0.01, decay=0.01, average=job.ema)
        made.build(model.trainable_variables)
        return made

    def learner(phase: Phase) -> Any:
        keras.utils.set_random_seed(3)
        keras.config.set_dtype_policy(job.precision)
        made = open_learner(
            config.backend,
            Recipe(
                build,
                optimizer,
                loss,
                phase,
                StepPlan.of(config, execution),
            ),
            devices,
        )
        if job.weights:
            stored = np.load(job.weights)
            mine = list(made.arrays())
            made.restore(
                tuple((name, stored[name] if name.startswith("model") else value) for name, value in mine)
            )
        return made

    made, outcomes = learner(Phase.HEAD if job.frozen_steps else Phase.ALL), []
    initial = made.arrays()
    for step in range(job.steps):
        if job.frozen_steps and step == job.frozen_steps:
            made.begin_phase(Phase.ALL)
        if job.resume_at and step == job.resume_at:
            state = made.arrays()
            made = learner(Phase.HEAD if step < job.frozen_steps else Phase.ALL)
            made.restore(state)
        outcomes.append(asdict(made.step(batch_of(step, job.batch, job.scale_up)).outcome()))
    last = batch_of(99, job.batch)
    plain = made.predict(last)
    with made.averaged():
        averaged = made.predict(last)
    return {
        "outcomes": outcomes,
        "initial": initial,
        "arrays": made.arrays(),
        "plain": plain,
        "averaged": averaged,
        "peaks": [made.peak_bytes(last, parts) for parts in (1, job.batch // len(devices))],
        "after_peaks": made.arrays(),
    }


def train(job: Job, folder: Path) -> dict[str, Any]:
    """Train in a new process with `job.cpus` logical devices."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text(json.dumps(asdict(job)))
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={job.cpus}"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainer.learning", str(folder)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    for name in ("initial", "arrays", "after_peaks"):
        with np.load(folder / f"{name}.npz") as arrays:
            found[name] = {key: arrays[key] for key in arrays.files}
    return found


def main(folder: Path) -> None:
    job = Job(**json.loads((folder / "job.json").read_text()))
    if job.backend == "tensorflow" and job.cpus > 1:
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * job.cpus)
    found = run(job)
    for name in ("initial", "arrays", "after_peaks"):
        np.savez(folder / f"{name}.npz", **dict(found.pop(name)))
    found |= {name: np.asarray(found[name]).tolist() for name in ("plain", "averaged")}
    (folder / "result.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
