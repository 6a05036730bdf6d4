"""In: `--weights imagenet|phantoms|none|PATH`. Out: a file with its hash, or what to fetch, in words.

`phantoms` lies in this package: what `make learn` came to (docs/phantoms.md), for `resnet_tiny`. A missing
ImageNet file is downloaded if that is possible, checked against the hash that Keras publishes, and kept where
Keras keeps it (KERAS_HOME, or ~/.keras).
"""

from __future__ import annotations

import hashlib
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from preprocess.atomic import write_atomically
from preprocess.errors import UsageError
from preprocess.failures import describe
from trainer.architectures import Architecture, Family

_TIMEOUT_S = 60.0
_PHANTOMS = Path(__file__).parents[1] / "presets" / "resnet_tiny_phantoms.keras"


@dataclass(frozen=True, slots=True)
class WeightsRecord:
    """Where a model's first weights came from: what a run folder's weights.json says."""

    source: str
    """imagenet, phantoms, none or file."""
    file: str | None = None
    """Its name, without folders."""
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A file of pretrained weights."""

    path: Path
    record: WeightsRecord


def weights_folder() -> Path:
    """Where Keras keeps downloaded weights."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"


def open_weights(architecture: Architecture, weights: str) -> WeightsFile | None:
    """Find the file that `weights` means; None for `none`.

    Raises:
        UsageError: no such file; no weights of that name for this model; they are not here and cannot be
            fetched; the file in Keras's folder is not the published one.
    """
    if weights == "none":
        return None
    if weights == "imagenet":
        path = _imagenet_file(architecture)
        return WeightsFile(path, WeightsRecord("imagenet", path.name, _digest(path, "sha256")))
    if weights == "phantoms":
        if architecture.name != "resnet_tiny":
            raise UsageError(f"--weights phantoms are for resnet_tiny, not for {architecture.name}")
        return WeightsFile(_PHANTOMS, WeightsRecord("phantoms", _PHANTOMS.name, _digest(_PHANTOMS, "sha256")))
    path = Path(weights)
    if not path.is_file():
        raise UsageError(f"--weights {weights}: no such file (imagenet, phantoms, none, or a file)")
    return WeightsFile(path, WeightsRecord("file", path.name, _digest(path, "sha256")))


def _imagenet_file(architecture: Architecture) -> Path:
    if architecture.family is Family.RESNET:
        raise UsageError(
            f"there are no ImageNet weights for {architecture.name}: use --weights phantoms, none or a file"
        )
    path = weights_folder() / architecture.weights_file
    if not path.is_file():
        _fetch(architecture, path)
    if not _is_published(architecture, _digest(path, _algorithm(architecture))):
        raise UsageError(
            f"{path} is not the file that Keras publishes: remove it, or insist on it by --weights PATH"
        )
    return path


def _fetch(architecture: Architecture, path: Path) -> None:
    try:
        with urllib.request.urlopen(architecture.url, timeout=_TIMEOUT_S) as answer:
            data = answer.read()
    except OSError as error:
        raise UsageError(
            f"ImageNet weights for {architecture.name} are not here and cannot be fetched: "
            f"{describe(error)}. Fetch {architecture.url} elsewhere and put it at {path}, "
            f"or name its place with --weights PATH; --weights none starts from random ones."
        ) from error
    digest = hashlib.new(_algorithm(architecture), data, usedforsecurity=False).hexdigest()
    if not _is_published(architecture, digest):
        raise UsageError(f"{architecture.url} gave another file than Keras publishes; nothing was kept")
    write_atomically(path, data)


def _algorithm(architecture: Architecture) -> str:
    return "sha256" if len(architecture.weights_hash) == 64 else "md5"


def _is_published(architecture: Architecture, digest: str) -> bool:
    return digest == architecture.weights_hash


def _digest(path: Path, algorithm: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(
                file, lambda: hashlib.new(algorithm, usedforsecurity=False)
            ).hexdigest()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {describe(error)}") from error
