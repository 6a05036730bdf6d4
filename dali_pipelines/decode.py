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
        prefetch_queue_depth=sizes.prefetch,
        exec_dynamic=True,
    )
    pipeline.build()
    return pipeline


class DaliEngine:
    """Batches through `decode_pipeline`, the next one fed while the last is decoded.

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
        batches = [jobs[start : start + size] for start in range(0, len(jobs), size)]
        results: list[Array | None] = []
        fed = 0
        for done, batch in enumerate(batches):
            while fed < len(batches) and fed - done < self._sizes.prefetch:
                self._feed(batches[fed])
                fed += 1
            taken = self._take(batch)
            if taken is None:
                self.reset()
                fed = done + 1  # what was fed ahead went with the pipeline
                taken = [None] * len(batch)
            results += taken
        return results

    def reset(self) -> None:
        """Forget the pipeline; the next batch builds another."""
        self._pipeline = None

    close = reset

    def _feed(self, batch: Sequence[Encoded]) -> None:
        if self._pipeline is None:
            self._pipeline = decode_pipeline(self._sizes, self._device, self._device_id)
        self._pipeline.feed_input(INPUT, [np.frombuffer(job.codestream, np.uint8) for job in batch])
        self._pipeline.schedule_run()

    def _take(self, batch: Sequence[Encoded]) -> list[Array | None] | None:
        """The oldest batch's pixels, None if it failed."""
        try:
            (outputs,) = self._pipeline.share_outputs()
            pixels = [self._adopt(outputs[index]) for index in range(len(outputs))]
            self._pipeline.release_outputs()
        except (RuntimeError, MemoryError):
            return None
        return list(pixels) if len(pixels) == len(batch) else None
