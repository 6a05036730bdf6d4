"""Models as `.keras` files: whole or not there, and the same logits after loading.

In:  a built model and a path that ends in .keras.
Out: the file; or a model from it, with `heads_of` to say what its columns mean.
"""

from __future__ import annotations

import os
import secrets
import zipfile
from pathlib import Path
from typing import Any

import keras

from preprocess.atomic import TEMPORARY_SUFFIX, aborting_on_io_error, sync_directory
from preprocess.errors import UsageError
from preprocess.failures import describe
from trainer.models.layers import Outputs, Probabilities
from trainer.records import AuxiliaryHead


def save(model: keras.Model, path: Path) -> None:
    """Write `model` aside (Keras writes in place), then rename; an old file stays until the new one is whole.

    Raises:
        RunAborted: the disk.
    """
    aside = path.parent / f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}.keras"
    with aborting_on_io_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            model.save(aside)
            _flush(aside)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
        sync_directory(path.parent)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def load(path: Path) -> keras.Model:
    """The model in `path`, uncompiled.

    Raises:
        UsageError: there is no such file, or it is not a model that `save` wrote.
    """
    try:
        model = keras.saving.load_model(path, compile=False)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is not a model of bcd-train: {describe(error)}") from error
    if not any(isinstance(layer, Outputs) for layer in model.layers):
        raise UsageError(f"{path} is not a model of bcd-train (no layer says what its columns mean)")
    return model


def heads_of(model: keras.Model) -> tuple[AuxiliaryHead, ...]:
    """The auxiliary heads behind column 0 of the model's output."""
    heads: tuple[AuxiliaryHead, ...] = model.get_layer("logits").heads
    return heads


def size_of(model: keras.Model) -> tuple[int, int]:
    """Rows and columns that the model takes."""
    rows, columns = model.input_shape[-3:-1]
    return int(rows), int(columns)


def views_of(model: keras.Model) -> int | None:
    """Places for views in a bag; None for a model of single images."""
    return int(model.input_shape[1]) if len(model.input_shape) == 5 else None


def with_probabilities(model: keras.Model) -> keras.Model:
    """The same model with probabilities instead of logits (sigmoid; softmax for heads with classes)."""
    widths = [head.logits for head in heads_of(model)]
    return keras.Model(model.inputs[0], Probabilities(widths, name="probabilities")(model.outputs[0]))


def in_float32(model: keras.Model) -> keras.Model:
    """The same weights (they are float32 in mixed precision), every layer computing in float32."""
    plain = type(model).from_config(_with_float32(model.get_config()))
    plain.set_weights(model.get_weights())
    return plain


def _with_float32(value: object) -> Any:
    """A configuration in which every dtype policy is float32."""
    if isinstance(value, list | tuple):
        return type(value)(_with_float32(item) for item in value)
    if not isinstance(value, dict):
        return value
    if value.get("class_name") == "DTypePolicy":
        return {**value, "config": {"name": "float32"}}
    return {key: _with_float32(item) for key, item in value.items()}
