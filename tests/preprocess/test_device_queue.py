"""Which task a device gets, and where a task goes whose device's worker has ended."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from preprocess.errors import RunAborted
from preprocess.executors.base import Task
from preprocess.executors.devices import Device, DeviceQueue

FIRST, SECOND = Device("0"), Device("1")


class OnDevice:
    """A task that a device can do."""

    def on_device(self, device: Device) -> Task[object]:
        raise NotImplementedError


@dataclass(eq=False)
class Work:
    task: object = field(default_factory=OnDevice)
    lost: set[str] = field(default_factory=set)


def queue(*devices: Device, required: bool = False) -> DeviceQueue[Work]:
    return DeviceQueue(devices, required, lambda work: work.task, lambda work: work.lost)


def test_only_tasks_for_devices_are_wanted_and_only_where_there_are_devices() -> None:
    assert queue(FIRST).wants(Work())
    assert not queue(FIRST).wants(Work(task="a scan"))
    assert not queue().wants(Work())


def test_lost_work_goes_to_another_device_then_to_the_cpu() -> None:
    both, work = queue(FIRST, SECOND), Work()
    both.has_ended(FIRST, work)
    both.put(work)
    assert both.take(FIRST) is None
    assert both.orphans() == []
    assert both.take(SECOND) is work
    both.has_ended(SECOND, work)
    both.put(work)
    assert both.orphans() == [work]
    assert not both.waits()


def test_require_gpu_refuses_the_cpu() -> None:
    one, work = queue(FIRST, required=True), Work()
    one.has_ended(FIRST, work)
    one.put(work)
    with pytest.raises(RunAborted, match="--require-gpu"):
        one.orphans()


def test_a_device_that_ends_three_times_in_a_row_is_given_up_but_not_with_successes_between() -> None:
    one = queue(FIRST)
    for _ in range(2):
        one.has_ended(FIRST, Work())
    one.has_finished(FIRST, Work())
    for _ in range(2):
        one.has_ended(FIRST, Work())
    assert one.alive() == [FIRST]
    one.has_ended(FIRST, Work())
    assert one.alive() == []
    assert not one.wants(Work())
    assert "given up: 0" in one.as_text()


def test_what_was_done_where_is_counted() -> None:
    one = queue(FIRST)
    one.has_finished(FIRST, Work())
    one.has_finished(None, Work())
    one.has_finished(None, Work(task="a scan"))
    assert one.finished == {"0": 1, "cpu": 1}
    none = queue()
    none.has_finished(None, Work())
    assert not none.finished
