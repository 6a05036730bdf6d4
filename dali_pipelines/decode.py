"""DALI: a batch of JPEG 2000 or HTJ2K codestreams → their full-size pixels.

In:  codestreams as bytes.
Out: uint16 arrays, on the GPU (`device="mixed"`) or, for tests, on the CPU (`device="cpu"`): the same graph.

Precision travels beside the bytes (engines.Encoded), because the values' range depends on it (values.py).
Never output type ANY_DATA: on DALI's CPU backend it corrupts the heap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dali_pipelines.engines import Encoded
from dali_pipelines.sizing import Sizes
from dali_pipelines.values import Array

INPUT = "codestreams"


def decode_pipeline(sizes: Sizes, device: str, device_id: int | None) -> Any:  # DALI is untyped
    """The pipeline from codestream bytes to gray uint16 pixels (rows, columns, 1), built.

    device: "mixed" (GPU; device_id says which) or "cpu" (device_id None, needs no driver).
    """
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def  # type: ignore[untyped-decorator]
    def graph() -> Any:
        codestreams = fn.external_source(name=INPUT, dtype=types.UINT8, ndim=1)
        return fn.decoders.image(
            codestreams,
            device=device,
            output_type=types.GRAY,
            dtype=types.UINT16,
            adjust_orientation=False,
        )

    pipeline = graph(
        batch_size=sizes.batch,
        num_threads=sizes.threads,
        device_id=device_id,
        prefetch_queue_depth=1,  # one batch in, the same batch out: deeper queues hand out an earlier one
        exec_dynamic=True,
    )
    pipeline.build()
    return pipeline


class DaliEngine:
    """Batches through `decode_pipeline`, one after the other; lanes see to it that the device is not idle.

    A pipeline cannot skip a sample: what is wrong with one throws its batch away, and the pipeline with it.
    """

    name = "dali"

    def __init__(
        self, sizes: Sizes, adopt: Callable[[Any], Array], *, device: str, device_id: int | None
    ) -> None:
        """`adopt` copies one of DALI's outputs, (rows, columns, 1), into an array of (rows, columns)."""
        self._sizes, self._adopt = sizes, adopt
        self._device, self._device_id = device, device_id
        self._pipeline: Any = None

    def decode(self, jobs: Sequence[Encoded]) -> list[Array | None]:
        """Full-size pixels of each job; None for all of a batch that failed. See engines.Engine."""
        size = self._sizes.batch
        results: list[Array | None] = []
        for start in range(0, len(jobs), size):
            batch = jobs[start : start + size]
            taken = self._run(batch)
            if taken is None:
                self.reset()
            results += taken or [None] * len(batch)
        return results

    def reset(self) -> None:
        """Forget the pipeline; the next batch builds another."""
        self._pipeline = None

    close = reset

    def _run(self, batch: Sequence[Encoded]) -> list[Array | None] | None:
        """A batch's pixels, None if it failed."""
        if self._pipeline is None:
            self._pipeline = decode_pipeline(self._sizes, self._device, self._device_id)
        try:
            self._pipeline.feed_input(INPUT, [np.frombuffer(job.codestream, np.uint8) for job in batch])
            (outputs,) = self._pipeline.run()
            pixels: list[Array | None] = [self._adopt(outputs[index]) for index in range(len(outputs))]
        except (RuntimeError, MemoryError, IndexError):
            return None
        return pixels if len(pixels) == len(batch) else None
