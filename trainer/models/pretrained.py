"""In: an architecture and perhaps a weights file. Out: the normalising layer and a backbone that fits it.

Published weights expect three normalised colours. One grey channel is not copied where it can be avoided:
ConvNeXt and EfficientNetV2 s, m, l take it through a stem whose kernel is the sum of the colours' kernels,
which gives the same features up to rounding. EfficientNet 1 and V2 b pad with zeros after normalising each
colour by its own mean, so that no single channel can stand for three at the border: there the normalising
layer makes the three channels.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import numpy.typing as npt

from preprocess.errors import UsageError
from preprocess.failures import describe
from trainer.architectures import Architecture, Family
from trainer.models.backbones import application, make_backbone
from trainer.models.layers import Normalise
from trainer.models.torch_weights import SUFFIXES, convnext_arrays
from trainer.models.weights import WeightsFile

Arrays = list[npt.NDArray[np.float32]]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
GREY_MEAN, GREY_STD = 0.449, 0.226
"""What a folded ConvNeXt stem sees: about the colours' average, so that its input is of order one."""
V2_LEVEL = 128 / 255
"""EfficientNetV2 s, m, l: pixels / 128 − 1 of 0 … 255, which is (x − V2_LEVEL) / V2_LEVEL of 0 … 1."""
_DONOR_SIZE = (32, 32)


@dataclass(frozen=True, slots=True)
class PixelStatistics:
    """Mean and standard deviation of a dataset's pixels in [0, 1]."""

    mean: float
    std: float


@dataclass(frozen=True, slots=True)
class Front:
    """The first two layers of a model."""

    normalise: Normalise
    backbone: keras.Model
    head: Head | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """What follows the backbone in a model that an earlier run saved."""

    arrays: dict[str, Arrays]
    """Weights of its layers, by name."""
    columns: object
    """What its logits mean."""


@dataclass(frozen=True, slots=True)
class _Donation:
    """Weights for a backbone, and how its input is normalised."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    arrays: Arrays
    head: Head | None = None


def make_front(
    architecture: Architecture,
    size: tuple[int, int],
    drop_path: float,
    file: WeightsFile | None,
    statistics: PixelStatistics | None,
) -> Front:
    """Build the backbone and fill it.

    Args:
        architecture: which.
        size: rows and columns.
        drop_path: rate at the deepest block.
        file: pretrained weights; None: random ones.
        statistics: how pixels are normalised when there are no pretrained weights; None: not at all.

    Raises:
        UsageError: the file does not hold weights of this architecture.
    """
    if file is None:
        known = statistics or PixelStatistics(0.0, 1.0)
        normalise = Normalise([known.mean], [known.std], name="normalise")
        return Front(normalise, make_backbone(architecture, size, 1, drop_path))
    donation = _read(architecture, file)
    backbone = make_backbone(architecture, size, len(donation.mean), drop_path)
    shapes = [tuple(weight.shape) for weight in backbone.weights]
    if shapes != [array.shape for array in donation.arrays]:
        raise UsageError(f"{file.path}: these are not weights of {architecture.name}")
    backbone.set_weights(donation.arrays)
    return Front(Normalise(donation.mean, donation.std, name="normalise"), backbone, donation.head)


def take_head(model: keras.Model, head: Head | None) -> None:
    """Fill what follows the backbone, if `model` has the very same layers and columns there; else nothing."""
    ours = _head_of(model)
    if head is None or ours.columns != head.columns or ours.arrays.keys() != head.arrays.keys():
        return
    pairs = [(ours.arrays[name], head.arrays[name]) for name in ours.arrays]
    if all([a.shape for a in one] == [a.shape for a in other] for one, other in pairs):
        for name, arrays in head.arrays.items():
            model.get_layer(name).set_weights(arrays)


def _head_of(model: keras.Model) -> Head:
    arrays = {
        layer.name: list(layer.get_weights())
        for layer in model.layers
        if layer.weights and layer.name != "backbone"
    }
    return Head(arrays, model.get_layer("logits").heads)


def _read(architecture: Architecture, file: WeightsFile) -> _Donation:
    try:
        return _reader(architecture, file)()
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"{file.path} cannot be read as weights of {architecture.name}: {describe(error)}"
        ) from error


def _reader(architecture: Architecture, file: WeightsFile) -> Callable[[], _Donation]:
    if file.path.suffix == ".keras":
        return lambda: _from_run(file)
    if file.path.suffix in SUFFIXES and architecture.family is Family.CONVNEXT:
        return lambda: _convnext(convnext_arrays(file.path))
    if architecture.family is Family.RESNET:
        raise UsageError(f"{architecture.name} takes weights from a .keras file of an earlier run only")
    return lambda: _from_keras(architecture, file)


def _from_run(file: WeightsFile) -> _Donation:
    """A model that an earlier run saved."""
    model = keras.saving.load_model(file.path, compile=False)
    normalise = model.get_layer("normalise")
    backbone = list(model.get_layer("backbone").get_weights())
    return _Donation(tuple(normalise.mean), tuple(normalise.std), backbone, _head_of(model))


def _from_keras(architecture: Architecture, file: WeightsFile) -> _Donation:
    """A `_notop` file of keras.applications, or what `save_weights` makes of such a model."""
    donor = application(architecture, _DONOR_SIZE, 3)
    donor.load_weights(file.path)
    own = {id(weight) for layer in _normalizations(donor) for weight in layer.weights}
    arrays: Arrays = [weight.numpy() for weight in donor.weights if id(weight) not in own]
    if architecture.family is Family.CONVNEXT:
        return _convnext(arrays)
    if architecture.family is Family.EFFICIENTNET_V2:
        summed = arrays[0].sum(axis=2, keepdims=True, dtype=np.float64).astype(np.float32)
        return _Donation((V2_LEVEL,), (V2_LEVEL,), [summed, *arrays[1:]])
    if architecture.family is Family.EFFICIENTNET_V2_B:
        return _Donation(IMAGENET_MEAN, IMAGENET_STD, arrays)
    return _Donation(*_efficientnet_constants(_normalizations(donor)[0]), arrays)


def _normalizations(donor: keras.Model) -> list[keras.layers.Layer]:
    return [layer for layer in donor.layers if isinstance(layer, keras.layers.Normalization)]


def _efficientnet_constants(layer: keras.layers.Layer) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that EfficientNet 1 was trained with.

    Its published files hold the standard deviations in place of the variances, and keras.applications divides
    by another square root of them; only for `imagenet`, not for a file of the same content. Here both count.
    A file that was saved without ever having been normalised says so with variances of 1.
    """
    mean, variance = (np.asarray(values, np.float64).ravel() for values in layer.get_weights()[:2])
    if np.all(variance == 1):
        return tuple(mean.tolist()), (1.0, 1.0, 1.0)
    return tuple(mean.tolist()), tuple(np.sqrt(variance * np.asarray(IMAGENET_STD)).tolist())


def _convnext(arrays: Arrays) -> _Donation:
    """Fold (x − mean_c) / std_c into the stem: Σ_c K_c (x − mean_c) / std_c + b, for x = s·z + m."""
    kernel, bias = arrays[0].astype(np.float64), arrays[1].astype(np.float64)
    std = np.asarray(IMAGENET_STD)
    folded = (kernel / std[:, None]).sum(axis=2, keepdims=True)
    shift = (kernel * ((GREY_MEAN - np.asarray(IMAGENET_MEAN)) / std)[:, None]).sum(axis=(0, 1, 2))
    stem = [(GREY_STD * folded).astype(np.float32), (bias + shift).astype(np.float32)]
    return _Donation((GREY_MEAN,), (GREY_STD,), [*stem, *arrays[2:]])
