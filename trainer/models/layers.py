"""Layers of our own, registered under `bcd`: a saved model opens wherever `trainer.models` was imported.

All work on any Keras backend. Those that handle pixels or exponents compute in float32 whatever the policy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
from keras import KerasTensor as Tensor
from keras import ops

from trainer.config import BagPooling
from trainer.records import AuxiliaryHead

Config = dict[str, object]
register = keras.saving.register_keras_serializable(package="bcd")


@register
class Normalise(keras.layers.Layer):
    """(…, 1) in [0, 1] → (…, C) float32: one copy per channel of (x − mean) / std."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], **options: object) -> None:
        super().__init__(**{"dtype": "float32", **options})
        self.mean = [float(value) for value in mean]
        self.std = [float(value) for value in std]

    def call(self, images: Tensor) -> Tensor:
        """Normalise `images`."""
        mean = ops.convert_to_tensor(self.mean, "float32")
        return (images - mean) / ops.convert_to_tensor(self.std, "float32")

    def get_config(self) -> Config:
        """What `from_config` needs."""
        return {**super().get_config(), "mean": self.mean, "std": self.std}


@register
class TopCells(keras.layers.Layer):
    """(B, h, w, K) → (B, K) float32: of each column the mean of its `count` highest cells.

    The pooling of saliency maps in Shen et al., Medical Image Analysis 68, 2021; a fixed number of cells, not
    a share of them, so that windows and whole images are judged alike.
    """

    def __init__(self, count: int = 4, **options: object) -> None:
        super().__init__(**{"dtype": "float32", **options})
        self.count = count

    def call(self, cells: Tensor) -> Tensor:
        """Pool `cells`; where there are fewer, all of them."""
        number = math.prod(cells.shape[1:3])
        lines = ops.reshape(ops.transpose(cells, (0, 3, 1, 2)), (-1, cells.shape[3], number))
        highest, _ = ops.top_k(lines, min(self.count, number))
        return ops.mean(highest, axis=-1)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """A row of columns."""
        return (shape[0], shape[3])

    def get_config(self) -> Config:
        """What `from_config` needs."""
        return {**super().get_config(), "count": self.count}


@register
class GeneralisedMean(keras.layers.Layer):
    """(B, H, W, C) → (B, C): the generalised mean with a trained exponent, float32.

    Radenović et al., TPAMI 2019. Values are clamped from below, the exponent to [1, 12].
    """

    def __init__(self, exponent: float = 3.0, **options: object) -> None:
        super().__init__(**{"dtype": "float32", **options})
        self.exponent = exponent

    def build(self, _shape: tuple[int | None, ...]) -> None:
        """Make the exponent."""
        start = keras.initializers.Constant(self.exponent)
        self.power = self.add_weight(shape=(), initializer=start, name="power")

    def call(self, features: Tensor) -> Tensor:
        """Pool `features`."""
        power = ops.clip(self.power, 1.0, 12.0)
        logarithms = ops.log(ops.maximum(features, 1e-6)) * power
        highest = ops.stop_gradient(ops.max(logarithms, axis=(1, 2), keepdims=True))
        means = ops.mean(ops.exp(logarithms - highest), axis=(1, 2))
        return ops.exp((ops.log(means) + highest[:, 0, 0, :]) / power)

    def get_config(self) -> Config:
        """What `from_config` needs."""
        return {**super().get_config(), "exponent": self.exponent}


@register
class Outputs(keras.layers.Layer):
    """The last layer: passes logits on as float32 and knows what each column means.

    Column 0 is the target; then the columns of each auxiliary head, in order.
    """

    def __init__(self, heads: Sequence[tuple[str, Sequence[str]]] = (), **options: object) -> None:
        super().__init__(**{"dtype": "float32", **options})
        self.heads = tuple(AuxiliaryHead(name, tuple(classes)) for name, classes in heads)

    def call(self, logits: Tensor) -> Tensor:
        """Pass `logits` on."""
        return ops.cast(logits, "float32")

    def get_config(self) -> Config:
        """What `from_config` needs."""
        heads = [[head.name, list(head.classes)] for head in self.heads]
        return {**super().get_config(), "heads": heads}


@register
class Probabilities(keras.layers.Layer):
    """Logits → probabilities, float32: sigmoid for the target and binary heads, softmax for the others."""

    def __init__(self, widths: Sequence[int] = (), **options: object) -> None:
        super().__init__(**{"dtype": "float32", **options})
        self.widths = [int(width) for width in widths]

    def call(self, logits: Tensor) -> Tensor:
        """Turn `logits` into probabilities, column by column or head by head."""
        parts, start = [ops.sigmoid(logits[:, :1])], 1
        for width in self.widths:
            columns = logits[:, start : start + width]
            parts.append(ops.sigmoid(columns) if width == 1 else ops.softmax(columns, axis=-1))
            start += width
        return ops.concatenate(parts, axis=-1)

    def get_config(self) -> Config:
        """What `from_config` needs."""
        return {**super().get_config(), "widths": self.widths}


@register
class PresentViews(keras.layers.Layer):
    """(B, V, H, W, 1) → (B, V) float32: 1 for a view, 0 for a place without one.

    A place without a view holds no pixel above 0 (zeros, or any negative mark). No prepared image looks so:
    `bcd-prep` rejects blank ones.
    """

    def __init__(self, **options: object) -> None:
        super().__init__(**{"dtype": "float32", **options})

    def call(self, images: Tensor) -> Tensor:
        """Find the views that are there."""
        return ops.cast(ops.max(images, axis=(2, 3, 4)) > 0, "float32")


@register
class FillAbsent(keras.layers.Layer):
    """(B, V, H, W, 1), (B, V) → (B·V, H, W, 1): absent views become copies of the bag's first one.

    So the backbone's batch statistics see mammograms only; pooling leaves the copies out.
    """

    def __init__(self, **options: object) -> None:
        super().__init__(**{"dtype": "float32", **options})

    def call(self, images: Tensor, present: Tensor) -> Tensor:
        """Fill, and line the views up."""
        # Not argmax: what Keras makes of it on JAX has no counterpart in ONNX.
        chosen = present * ops.cast(ops.cumsum(present, axis=1) < 1.5, "float32")
        copy = ops.sum(images * chosen[:, :, None, None, None], axis=1, keepdims=True)
        filled = ops.where(present[:, :, None, None, None] > 0, images, copy)
        return ops.reshape(filled, (-1, *images.shape[2:]))


@register
class Bags(keras.layers.Layer):
    """(B·V, K) → (B, V, K)."""

    def __init__(self, views: int, **options: object) -> None:
        super().__init__(**options)
        self.views = views

    def call(self, vectors: Tensor) -> Tensor:
        """Gather each bag's vectors."""
        return ops.reshape(vectors, (-1, self.views, vectors.shape[-1]))

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Said, not inferred: JAX cannot know that an unknown number of vectors makes whole bags."""
        return (None if shape[0] is None else shape[0] // self.views, self.views, shape[-1])

    def get_config(self) -> Config:
        """What `from_config` needs."""
        return {**super().get_config(), "views": self.views}


@register
class PoolLogits(keras.layers.Layer):
    """(B, V, K), (B, V) → (B, K) float32: logits of bags from logits of views, absent ones left out.

    mean: of logits. max: of logits. noisy_or: of 1 − Π(1 − p), as a logit. Columns of classes (softmax) take
    the mean always. A bag without views has logits 0.
    """

    def __init__(self, pooling: str, widths: Sequence[int] = (), **options: object) -> None:
        super().__init__(**{"dtype": "float32", **options})
        self.pooling = BagPooling(pooling)
        self.widths = [int(width) for width in widths]

    def call(self, logits: Tensor, present: Tensor) -> Tensor:
        """Pool `logits`."""
        there = present[:, :, None]
        mean = ops.sum(logits * there, axis=1) / ops.maximum(ops.sum(there, axis=1), 1.0)
        if self.pooling is BagPooling.MEAN:
            return mean
        pooled = self._max(logits, there) if self.pooling is BagPooling.MAX else _noisy_or(logits, there)
        binary = ops.convert_to_tensor([[True, *(w == 1 for w in self.widths for _ in range(w))]])
        return ops.where(ops.logical_and(binary, ops.any(there > 0, axis=1)), pooled, mean)

    @staticmethod
    def _max(logits: Tensor, there: Tensor) -> Tensor:
        return ops.max(ops.where(there > 0, logits, -1e9), axis=1)

    def get_config(self) -> Config:
        """What `from_config` needs."""
        return {**super().get_config(), "pooling": self.pooling.value, "widths": self.widths}


def _noisy_or(logits: Tensor, there: Tensor) -> Tensor:
    """With s = Σ softplus(z) = −log Π(1 − p): logit = log(eˢ − 1) = s + log(−expm1(−s))."""
    total = ops.maximum(ops.sum(ops.softplus(logits) * there, axis=1), 1e-30)
    return total + ops.log(-ops.expm1(-total))


@register
class AttentionPool(keras.layers.Layer):
    """(B, V, D), (B, V) → (B, D) float32: gated attention over the views that are there.

    Ilse, Tomczak and Welling, ICML 2018.
    """

    def __init__(self, width: int = 128, **options: object) -> None:
        super().__init__(**{"dtype": "float32", **options})
        self.width = width

    def build(self, vectors_shape: tuple[int | None, ...], present_shape: tuple[int | None, ...]) -> None:
        """Make the three projections."""
        dimensions = vectors_shape[-1]
        self.content = self.add_weight(shape=(dimensions, self.width), name="content")
        self.gate = self.add_weight(shape=(dimensions, self.width), name="gate")
        self.score = self.add_weight(shape=(self.width, 1), name="score")

    def call(self, vectors: Tensor, present: Tensor) -> Tensor:
        """Pool `vectors`."""
        gated = ops.tanh(vectors @ self.content) * ops.sigmoid(vectors @ self.gate)
        scores = ops.where(present > 0, ops.squeeze(gated @ self.score, -1), -1e9)
        return ops.sum(vectors * ops.softmax(scores, axis=1)[:, :, None], axis=1)

    def get_config(self) -> Config:
        """What `from_config` needs."""
        return {**super().get_config(), "width": self.width}
