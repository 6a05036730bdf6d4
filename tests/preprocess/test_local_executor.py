from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from preprocess.errors import RunAborted
from preprocess.executors.local import LocalExecutor
from tests.toys import Toy


class Once(LocalExecutor):
    """Ends its workers after one run."""

    def run(self, tasks):  # type: ignore[no-untyped-def]
        with self:
            yield from super().run(tasks)


def executor(workers: int = 2, item_timeout_s: float = 30.0) -> LocalExecutor:
    return Once(workers, item_timeout_s, memory_bytes=2_000_000_000)


def test_workers_are_kept_between_runs_and_ended_on_leaving() -> None:
    with LocalExecutor(1, 30.0, 2_000_000_000) as kept:
        assert list(kept.run([Toy((2,))])) == [(4,)]
        first = [worker.process for worker in kept.alive]
        assert list(kept.run([Toy((3,))])) == [(9,)]
        assert [worker.process for worker in kept.alive] == first
    assert not any(process.is_alive() for process in first)


def test_a_run_given_up_ends_only_its_busy_workers() -> None:
    with LocalExecutor(2, 30.0, 2_000_000_000) as kept:
        results = kept.run([Toy((1,)), Toy((2,), deeds=((2, "hang"),))])
        assert next(results) == (1,)
        results.close()
        assert len(kept.alive) == 1
        assert list(kept.run([Toy((3,))])) == [(9,)]


def test_every_task_is_done_once() -> None:
    tasks = [Toy(items=(n, n + 1)) for n in range(20)]
    assert sorted(executor().run(tasks)) == [(n * n, (n + 1) ** 2) for n in range(20)]  # type: ignore[type-var]


def test_no_tasks_start_no_workers() -> None:
    assert list(executor().run([])) == []


@pytest.mark.parametrize(
    ("deed", "code"),
    [("segfault", "decoder_crashed"), ("exit", "decoder_crashed"), ("killed", "out_of_memory")],
)
def test_a_deadly_item_is_blamed_and_its_neighbours_are_kept(deed: str, code: str) -> None:
    tasks = [Toy(items=(1, 2, 3), deeds=((2, deed),)), Toy(items=(4, 5))]
    assert set(executor().run(tasks)) == {(1, code, 9), (16, 25)}


def test_two_deadly_items_in_one_task_are_both_found() -> None:
    toy = Toy(items=(1, 2, 3, 4), deeds=((1, "segfault"), (3, "exit")))
    assert list(executor(1).run([toy])) == [("decoder_crashed", 4, "decoder_crashed", 16)]


def test_a_hanging_item_is_blamed_for_its_time() -> None:
    assert list(executor(1, item_timeout_s=1.0).run([Toy((1, 2), deeds=((1, "hang"),))])) == [("timeout", 4)]


def test_an_innocent_item_survives_one_kill(tmp_path) -> None:  # type: ignore[no-untyped-def]
    toy = Toy((1, 2, 3), deeds=((2, "killed once"),), marks=str(tmp_path / "mark"))
    assert list(executor(1).run([toy])) == [(1, 4, 9)]


def test_a_full_disk_ends_the_run_with_its_reason() -> None:
    with pytest.raises(RunAborted, match="No space left on device"):
        list(executor(1).run([Toy((1,), deeds=((1, "disk full"),))]))


def test_memory_of_a_worker_is_limited() -> None:
    with pytest.raises(RunAborted, match="memory limit"):
        list(executor(1).run([Toy((1,), deeds=((1, "hog"),))]))


def test_workers_die_with_a_killed_driver() -> None:
    program = textwrap.dedent("""
        import os, signal, threading
        from preprocess.executors.local import LocalExecutor
        from tests.toys import Toy
        import multiprocessing
        if __name__ == "__main__":
            results = LocalExecutor(1, 600.0, 2_000_000_000).run([Toy((0,)), Toy((1,), deeds=((1, "hang"),))])
            next(results)
            threading.Timer(0.5, lambda: [print(p.pid, flush=True) or os.kill(os.getpid(), signal.SIGKILL)
                                          for p in multiprocessing.active_children()]).start()
            next(results)
    """)
    driver = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    worker = driver.stdout.strip()
    gone = subprocess.run(
        ["timeout", "20", "sh", "-c", f"while kill -0 {worker} 2>/dev/null; do sleep 0.05; done"], timeout=30
    )
    assert driver.returncode == -9
    assert worker.isdigit()
    assert gone.returncode == 0
