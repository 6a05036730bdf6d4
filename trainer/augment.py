"""The one place that knows Albumentations: presets, YAML, and pixels in, pixels out.

In:  float32 (H, W) in [0, 1], a seed.
Out: the same, augmented: a pure function of pixels, seed and the YAML, from any thread. 16 bits stay 16 bits.

A preset is a YAML list of Albumentations' transforms with their arguments; `to_yaml` gives one to edit. Only
transforms that were tested to keep float32 as it is are known here (uint16 is silently wrong in some).

Fill: images are lowered by their darkest value before and raised after, so what 0 fills (corners that turn
in, holes) is the image's own letterbox value, and no transform makes anything darker than that.

Flips: bcd-prep brings the chest wall to the left. Mirrored top to bottom a breast stays plausible, so `light`
has that; left to right gives pictures that prediction never sees, so only `heavy` has it.
"""

from __future__ import annotations

import os
import threading
import warnings
from importlib import resources
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml

from preprocess.errors import UsageError
from trainer.records import Floats

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # before the import, or it asks the network for news

import albumentations
import cv2

cv2.setNumThreads(0)  # our threads are the parallelism

PRESETS = ("none", "light", "heavy")

_GROUP = "OneOf"
_KNOWN = (
    "Affine", "CoarseDropout", "Downscale", "ElasticTransform", "GaussianBlur", "GaussNoise",
    "GridDistortion", "HorizontalFlip", "MotionBlur", "MultiplicativeNoise", "Perspective",
    "RandomBrightnessContrast", "RandomGamma", "Rotate", "Sharpen", "VerticalFlip",
)  # fmt: skip
"""Transforms that are tested to keep float32 as fine as it is."""


class _Downscale(albumentations.Downscale):  # type: ignore[misc]  # untyped
    """Less resolution and back. Albumentations' own does it in 8 bits, whatever it is given."""

    def apply(self, img: Floats, scale: float, **_: object) -> Floats:
        """Shrink and grow float32 (H, W) or (H, W, 1)."""
        down, up = (self.interpolation_pair[way] for way in ("downscale", "upscale"))
        small = cv2.resize(img, None, fx=scale, fy=scale, interpolation=down)
        grown: Floats = cv2.resize(small, (img.shape[1], img.shape[0]), interpolation=up)
        return grown.reshape(img.shape)


_OURS = {"Downscale": _Downscale}


class Augmenter:
    """Augments one image at a time. Threads may share it; so may processes, by pickling."""

    def __init__(self, document: list[Any]) -> None:
        self._document = document
        self._threads = threading.local()
        with warnings.catch_warnings():  # a mistake is told here, not in a thread
            warnings.simplefilter("error")  # an unknown argument is only a warning there
            _compose(document)

    @classmethod
    def named(cls, name: str) -> Self:
        """A preset, or a YAML file. Raises UsageError."""
        if name in PRESETS:
            return cls.from_yaml(
                resources.files("trainer").joinpath(f"presets/{name}.yaml").read_text("utf-8")
            )
        try:
            return cls.from_yaml(Path(name).read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"--augment {name}: neither {', '.join(PRESETS)} nor a YAML file ({type(error).__name__})"
            ) from None

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """Read what `to_yaml` wrote, perhaps edited. Raises UsageError."""
        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"augmentation: not YAML ({type(error).__name__})") from None
        if not isinstance(document, list):
            raise UsageError("augmentation: not a list of transforms")
        return cls(document)

    def to_yaml(self) -> str:
        """The transforms and their arguments, to be dumped into a run, edited, and given to --augment."""
        return yaml.safe_dump(self._document, sort_keys=False, default_flow_style=None, width=110)

    def apply(self, pixels: Floats, seed: int) -> Floats:
        """Augment one image: float32 (H, W) in [0, 1] in and out; the input is left as it is."""
        if not self._document:
            return pixels
        if not hasattr(self._threads, "compose"):  # one each: a shared one mixes the threads' draws up
            self._threads.compose = _compose(self._document)
        compose: Any = self._threads.compose
        compose.set_random_seed(seed)
        darkest = pixels.min()
        image: Floats = compose(image=pixels - darkest)["image"]
        image += darkest
        return np.clip(image, np.float32(0), np.float32(1), out=image)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._document,)


def _compose(document: list[Any]) -> Any:
    return albumentations.Compose([_transform(entry) for entry in document])


def _transform(entry: object) -> Any:
    """A transform from `{Name: {argument: value}}`. Raises UsageError."""
    if not (isinstance(entry, dict) and len(entry) == 1):
        raise UsageError(f"augmentation: {entry!r} is not one transform with its arguments")
    ((name, given),) = entry.items()
    if not isinstance(given, dict | None):
        raise UsageError(f"augmentation: {name}: {given!r} are not arguments by name")
    arguments = dict(given or {})
    if name == _GROUP:
        arguments["transforms"] = [_transform(inner) for inner in arguments.get("transforms", ())]
    elif name not in _KNOWN:
        raise UsageError(f"augmentation: {name} is none of {_GROUP}, {', '.join(_KNOWN)}")
    try:
        kind = _OURS.get(name) or getattr(albumentations, name)
        return kind(**{key: _tuples(value) for key, value in arguments.items()})
    except (TypeError, ValueError, UserWarning) as error:
        raise UsageError(f"augmentation: {name}: {str(error).splitlines()[0]}") from None


def _tuples(value: object) -> object:
    """YAML's lists as Albumentations' ranges; lists of transforms as they are."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        return tuple(value)
    return value
