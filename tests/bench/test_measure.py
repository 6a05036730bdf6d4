from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.facts import cpu_model, installed, machine_facts
from bench.measure import Measurement, Pass, Spread, interleaved
from tests.bench.works import Toy


def measurement(*wall: float, name: str = "x", items: int = 2) -> Measurement:
    return Measurement(name, items, tuple(Pass(seconds, seconds / 2) for seconds in wall))


def test_contenders_take_turns_and_warm_up_is_forgotten(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    found = interleaved([Toy("A", str(diary)), Toy("B", str(diary))], repeats=2, warmup=1)
    assert diary.read_text().split() == ["A", "B"] * 3
    assert [len(one.passes) for one in found] == [2, 2]


def test_each_process_is_pinned_to_one_core_and_the_caller_is_not(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    (found,) = interleaved([Toy("A", str(tmp_path / "diary"))], repeats=1, warmup=0)
    assert dict(found.passes[0].parts)["cores"] == 1
    assert os.sched_getaffinity(0) == before


def test_items_are_dealt_out_over_processes(tmp_path: Path) -> None:
    (found,) = interleaved([Toy("A", str(tmp_path / "diary"), items=5)], repeats=1, warmup=0, cores=2)
    assert dict(found.passes[0].parts) == {"cores": 2, "share": 5}
    assert found.items == 5


def test_threads_share_one_process_that_may_use_all_its_cores(tmp_path: Path) -> None:
    toy = Toy("A", str(tmp_path / "diary"), items=5)
    (found,) = interleaved([toy], repeats=1, warmup=0, cores=2, threads=True)
    cores = float(min(2, len(os.sched_getaffinity(0))))
    assert found.passes[0].parts == (("cores", cores), ("share", 5.0))
    assert (tmp_path / "diary").read_text() == "A\n"


@pytest.mark.parametrize(
    ("ends", "note"), [("unopened", "no such library"), ("raises", "refused"), ("killed", "status 7")]
)
def test_a_contender_that_fails_is_named_and_the_others_go_on(tmp_path: Path, ends: str, note: str) -> None:
    diary = str(tmp_path / "diary")
    bad, good = interleaved([Toy("bad", diary, ends=ends), Toy("good", diary)], repeats=1, warmup=1)
    assert not bad.passes
    assert note in bad.note
    assert len(good.passes) == 1


def test_ratios_are_taken_round_by_round() -> None:
    ours, theirs = measurement(1, 2, 4), measurement(3, 4, 20)
    assert ours.times_faster_than(theirs) == Spread(3, 2, 5)
    assert ours.times_less_cpu_than(theirs) == Spread(3, 2, 5)


def test_milliseconds_are_per_image() -> None:
    assert measurement(1, 2, 3, items=4).milliseconds == Spread(500, 250, 750)


def test_a_part_is_the_median_per_image_and_zero_where_absent() -> None:
    passes = tuple(Pass(1, 1, (("roi", seconds),)) for seconds in (1.0, 5.0, 2.0))
    found = Measurement("x", 2, passes)
    assert found.part("roi") == 1000
    assert found.part("voi") == 0


def test_facts_tell_the_machine_and_no_path() -> None:
    facts = machine_facts("bcd-bench decode phantoms")
    assert facts.cpu == cpu_model()
    assert facts.cores == len(os.sched_getaffinity(0))
    assert dict(facts.versions)["numpy"] == installed("numpy")
    assert installed("no-such-distribution") is None
    assert os.fspath(Path.cwd()) not in repr(facts)
