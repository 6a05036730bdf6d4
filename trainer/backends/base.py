"""Learner: a model, its optimiser and the devices that they live on, behind one face for both backends.

In:  a Recipe (how to build, what to minimise, how a step goes) and the devices' names.
Out: steps, predictions, and the complete state as named arrays.

A step is, on every backend and any number of devices: go through the global batch in parts, each shared out
over the devices; add up gradients; all-reduce; unscale; clip by the global norm; apply; move the average.
The loss is Σ w·l / Σ w over the *global* batch, so that parts and devices add up to the same number.

This module imports no backend: `open_learner` chooses one of its two neighbours.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from preprocess.errors import UsageError
from trainer.config import Backend, ExecutionConfig, OptimizationConfig, Precision
from trainer.errors import OutOfMemory
from trainer.records import Batch, Floats

if TYPE_CHECKING:
    import keras

    from trainer.optimizers import GroupedAdam, Phase

Arrays = tuple[tuple[str, npt.NDArray[Any]], ...]
"""Named arrays in a fixed order: everything that training goes on from."""

LossFunction = Callable[[Any, Any], Any]
"""(logits (B, L), labels (B, 1 + A)) as the backend's tensors → loss of each sample (B,), float32."""

FIRST_SCALE = 2.0**15
SCALE_PATIENCE = 2000
"""Dynamic loss scaling of float16: the scale doubles after so many good steps, and halves at a bad one."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """How a step goes."""

    parts: int = 1
    clip_norm: float = 0.0
    """0: gradients are not clipped."""
    precision: Precision = Precision.FLOAT32
    jit: bool = False

    @classmethod
    def of(cls, config: OptimizationConfig, execution: ExecutionConfig) -> StepPlan:
        """The plan that the configs ask for."""
        return cls(config.accumulate, config.clip_norm, config.precision, execution.jit)

    @property
    def scales(self) -> bool:
        """Whether the loss is scaled: float16's smallest numbers are too large for gradients."""
        return self.precision is Precision.MIXED_FLOAT16


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to learn and how. Called under the devices' scope, with dtype policy and seeds set."""

    build: Callable[[], keras.Model]
    optimizer: Callable[[keras.Model, Phase], GroupedAdam]
    """Built on what the model trains now; called once for each phase."""
    loss: LossFunction
    phase: Phase
    """The first."""
    plan: StepPlan


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step came to."""

    loss: float
    gradient_norm: float
    """Global norm before clipping."""
    learning_rate: float
    applied: bool = True
    """False where float16 overflowed and the step was left out."""

    @property
    def is_finite(self) -> bool:
        """False where training has diverged."""
        return not self.applied or bool(np.isfinite(self.loss) and np.isfinite(self.gradient_norm))


class PendingStep(ABC):
    """A step that the devices may still be busy with."""

    @abstractmethod
    def outcome(self) -> Outcome:
        """Wait for it."""


class Learner(ABC):
    """A model in training."""

    model: keras.Model
    optimizer: GroupedAdam
    devices: tuple[str, ...]
    phase: Phase
    parts: int
    """Parts that a batch is gone through in; to be set before the first step."""

    @abstractmethod
    def step(self, batch: Batch) -> PendingStep:
        """One step of the optimiser on a global batch, whose size is a multiple of parts × devices."""

    @abstractmethod
    def predict(self, batch: Batch) -> Floats:
        """Logits (B, L), float32, without dropout; B a multiple of the devices."""

    @abstractmethod
    def averaged(self) -> AbstractContextManager[None]:
        """Inside, `predict` uses the weights' moving average, where one is kept."""

    @abstractmethod
    def begin_phase(self, phase: Phase) -> None:
        """Freeze or thaw the backbone, with a new optimiser for what is trainable then."""

    @abstractmethod
    def arrays(self) -> Arrays:
        """The whole state: model, optimiser with the moving average, loss scale."""

    @abstractmethod
    def restore(self, arrays: Arrays) -> None:
        """Take up a state that `arrays` gave. Raises UsageError if it is another model's."""

    @abstractmethod
    def weights(self) -> Arrays:
        """The model's variables in order, the moving average in place of what it averages."""

    @abstractmethod
    def peak_bytes(self, batch: Batch, parts: int) -> int:
        """Memory that a step in so many parts takes on one device. Changes nothing."""

    def finish(self, weights: Arrays) -> keras.Model:
        """The model with these weights (from `weights`), ready to be saved."""
        for variable, (_, value) in zip(self.model.variables, weights, strict=True):
            variable.assign(value)
        return self.model


def choose_backend(backend: Backend) -> None:
    """Let Keras use `backend` in this process. Raises UsageError where it already uses another."""
    if "keras" in sys.modules:
        import keras

        if keras.backend.backend() != backend.value:
            raise UsageError(
                f"--backend {backend.value}: this process already uses {keras.backend.backend()}"
            )
    os.environ["KERAS_BACKEND"] = backend.value
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def choose_installed_backend() -> None:
    """Let Keras use TensorFlow, or JAX where there is no TensorFlow. Raises UsageError."""
    choose_backend(Backend.TENSORFLOW if importlib.util.find_spec("tensorflow") else Backend.JAX)


def prepare(execution: ExecutionConfig, config: OptimizationConfig) -> tuple[str, ...]:
    """Set up the backend and return the devices' names, before anything is built.

    Raises UsageError: there is no such device, or the backend is not installed.
    """
    choose_backend(config.backend)
    try:
        if config.backend is Backend.JAX:
            from trainer.backends.jax import prepare_devices
        else:
            from trainer.backends.tensorflow import prepare_devices
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--backend {config.backend.value} needs {error.name}: install the extra train or train-jax"
        ) from None
    return prepare_devices(execution.devices, deterministic=execution.deterministic)


def open_learner(backend: Backend, recipe: Recipe, devices: tuple[str, ...]) -> Learner:
    """Build the model and its optimiser on the devices."""
    if backend is Backend.JAX:
        from trainer.backends.jax import JaxLearner

        return JaxLearner(recipe, devices)
    from trainer.backends.tensorflow import TensorFlowLearner

    return TensorFlowLearner(recipe, devices)


def pick_devices(wanted: str, gpus: Sequence[str], cpus: Sequence[str]) -> tuple[str, ...]:
    """`all`: every GPU, or the CPU where there is none; `cpu`; or numbers among those that `all` means.

    Raises UsageError.
    """
    pool = tuple(cpus if wanted == "cpu" or not gpus else gpus)
    if wanted in ("all", "cpu"):
        return pool
    numbers = [int(number) for number in wanted.split(",")]
    if len(set(numbers)) != len(numbers):
        raise UsageError(f"--devices {wanted}: a device is named twice")
    if max(numbers) >= len(pool):
        raise UsageError(f"--devices {wanted}: there is no device {max(numbers)}, only {', '.join(pool)}")
    return tuple(pool[number] for number in numbers)


def require_divisible(batch_size: int, devices: int, parts: int) -> None:
    """Refuse a batch that cannot be shared out evenly: uneven shares would weigh samples differently."""
    if batch_size % (devices * parts):
        raise UsageError(
            f"--batch-size {batch_size} cannot be shared by {devices} device(s) in {parts} part(s):"
            f" give a multiple of {devices * parts}"
        )


def parts_that_fit(learner: Learner, batch: Batch, limit: int, at_least: int) -> int:
    """The fewest parts in which a step on `batch` takes at most `limit` bytes of a device.

    Raises OutOfMemory: even the smallest parts take more.
    """
    share = len(batch.weights) // len(learner.devices)
    choices = [parts for parts in range(at_least, share + 1) if share % parts == 0]
    if all("CPU" in device.upper() for device in learner.devices):
        return _from_the_most(learner, batch, limit, choices)
    low, high = 0, len(choices) - 1
    while low < high:  # memory falls as parts grow
        middle = (low + high) // 2
        if learner.peak_bytes(batch, choices[middle]) <= limit:
            high = middle
        else:
            low = middle + 1
    if (needed := learner.peak_bytes(batch, choices[low])) > limit:
        raise _too_much(limit, needed)
    return choices[low]


def _from_the_most(learner: Learner, batch: Batch, limit: int, choices: Sequence[int]) -> int:
    """The same where a process keeps what it freed: after a large trial every smaller one looks as large."""
    found = 0
    for parts in reversed(choices):
        if (needed := learner.peak_bytes(batch, parts)) > limit:
            if not found:
                raise _too_much(limit, needed)
            break
        found = parts
    return found


def _too_much(limit: int, needed: int) -> OutOfMemory:
    return OutOfMemory(f"--memory-limit {limit}: a step takes {needed} bytes even in the smallest parts")


def in_parts(batch: Batch, parts: int) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Images, labels, and weights divided by the whole batch's, of each part."""
    total = np.float32(float(batch.weights.sum()) or 1.0)
    shares = (batch.images, batch.labels, (batch.weights / total).astype(np.float32))
    size = len(batch.weights) // parts
    for part in range(parts):
        images, labels, weights = (share[part * size : (part + 1) * size] for share in shares)
        yield images, labels, weights


def matching(
    stored: Arrays, names: Sequence[str], shapes: Sequence[tuple[int, ...]]
) -> list[npt.NDArray[Any]]:
    """The stored arrays, if they are the ones that belong here. Raises UsageError."""
    if [name for name, _ in stored] != list(names) or [array.shape for _, array in stored] != list(shapes):
        raise UsageError(
            "the checkpoint belongs to another model (of another version of this program?):"
            " remove the fold's folder `checkpoint` to start it anew"
        )
    return [array for _, array in stored]
