"""In: an architecture and a size. Out: its feature extractor on normalised pixels, with random weights.

Those of keras.applications come without their own preprocessing (ours is in front, see `weights`) and with
the drop path that was asked for, whichever they have by default.
"""

from __future__ import annotations

import math
import re

import keras
from keras import KerasTensor as Tensor
from keras import layers

from trainer.architectures import Architecture, Family
from trainer.models.convolutions import DetailBands, Maxima, Scale, StandardisedConv2D

_USUAL_DROP_PATH = 0.2
"""Rate at EfficientNet's deepest block in keras.applications; falling linearly towards the input."""
_RELU_GAIN = (2 / (1 - 1 / math.pi)) ** 0.5
"""Restores the variance that a ReLU takes from normally distributed values."""
_CONVNEXT_END = re.compile(r"_stage_(\d)_block_(\d+)_identity$")


def application(architecture: Architecture, size: tuple[int, int], channels: int) -> keras.Model:
    """The feature extractor as keras.applications makes it, without preprocessing where that can be left out.

    EfficientNet 1 keeps its Rescaling and Normalization: its weights files count on them.
    """
    maker = getattr(keras.applications, architecture.application)
    options = {} if architecture.family is Family.EFFICIENTNET else {"include_preprocessing": False}
    return maker(include_top=False, weights=None, input_shape=(*size, channels), **options)


def make_backbone(
    architecture: Architecture, size: tuple[int, int], channels: int, drop_path: float
) -> keras.Model:
    """A model from (B, H, W, `channels`) normalised pixels to a feature map; it is named `backbone`."""
    if architecture.family is Family.RESNET:
        return _resnet_tiny(size, channels, drop_path)
    whole = application(architecture, size, channels)
    dropping = _with_drop_path(whole, drop_path)
    if architecture.family is Family.EFFICIENTNET:
        dropping = keras.Model(dropping.get_layer("stem_conv_pad").input, dropping.output)
    pixels = keras.Input((*size, channels))
    return keras.Model(pixels, dropping(pixels), name="backbone")


def _with_drop_path(model: keras.Model, rate: float) -> keras.Model:
    blocks = [found for layer in model.layers if (found := _CONVNEXT_END.search(layer.name))]
    last = max(len(blocks) - 1, 1)
    order = {found.string: index for index, found in enumerate(blocks)}

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer.name in order:
            return _dropping(rate * order[layer.name] / last, layer.name)
        if isinstance(layer, layers.Dropout):
            return _dropping(rate * layer.rate / _USUAL_DROP_PATH, layer.name)
        return type(layer).from_config(config)

    return keras.models.clone_model(model, clone_function=clone)


def _dropping(rate: float, name: str) -> keras.layers.Layer:
    """Stochastic depth (Huang et al., ECCV 2016): a residual branch is dropped whole, image by image."""
    return layers.Dropout(rate, noise_shape=(None, 1, 1, 1), name=name)


def residual(features: Tensor, filters: int, name: str, stride: int = 1, drop_path: float = 0.0) -> Tensor:
    """A pre-activation residual block of two 3×3 convolutions (He et al., ECCV 2016) with group norm.

    Group norm gives the same result for any division of a batch, and in training as in prediction.
    """
    x = activated(features, f"{name}_1")
    shortcut = features
    if stride > 1 or features.shape[-1] != filters:
        shortcut = (
            layers.AveragePooling2D(stride, padding="same", name=f"{name}_pool")(x) if stride > 1 else x
        )
        shortcut = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project")(shortcut)
    x = layers.Conv2D(filters, 3, stride, "same", use_bias=False, name=f"{name}_conv_1")(x)
    x = activated(x, f"{name}_2")
    x = layers.Conv2D(filters, 3, 1, "same", use_bias=False, name=f"{name}_conv_2")(x)
    if drop_path:
        x = _dropping(drop_path, f"{name}_drop")(x)
    return layers.Add(name=f"{name}_add")([shortcut, x])


def activated(x: Tensor, name: str) -> Tensor:
    """Group norm, then ReLU."""
    groups = next(count for count in (8, 4, 2, 1) if x.shape[-1] % count == 0)
    x = layers.GroupNormalization(groups, name=f"{name}_norm")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)


def _resnet_tiny(size: tuple[int, int], channels: int, drop_path: float) -> keras.Model:
    """Seven residual blocks of 32 to 96 filters without norms, on a quarter to a sixteenth of the resolution.

    The stem sees fine detail apart from slow tissue, and hands its maxima on: specks of a pixel or two are
    found there. Without the bands, calcifications of phantoms are still missed after twice the steps in
    which they are found with them.
    """
    pixels = keras.Input((*size, channels))
    x = DetailBands(name="bands")(pixels)
    x = StandardisedConv2D(24, 5, 2, name="stem_conv")(x)
    x = layers.Activation("relu", name="stem_relu")(x)
    x = Maxima(name="stem_pool")(x)
    plan = [(32, 1), (32, 1), (64, 2), (64, 1), (96, 2), (96, 1), (96, 1)]
    for index, (filters, stride) in enumerate(plan):
        x = _standardised(x, filters, f"block{index}", stride, drop_path * index / (len(plan) - 1))
    return keras.Model(pixels, layers.Activation("relu", name="top_relu")(x), name="backbone")


def _standardised(features: Tensor, filters: int, name: str, stride: int, drop_path: float) -> Tensor:
    """`residual` without norms: standardised kernels, and a branch that begins small."""
    x = layers.Activation("relu", name=f"{name}_1_relu")(features)
    shortcut = features
    if stride > 1 or features.shape[-1] != filters:
        pooled = layers.AveragePooling2D(stride, padding="same", name=f"{name}_pool")(x) if stride > 1 else x
        shortcut = StandardisedConv2D(filters, 1, gain=_RELU_GAIN, name=f"{name}_project")(pooled)
    x = StandardisedConv2D(filters, 3, stride, gain=_RELU_GAIN, name=f"{name}_conv_1")(x)
    x = layers.Activation("relu", name=f"{name}_2_relu")(x)
    x = StandardisedConv2D(filters, 3, gain=_RELU_GAIN, name=f"{name}_conv_2")(x)
    if drop_path:
        x = _dropping(drop_path, f"{name}_drop")(x)
    return layers.Add(name=f"{name}_add")([shortcut, Scale(name=f"{name}_scale")(x)])
