"""Learner on TensorFlow: one device, or several with MirroredStrategy.

MirroredStrategy's traps are closed here: gradients are added up and clipped after the all-reduce, not before;
parts of a batch are calls of their own instead of Keras's accumulation; shares are always equal; BatchNorm is
synchronised; XLA is refused on several devices; a process has one strategy. Every device draws the same
dropout masks for its share, so one device and several agree exactly only with dropout 0.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from preprocess.errors import UsageError
from trainer.backends.base import (
    FIRST_SCALE,
    SCALE_PATIENCE,
    Arrays,
    Learner,
    Outcome,
    PendingStep,
    Recipe,
    in_parts,
    matching,
    pick_devices,
)
from trainer.errors import OutOfMemory
from trainer.optimizers import Phase, set_phase
from trainer.records import Batch, Floats

Tensor = Any
"""A tensor, or one of each device; TensorFlow has no types."""


def prepare_devices(wanted: str, *, deterministic: bool) -> tuple[str, ...]:
    """Names of the devices to train on. Raises UsageError if there is no such device."""
    tf.get_logger().addFilter(_worth_reading)
    with contextlib.suppress(RuntimeError):  # it is already in use, as in tests: then it stays as it is
        gpus = tf.config.list_physical_devices("GPU")
        tf.config.set_visible_devices([] if wanted == "cpu" else gpus, "GPU")
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    names = {kind: [one.name for one in tf.config.list_logical_devices(kind)] for kind in ("GPU", "CPU")}
    return pick_devices(wanted, names["GPU"], names["CPU"])


def _worth_reading(record: logging.LogRecord) -> bool:
    """False for TensorFlow's advice against tracing often: each fold has a model of its own to trace."""
    return "tf.function retracing" not in str(record.msg)


@functools.cache
def _strategy_of(devices: tuple[str, ...]) -> Any:
    """One for all folds: TensorFlow takes collectives of a second one for those of the first."""
    if len(devices) > 1:
        return tf.distribute.MirroredStrategy(devices)
    return tf.distribute.OneDeviceStrategy(devices[0])


@dataclass(frozen=True, slots=True)
class _Pending(PendingStep):
    results: tuple[Tensor, ...]

    def outcome(self) -> Outcome:
        """Wait for it."""
        loss, norm, rate, applied = (result.numpy() for result in self.results)
        return Outcome(float(loss), float(norm), float(rate), bool(applied))


class TensorFlowLearner(Learner):
    """See `Learner`."""

    def __init__(self, recipe: Recipe, devices: tuple[str, ...]) -> None:
        self.devices = devices
        self._recipe, self._plan, self._loss = recipe, recipe.plan, recipe.loss
        self.parts = recipe.plan.parts
        if len(devices) > 1 and self._plan.jit:
            raise UsageError("--jit does not work on several devices with TensorFlow; --backend jax does")
        self._strategy = _strategy_of(devices)
        with self._strategy.scope():
            self.model = recipe.build()
        self._scale = tf.Variable(FIRST_SCALE if self._plan.scales else 1.0, trainable=False)
        self._good_steps = tf.Variable(0, trainable=False)
        if len(devices) > 1:
            _synchronise(self.model, wanted=True)
        self.begin_phase(recipe.phase)

    def begin_phase(self, phase: Phase) -> None:
        """Freeze or thaw the backbone, with a new optimiser for what is trainable then."""
        self.phase = phase
        set_phase(self.model, phase)
        self._live = list(self.model.trainable_variables)
        with self._strategy.scope():
            self.optimizer = self._recipe.optimizer(self.model, phase)
        self._retrace()

    def _retrace(self) -> None:
        traced = {"jit_compile": self._plan.jit or None}
        self._whole_step = tf.function(self._step_of_one_part, **traced)
        self._part = tf.function(self._gradients_of_part, **traced)
        self._finish = tf.function(self._finish_step, **traced)
        self._forward = tf.function(self._predict, **traced)

    def step(self, batch: Batch) -> PendingStep:
        """One step of the optimiser."""
        return self._step(batch, self.parts)

    def _step(self, batch: Batch, parts: int) -> PendingStep:
        shares = (self._shared(part) for part in in_parts(batch, parts))
        try:
            if parts == 1:
                return _Pending(self._whole_step(*next(shares)))
            total: tuple[Tensor, ...] | None = None
            for share in shares:
                found = self._part(*share)
                total = found if total is None else self._add(total, found)
            assert total is not None
            return _Pending(self._finish(*total))
        except tf.errors.ResourceExhaustedError as error:
            raise _out_of_memory(error) from None

    def _shared(self, arrays: tuple[Floats, ...]) -> list[Tensor]:
        """Each array with its rows dealt out to the devices in order."""
        return [self._deal(array) for array in arrays]

    def _deal(self, array: Floats) -> Tensor:
        size = len(array) // len(self.devices)

        def share(context: Any) -> Tensor:
            number = context.replica_id_in_sync_group
            with tf.device(self.devices[number]):
                return tf.constant(array[number * size : (number + 1) * size])

        return self._strategy.experimental_distribute_values_from_function(share)

    # What follows is traced.

    def _step_of_one_part(self, images: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        return self._finish_step(*self._gradients_of_part(images, labels, weights))

    def _gradients_of_part(self, images: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """(gradients of the scaled loss, loss), each device's own."""
        scale = tf.convert_to_tensor(self._scale)

        def local(images: Tensor, labels: Tensor, weights: Tensor) -> tuple[list[Tensor], Tensor]:
            live = [variable.value for variable in self._live]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(live)
                loss = tf.reduce_sum(self._loss(self.model(images, training=True), labels) * weights)
                scaled = loss * scale
            return tape.gradient(scaled, live, unconnected_gradients="zero"), loss

        found: tuple[Tensor, Tensor] = self._strategy.run(local, (images, labels, weights))
        return found

    @tf.function  # type: ignore[untyped-decorator]
    def _add(self, one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        def local(one: Tensor, other: Tensor) -> Tensor:
            return tf.nest.map_structure(tf.add, one, other)

        total: tuple[Tensor, Tensor] = self._strategy.run(local, (one, other))
        return total

    def _finish_step(self, gradients: Tensor, loss: Tensor) -> tuple[Tensor, ...]:
        """All-reduce, unscale, clip, apply; (loss, gradient norm, learning rate, applied)."""
        scale = tf.convert_to_tensor(self._scale)
        gradients, norm = self._strategy.run(self._reduced, (gradients, scale))
        norm = self._strategy.experimental_local_results(norm)[0]
        rate = tf.cast(self.optimizer.learning_rate, tf.float32)
        applied = tf.math.is_finite(norm) if self._plan.scales else tf.constant(True)
        if self._plan.scales:
            tf.cond(applied, lambda: self._apply(gradients), lambda: None)
            self._rescale(applied)
        else:
            self._apply(gradients)
        return self._strategy.reduce("SUM", loss, axis=None), norm, rate, applied

    def _reduced(self, gradients: list[Tensor], scale: Tensor) -> tuple[list[Tensor], Tensor]:
        """On each device: the same clipped gradients, and their norm before.

        Keras's optimiser adds up once more over the devices, hence the division.
        """
        context = tf.distribute.get_replica_context()
        gradients = [gradient / scale for gradient in context.all_reduce("SUM", gradients)]
        norm = tf.linalg.global_norm(gradients)
        limit, devices = self._plan.clip_norm, float(len(self.devices))
        factor = (limit / tf.maximum(norm, limit) if limit else 1.0) / devices
        return [gradient * factor for gradient in gradients], norm

    def _apply(self, gradients: Tensor) -> None:
        self._strategy.run(lambda values: self.optimizer.apply(values, self._live), (gradients,))

    def _rescale(self, applied: Tensor) -> None:
        """Double the loss's scale after many good steps, halve it after a bad one."""
        good = tf.where(applied, self._good_steps + 1, 0)
        grown = good >= SCALE_PATIENCE
        self._scale.assign(tf.where(applied, tf.where(grown, self._scale * 2, self._scale), self._scale / 2))
        self._good_steps.assign(tf.where(grown, 0, good))

    def _predict(self, images: Tensor) -> Tensor:
        return self._strategy.run(lambda share: self.model(share, training=False), (images,))

    # The rest is not.

    def predict(self, batch: Batch) -> Floats:
        """Logits of a batch."""
        try:
            shares = self._strategy.experimental_local_results(self._forward(self._deal(batch.images)))
        except tf.errors.ResourceExhaustedError as error:
            raise _out_of_memory(error) from None
        logits: Floats = np.concatenate([share.numpy() for share in shares]).astype(np.float32, copy=False)
        return logits

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the average in the place of what it averages, and back. Before the first step there is none."""
        averages = self.optimizer.averages if int(self.optimizer.iterations.numpy()) else []
        kept = [np.array(variable.numpy()) for variable in self._live]
        for variable, average in zip(self._live, averages, strict=bool(averages)):
            variable.assign(average.numpy())
        try:
            yield
        finally:
            for variable, value in zip(self._live, kept, strict=True):
                variable.assign(value)

    def _state(self) -> list[tuple[str, Any]]:
        """Everything that has to be kept, named by its place in a fixed order."""
        owned = [("model", self.model.variables), ("optimizer", self.optimizer.variables)]
        owned.append(("scale", [self._scale, self._good_steps]))
        return [(f"{kind}/{number:04}", one) for kind, group in owned for number, one in enumerate(group)]

    def arrays(self) -> Arrays:
        """The whole state, copied: NumPy's view of a variable changes with it."""
        return tuple((name, np.array(variable.numpy())) for name, variable in self._state())

    def restore(self, arrays: Arrays) -> None:
        """Take up a state."""
        state = self._state()
        shapes = [tuple(variable.shape) for _, variable in state]
        for (_, variable), value in zip(
            state, matching(arrays, [name for name, _ in state], shapes), strict=True
        ):
            variable.assign(value)

    def weights(self) -> Arrays:
        """The model's variables, averaged."""
        with self.averaged():
            return tuple((variable.path, np.array(variable.numpy())) for variable in self.model.variables)

    def finish(self, weights: Arrays) -> keras.Model:
        """The model, fit to be opened on one device and on other backends."""
        _synchronise(self.model, wanted=False)
        return super().finish(weights)

    def peak_bytes(self, batch: Batch, parts: int) -> int:
        """Memory of a trial step, which is taken back: of the fullest GPU, or of this process."""
        kept = self.arrays()
        gpus = [name.removeprefix("/device:") for name in self.devices if "GPU" in name]
        for gpu in gpus:
            tf.config.experimental.reset_memory_stats(gpu)
        if not gpus:
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak of the resident size
        try:
            self._step(batch, parts).outcome()
        except OutOfMemory:
            return 1 << 62
        finally:
            self.restore(kept)
            self._retrace()
        if gpus:
            return max(int(tf.config.experimental.get_memory_info(gpu)["peak"]) for gpu in gpus)
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(found[1]) * 1024 if found else 0


def _synchronise(model: keras.Model, *, wanted: bool) -> None:
    """Let every BatchNorm take its statistics from the whole batch; other backends refuse that option."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = wanted


def _out_of_memory(error: Exception) -> OutOfMemory:
    return OutOfMemory(
        "a device has too little memory for a step: raise --accumulate, lower --batch-size, or give"
        f" --memory-limit ({type(error).__name__})"
    )
