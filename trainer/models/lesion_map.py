"""In: a classifier that `build` made. Out: the same with a lesion map beside its logits; and back.

The map is a 1×1 convolution on the layer `features`: what a lesion looks like is learned at its place, from
every cell of every image, and the classifier pools features that know it. Predictions need no map: a saved
model has none.
"""

from __future__ import annotations

import keras
from keras import layers

from trainer.models.head import FEATURES
from trainer.models.layers import Bags

RARE = -4.0
"""Logit that every cell starts from: nearly all are empty (Lin et al., ICCV 2017)."""


def with_lesion_map(model: keras.Model) -> keras.Model:
    """Columns behind the logits: a logit for each cell, in raster order; for bags view by view."""
    convolution = layers.Conv2D(
        1,
        1,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        bias_initializer=keras.initializers.Constant(RARE),
        dtype="float32",
        name="lesion_map",
    )
    cells = layers.Flatten(dtype="float32", name="lesion_cells")(
        convolution(model.get_layer(FEATURES).output)
    )
    if len(model.input_shape) == 5:
        bags = Bags(model.input_shape[1], dtype="float32", name="lesion_bags")(cells)
        cells = layers.Flatten(dtype="float32", name="lesion_views")(bags)
    columns = layers.Concatenate(dtype="float32", name="logits_and_cells")([model.outputs[0], cells])
    return keras.Model(model.inputs[0], columns, name=model.name)


def without_lesion_map(model: keras.Model) -> keras.Model:
    """The classifier alone, with the weights that it has now; a model without a map as it is."""
    if not any(layer.name == "lesion_map" for layer in model.layers):
        return model
    return keras.Model(model.inputs[0], model.get_layer("logits").output, name=model.name)
