"""In: a backbone's features. Out: a vector per image, or logits.

Features → 1×1 convolution → residual blocks → group norm → pooling → dropout. The layer named `features` is
the last that has rows and columns: what `bcd-train explain` looks at, and what `--lesions` teaches directly.
"""

from __future__ import annotations

import keras
from keras import KerasTensor as Tensor
from keras import layers

from trainer.config import ModelConfig, Pooling
from trainer.models.backbones import activated, residual
from trainer.models.layers import GeneralisedMean

FEATURES = "features"


def vector_of(features: Tensor, config: ModelConfig) -> Tensor:
    """(B, h, w, C) → (B, D) float32. D is `head_filters`, or C without head blocks."""
    x = features
    if config.head_blocks:
        x = layers.Conv2D(config.head_filters, 1, use_bias=False, name="head_project")(x)
        for index in range(config.head_blocks):
            x = residual(x, config.head_filters, f"head_block{index}", drop_path=config.drop_path)
        x = activated(x, "head")
    x = layers.Activation("linear", dtype="float32", name=FEATURES)(x)
    x = _pooling(config.pooling)(x)
    return layers.Dropout(config.dropout, dtype="float32", name="head_dropout")(x)


def logits_of(vectors: Tensor, width: int) -> Tensor:
    """(…, D) → (…, `width`) float32."""
    return layers.Dense(width, dtype="float32", name="head_logits")(vectors)


def _pooling(pooling: Pooling) -> keras.layers.Layer:
    if pooling is Pooling.GEM:
        return GeneralisedMean(name="head_pool")
    kind = layers.GlobalMaxPooling2D if pooling is Pooling.MAX else layers.GlobalAveragePooling2D
    return kind(dtype="float32", name="head_pool")
