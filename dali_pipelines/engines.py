"""What decodes on a device: batches of codestreams → samples there. The seam between router and libraries.

In:  Encoded codestreams (bare, complete, of one component), each with its precision and level beside it.
Out: one array for each, None where it could not be decoded. `open_engines` opens NVIDIA's for this process.

The router (decoder.py) trusts no engine: shapes are checked, failures redone, constant pictures compared, and
what an engine does with which precision at which level is tried on vectors first (proof.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Protocol

from dali_pipelines.sizing import Sizes, sizes
from dali_pipelines.values import Array
from preprocess.config import ResultConfig
from preprocess.pipeline import Draw
from preprocess.records import Compression, ImageHeader, Prepared
from preprocess.stored import Samples


@dataclass(frozen=True, slots=True)
class Encoded:
    """A codestream, what it is wanted at, and what must travel beside it."""

    codestream: bytes = field(repr=False)
    compression: Compression
    precision: int
    """Bits in SIZ: what DALI's range multiplier depends on."""
    level: int
    rows: int
    """Of the level."""
    columns: int


class Engine(Protocol):
    """One library on one device."""

    name: str
    """As in column `decoder`."""

    def decode(self, jobs: Sequence[Encoded]) -> Sequence[Array | None]:
        """2-D uint16 arrays on the device, in the order of the jobs, None for what failed.

        Complete when it returns: nothing is still being written. RuntimeError, MemoryError: all have failed.
        """
        ...

    def reset(self) -> None:
        """Begin anew after a failure: nothing of what failed is left."""
        ...


@dataclass(frozen=True, slots=True)
class Stored:
    """Stored values of one image on the device, and what was counted meanwhile."""

    pixels: Array = field(repr=False)
    outside: int
    """Samples that lay outside BitsStored's range and were clamped."""
    low: int
    """Smallest and largest stored value."""
    high: int


Rendered = Callable[[], Sequence[Callable[[], Prepared] | None]]


class Memory(Protocol):
    """The memory that the engines decode to, and the kernels that work there."""

    def stored(
        self, samples: Sequence[Samples], images: Sequence[ImageHeader], *, scaled: bool
    ) -> list[Stored]:
        """As `stored.to_stored` for a batch of plain unsigned samples; scaled: DALI's range is undone first.

        Waits for the device once. The samples may be forgotten then.
        """
        ...

    def low_passes(self, pixels: Sequence[Array]) -> list[Array]:
        """One step of the 5/3 low-pass filter for a batch, not clamped."""
        ...

    def render(self, draws: Sequence[Draw], config: ResultConfig) -> Rendered:
        """As `render.render` for a batch; None for what is the CPU's to refuse.

        What is returned waits for the device, once; what that gives hashes a picture each. Any thread may
        call either.
        """
        ...

    def to_device(self, array: Array) -> Array:
        """A copy there, of what the CPU decoded."""
        ...

    def to_host(self, array: Array) -> Array:
        """A copy here, as a NumPy array."""
        ...

    def lane(self) -> AbstractContextManager[object]:
        """Inside, this thread's work is queued on a stream of its own."""
        ...

    def synchronize(self) -> None:
        """Wait for all work of this thread; raises RuntimeError if the device has failed for good."""
        ...


@dataclass(frozen=True, slots=True)
class Engines:
    """What a device decodes with. Of each sequence the first is tried first, the next where it failed."""

    memory: Memory
    full: tuple[Engine, ...]
    """Level 0 only."""
    levels: tuple[Engine, ...]
    """Any level."""
    sizes: Sizes
    close: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What engines are opened for."""

    pixels: int
    """Of the largest image."""
    cores: int
    """Of the host, for this device."""
    batch: int = 0
    """--gpu-batch; 0: as fits."""
    threads: int = 0
    """--gpu-threads; 0: as fits."""


Opener = Callable[[Wish], Engines]

DALI_THREADS = 16
"""More slow full-size decoding down: on an H100 8 to 16 do most."""


def opener(name: str) -> Opener:
    """The function `module:function`."""
    module, _, function = name.partition(":")
    found: Opener = getattr(import_module(module), function)
    return found


def open_engines(wish: Wish) -> Engines:
    """DALI, nvImageCodec and nvJPEG2000 on the only device that this process sees.

    Raises OSError, ImportError, RuntimeError: libraries or device cannot be used.
    """
    from dali_pipelines.codec import CodecEngine
    from dali_pipelines.decode import DaliEngine
    from dali_pipelines.device import CudaMemory
    from dali_pipelines.levels import LevelEngine

    memory = CudaMemory()
    chosen = sizes(wish.pixels, memory.free_bytes(), wish.cores, batch=wish.batch, threads=wish.threads)
    fewer = replace(chosen, threads=min(chosen.threads, DALI_THREADS))
    dali = DaliEngine(fewer, memory.adopt, device="mixed", device_id=0)
    codec = CodecEngine(memory.adopt, device_id=0)
    levels = LevelEngine(memory, chosen.threads)

    def close() -> None:
        dali.close()
        levels.close()

    return Engines(memory, full=(dali, codec), levels=(levels,), sizes=chosen, close=close)
