from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from preprocess.errors import RunAborted
from preprocess.executors.local import LocalExecutor
from tests.toys import Toy

GIGABYTES = 1_000_000_000


@pytest.fixture(scope="module")
def one() -> Iterator[LocalExecutor]:
    """One worker, kept from test to test."""
    with LocalExecutor(1, 30.0, 2 * GIGABYTES) as executor:
        yield executor


@pytest.fixture(scope="module")
def two() -> Iterator[LocalExecutor]:
    with LocalExecutor(2, 30.0, 2 * GIGABYTES) as executor:
        yield executor


@pytest.fixture(scope="module")
def impatient() -> Iterator[LocalExecutor]:
    """One worker with one second per item, and for everything else."""
    with LocalExecutor(1, 1.0, 2 * GIGABYTES, outside_s=0.5) as executor:
        yield executor


def pids(executor: LocalExecutor) -> list[int]:
    return [worker.process.pid for worker in executor.alive]


def test_workers_are_kept_between_runs_and_ended_on_leaving() -> None:
    with LocalExecutor(1, 30.0, 2 * GIGABYTES) as kept:
        assert list(kept.run([Toy((2,))])) == [(4,)]
        first = [worker.process for worker in kept.alive]
        assert list(kept.run([Toy((3,))])) == [(9,)]
        assert [worker.process for worker in kept.alive] == first
    assert not any(process.is_alive() for process in first)


def test_a_run_given_up_ends_only_its_busy_workers(two: LocalExecutor) -> None:
    results = two.run([Toy((1,)), Toy((2,), deeds=((2, "hang"),))])
    assert next(results) == (1,)
    results.close()
    assert len(two.alive) == 1
    assert list(two.run([Toy((3,))])) == [(9,)]


def test_every_task_is_done_once(two: LocalExecutor) -> None:
    tasks = [Toy(items=(n, n + 1)) for n in range(20)]
    assert sorted(two.run(tasks)) == [(n * n, (n + 1) ** 2) for n in range(20)]


def test_no_tasks_start_no_workers() -> None:
    executor = LocalExecutor(2, 30.0, 2 * GIGABYTES)
    assert list(executor.run([])) == []
    assert executor.record.started == 0


@pytest.mark.parametrize(
    ("deed", "code"),
    [
        ("segfault", "decoder_crashed"),
        ("abort", "decoder_crashed"),
        ("exit", "decoder_crashed"),
        ("killed", "out_of_memory"),
        ("hog", "out_of_memory"),
        ("fault", "internal_error"),
        ("leave", "internal_error"),
    ],
)
def test_an_item_that_ends_its_process_is_blamed_and_its_neighbours_are_kept(
    two: LocalExecutor, deed: str, code: str
) -> None:
    tasks = [Toy(items=(1, 2, 3), deeds=((2, deed),)), Toy(items=(4, 5))]
    assert set(two.run(tasks)) == {(1, code, 9), (16, 25)}


def test_two_deadly_items_in_one_task_are_both_found(one: LocalExecutor) -> None:
    toy = Toy(items=(1, 2, 3, 4), deeds=((1, "segfault"), (3, "exit")))
    assert list(one.run([toy])) == [("decoder_crashed", 4, "decoder_crashed", 16)]


def test_a_hanging_item_is_blamed_for_its_time(impatient: LocalExecutor) -> None:
    assert list(impatient.run([Toy((1, 2), deeds=((1, "hang"),))])) == [("timeout", 4)]


def test_a_stopped_process_is_a_hanging_one(impatient: LocalExecutor) -> None:
    assert list(impatient.run([Toy((1, 2), deeds=((1, "stopped"),))])) == [("timeout", 4)]


@pytest.mark.parametrize("deed", ["killed*1", "killed*2", "terminated*2", "segfault*1"])
def test_an_innocent_item_survives_an_operators_kills(one: LocalExecutor, tmp_path: Path, deed: str) -> None:
    toy = Toy((1, 2, 3), deeds=((2, deed),), marks=str(tmp_path))
    assert list(one.run([toy])) == [(1, 4, 9)]


def test_an_item_that_was_slow_once_is_not_blamed(impatient: LocalExecutor, tmp_path: Path) -> None:
    toy = Toy((1, 2), deeds=((1, "hang*1"),), marks=str(tmp_path))
    assert list(impatient.run([toy])) == [(1, 4)]


def test_a_suspect_is_tried_in_a_process_that_worked_on_nothing_else(
    one: LocalExecutor, tmp_path: Path
) -> None:
    assert list(one.run([Toy((1, 2, 3), deeds=((2, "segfault*1"),), marks=str(tmp_path))])) == [(1, 4, 9)]
    first, second = ((tmp_path / f"worked-{n}").read_text().split() for n in (1, 2))
    assert second[0] == first[0] != second[1]


def test_a_task_whose_deaths_have_no_culprit_is_isolated_and_kept(one: LocalExecutor, tmp_path: Path) -> None:
    toy = Toy((1, 2, 3), deeds=((None, "killed*2"),), marks=str(tmp_path))
    assert list(one.run([toy])) == [(1, 4, 9)]
    workers = {(tmp_path / f"worked-{n}").read_text().split()[-1] for n in (1, 2, 3)}
    assert len(workers) == 3


def test_an_item_that_only_poisons_its_process_harms_no_other(one: LocalExecutor) -> None:
    """A heap broken by one image kills its process at the next: both are fine, each alone."""
    assert list(one.run([Toy((1, 2, 3, 4), deeds=((1, "poison"),))])) == [(1, 4, 9, 16)]


def test_an_item_that_is_deadly_wherever_it_is_not_alone_is_kept(one: LocalExecutor) -> None:
    assert list(one.run([Toy((1, 2, 3), deeds=((2, "die_in_company"),))])) == [(1, 4, 9)]


def test_a_task_that_dies_outside_its_items_ends_the_run_with_a_reason(one: LocalExecutor) -> None:
    with pytest.raises(RunAborted, match=r"outside of any image .SIGSEGV"):
        list(one.run([Toy((1, 2), deeds=((None, "segfault"),))]))


def test_a_task_stuck_outside_its_items_ends_the_run_with_a_reason(impatient: LocalExecutor) -> None:
    with pytest.raises(RunAborted, match=r"outside of any image .timeout"):
        list(impatient.run([Toy((1,), deeds=((None, "hang"),))]))


def test_a_task_stuck_outside_its_items_once_is_done_again(impatient: LocalExecutor, tmp_path: Path) -> None:
    toy = Toy((1, 2), deeds=((None, "hang*1"),), marks=str(tmp_path))
    assert list(impatient.run([toy])) == [(1, 4)]


def test_idle_workers_that_were_killed_cost_nothing(one: LocalExecutor) -> None:
    for _ in range(4):
        assert list(one.run([Toy((1,))])) == [(1,)]
        [worker] = one.alive
        os.kill(worker.process.pid, signal.SIGKILL)
    assert list(one.run([Toy((2,))])) == [(4,)]


def test_workers_that_never_begin_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RunAborted, match=r"before they begin .exit status 1"):
        list(LocalExecutor(1, 30.0, 2 * GIGABYTES).run([Toy((1,))]))


def test_a_full_disk_ends_the_run_with_its_reason_and_no_path(one: LocalExecutor) -> None:
    with pytest.raises(RunAborted, match=r"^cannot write the dataset: No space left on device \(ENOSPC\)$"):
        list(one.run([Toy((1,), deeds=((1, "full_disk"),))]))


def test_a_fault_outside_the_items_is_told_by_type_and_place(one: LocalExecutor) -> None:
    with pytest.raises(RunAborted, match=r"^internal fault: KeyError at tests.toys:\d+$"):
        list(one.run([Toy((1,), deeds=((None, "fault"),))]))


def test_nothing_that_a_worker_prints_reaches_the_terminal(
    one: LocalExecutor, capfd: pytest.CaptureFixture[str]
) -> None:
    assert list(one.run([Toy((1,), deeds=((1, "talk"),))])) == [(1,)]
    assert capfd.readouterr() == ("", "")


def test_a_record_is_kept_of_what_the_workers_went_through() -> None:
    with LocalExecutor(1, 30.0, 2 * GIGABYTES) as executor:
        list(executor.run([Toy((1, 2), deeds=((1, "segfault"),))]))
    record = executor.record
    assert (record.started, record.lost, record.tried_alone) == (3, 2, 1)
    assert (record.blamed, record.causes) == ({"decoder_crashed": 1}, {"SIGSEGV": 2})
    assert 5_000_000 < record.peak_worker_bytes < 200_000_000


def test_a_worker_has_no_children_and_holds_no_file_of_its_driver(one: LocalExecutor, tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        list(one.run([Toy((1, 2), deeds=((1, "segfault"),))]))  # the last worker began while it was open
        [pid] = pids(one)
        held = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    assert Path(f"/proc/{pid}/task/{pid}/children").read_text() == ""
    assert [name for name in held if not name.startswith(("/dev/null", "socket:", "/proc/"))] == []


def test_a_script_without_a_main_guard_can_use_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        from preprocess.executors.local import LocalExecutor
        from tests.toys import Toy
        with LocalExecutor(1, 30.0, 2_000_000_000) as executor:
            print(list(executor.run([Toy((3,))])))
        """)
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, env=environment
    )
    assert (done.stdout, done.stderr) == ("[(9,)]\n", "")


def test_workers_die_with_a_killed_driver() -> None:
    program = textwrap.dedent("""
        import os, signal
        from preprocess.executors.local import LocalExecutor
        from tests.toys import Toy
        executor = LocalExecutor(2, 600.0, 2_000_000_000)
        results = executor.run([Toy((0,)), Toy((1,), deeds=((1, "hang"),))])
        next(results)
        print(*[worker.process.pid for worker in executor.alive], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    driver = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    workers = driver.stdout.split()
    waits = "; ".join(f"while kill -0 {pid} 2>/dev/null; do sleep 0.05; done" for pid in workers)
    assert driver.returncode == -9
    assert len(workers) == 2
    assert subprocess.run(["timeout", "20", "sh", "-c", waits], timeout=30).returncode == 0
