"""In: a classifier that `build` made. Out: the same with a lesion map beside its logits; and back.

The map is a 1×1 convolution on the layer `features`: what a lesion looks like is learned at its place, from
every cell of every image, and the classifier pools features that know it. With pooling `top` it is the map
that the classifier pools. Predictions need no map beside them: a saved model has none.
"""

from __future__ import annotations

import keras
from keras import KerasTensor as Tensor
from keras import layers

from trainer.models.head import CELLS, FEATURES, RARE
from trainer.models.layers import Bags


def with_lesion_map(model: keras.Model) -> keras.Model:
    """Columns behind the logits: a logit for each cell, in raster order; for bags view by view."""
    cells = layers.Flatten(dtype="float32", name="lesion_cells")(_map(model))
    if len(model.input_shape) == 5:
        bags = Bags(model.input_shape[1], dtype="float32", name="lesion_bags")(cells)
        cells = layers.Flatten(dtype="float32", name="lesion_views")(bags)
    columns = layers.Concatenate(dtype="float32", name="logits_and_cells")([model.outputs[0], cells])
    return keras.Model(model.inputs[0], columns, name=model.name)


def without_lesion_map(model: keras.Model) -> keras.Model:
    """The classifier alone, with the weights that it has now; a model without a map as it is."""
    if not any(layer.name == "lesion_cells" for layer in model.layers):
        return model
    return keras.Model(model.inputs[0], model.get_layer("logits").output, name=model.name)


def _map(model: keras.Model) -> Tensor:
    """(B, h, w, 1): the target's logit of each cell."""
    if any(layer.name == CELLS for layer in model.layers):
        return model.get_layer(CELLS).output[..., :1]
    convolution = layers.Conv2D(
        1,
        1,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        bias_initializer=keras.initializers.Constant(RARE),
        dtype="float32",
        name="lesion_map",
    )
    return convolution(model.get_layer(FEATURES).output)
