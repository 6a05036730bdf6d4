"""Supervised worker processes on this machine.

In:  tasks (see base.py).
Out: results as they finish. A worker that crashes, hangs, starves or is killed is replaced, its task redone.

Nobody is blamed on suspicion (an operator's kill -9 must not condemn an innocent):

    a process ends with an item in hand     the item is tried alone, in a process that has done nothing else
    … again in that task, or with no item   isolation: every item that was not yet, is tried alone
    it ends alone too                       the item is to blame; killed from outside: only the second time
    it passes alone                         what came of it is kept, and the task redone with that

What was SIGKILLed is tried while nothing else runs: whom the kernel kills when memory runs out depends on the
neighbours, a verdict must not.

Devices have a worker each, beside those; nothing is said there of single items (devices.py).
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Generic, Self, TypeVar, cast

from preprocess.errors import RunAborted
from preprocess.executors.base import Record, Task
from preprocess.executors.devices import Device, DeviceQueue, DeviceTask
from preprocess.executors.jobs import LATE, STARVED, Cause, Job, Work, Worker
from preprocess.executors.process import Process
from preprocess.executors.worker import At, Done, Ended, Failed, Faulted, Starved

R = TypeVar("R")

OUTSIDE_S = 600.0
"""A task may spend this long outside its items (in a commit to a slow disk), and a second more per item."""
_ENDS_AFTER_ISOLATION = 2
_ENDS_FROM_OUTSIDE = 2
_ENDS_BEFORE_BEGIN = 3
_POLL_S = 0.5
_HUNG_UP_S = 5.0
_DEVICE_START_S = 120.0
"""What a device's worker may take before it says anything: libraries, the device, the self-test."""
_FROM_OUTSIDE = frozenset(
    signal.Signals(number).name for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
)


class LocalExecutor:
    """Runs tasks in `workers` processes, each limited in address space and in seconds per item.

    A context manager: idle workers are kept from one `run` to the next and ended on leaving.
    """

    def __init__(
        self,
        workers: int,
        item_timeout_s: float,
        memory_bytes: int,
        outside_s: float = OUTSIDE_S,
        *,
        devices: Sequence[Device] = (),
        require_device: bool = False,
    ) -> None:
        self.workers = workers
        self.item_timeout_s = item_timeout_s
        self.memory_bytes = memory_bytes
        self.outside_s = max(outside_s, item_timeout_s)
        self.devices, self.require_device = tuple(devices), require_device
        self.alive: list[Worker[object]] = []
        self.record = Record()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.alive:
            worker.process.kill()
        while self.alive:
            self.alive[-1].process.stop()
            self.alive.pop()

    def run(self, tasks: Iterable[Task[R]]) -> Iterator[R]:
        """Yield results in the order in which tasks finish; raises RunAborted."""
        supervisor = _Supervisor(self, tasks)
        try:
            yield from supervisor.results()
        finally:
            supervisor.release()


class _Supervisor(Generic[R]):
    """The state of one run: what is to be done, by what right, and the executor's workers."""

    def __init__(self, executor: LocalExecutor, tasks: Iterable[Task[R]]) -> None:
        self._executor = executor
        self._record = executor.record
        self._fresh = (Job(task) for task in tasks)
        self._again: deque[Work[R]] = deque()
        self._undisturbed: deque[Work[R]] = deque()
        self._workers = cast(list[Worker[R]], executor.alive)
        self._still_born = 0
        self._devices: DeviceQueue[Work[R]] = DeviceQueue(
            executor.devices,
            executor.require_device,
            lambda work: work.job.task,
            lambda work: work.job.lost_on,
        )
        self._for_devices = bool(executor.devices)
        """Whether fresh tasks may be for devices: those of one run are of a kind."""

    def results(self) -> Iterator[R]:
        """Hand out, listen, replace, until nothing is left."""
        while True:
            self._hand_out()
            busy = self._busy()
            if not busy:
                return
            ready = wait([worker.process.connection for worker in busy], timeout=_POLL_S)
            for worker in busy:
                if worker.process.connection in ready:
                    yield from self._listen(worker)
            for worker in self._busy():
                if self._is_late(worker):
                    yield from self._listen(worker)
                if self._is_late(worker):
                    self._bury(worker, LATE)

    def release(self) -> None:
        """End the workers that still have work in hand (the run was given up)."""
        for worker in self._busy():
            self._remove(worker)
        self._record.devices.update(self._devices.finished)

    def _busy(self) -> list[Worker[R]]:
        return [worker for worker in self._workers if worker.work is not None]

    def _hand_out(self) -> None:
        self._again.extend(self._devices.orphans())
        busy = {worker.device for worker in self._busy()}
        for device in self._devices.alive():
            if device not in busy and (work := self._work_for(device)) is not None:
                assert isinstance(work.job.task, DeviceTask)
                self._give(self._worker_of(device), work, work.job.task.on_device(device))
        while sum(worker.device is None for worker in self._busy()) < self._executor.workers:
            next_work = self._next_work()
            if next_work is None:
                return
            task, alone = next_work.job.task, next_work.alone
            self._give(self._worker_for(next_work), next_work, task if alone is None else task.alone(alone))

    def _give(self, worker: Worker[R], work: Work[R], task: Task[object]) -> None:
        worker.work, worker.used = work, True
        worker.begun, worker.item, worker.since = False, None, time.monotonic()
        with contextlib.suppress(OSError):  # it died idle: found out by listening
            worker.process.connection.send(task)

    def _work_for(self, device: Device) -> Work[R] | None:
        if any(worker.work is not None and worker.work.undisturbed for worker in self._busy()):
            return None
        if (waiting := self._devices.take(device)) is not None:
            return waiting
        job = next(self._fresh, None) if self._for_devices else None
        if job is None or isinstance(job.task, DeviceTask):
            return Work(job) if job is not None else None
        self._for_devices = False
        self._again.append(Work(job))
        return None

    def _next_work(self) -> Work[R] | None:
        busy = self._busy()
        if any(worker.work is not None and worker.work.undisturbed for worker in busy):
            return None
        if self._again:
            return self._again.popleft()
        if not self._devices.waits() and (job := next(self._fresh, None)) is not None:
            if not self._devices.wants(Work(job)):
                return Work(job)
            self._devices.put(Work(job))
        return self._undisturbed.popleft() if self._undisturbed and not busy else None

    def _worker_for(self, work: Work[R]) -> Worker[R]:
        idle = [worker for worker in self._workers if worker.work is None and worker.device is None]
        if work.alone is None and idle:
            return idle[0]
        for worker in idle:
            if not worker.used:
                return worker
        if sum(worker.device is None for worker in self._workers) >= self._executor.workers:
            self._remove(idle[0])
        return self._started(Worker(Process(self._executor.memory_bytes)))

    def _worker_of(self, device: Device) -> Worker[R]:
        for worker in self._workers:
            if worker.device == device:
                return worker
        return self._started(Worker(Process(0, dict(device.environment)), device=device))

    def _started(self, worker: Worker[R]) -> Worker[R]:
        self._record.started += 1
        self._workers.append(worker)
        return worker

    def _remove(self, worker: Worker[R]) -> None:
        worker.process.stop()
        self._workers.remove(worker)

    def _is_late(self, worker: Worker[R]) -> bool:
        if worker.work is None:
            return False
        limit = self._executor.item_timeout_s
        if worker.device is not None:
            return time.monotonic() - worker.since > limit + _DEVICE_START_S
        if worker.item is None:
            limit = self._executor.outside_s + worker.work.job.task.size
        return time.monotonic() - worker.since > limit

    def _listen(self, worker: Worker[R]) -> Iterator[R]:
        """Take in all that the worker has said; bury it if it has hung up."""
        try:
            while worker.work is not None and worker.process.connection.poll():
                yield from self._heed(worker, worker.process.connection.recv())
        except (EOFError, OSError):  # at a message's end, or in the middle of one
            status = worker.process.stop(grace_s=_HUNG_UP_S)
            self._bury(worker, worker.verdict or Cause.of_exit(status))

    def _heed(self, worker: Worker[R], message: object) -> Iterator[R]:
        work = worker.work
        assert work is not None
        if isinstance(message, At):
            self._still_born = 0
            worker.begun, worker.item, worker.since = True, message.index, time.monotonic()
        elif isinstance(message, Failed):
            raise RunAborted(message.message)
        elif isinstance(message, Starved):
            worker.verdict = STARVED
        elif isinstance(message, Faulted):
            if worker.item is None and worker.device is None:
                raise RunAborted(f"internal fault: {message.message}")
            worker.verdict = Cause("internal_error", message.message, "fault")
        elif isinstance(message, Done | Ended):
            worker.work = None
            yield from self._answered(worker, work, message)

    def _answered(self, worker: Worker[R], work: Work[R], message: Done | Ended) -> Iterator[R]:
        """The worker is done with its work, and free for more."""
        if isinstance(message, Ended):
            self._try_alone(work.job, message)
            return
        self._record.peak_worker_bytes = max(self._record.peak_worker_bytes, message.peak_bytes)
        if work.alone is None:
            self._devices.has_finished(worker.device, work)
            yield message.result
        else:
            work.job.task = work.job.task.knowing(work.alone, message.result)
            self._trial_is_over(work.job)

    def _bury(self, worker: Worker[R], cause: Cause) -> None:
        """Remove a worker; see to it that its work is done without the item to blame, if there is one."""
        self._remove(worker)
        self._record.lost += 1
        self._record.causes[cause.name] += 1
        work = worker.work
        assert work is not None
        if worker.device is not None:
            self._devices.has_ended(worker.device, work)
            self._devices.put(work)  # another's, or an orphan
        elif not worker.begun:
            self._still_born += 1
            if self._still_born >= _ENDS_BEFORE_BEGIN:
                raise RunAborted(f"workers end before they begin ({cause.name})")
            self._again.append(work)
        elif work.alone is not None:
            self._trial_failed(work, work.alone, cause)
        elif cause.code == "internal_error" and worker.item is not None:
            self._blame(work.job, worker.item, cause)
            self._again.append(Work(work.job))
        else:
            self._suspect(work.job, worker.item, cause)

    def _try_alone(self, job: Job[R], end: Ended) -> None:
        """A process beside a device's ended on an item: that is tried alone, and the device is not blamed."""
        self._record.lost += 1
        self._record.causes[end.cause] += 1
        job.tried.add(end.index)
        job.waiting += 1
        undisturbed = end.cause == "SIGKILL"
        queue = self._undisturbed if undisturbed else self._again
        queue.append(Work(job, end.index, undisturbed))

    def _suspect(self, job: Job[R], item: int | None, cause: Cause) -> None:
        """A whole task's process ended: try alone whoever comes into question, or redo it."""
        if item is not None and item in job.blamed:  # not even its file can be looked at
            self._blame(job, item, cause)
        job.unexplained += 1
        suspects: set[int] = set()
        if job.unexplained == 1:
            suspects = {item} - job.tried if item is not None else set()
        elif not job.isolated:
            job.isolated = True
            suspects = set(range(job.task.size)) - job.tried
        else:
            self._suspect_after_isolation(job, item, cause)
        job.tried |= suspects
        job.waiting = len(suspects)
        undisturbed = cause.name == "SIGKILL"
        queue = self._undisturbed if undisturbed else self._again
        queue.extend(Work(job, index, undisturbed) for index in sorted(suspects))
        if not suspects:
            self._again.append(Work(job))

    def _suspect_after_isolation(self, job: Job[R], item: int | None, cause: Cause) -> None:
        job.ends[item] += 1
        if job.ends[item] < _ENDS_AFTER_ISOLATION:
            return
        if item is None:
            raise RunAborted(f"workers end outside of any image ({cause.name})")
        self._blame(job, item, cause)

    def _trial_failed(self, work: Work[R], index: int, cause: Cause) -> None:
        work.job.killed[index] += 1
        if cause.name in _FROM_OUTSIDE and work.job.killed[index] < _ENDS_FROM_OUTSIDE:
            again = Work(work.job, index, undisturbed=True)
            self._undisturbed.append(again)
            return
        self._blame(work.job, index, cause)
        self._trial_is_over(work.job)

    def _trial_is_over(self, job: Job[R]) -> None:
        self._record.tried_alone += 1
        job.waiting -= 1
        if not job.waiting:
            again = Work(job)
            if self._devices.wants(again):
                self._devices.put(again)
            else:
                self._again.append(again)

    def _blame(self, job: Job[R], index: int, cause: Cause) -> None:
        self._record.blamed[cause.code] += 1
        job.unexplained = 0
        job.ends.clear()
        job.blamed.add(index)
        job.tried.add(index)
        job.task = job.task.blamed(index, cause.code, cause.message)
