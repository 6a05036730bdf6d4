"""Which pixels of a prepared image a model's answer comes from.

In:  a model of `trainer.models` and one image (H, W) in [0, 1].
Out: a map (H, W) float32, larger where more of the target's logit comes from; the logit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from preprocess.errors import UsageError
from trainer.backends.gradients import gradient
from trainer.inference import sigmoid
from trainer.records import Floats

if TYPE_CHECKING:
    import keras

FEATURES, CELLS = "features", "head_cells"
"""Names of the model's last layers that have rows and columns (`trainer.models.head`)."""

PATH_STEPS = 32
_PATH_BATCH = 8


class Method(StrEnum):
    """How a map is made."""

    GRADCAM = "gradcam"
    """Feature maps weighted by their mean gradients (Selvaraju et al., ICCV 2017); the positive part."""
    INTEGRATED_GRADIENTS = "integrated_gradients"
    """Gradients along the straight path from a black image (Sundararajan et al., ICML 2017)."""
    CELLS = "cells"
    """Of pooling `top`: what each cell is taken for by itself, which is all that the image is judged by."""

    @property
    def opaque(self) -> float | None:
        """The value that a picture shows in full: of probabilities 1; None: each map's own largest."""
        return 1.0 if self is Method.CELLS else None


@dataclass(frozen=True, slots=True)
class Attribution:
    """A map and what it explains."""

    map: Floats = field(repr=False)
    """(H, W). Grad-CAM: not negative. Cells: probabilities. Integrated gradients: signed, in sum about the
    logit − that of black."""
    logit: float


class Explainer:
    """One model, cut at its features once."""

    def __init__(self, model: keras.Model) -> None:
        import keras

        self._model = model
        self._views = model.input_shape[1] if len(model.input_shape) == 5 else None
        try:
            features = model.get_layer(FEATURES).output
        except ValueError:
            raise UsageError("the model has no layer named features: it is none of bcd-train") from None
        self._before = keras.Model(model.inputs[0], features)
        self._after = None if self._views else keras.Model(features, model.outputs[0])
        has_cells = any(layer.name == CELLS for layer in model.layers)
        self._cells = keras.Model(model.inputs[0], model.get_layer(CELLS).output) if has_cells else None

    @property
    def usual(self) -> Method:
        """Cells where the model has them, else Grad-CAM."""
        return Method.GRADCAM if self._cells is None else Method.CELLS

    def explain(self, image: Floats, method: Method) -> Attribution:
        """Explain the target's logit.

        image: (H, W) float32 in [0, 1]. A model of breasts sees it as a breast's only view.

        Raises:
            UsageError: cells of a model that has none; Grad-CAM of a model of breasts, whose pooling lies
                between features and views.
        """
        batch = self._batch(image)
        logit = float(np.asarray(self._model(batch, training=False))[0, 0])
        if method is Method.CELLS:
            return Attribution(self._map_of_cells(batch, image.shape), logit)
        if method is Method.INTEGRATED_GRADIENTS:
            return Attribution(self._path(batch), logit)
        return Attribution(self._gradcam(batch, image.shape), logit)

    def _batch(self, image: Floats) -> Floats:
        picture = np.asarray(image, np.float32)[None, :, :, None]
        if self._views is None:
            return picture
        bag = np.zeros((1, self._views, *picture.shape[1:]), np.float32)
        bag[:, 0] = picture
        return bag

    def _gradcam(self, batch: Floats, size: tuple[int, ...]) -> Floats:
        after = self._after
        if after is None:
            raise UsageError("a model of breasts has no Grad-CAM; use --method integrated_gradients")
        features = np.asarray(self._before(batch, training=False), np.float32)
        slopes = gradient(lambda tensor: _target(after, tensor), features)
        weights = slopes.mean(axis=(1, 2), keepdims=True)
        coarse = np.maximum((weights * features).sum(axis=-1)[0], 0)
        return enlarge(coarse, (size[0], size[1]))

    def _map_of_cells(self, batch: Floats, size: tuple[int, ...]) -> Floats:
        if self._cells is None:
            raise UsageError("only models with --pooling top have cells; use another --method")
        coarse = np.asarray(self._cells(batch, training=False), np.float32)[0, :, :, 0]
        return enlarge(sigmoid(coarse).astype(np.float32), (size[0], size[1]))

    def _path(self, batch: Floats) -> Floats:
        total = np.zeros_like(batch)
        parts = (np.arange(PATH_STEPS, dtype=np.float32) + 0.5) / PATH_STEPS  # their middles: second order
        for some in np.split(parts, PATH_STEPS // _PATH_BATCH):
            places = (batch * some.reshape(-1, *(1,) * (batch.ndim - 1))).astype(np.float32)
            total += gradient(lambda tensor: _target(self._model, tensor), places).sum(axis=0, keepdims=True)
        share = (total / PATH_STEPS * batch)[0]
        picture: Floats = share[..., 0] if self._views is None else share[0, ..., 0]
        return picture


def _target(model: keras.Model, tensor: Any) -> Any:  # tensors of the backend in use
    return model(tensor, training=False)[:, 0]


def enlarge(coarse: Floats, size: tuple[int, int]) -> Floats:
    """Bilinear: a cell's value stands at its middle; the border is continued."""
    places = [
        (np.arange(n, dtype=np.float64) + 0.5) * (m / n) - 0.5
        for n, m in zip(size, coarse.shape, strict=True)
    ]
    grid = np.meshgrid(*places, indexing="ij")
    return np.asarray(ndimage.map_coordinates(coarse, grid, order=1, mode="nearest"), np.float32)
