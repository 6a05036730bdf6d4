"""In: ModelConfig, size, auxiliary heads, bags. Out: a Keras model from stored pixels to logits.

    (B, H, W, 1) or (B, V, H, W, 1) float32 in [0, 1]
      → normalise → backbone → head → (B, 1 + Σ heads.logits) float32, column 0 the target

Everything that prediction needs is inside: normalisation, pooling of bags, what the columns mean. A view that
a bag lacks is a picture without any pixel above 0.
"""

from __future__ import annotations

import keras
from keras import KerasTensor as Tensor

from preprocess.errors import UsageError
from trainer.architectures import architecture_of
from trainer.config import BagPooling, ModelConfig, Pooling
from trainer.models.head import features_of, logits_of, top_logits, vector_of
from trainer.models.layers import (
    AttentionPool,
    Bags,
    FillAbsent,
    Outputs,
    PoolLogits,
    PresentViews,
)
from trainer.models.pretrained import Front, PixelStatistics, make_front, take_head
from trainer.models.weights import WeightsRecord, open_weights
from trainer.records import AuxiliaryHead

MINIMUM_SIZE = 32


def build(
    config: ModelConfig,
    size: tuple[int, int],
    heads: tuple[AuxiliaryHead, ...] = (),
    bags: BagPooling = BagPooling.NONE,
    views: int = 1,
    statistics: PixelStatistics | None = None,
) -> keras.Model:
    """Build the model that `config` describes.

    Args:
        config: backbone, weights, head.
        size: rows and columns, at least 32 each.
        heads: auxiliary heads, in the config's order.
        bags: how breasts are pooled; none: images are examples.
        views: places for views in a bag.
        statistics: of the dataset's pixels; used where no pretrained weights say how to normalise.

    Raises:
        UsageError: unknown model, size too small, weights that cannot be had or do not fit, a pooling that
            the bags cannot use.
    """
    if min(size) < MINIMUM_SIZE:
        raise UsageError(
            f"models need at least {MINIMUM_SIZE}x{MINIMUM_SIZE} pixels, not {size[0]}x{size[1]}"
        )
    if config.pooling is Pooling.TOP and bags is BagPooling.ATTENTION:
        raise UsageError("--pooling top leaves no vectors that --bags attention could weigh: choose another")
    architecture = architecture_of(config.model)
    file = open_weights(architecture, config.weights)
    front = make_front(architecture, size, config.drop_path, file, statistics)
    widths = tuple(head.logits for head in heads)
    if bags is BagPooling.NONE:
        images = keras.Input((*size, 1), name="images")
        logits = _logits(_features(images, front, config), config, 1 + sum(widths))
    else:
        images = keras.Input((views, *size, 1), name="images")
        logits = _bag_logits(images, bags, widths, front, config)
    outputs = Outputs([(head.name, head.classes) for head in heads], name="logits")(logits)
    model = keras.Model(images, outputs, name=config.model)
    take_head(model, front.head)
    return model


def weights_record(config: ModelConfig) -> WeightsRecord:
    """Where the weights that `config` starts from come from, with their hash. Raises as `build`."""
    file = open_weights(architecture_of(config.model), config.weights)
    return WeightsRecord("none") if file is None else file.record


def _features(images: Tensor, front: Front, config: ModelConfig) -> Tensor:
    """(B, H, W, 1) → (B, h, w, D)."""
    return features_of(front.backbone(front.normalise(images)), config)


def _logits(features: Tensor, config: ModelConfig, width: int) -> Tensor:
    """(B, h, w, D) → (B, `width`)."""
    if config.pooling is Pooling.TOP:
        return top_logits(features, config, width)
    return logits_of(vector_of(features, config), width)


def _bag_logits(
    images: Tensor, pooling: BagPooling, widths: tuple[int, ...], front: Front, config: ModelConfig
) -> Tensor:
    """(B, V, H, W, 1) → (B, K): the views in one go through the backbone, then pooled."""
    present = PresentViews(name="present")(images)
    views = FillAbsent(name="views")(images, present)
    features, bag = _features(views, front, config), Bags(images.shape[1], dtype="float32", name="bags")
    if pooling is BagPooling.ATTENTION:
        vectors = AttentionPool(name="bag_attention")(bag(vector_of(features, config)), present)
        return logits_of(vectors, 1 + sum(widths))
    logits = bag(_logits(features, config, 1 + sum(widths)))
    return PoolLogits(pooling, widths, name="bag_pool")(logits, present)
