"""nvImageCodec: one codestream → its full-size pixels. What a batch of DALI's is redone with.

In:  codestreams as bytes.
Out: uint16 arrays of the stream's own precision; None where it fails, which costs nothing but itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dali_pipelines.engines import Encoded
from dali_pipelines.values import Array


class CodecEngine:
    """nvImageCodec's decoder, sample by sample."""

    name = "nvimagecodec"

    def __init__(self, adopt: Callable[[Any], Array], *, device_id: int | None) -> None:
        """`adopt` as in DaliEngine. device_id None: its CPU backends, for tests without a driver."""
        self._adopt, self._device_id = adopt, device_id
        self._decoder: Any = None

    def decode(self, jobs: Sequence[Encoded]) -> list[Array | None]:
        """Full-size pixels of each job. See engines.Engine."""
        return [self._one(job) for job in jobs]

    def reset(self) -> None:
        """Forget the decoder; the next image makes another."""
        self._decoder = None

    def _one(self, job: Encoded) -> Array | None:
        from nvidia import nvimgcodec

        if self._decoder is None:
            self._decoder = _decoder(nvimgcodec, self._device_id)
        parameters = nvimgcodec.DecodeParams(
            apply_exif_orientation=False, color_spec=nvimgcodec.ColorSpec.GRAY, allow_any_depth=True
        )
        try:
            (image,) = self._decoder.decode([nvimgcodec.CodeStream(job.codestream)], params=parameters)
            return None if image is None else self._adopt(image)
        except (RuntimeError, MemoryError):
            self.reset()
            return None


def _decoder(library: Any, device_id: int | None) -> Any:
    if device_id is not None:
        return library.Decoder(device_id=device_id, max_num_cpu_threads=1)
    cpu = library.Backend(library.BackendKind.CPU_ONLY)  # without it, it looks for a device all the same
    return library.Decoder(
        device_id=library.NVIMGCODEC_DEVICE_CPU_ONLY, max_num_cpu_threads=1, backends=[cpu]
    )
