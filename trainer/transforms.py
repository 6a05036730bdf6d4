"""The one place that knows Albumentations: transforms by name, made from what a YAML file says.

In:  a list of `{Name: {argument: value}}`.
Out: Albumentations' Compose of them.

Only transforms that were tested to keep float32 as it is are known here (uint16 is silently wrong in some).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from preprocess.errors import UsageError
from trainer.records import Floats

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # before the import, or it asks the network for news

import albumentations
import cv2

cv2.setNumThreads(0)  # our threads are the parallelism

_GROUP = "OneOf"
KNOWN = (
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


def compose(document: list[Any]) -> Any:
    """Albumentations' Compose of a list of `{Name: {argument: value}}`. Raises UsageError."""
    return albumentations.Compose([_transform(entry) for entry in document])


def singles(document: list[Any]) -> Iterator[tuple[str, Any]]:
    """Name and transform of each entry, those of groups too, applied to every image. Raises UsageError."""
    for entry in document:
        ((name, given),) = entry.items()
        if name == _GROUP:
            yield from singles(list(given["transforms"]))
        else:
            yield name, compose([{name: {**(given or {}), "p": 1.0}}])


def _transform(entry: object) -> Any:
    """A transform from `{Name: {argument: value}}`. Raises UsageError."""
    if not (isinstance(entry, dict) and len(entry) == 1):
        raise UsageError(f"augmentation: {entry!r} is not one transform with its arguments")
    ((name, given),) = entry.items()
    if not isinstance(given, dict | None):
        raise UsageError(f"augmentation: {name}: {given!r} are not arguments by name")
    arguments = dict(given or {})
    if name == _GROUP:
        arguments["transforms"] = [_transform(inner) for inner in arguments.get("transforms") or ()]
        if not arguments["transforms"]:
            raise UsageError(f"augmentation: {_GROUP} has no transforms to choose from")
    elif name not in KNOWN:
        raise UsageError(f"augmentation: {name} is none of {_GROUP}, {', '.join(KNOWN)}")
    if str(arguments.get("fill", "")).startswith("inpaint"):
        raise UsageError(f"augmentation: {name}: fill {arguments['fill']} goes through 8 bits")
    try:
        kind = _OURS.get(name) or getattr(albumentations, name)
        return kind(**{key: _tuples(value) for key, value in arguments.items()})
    except (TypeError, ValueError, ArithmeticError, UserWarning) as error:
        raise UsageError(f"augmentation: {name}: {str(error).splitlines()[0]}") from None


def _tuples(value: object) -> object:
    """YAML's lists as Albumentations' ranges; lists of transforms as they are."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        return tuple(value)
    return value
