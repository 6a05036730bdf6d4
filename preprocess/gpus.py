"""The GPUs that a run works on, or the reason why there are none.

In:  the execution config.
Out: Devices for the executor, one for each GPU; nothing on the CPU. UsageError names whatever is missing.

A run asked for with --gpu never becomes a CPU run in silence.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

from preprocess.config import ExecutionConfig
from preprocess.doctor_checks import FAIL
from preprocess.doctor_gpu import gpu_checks, load_driver
from preprocess.errors import UsageError
from preprocess.executors.devices import Device

ENGINES = "dali_pipelines.engines:open_engines"
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_QUEUES = ("CUDA_DEVICE_MAX_CONNECTIONS", "32")
"""Streams that the hardware runs side by side, by default 8. nvJPEG2000 takes 20 ms for an image at any
level, for a code-block is decoded bit by bit: its throughput is images in flight."""


def devices_of(execution: ExecutionConfig) -> tuple[Device, ...]:
    """One Device for each GPU to use; () without --gpu.

    Raises:
        UsageError: driver, devices or libraries are missing, or `--devices` names a GPU that is not there.
    """
    if not execution.gpu:
        return ()
    reasons = [f"{check.name}: {check.detail}" for check in gpu_checks(needed=True) if check.status == FAIL]
    if reasons:
        raise UsageError(f"--gpu cannot work here: {'; '.join(reasons)}")
    count = ctypes.c_int()
    load_driver().cuDeviceGetCount(ctypes.byref(count))
    try:
        numbers = execution.device_numbers(count.value)
    except ValueError as error:
        raise UsageError(f"--devices: {error}") from None
    return tuple(device(number, len(numbers), execution) for number in numbers)


def device(number: int, of: int, execution: ExecutionConfig, engines: str = ENGINES) -> Device:
    """The Device for one of `of` GPUs, which share the cores that `--workers` gives."""
    return Device(
        name=str(number),
        environment=((_VISIBLE, visible(number, os.environ)), (_QUEUES[0], os.environ.get(*_QUEUES))),
        engines=engines,
        cores=max(2, execution.worker_count() // of),
        batch=execution.gpu_batch,
        threads=execution.gpu_threads,
        item_timeout_s=execution.image_timeout_s,
    )


def visible(number: int, environment: Mapping[str, str]) -> str:
    """CUDA_VISIBLE_DEVICES for a process that is to see only the GPU that is number `number` here.

    What the variable says already (numbers, UUIDs, MIG names) is what GPUs are counted in.
    """
    names = [name.strip() for name in environment.get(_VISIBLE, "").split(",") if name.strip()]
    return names[number] if number < len(names) else str(number)
