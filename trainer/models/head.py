"""In: a backbone's features. Out: a vector per image, or logits.

Features → 1×1 convolution → residual blocks → group norm → pooling → dropout → dense. With pooling `top`
every cell gets logits of its own, and the image's are the highest: what `--lesions` teaches a cell is then
what the image is judged by. The layer named `features` is the last that has a vector for each cell: what
`bcd-train explain` looks at.
"""

from __future__ import annotations

import keras
from keras import KerasTensor as Tensor
from keras import layers

from trainer.config import ModelConfig, Pooling
from trainer.models.backbones import activated, residual
from trainer.models.layers import GeneralisedMean, TopCells

FEATURES = "features"
CELLS = "head_cells"
"""Of pooling `top`: (B, h, w, 1 + Σ heads.logits), column 0 the target's map."""
RARE = -4.0
"""Logit that every cell starts from: nearly all are empty (Lin et al., ICCV 2017)."""


def features_of(features: Tensor, config: ModelConfig) -> Tensor:
    """(B, h, w, C) → (B, h, w, D) float32. D is `head_filters`, or C without head blocks."""
    x = features
    if config.head_blocks:
        x = layers.Conv2D(config.head_filters, 1, use_bias=False, name="head_project")(x)
        for index in range(config.head_blocks):
            x = residual(x, config.head_filters, f"head_block{index}", drop_path=config.drop_path)
        x = activated(x, "head")
    return layers.Activation("linear", dtype="float32", name=FEATURES)(x)


def vector_of(features: Tensor, config: ModelConfig) -> Tensor:
    """(B, h, w, D) → (B, D) float32; not for pooling `top`, which has none."""
    x = _pooling(config.pooling)(features)
    return layers.Dropout(config.dropout, dtype="float32", name="head_dropout")(x)


def logits_of(vectors: Tensor, width: int) -> Tensor:
    """(…, D) → (…, `width`) float32."""
    return layers.Dense(width, dtype="float32", name="head_logits")(vectors)


def top_logits(features: Tensor, config: ModelConfig, width: int) -> Tensor:
    """(B, h, w, D) → (B, `width`) float32: pooling `top`."""
    x = layers.SpatialDropout2D(config.dropout, dtype="float32", name="head_dropout")(features)
    rare = keras.initializers.Constant(RARE)
    cells = layers.Conv2D(width, 1, bias_initializer=rare, dtype="float32", name=CELLS)(x)
    return TopCells(name="head_top")(cells)


def _pooling(pooling: Pooling) -> keras.layers.Layer:
    if pooling is Pooling.GEM:
        return GeneralisedMean(name="head_pool")
    kind = layers.GlobalMaxPooling2D if pooling is Pooling.MAX else layers.GlobalAveragePooling2D
    return kind(dtype="float32", name="head_pool")
