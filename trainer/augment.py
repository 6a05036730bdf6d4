"""Augmentation: presets, YAML, and pixels in, pixels out.

In:  float32 (H, W) in [0, 1], a seed.
Out: the same, augmented: a pure function of pixels, seed and the YAML, from any thread. 16 bits stay 16 bits.

A preset is a YAML list of Albumentations' transforms (`trainer.transforms`) with their arguments; `to_yaml`
gives one to edit.

Fill: images are lowered by their darkest value before and raised after, so what 0 fills (corners that turn
in, holes) is the image's own letterbox value, and no transform makes anything darker than that.

Flips: bcd-prep brings the chest wall to the left. Mirrored top to bottom a breast stays plausible, so `light`
has that; left to right gives pictures that prediction never sees, so only `heavy` has it.
"""

from __future__ import annotations

import threading
import warnings
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml

from preprocess.errors import UsageError
from preprocess.failures import describe
from trainer.records import Floats, Mask

PRESETS = ("none", "light", "heavy")
_TRIALS = 3
"""Of each transform, before a training."""


class Augmenter:
    """Augments one image at a time. Threads may share it; so may processes, by pickling."""

    def __init__(self, document: list[Any]) -> None:
        from trainer.transforms import compose  # a second, which no mistake on the command line waits for

        self._document = document
        self._compose = partial(compose, document)
        self._threads = threading.local()
        with warnings.catch_warnings():  # a mistake is told here, not in a thread
            warnings.simplefilter("error")  # an unknown argument is only a warning there
            self._compose()

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
                f"--augment {name}: neither {', '.join(PRESETS)} nor a YAML file: {describe(error)}"
            ) from None

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """Read what `to_yaml` wrote, perhaps edited. Raises UsageError."""
        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = "" if mark is None else f" at line {mark.line + 1}"
            raise UsageError(f"augmentation: not YAML{where}") from None
        if not isinstance(document, list):
            raise UsageError("augmentation: not a list of transforms")
        return cls(document)

    def require_size(self, size: tuple[int, int]) -> None:
        """Try each transform on a picture of this size: one that crashes or changes its shape is told now.

        Raises UsageError.
        """
        from trainer.transforms import singles

        picture = np.linspace(0, 1, size[0] * size[1], dtype=np.float32).reshape(size)
        for name, transform in singles(self._document):
            for seed in range(_TRIALS):
                transform.set_random_seed(seed)
                try:
                    found = transform(image=picture.copy(), mask=picture.copy())
                except Exception as error:  # noqa: BLE001 - whatever Albumentations or OpenCV make of it
                    why = (str(error).splitlines() or [""])[0][:200]
                    raise UsageError(
                        f"augmentation: {name} fails on images of {size[0]}x{size[1]}: {why}"
                    ) from None
                shapes = {found[part].shape for part in ("image", "mask")}
                if shapes != {size} or found["image"].dtype != np.float32:
                    raise UsageError(f"augmentation: {name} makes other than {size[0]}x{size[1]} of images")

    def to_yaml(self) -> str:
        """The transforms and their arguments, to be dumped into a run, edited, and given to --augment."""
        return yaml.safe_dump(self._document, sort_keys=False, default_flow_style=None, width=110)

    def apply(self, pixels: Floats, seed: int) -> Floats:
        """Augment one image: float32 (H, W) in [0, 1] in and out; the input is left as it is."""
        return self.apply_both(pixels, None, seed)[0]

    def apply_both(self, pixels: Floats, mask: Mask | None, seed: int) -> tuple[Floats, Mask | None]:
        """Augment an image and move a mask (H, W) with it; whether there is one changes no pixel."""
        if not self._document:
            return pixels, mask
        if not hasattr(self._threads, "transforms"):  # one each: a shared one mixes the threads' draws up
            self._threads.transforms = self._compose()
        transforms: Any = self._threads.transforms
        transforms.set_random_seed(seed)
        darkest = pixels.min()
        found = transforms(image=pixels - darkest, **({} if mask is None else {"mask": mask}))
        image: Floats = found["image"]
        image += darkest
        return np.clip(image, np.float32(0), np.float32(1), out=image), found.get("mask")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._document,)
