"""Training steps: images per second on batches that are in memory already, and on those of a dataset.

In:  a model, size, batch, precision, backend; a dataset, or none.
Out: Measurements: one pass is so many steps; the part `wait` is time without a batch; the peak is a device's.

Both go through the trainer's own learner: forward, backward, all-reduce, clip, apply. Passes take turns. The
difference between the two is what the input costs.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, cycle
from typing import TYPE_CHECKING

import numpy as np

from bench.flops import TRAINING, forward_flops
from bench.measure import Measurement, Pass
from preprocess.errors import UsageError
from trainer.backends.base import Learner, Recipe, StepPlan, open_learner, prepare, require_divisible
from trainer.config import Backend, ExecutionConfig, ModelConfig, OptimizationConfig, Precision, TrainConfig
from trainer.data import TrainBatches, train_batches
from trainer.dataset import open_dataset
from trainer.records import Batch
from trainer.targets import Labels

if TYPE_CHECKING:
    import keras

    from trainer.optimizers import GroupedAdam, Phase

CACHED, REAL = "synthetic batches in memory", "batches of the dataset"
_CACHED_BATCHES = 2


@dataclass(frozen=True, slots=True)
class TrainSpec:
    """What is trained."""

    model: str = "convnext_tiny"
    size: tuple[int, int] = (1024, 512)
    batch_size: int = 8
    precision: str = "float32"
    backend: str = "tensorflow"
    devices: str = "all"
    parts: int = 1
    augment: str = "light"
    steps: int = 10
    repeats: int = 3

    def configs(self) -> tuple[TrainConfig, ExecutionConfig]:
        """The trainer's own."""
        optimization = OptimizationConfig(
            backend=Backend(self.backend), precision=Precision(self.precision), accumulate=self.parts
        )
        config = TrainConfig(model=ModelConfig(model=self.model, weights="none"), optimization=optimization)
        data = config.data.model_copy(
            update={"batch_size": self.batch_size, "augment": self.augment, "balance": False}
        )
        return config.model_copy(update={"data": data}), ExecutionConfig(devices=self.devices)


def measure(spec: TrainSpec, dataset: str | None) -> tuple[Measurement, ...]:
    """Steps on batches in memory, and, where a dataset is given, on its own.

    Raises:
        UsageError: the dataset's images have another size; no such device.
    """
    config, execution = spec.configs()
    devices = prepare(execution, config.optimization)
    require_divisible(spec.batch_size, len(devices), spec.parts)
    learner = _learner(spec, config, execution, devices)
    feeds: list[tuple[str, Iterator[Batch], TrainBatches | None]] = [(CACHED, cycle(_synthetic(spec)), None)]
    if dataset is not None:
        loader = _loader(dataset, spec, config)
        feeds.append((REAL, _endless(loader), loader))
    peak = learner.peak_bytes(next(iter(_synthetic(spec))), spec.parts)
    passes: dict[str, list[Pass]] = {name: [] for name, _, _ in feeds}
    for number in range(1 + spec.repeats):
        for name, batches, loader_or_none in feeds:
            done = _one_pass(learner, batches, loader_or_none, spec.steps)
            if number:  # the first warms up
                passes[name].append(done)
    items, flops = spec.steps * spec.batch_size, TRAINING * forward_flops(learner.model)
    return tuple(Measurement(name, items, tuple(passes[name]), peak, flops=flops) for name, _, _ in feeds)


def _one_pass(learner: Learner, batches: Iterator[Batch], loader: TrainBatches | None, steps: int) -> Pass:
    gc.collect()
    waited = loader.waited_s if loader else 0.0
    wall, cpu = time.perf_counter(), time.process_time()
    pending = learner.step(next(batches))
    for _ in range(steps - 1):
        after = learner.step(next(batches))
        pending.outcome()  # the step before, while the devices work on this one, as the trainer does
        pending = after
    pending.outcome()
    waited = (loader.waited_s - waited) if loader else 0.0
    return Pass(time.perf_counter() - wall, time.process_time() - cpu, (("wait", waited),))


def _synthetic(spec: TrainSpec) -> list[Batch]:
    rng, size = np.random.default_rng(0), spec.batch_size
    return [
        Batch(
            rng.random((size, *spec.size, 1), dtype=np.float32),
            (np.arange(size) % 2).astype(np.float32)[:, None],
            np.ones(size, np.float32),
            np.arange(size),
        )
        for _ in range(_CACHED_BATCHES)
    ]


def _loader(where: str, spec: TrainSpec, config: TrainConfig) -> TrainBatches:
    dataset = open_dataset(where)
    if (dataset.height, dataset.width) != spec.size:
        raise UsageError(f"the dataset's images are {dataset.height}x{dataset.width}: give that as --size")
    labels = Labels((np.arange(len(dataset)) % 2).astype(np.float32)[:, None], (), "made up")
    return train_batches(dataset, labels, np.arange(len(dataset)), config)


def _endless(loader: TrainBatches) -> Iterator[Batch]:
    for epoch in count():
        yield from loader.iterate(epoch)


def _learner(
    spec: TrainSpec, config: TrainConfig, execution: ExecutionConfig, devices: tuple[str, ...]
) -> Learner:
    import keras

    from trainer.losses import LossSpec, per_example
    from trainer.models import build
    from trainer.optimizers import Phase, make_optimizer

    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(spec.precision)

    def optimizer(model: keras.Model, phase: Phase) -> GroupedAdam:
        return make_optimizer(config.optimization, model, 1000, phase)

    recipe = Recipe(
        build=lambda: build(config.model, spec.size),
        optimizer=optimizer,
        loss=lambda logits, labels: per_example(logits, labels, LossSpec()),
        phase=Phase.ALL,
        plan=StepPlan.of(config.optimization, execution),
    )
    return open_learner(config.optimization.backend, recipe, devices)
