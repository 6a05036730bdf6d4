"""In: a ConvNeXt state dict of timm or of the paper's authors, as .safetensors or .npz. Out: Keras's arrays.

No torch is needed. The classifier, if there is one, is left out.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
State = dict[str, Floats]

SUFFIXES = frozenset({".safetensors", ".npz"})
_TYPES = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}
_HEADER_LIMIT = 100_000_000
_AUTHORS = (
    (r"downsample_layers\.0\.(\d)\.", r"stem.\1."),
    (r"downsample_layers\.(\d)\.(\d)\.", r"stages.\1.downsample.\2."),
    (r"stages\.(\d)\.(\d+)\.dwconv\.", r"stages.\1.blocks.\2.conv_dw."),
    (r"stages\.(\d)\.(\d+)\.pwconv1\.", r"stages.\1.blocks.\2.mlp.fc1."),
    (r"stages\.(\d)\.(\d+)\.pwconv2\.", r"stages.\1.blocks.\2.mlp.fc2."),
    (r"stages\.(\d)\.(\d+)\.(norm\.|gamma$)", r"stages.\1.blocks.\2.\3"),
    (r"norm\.", r"head.norm."),
)
"""The authors' names → timm's."""


def convnext_arrays(path: Path) -> list[Floats]:
    """Weights in the order of keras.applications' ConvNeXt without classifier.

    Raises:
        KeyError: a weight is missing. ValueError, OSError: not such a file.
    """
    raw = read_safetensors(path) if path.suffix == ".safetensors" else _read_npz(path)
    state = {_timm_name(name): array for name, array in raw.items()}
    arrays = [*_conv(state, "stem.0"), *_norm(state, "stem.1")]
    for stage in range(4):
        if stage:
            arrays += _norm(state, f"stages.{stage}.downsample.0")
            arrays += _conv(state, f"stages.{stage}.downsample.1")
        block = 0
        while f"stages.{stage}.blocks.{block}.gamma" in state:
            arrays += _block(state, f"stages.{stage}.blocks.{block}")
            block += 1
    return [*arrays, *_norm(state, "head.norm")]


def read_safetensors(path: Path) -> State:
    """All float tensors of a .safetensors file: 8 bytes of length, JSON, then the data.

    Raises:
        ValueError: the header does not describe this file.
    """
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= min(_HEADER_LIMIT, len(data) - 8):
        raise ValueError("not a safetensors file")
    header = json.loads(data[8 : 8 + length])
    body = memoryview(data)[8 + length :]
    state = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] in _TYPES:
            start, end = entry["data_offsets"]
            array = np.frombuffer(body[start:end], _TYPES[entry["dtype"]])
            state[name] = array.reshape(entry["shape"]).astype(np.float32)
    return state


def _read_npz(path: Path) -> State:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name].astype(np.float32) for name in arrays.files}


def _timm_name(name: str) -> str:
    for pattern, replacement in _AUTHORS:
        renamed, count = re.subn(f"^{pattern}", replacement, name)
        if count:
            return renamed
    return name


def _block(state: State, name: str) -> list[Floats]:
    depthwise = state[f"{name}.conv_dw.weight"]  # (C, 1, 7, 7); Keras: (7, 7, 1, C)
    arrays = [depthwise.transpose(2, 3, 1, 0), state[f"{name}.conv_dw.bias"], *_norm(state, f"{name}.norm")]
    for dense in ("fc1", "fc2"):
        weight = state[f"{name}.mlp.{dense}.weight"]
        arrays += [weight.reshape(weight.shape[:2]).T, state[f"{name}.mlp.{dense}.bias"]]
    return [*arrays, state[f"{name}.gamma"].ravel()]


def _conv(state: State, name: str) -> list[Floats]:
    return [state[f"{name}.weight"].transpose(2, 3, 1, 0), state[f"{name}.bias"]]


def _norm(state: State, name: str) -> list[Floats]:
    return [state[f"{name}.weight"], state[f"{name}.bias"]]
