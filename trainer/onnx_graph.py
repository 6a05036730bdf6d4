"""`KERAS_BACKEND=jax python -m trainer.onnx_graph MODEL.keras OUT METADATA.json`: a model as an ONNX graph.

In:  a saved model; a JSON object of texts.
Out: a graph from `images` (any batch size) to `probabilities`, with the texts as metadata properties. It
     computes in float32 whatever the training did: runtimes have no convolution of bfloat16.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import keras
import onnx
from jax2onnx import to_onnx

from trainer.models import in_float32, load, with_probabilities

OPSET = 21


def write_graph(source: Path, out: Path, metadata: dict[str, str]) -> None:
    """Convert the model in `source`; what comes out is checked by ONNX's own checker."""
    model = with_probabilities(in_float32(load(source)))

    def infer(images: keras.KerasTensor) -> keras.KerasTensor:
        return model(images, training=False)

    graph = to_onnx(
        infer,
        [("B", *model.input_shape[1:])],
        model_name=model.name,
        opset=OPSET,
        input_names=["images"],
        output_names=["probabilities"],
    )
    onnx.helper.set_model_props(graph, metadata)
    onnx.checker.check_model(graph)
    onnx.save(graph, out)


if __name__ == "__main__":
    write_graph(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text("utf-8")))
