"""Learner on JAX: one program over a mesh of devices, the batch split along it, everything else on each.

The compiler inserts the all-reduce wherever a sum runs over the batch, BatchNorm's statistics included, and
dropout draws one mask for the whole batch: any number of devices computes the same numbers up to rounding.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

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

_AXIS = "batch"


def prepare_devices(wanted: str, *, deterministic: bool) -> tuple[str, ...]:
    """Names of the devices to train on. Raises UsageError if there is no such device."""
    if wanted == "cpu":
        jax.config.update("jax_platforms", "cpu")  # type: ignore[no-untyped-call]
    if deterministic and "--xla_gpu_deterministic_ops" not in os.environ.get("XLA_FLAGS", ""):
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true"
        os.environ["XLA_FLAGS"] = flags.strip()  # read when the first device is opened, just below
    names: dict[str, list[str]] = {"gpu": [], "cpu": []}
    for device in jax.devices():
        names.setdefault(device.platform, []).append(str(device))
    return pick_devices(wanted, names["gpu"], names["cpu"])


class _State(NamedTuple):
    """What a step changes."""

    values: list[jax.Array]
    """Of `model.variables`."""
    slots: list[jax.Array]
    """Of `optimizer.variables`."""
    scale: jax.Array
    good_steps: jax.Array


@dataclass(frozen=True, slots=True)
class _Pending(PendingStep):
    results: tuple[jax.Array, ...]

    def outcome(self) -> Outcome:
        """Wait for it."""
        with _told_of_memory():
            loss, norm, rate, applied = (np.asarray(result) for result in self.results)
        return Outcome(float(loss), float(norm), float(rate), bool(applied))


class JaxLearner(Learner):
    """See `Learner`."""

    def __init__(self, recipe: Recipe, devices: tuple[str, ...]) -> None:
        self.devices = devices
        self._recipe, self._plan, self._loss = recipe, recipe.plan, recipe.loss
        self.parts = recipe.plan.parts
        by_name = {str(device): device for device in jax.devices()}
        mesh = Mesh(np.array([by_name[name] for name in devices]), (_AXIS,))
        self._everywhere = _over(mesh)
        self._dealt = _over(mesh, _AXIS)
        self._dealt_parts = _over(mesh, None, _AXIS)
        self.model = recipe.build()
        self._place = {id(variable): place for place, variable in enumerate(self.model.variables)}
        self._predicting: list[jax.Array] | None = None
        scale = np.float32(FIRST_SCALE if self._plan.scales else 1)
        self._state = _State(
            self._put([variable.value for variable in self.model.variables]),
            [],
            *self._put([scale, np.int32(0)]),
        )
        self.begin_phase(recipe.phase)

    def _put(self, values: Sequence[object]) -> list[jax.Array]:
        """On every device, and nobody else's: a step gives its arrays' memory away."""
        return [jax.device_put(np.array(value), self._everywhere) for value in values]

    def begin_phase(self, phase: Phase) -> None:
        """Freeze or thaw the backbone, with a new optimiser for what is trainable then."""
        self.phase = phase
        set_phase(self.model, phase)
        self._live = [self._place[id(variable)] for variable in self.model.trainable_variables]
        self._rest = [self._place[id(variable)] for variable in self.model.non_trainable_variables]
        self.optimizer = self._recipe.optimizer(self.model, phase)
        self._averages = [_index(self.optimizer.variables, average) for average in self.optimizer.averages]
        self._state = self._state._replace(slots=self._put([one.value for one in self.optimizer.variables]))
        self._step = jax.jit(self._whole_step, donate_argnums=0, out_shardings=self._everywhere)
        self._forward = jax.jit(self._predict, out_shardings=self._everywhere)

    def step(self, batch: Batch) -> PendingStep:
        """One step of the optimiser."""
        with _told_of_memory():
            self._state, results = self._step(self._state, *self._shared(batch, self.parts))
        return _Pending(results)

    def _shared(self, batch: Batch, parts: int) -> tuple[jax.Array, ...]:
        """Images, labels and weights (parts, rows, …), rows dealt out to the devices in order."""
        columns = zip(*in_parts(batch, parts), strict=True)
        return tuple(jax.device_put(np.stack(column), self._dealt_parts) for column in columns)

    # What follows is traced.

    def _whole_step(
        self, state: _State, images: jax.Array, labels: jax.Array, weights: jax.Array
    ) -> tuple[_State, tuple[jax.Array, ...]]:
        live = [state.values[place] for place in self._live]
        rest = [state.values[place] for place in self._rest]
        gradients, rest, loss = self._accumulated(live, rest, state.scale, (images, labels, weights))
        gradients, norm = self._clipped([gradient / state.scale for gradient in gradients])
        rate = jnp.float32(self._learning_rate(state.slots))
        new = self._applied(state, gradients, rest)
        if not self._plan.scales:
            return new, (loss, norm, rate, jnp.bool_(True))
        applied = jnp.isfinite(norm)
        new = jax.tree.map(partial(jnp.where, applied), new, state)
        return _rescaled(new, applied), (loss, norm, rate, applied)

    def _accumulated(
        self, live: list[jax.Array], rest: list[jax.Array], scale: jax.Array, parts: tuple[jax.Array, ...]
    ) -> tuple[list[jax.Array], list[jax.Array], jax.Array]:
        """Gradients of the scaled loss, what the forward pass changed, and the loss, over all parts."""

        def loss_of(
            live: list[jax.Array], rest: list[jax.Array], part: tuple[jax.Array, ...]
        ) -> tuple[jax.Array, tuple[list[jax.Array], jax.Array]]:
            images, labels, weights = part
            logits, rest = self.model.stateless_call(live, rest, images, training=True)
            loss = jnp.sum(self._loss(logits, labels) * weights)
            return loss * scale, (rest, loss)

        differentiate = jax.value_and_grad(loss_of, has_aux=True)

        def add(carry: Any, part: tuple[jax.Array, ...]) -> tuple[Any, None]:
            rest, gradients, total = carry
            (_, (rest, loss)), found = differentiate(live, rest, part)
            return (rest, jax.tree.map(jnp.add, gradients, found), total + loss), None

        if len(parts[0]) == 1:
            (_, (rest, loss)), gradients = differentiate(live, rest, tuple(part[0] for part in parts))
            return gradients, rest, loss
        nothing = (rest, [jnp.zeros_like(value) for value in live], jnp.float32(0))
        (rest, gradients, loss), _ = jax.lax.scan(add, nothing, parts)
        return gradients, rest, loss

    def _clipped(self, gradients: list[jax.Array]) -> tuple[list[jax.Array], jax.Array]:
        squares = [jnp.sum(jnp.square(gradient.astype(jnp.float32))) for gradient in gradients]
        norm = jnp.sqrt(sum(squares, start=jnp.float32(0)))
        limit = self._plan.clip_norm
        factor = limit / jnp.maximum(norm, limit) if limit else jnp.float32(1)
        return [gradient * factor for gradient in gradients], norm

    def _applied(self, state: _State, gradients: list[jax.Array], rest: list[jax.Array]) -> _State:
        """Optimiser, average and variables moved on."""
        before = [state.values[place] for place in self._live]
        after, slots = self.optimizer.stateless_apply(state.slots, gradients, before)
        values = list(state.values)
        for place, value in zip((*self._rest, *self._live), (*rest, *after), strict=True):
            values[place] = value
        return state._replace(values=values, slots=slots)

    def _learning_rate(self, slots: list[jax.Array]) -> jax.Array:
        import keras

        mapping = list(zip(self.optimizer.variables, slots, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            rate: jax.Array = self.optimizer.learning_rate
            return jnp.asarray(rate)

    def _predict(self, values: list[jax.Array], images: jax.Array) -> jax.Array:
        live, rest = ([values[place] for place in places] for places in (self._live, self._rest))
        logits: jax.Array = self.model.stateless_call(live, rest, images, training=False)[0]
        return logits

    # The rest is not.

    def predict(self, batch: Batch) -> Floats:
        """Logits of a batch."""
        values = self._state.values if self._predicting is None else self._predicting
        with _told_of_memory():
            logits = self._forward(values, jax.device_put(batch.images, self._dealt))
            return np.asarray(logits, np.float32)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Predict with the average in the place of what it averages."""
        self._predicting = self._averaged_values()
        try:
            yield
        finally:
            self._predicting = None

    def _averaged_values(self) -> list[jax.Array]:
        values = list(self._state.values)
        steps = self._state.slots[_index(self.optimizer.variables, self.optimizer.iterations)]
        if not self._averages or not int(steps):
            return values
        for place, average in zip(self._live, self._averages, strict=True):
            values[place] = self._state.slots[average]
        return values

    def arrays(self) -> Arrays:
        """The whole state."""
        state = self._state
        owned = [("model", state.values), ("optimizer", state.slots)]
        owned.append(("scale", [state.scale, state.good_steps]))
        return tuple(
            (f"{kind}/{number:04}", np.asarray(one))
            for kind, group in owned
            for number, one in enumerate(group)
        )

    def restore(self, arrays: Arrays) -> None:
        """Take up a state."""
        mine = self.arrays()
        found = matching(arrays, [name for name, _ in mine], [array.shape for _, array in mine])
        self._state = jax.tree.unflatten(jax.tree.structure(self._state), self._put(found))

    def weights(self) -> Arrays:
        """The model's variables, averaged."""
        pairs = zip(self.model.variables, self._averaged_values(), strict=True)
        return tuple((variable.path, np.asarray(value)) for variable, value in pairs)

    def peak_bytes(self, batch: Batch, parts: int) -> int:
        """What the compiler says that a step takes on one device, without running it."""
        compiled = self._step.lower(self._state, *self._shared(batch, parts)).compile()
        used = compiled.memory_analysis()
        if used is None:
            raise UsageError("--memory-limit: JAX cannot tell the memory of a step on this device")
        total = used.argument_size_in_bytes + used.output_size_in_bytes + used.temp_size_in_bytes
        return int(total - used.alias_size_in_bytes)


def _index(variables: Sequence[object], wanted: object) -> int:
    return next(place for place, one in enumerate(variables) if one is wanted)


def _over(mesh: Mesh, *axes: str | None) -> NamedSharding:
    """An array's leading axes split along the mesh where named; the rest whole on each device."""
    return NamedSharding(mesh, PartitionSpec(*axes))  # type: ignore[no-untyped-call]


def _rescaled(state: _State, applied: jax.Array) -> _State:
    """Double the loss's scale after many good steps, halve it after a bad one."""
    good = jnp.where(applied, state.good_steps + 1, 0)
    grown = good >= SCALE_PATIENCE
    scale = jnp.where(applied, jnp.where(grown, state.scale * 2, state.scale), state.scale / 2)
    return state._replace(scale=scale, good_steps=jnp.where(grown, 0, good))


@contextlib.contextmanager
def _told_of_memory() -> Iterator[None]:
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise OutOfMemory(
            "a device has too little memory for a step: raise --accumulate, lower --batch-size, or give"
            " --memory-limit"
        ) from None
