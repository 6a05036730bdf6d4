"""In: the optimisation's config and a model. Out: an optimiser whose variables are its whole state.

Adam with what Keras's own lacks, in its documented hooks (`build`, `update_step`): a learning rate per
variable, decoupled decay on kernels only, and a moving average of the weights. The schedule is a pure
function of the step. So `optimizer.variables` is all that a checkpoint needs.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Sequence
from enum import StrEnum

import keras
import numpy as np
from keras import KerasTensor as Tensor
from keras import Variable, ops

from trainer.config import OptimizationConfig, OptimizerName

Config = dict[str, object]
register = keras.saving.register_keras_serializable(package="bcd")

_EMA_RAMP = 9
"""The average's decay is t / (t + 9) until it reaches the configured one: 0 at the first step."""
_NEVER = 10**9
"""A last step that no training reaches: the rate stays at its peak."""
_BLOCK = re.compile(r"(stage_\d_block_\d+|downsampling_block_\d|block\d+[a-z]?)[_/]")


class Phase(StrEnum):
    """Two-phase fine-tuning."""

    HEAD = "head"
    """The backbone is frozen."""
    ALL = "all"


def phase_at(config: OptimizationConfig, epoch: int) -> Phase:
    """The phase of an epoch, counted from 0."""
    return Phase.HEAD if epoch < config.head_epochs else Phase.ALL


def set_phase(model: keras.Model, phase: Phase) -> None:
    """Freeze or thaw the backbone. Afterwards `model.trainable_variables` is what the phase trains."""
    model.get_layer("backbone").trainable = phase is Phase.ALL


@register
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear from peak / warm-up steps to the peak, then half a cosine to 0 at the last step."""

    def __init__(self, peak: float, warmup_steps: int, steps: int) -> None:
        self.peak, self.warmup_steps, self.steps = peak, warmup_steps, steps

    def __call__(self, step: Tensor) -> Tensor:
        """Learning rate of a step, counted from 0."""
        step = ops.cast(step, "float32")
        rise = (step + 1) / max(self.warmup_steps, 1)
        share = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        fall = 0.5 * (1 + ops.cos(math.pi * ops.clip(share, 0.0, 1.0)))
        return self.peak * ops.where(step < self.warmup_steps, rise, fall)

    def get_config(self) -> Config:
        """What `from_config` needs."""
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "steps": self.steps}


@register
class GroupedAdam(keras.optimizers.Adam):
    """Adam (Kingma and Ba, 2015) or AdamW (Loshchilov and Hutter, 2019) with a rate and decay per variable.

    Variables of rank 0 or 1 (biases, norms, layer scales, exponents) never decay. `scales` are factors of the
    learning rate, decay included, in the order of the variables it is built with.
    """

    def __init__(
        self,
        learning_rate: float | WarmupCosine,
        decay: float = 0.0,
        average: float = 0.0,
        scales: Sequence[float] | None = None,
        **options: object,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **options)
        self.decay, self.average = decay, average
        self.scales = None if scales is None else [float(scale) for scale in scales]
        self.averages: list[Variable] = []
        """Of each variable, in order; empty without an average."""
        self._decays: list[float] = []

    def build(self, variables: Sequence[Variable]) -> None:
        """Make the moments and averages of `variables`.

        Raises:
            ValueError: there are not as many scales.
        """
        if self.built:
            return
        super().build(variables)
        if self.scales is None:
            self.scales = [1.0] * len(variables)
        if len(self.scales) != len(variables):
            raise ValueError(f"{len(self.scales)} scales for {len(variables)} variables")
        self._decays = [self.decay if len(variable.shape) > 1 else 0.0 for variable in variables]
        if self.average:
            self.averages = self.add_optimizer_variables(variables, "average")

    def update_step(self, gradient: Tensor, variable: Variable, learning_rate: Tensor) -> None:
        """Decay, then Adam's step, then the average."""
        index = self._get_variable_index(variable)
        assert self.scales is not None  # built
        rate = ops.cast(learning_rate, variable.dtype) * self.scales[index]
        if self._decays[index]:
            self.assign_sub(variable, variable * (rate * self._decays[index]))
        super().update_step(gradient, variable, rate)
        if self.average:
            average = self.averages[index]
            step = ops.cast(self.iterations, variable.dtype)
            keep = ops.minimum(self.average, step / (step + _EMA_RAMP))
            self.assign_sub(average, (1 - keep) * (average - variable))

    def get_config(self) -> Config:
        """What `from_config` needs."""
        own = {"decay": self.decay, "average": self.average, "scales": self.scales}
        return {**super().get_config(), **own}


def make_optimizer(
    config: OptimizationConfig, model: keras.Model, steps_per_epoch: int, phase: Phase = Phase.ALL
) -> GroupedAdam:
    """The optimiser of one phase, built on what the model trains now (see `set_phase`).

    The head's phase ends at the rate it warmed up to; the phase of all weights warms up again and falls to 0.
    """
    epochs = config.head_epochs if phase is Phase.HEAD else max(config.epochs - config.head_epochs, 1)
    warmup = min(round(config.warmup_epochs * steps_per_epoch), epochs * steps_per_epoch)
    last = _NEVER if phase is Phase.HEAD else epochs * steps_per_epoch
    optimizer = GroupedAdam(
        WarmupCosine(config.learning_rate, warmup, last),
        decay=config.weight_decay if config.optimizer is OptimizerName.ADAMW else 0.0,
        average=config.ema,
        scales=layer_scales(model, config.layer_decay),
    )
    optimizer.build(model.trainable_variables)
    return optimizer


def layer_scales(model: keras.Model, decay: float) -> list[float]:
    """A factor for each trainable variable: 1 in the head, decay^k in the k-th block from the output.

    What stands before the first block is one more block; what stands between blocks belongs to the earlier.
    """
    groups: dict[str, int] = {}
    order: dict[str, int] = {}
    group = 0
    for variable in model.get_layer("backbone").variables:
        if block := block_of(variable.path):
            group = order.setdefault(block, len(order) + 1)
        groups[variable.path] = group
    exponents = [len(order) + 1 - groups.get(v.path, len(order) + 1) for v in model.trainable_variables]
    return [decay**exponent for exponent in exponents]


def block_of(path: str) -> str | None:
    """The block that a variable's path names; None for stems and tops."""
    found = _BLOCK.search(path)
    return found.group(1) if found else None


@contextlib.contextmanager
def averaged(model: keras.Model, optimizer: GroupedAdam) -> Iterator[None]:
    """Within: the model's trained weights are their moving averages. Afterwards exactly as before.

    Without an average, or before the first step, nothing changes.
    """
    variables = model.trainable_variables if optimizer.average and int(optimizer.iterations) else []
    kept = [np.array(variable.numpy()) for variable in variables]
    for variable, average in zip(variables, optimizer.averages if variables else [], strict=True):
        variable.assign(average)
    try:
        yield
    finally:
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)
