"""What people use today for DICOM → windowed, cropped, resized, stored 16-bit picture; one module each.

In:  a DICOM file and the size of the picture.
Out: a `Picture`. Every peer module has the same three names: `NAME`, `PACKAGES` and `prepare`. Peers come
     from the `peers` extra and are imported here only, when asked for; nothing of the product imports them.

A peer does the whole job in its usual way. What is not special to it (finding the breast by a threshold on a
thumbnail, the letterbox, OpenCV's resizing and PNG) is `_usual.py`, so that peers differ in decoding and in
the order of steps, and nobody loses by somebody's slow crop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from bench.facts import installed

PEERS = (
    "notebook", "pillow", "opencv", "imagecodecs", "dicomsdl", "dali", "nvimagecodec", "monai", "monai_itk",
    "dali_gpu",
)  # fmt: skip
"""Modules of this package, in the order of tables."""


class NoGpu(ImportError):
    """Raised on import by a peer that works on GPUs only, where there is none."""


@dataclass(frozen=True, slots=True)
class PeerBox:
    """What a peer cropped to, in full-size rows and columns, and whether it mirrored the picture."""

    row: int
    column: int
    rows: int
    columns: int
    flipped: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """A prepared picture: uint16 (height, width), bright is dense, and where it was taken from."""

    pixels: npt.NDArray[np.uint16]
    box: PeerBox


Prepare = Callable[[str, int, int], Picture]
"""(path, height, width) → Picture; raises whatever it raises for what it cannot do."""


class Peer(Protocol):
    """What every module of this package has."""

    NAME: str
    PACKAGES: tuple[str, ...]
    """Distributions it needs."""
    prepare: Prepare


def load(module: str) -> Peer:
    """Import one peer. Raises ImportError where its packages are not installed, NoGpu where that lacks."""
    if module not in PEERS:
        raise ValueError(f"no peer {module!r}: {', '.join(PEERS)}")
    return cast(Peer, import_module(f"bench.peers.{module}"))


def either(*packages: str) -> str:
    """Of packages that exclude each other the one that is installed; the first if none is."""
    return next((name for name in packages if installed(name)), packages[0])
