"""In: logits, labels (NaN where unknown), weights. Out: one number per example, or their weighted mean.

Everything is linear in the examples: the loss of a batch is the weighted mean of its parts' losses, whatever
they are divided into. Unknown labels add nothing. Computed in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

from keras import KerasTensor as Tensor
from keras import ops

from preprocess.errors import UsageError
from trainer.config import ClassWeights, Loss, TrainConfig
from trainer.records import AuxiliaryHead

EFFECTIVE_BETA = 0.999
_SMALLEST = 1e-7


@dataclass(frozen=True, slots=True)
class LossSpec:
    """What is minimised."""

    loss: Loss = Loss.BCE
    gamma: float = 2.0
    alpha: float | None = None
    negative_weight: float = 1.0
    positive_weight: float = 1.0
    soft_positive: float = 1.0
    """Labels of 1 are trained towards this."""
    smoothing: float = 0.0
    heads: tuple[AuxiliaryHead, ...] = ()
    auxiliary_weight: float = 0.0
    lesion_weight: float = 0.0
    """Of the lesion maps, where logits and labels have columns for them."""
    positive_label: float = 1.0
    """What a positive's label is in the batches: the weights of classes go by the share of it."""


def loss_spec(
    config: TrainConfig, heads: tuple[AuxiliaryHead, ...], negatives: int, positives: int
) -> LossSpec:
    """The loss that `config` asks for, for training images with so many negatives and positives."""
    negative, positive = class_weights(config.optimization.class_weights, negatives, positives)
    return LossSpec(
        loss=config.optimization.loss,
        gamma=config.optimization.focal_gamma,
        alpha=config.optimization.focal_alpha,
        negative_weight=negative,
        positive_weight=positive,
        soft_positive=config.data.soft_positive,
        smoothing=config.optimization.label_smoothing,
        heads=heads,
        auxiliary_weight=config.model.auxiliary_weight,
        lesion_weight=config.model.lesion_weight if config.data.lesions else 0.0,
    )


def class_weights(how: ClassWeights, negatives: int, positives: int) -> tuple[float, float]:
    """Weights of a negative and of a positive.

    balanced: N / (2·N_class). effective: 1 / (1 − β^N_class), scaled to the sum 2 (Cui et al., CVPR 2019).

    Raises:
        UsageError: a class is empty, so that its weight means nothing.
    """
    if how is ClassWeights.NONE:
        return 1.0, 1.0
    if min(negatives, positives) == 0:
        raise UsageError(f"--class-weights {how} needs both classes; there are {positives} positives")
    if how is ClassWeights.BALANCED:
        total = negatives + positives
        return total / (2 * negatives), total / (2 * positives)
    shares = [1 / (1 - EFFECTIVE_BETA**count) for count in (negatives, positives)]
    return 2 * shares[0] / sum(shares), 2 * shares[1] / sum(shares)


def total_loss(logits: Tensor, labels: Tensor, weights: Tensor, spec: LossSpec) -> Tensor:
    """Σ w·ℓ / Σ w over the batch: a float32 scalar; 0 if all weights are 0."""
    weights = ops.cast(weights, "float32")
    losses = ops.sum(per_example(logits, labels, spec) * weights)
    return losses / ops.maximum(ops.sum(weights), _SMALLEST)


def per_example(logits: Tensor, labels: Tensor, spec: LossSpec) -> Tensor:
    """(B, 1 + Σ heads.logits + C), (B, 1 + A + C) → (B,) float32; C cells of lesion maps, or 0.

    The target's loss + auxiliary_weight · Σ of the heads' losses + lesion_weight · the maps' loss.
    """
    logits = ops.cast(logits, "float32")
    labels = ops.cast(labels, "float32")
    loss = target_loss(logits[:, 0], labels[:, 0], spec)
    column = 1
    for index, head in enumerate(spec.heads, start=1):
        part = logits[:, column : column + head.logits]
        loss = loss + spec.auxiliary_weight * _head_loss(part, labels[:, index])
        column += head.logits
    if spec.lesion_weight:
        loss = loss + spec.lesion_weight * _lesion_loss(logits[:, column:], labels[:, 1 + len(spec.heads) :])
    return loss


def target_loss(logits: Tensor, labels: Tensor, spec: LossSpec) -> Tensor:
    """(B,), (B,) → (B,): the target's loss. Labels may lie between 0 and 1 (mixup); 0 where unknown."""
    known = ops.isfinite(labels)
    labels = ops.where(known, labels, 0.0)
    positive = labels / spec.positive_label
    weight = spec.negative_weight + positive * (spec.positive_weight - spec.negative_weight)
    aims = labels * spec.soft_positive
    aims = aims * (1 - spec.smoothing) + spec.smoothing / 2
    loss = weight * binary_cross_entropy(logits, aims)
    if spec.loss is Loss.FOCAL:
        loss = loss * _focus(logits, aims, spec)
    return ops.where(known, loss, 0.0)


def binary_cross_entropy(logits: Tensor, aims: Tensor) -> Tensor:
    """−y·log p − (1 − y)·log(1 − p) = log(1 + eᶻ) − y·z: exact for any logit."""
    return ops.softplus(logits) - aims * logits


def _focus(logits: Tensor, aims: Tensor, spec: LossSpec) -> Tensor:
    """(1 − p_t)^γ, and α for positives, 1 − α for negatives (Lin et al., ICCV 2017)."""
    probabilities = ops.sigmoid(logits)
    missed = aims * (1 - probabilities) + (1 - aims) * probabilities
    focus = ops.power(ops.maximum(missed, _SMALLEST), spec.gamma)
    if spec.alpha is None:
        return focus
    return focus * (aims * spec.alpha + (1 - aims) * (1 - spec.alpha))


def _head_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, L), (B,) → (B,): cross-entropy of a binary label or of classes; 0 where unknown."""
    known = ops.isfinite(labels)
    labels = ops.where(known, labels, 0.0)
    if logits.shape[-1] == 1:
        loss = binary_cross_entropy(logits[:, 0], labels)
    else:
        chosen = ops.one_hot(ops.cast(labels, "int32"), logits.shape[-1], dtype="float32")
        loss = ops.logsumexp(logits, axis=-1) - ops.sum(chosen * logits, axis=-1)
    return ops.where(known, loss, 0.0)


def _lesion_loss(logits: Tensor, cells: Tensor) -> Tensor:
    """(B, C), (B, C) → (B,): focal cross-entropy of the cells, summed, by 1 + the cells that lesions cover.

    Empty cells outnumber the others by hundreds: γ = 2 keeps the sum about the few that are hard, and the
    divisor keeps a large lesion from counting more than a small one.
    """
    known = ops.isfinite(cells)
    cells = ops.where(known, cells, 0.0)
    probabilities = ops.sigmoid(logits)
    missed = cells * (1 - probabilities) + (1 - cells) * probabilities
    losses = ops.where(known, binary_cross_entropy(logits, cells) * ops.square(missed), 0.0)
    return ops.sum(losses, axis=-1) / (1 + ops.sum(cells, axis=-1))
