"""How many images are in flight on a GPU: batch size, decoder threads, prefetch.

In:  the largest image's size, the device's free memory, the host's cores; what options fix.
Out: Sizes. A pure function, so that the same run on the same machine works in the same batches.

Throughput comes from images in flight, each with an nvJPEG2000 state and a CUDA stream of its own: on an H100
one alone takes 20 ms at any level, and 32 at once are decoded to level 2 at 900 a second.
"""

from __future__ import annotations

from dataclasses import dataclass

STATE_BYTES_PER_PIXEL = 16
"""Of a decoder state: coefficients as 32-bit integers before and after each transform, and code-block data.
At most 13.2 were measured on an H100 (nvJPEG2000, level 0); DALI takes 4 to 9."""
IMAGE_BYTES_PER_PIXEL = 8
"""Of an image of the batch: as decoded, with its range undone, clamped, and one copy to spare."""
MEMORY_SHARE = 0.6
"""Of the free memory; the rest is for kernels, pools and fragmentation."""
MAX_BATCH, MAX_THREADS, PREFETCH = 64, 32, 2


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of one device's worker."""

    batch: int
    """Images decoded together."""
    threads: int
    """Decoder states and streams."""
    prefetch: int
    """Batches in memory at once: one is decoded while another is masked and drawn."""


def sizes(
    pixels: int, free_bytes: int, cores: int, *, batch: int = 0, threads: int = 0, prefetch: int = PREFETCH
) -> Sizes:
    """Batch size, threads and prefetch for images of at most `pixels` pixels.

    Args:
        pixels: of the largest image, ≥ 1.
        free_bytes: of the device.
        cores: of the host, for this device.
        batch: `--gpu-batch`; 0: as many images as fit, at most MAX_BATCH.
        threads: `--gpu-threads`; 0: two for each core (they wait for the device asleep), at most MAX_THREADS
            and as fit in half of the memory.
        prefetch: batches at once; less where two do not fit.

    Returns:
        At least one of each: an image too large for the device fails there and is decoded on the CPU.
    """
    budget = int(free_bytes * MEMORY_SHARE)
    state, image = pixels * STATE_BYTES_PER_PIXEL, pixels * IMAGE_BYTES_PER_PIXEL
    threads = threads or max(1, min(2 * cores, MAX_THREADS, budget // 2 // state))
    left = max(0, budget - threads * state)
    if not batch:
        batch = max(1, min(MAX_BATCH, left // (prefetch * image)))
        batch -= batch % threads if batch > threads else 0  # whole rounds of the threads
    return Sizes(batch, threads, max(1, min(prefetch, left // (batch * image))))
