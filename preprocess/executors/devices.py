"""GPUs as an executor sees them: one worker process each, and what becomes of tasks when one ends.

In:  the devices of a run, tasks that can work on one.
Out: which task a device gets next, and where a task goes whose device's worker has ended:

    another device, if one is left that has not lost it yet; then the CPU, where blame is found
    --require-gpu: RunAborted instead of the CPU
    a device whose workers end _ENDS times in a row gets no more tasks
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar, runtime_checkable

from preprocess.errors import RunAborted
from preprocess.executors.base import Task

R_co = TypeVar("R_co", covariant=True)
W = TypeVar("W")

_ENDS = 3


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, and how its worker process works: a picklable value."""

    name: str
    """As `--devices` gives it."""
    environment: tuple[tuple[str, str], ...] = ()
    """What makes it the only device that the process sees."""
    engines: str = ""
    """`module:function` that opens what decodes there (dali_pipelines.engines.opener)."""
    cores: int = 1
    """Threads of the host that work for it."""
    batch: int = 0
    """--gpu-batch; 0: as fits."""
    threads: int = 0
    """--gpu-threads; 0: as fits."""
    item_timeout_s: float = 0.0
    """What one image may take on the CPU beside it; 0: as long as it likes."""


@runtime_checkable
class DeviceTask(Protocol[R_co]):
    """A task that can also run on a device, with the same result."""

    def on_device(self, device: Device) -> Task[R_co]:
        """The same task, to be run in that device's worker process."""
        ...


@dataclass(slots=True)
class DeviceQueue(Generic[W]):
    """What waits for devices, and how they fare. W: an executor's work."""

    devices: Sequence[Device]
    required: bool
    task_of: Callable[[W], object]
    lost_of: Callable[[W], set[str]]
    """Names of the devices whose worker ended on it; kept with the work."""
    finished: Counter[str] = field(default_factory=Counter)
    """Tasks by device, and "cpu" for those that a device could have done."""
    _waiting: deque[W] = field(default_factory=deque)
    _ends: Counter[str] = field(default_factory=Counter)
    """In a row."""

    def alive(self) -> list[Device]:
        """Devices that have not been given up."""
        return [device for device in self.devices if self._ends[device.name] < _ENDS]

    def wants(self, work: W) -> bool:
        """Whether a device is left for this work. Raises RunAborted where none is, but one is required."""
        if not self.devices or not isinstance(self.task_of(work), DeviceTask):
            return False
        if any(device.name not in self.lost_of(work) for device in self.alive()):
            return True
        if self.required:
            raise RunAborted(f"--require-gpu: no GPU is left for this work ({self.as_text()})")
        return False

    def put(self, work: W) -> None:
        """Work that only a device is to do."""
        self._waiting.append(work)

    def take(self, device: Device) -> W | None:
        """The next work that waits for a device and that this one has not lost yet."""
        for work in self._waiting:
            if device.name not in self.lost_of(work):
                self._waiting.remove(work)
                return work
        return None

    def orphans(self) -> list[W]:
        """Work that waits for devices that are no more: it is the CPU's now."""
        left = [work for work in self._waiting if not self.wants(work)]
        for work in left:
            self._waiting.remove(work)
        return left

    def waits(self) -> bool:
        """Whether any work waits for a device."""
        return bool(self._waiting)

    def has_ended(self, device: Device, work: W) -> None:
        """The device's worker process has ended on this work."""
        self._ends[device.name] += 1
        self.lost_of(work).add(device.name)

    def has_finished(self, device: Device | None, work: W) -> None:
        """Work was done, by a device or by the CPU."""
        if device is not None:
            self._ends[device.name] = 0
        if self.devices and isinstance(self.task_of(work), DeviceTask):
            self.finished["cpu" if device is None else device.name] += 1

    def as_text(self) -> str:
        """How the devices fared, for people."""
        given_up = [device.name for device in self.devices if self._ends[device.name] >= _ENDS]
        done = ", ".join(f"{name}: {count}" for name, count in sorted(self.finished.items())) or "none"
        return f"shards by GPU {done}" + (f"; given up: {', '.join(given_up)}" if given_up else "")
