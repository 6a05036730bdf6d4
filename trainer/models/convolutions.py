"""Layers that `resnet_tiny` is made of: fast on a CPU, and alike for windows and whole images.

In and out: (B, H, W, C), on any Keras backend; registered under `bcd`, like those of `trainer.models.layers`.
"""

from __future__ import annotations

import math

import keras
import numpy as np
import numpy.typing as npt
from keras import KerasTensor as Tensor
from keras import ops

from trainer.models.layers import Config, register

_LEAST_SPREAD = 1e-4
"""Below this a kernel is taken for constant."""


@register
class DetailBands(keras.layers.Layer):
    """(B, H, W, 1) → (B, H, W, 3) float32: the image; its detail of about 4 and of 12 pixels, amplified.

    Tissue's spectrum falls with the cube of the frequency (Burgess, 2001). Side by side the bands are of
    about one size, which a convolution on plain pixels learns only slowly. Differences of Gaussians; borders
    are mirrored.
    """

    SIGMAS = (2.0, 6.0)
    GAIN, LIMIT = 2.0, 4.0

    def __init__(self, **options: object) -> None:
        super().__init__(**{"dtype": "float32", **options})

    def call(self, images: Tensor) -> Tensor:
        """Split `images`, normalised ones."""
        fine, coarse = (_blurred(images, sigma) for sigma in self.SIGMAS)
        bands = [self.GAIN * (images - fine), self.GAIN * (fine - coarse)]
        return ops.concatenate([images, *(ops.clip(one, -self.LIMIT, self.LIMIT) for one in bands)], axis=-1)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Three channels."""
        return (*shape[:-1], 3)


def _blurred(images: Tensor, sigma: float) -> Tensor:
    """(B, H, W, 1): a Gaussian, cut off at 2.5 σ, along rows and columns."""
    reach = round(2.5 * sigma)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = (weights / weights.sum()).astype(np.float32)
    if keras.backend.backend() == "tensorflow":
        # The same sums, twice as fast: a convolution of one channel leaves most of a core idle.
        lines = images[..., 0]
        for _ in range(2):
            lines = ops.transpose(_blurred_down(lines, kernel), (0, 2, 1))
        return lines[..., None]
    for axis in (1, 2):
        padding = [[0, 0]] * 4
        padding[axis] = [reach, reach]
        padded = ops.pad(images, padding, mode="reflect")
        images = ops.conv(padded, kernel.reshape((-1, 1, 1, 1) if axis == 1 else (1, -1, 1, 1)))
    return images


def _blurred_down(lines: Tensor, kernel: npt.NDArray[np.float32]) -> Tensor:
    """(B, H, W) along H: columns are the channels."""
    reach = len(kernel) // 2
    padded = ops.pad(lines, [[0, 0], [reach, reach], [0, 0]], mode="reflect")
    alike = np.tile(kernel[:, None, None, None], (1, 1, lines.shape[2], 1))
    return ops.depthwise_conv(padded[:, :, None], alike)[:, :, 0]


@register
class StandardisedConv2D(keras.layers.Layer):
    """A convolution whose kernel is standardised, filter by filter: it needs no norm over activations.

    (B, H, W, C) → (B, ⌈H/stride⌉, ⌈W/stride⌉, `filters`). Scaled weight standardisation (Brock, De and Smith,
    ICLR 2021): mean 0 and variance 1 / fan-in, times a trained gain. The result depends on neither batch nor
    size of the image, so that what was learned from windows holds for whole images; and a norm costs several
    times what its convolution does on a CPU.
    """

    def __init__(
        self, filters: int, size: int, stride: int = 1, gain: float = 1.0, **options: object
    ) -> None:
        super().__init__(**options)
        self.filters, self.size, self.stride, self.gain = filters, size, stride, gain

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Make kernel, gains and biases."""
        self.kernel = self.add_weight(
            shape=(self.size, self.size, shape[-1], self.filters),
            initializer=keras.initializers.HeNormal(),
            autocast=False,
            name="kernel",
        )
        start = keras.initializers.Constant(self.gain)
        self.gains = self.add_weight(shape=(self.filters,), initializer=start, autocast=False, name="gains")
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")

    def call(self, features: Tensor) -> Tensor:
        """Convolve `features`."""
        fan_in = math.prod(self.kernel.shape[:-1])
        mean = ops.mean(self.kernel, axis=(0, 1, 2), keepdims=True)
        spread = ops.mean(ops.square(self.kernel - mean), axis=(0, 1, 2), keepdims=True) * fan_in
        kernel = (self.kernel - mean) * ops.rsqrt(ops.maximum(spread, _LEAST_SPREAD)) * self.gains
        kernel = ops.cast(kernel, self.compute_dtype)
        return ops.conv(features, kernel, self.stride, padding="same") + self.bias

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Rounded up."""
        sides = (None if side is None else -(-side // self.stride) for side in shape[1:3])
        return (shape[0], *sides, self.filters)

    def get_config(self) -> Config:
        """What `from_config` needs."""
        own = {"filters": self.filters, "size": self.size, "stride": self.stride, "gain": self.gain}
        return {**super().get_config(), **own}


@register
class Maxima(keras.layers.Layer):
    """(B, H, W, C) → (B, ⌈H/2⌉, ⌈W/2⌉, C): maxima of 2 × 2 values, none of them negative.

    By TensorFlow's own operation where that is the backend: it is many times faster than anything put
    together. Elsewhere by comparing: windowed maxima of JAX become an ONNX graph that no runtime takes.
    """

    def call(self, features: Tensor) -> Tensor:
        """Pool `features`."""
        if keras.backend.backend() == "tensorflow":
            return ops.max_pool(features, 2, 2, padding="same")
        odd = [(0, 0), *((0, side % 2) for side in features.shape[1:3]), (0, 0)]
        even = ops.pad(features, odd)
        rows = ops.maximum(even[:, ::2], even[:, 1::2])
        return ops.maximum(rows[:, :, ::2], rows[:, :, 1::2])

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Half, rounded up."""
        return (shape[0], *(None if side is None else -(-side // 2) for side in shape[1:3]), shape[3])


@register
class Scale(keras.layers.Layer):
    """Features times one trained number, which is small in the beginning (De and Smith, NeurIPS 2020)."""

    def __init__(self, start: float = 0.2, **options: object) -> None:
        super().__init__(**options)
        self.start = start

    def build(self, _shape: tuple[int | None, ...]) -> None:
        """Make the number."""
        start = keras.initializers.Constant(self.start)
        self.factor = self.add_weight(shape=(), initializer=start, name="factor")

    def call(self, features: Tensor) -> Tensor:
        """Scale `features`."""
        return features * self.factor

    def get_config(self) -> Config:
        """What `from_config` needs."""
        return {**super().get_config(), "start": self.start}
