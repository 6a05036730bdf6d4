from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess import atomic
from preprocess.config import Encoding, Format, ResultConfig
from preprocess.errors import RunAborted
from preprocess.images import safe_component
from preprocess.manifest import finish
from preprocess.plan import ShardPlan, plan_shards
from preprocess.records import Status
from preprocess.results import PixelStatistics, ShardResult
from preprocess.shards import ShardWriter, clean_leftovers, load_finished
from tests.factories import CONFIG, LABELS, inputs, prepared, reject, scanned, write_dataset, write_shard

ALL = CONFIG.model_copy(update={"formats": (Format.TFRECORD, Format.PARQUET, Format.PNG)})


def tree(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def plans(config: ResultConfig = ALL, patients: int = 6) -> tuple[ShardPlan, ...]:
    return plan_shards(inputs(patients), config, LABELS)


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("bits", [8, 16])
def test_writing_twice_gives_the_same_bytes(tmp_path: Path, encoding: Encoding, bits: int) -> None:
    config = ALL.model_copy(update={"encoding": encoding, "bits": bits})
    write_dataset(tmp_path / "a", config)
    write_dataset(tmp_path / "b", config)
    first = tree(tmp_path / "a")
    assert first == tree(tmp_path / "b")
    assert {Path(name).suffix for name in first} == {".json", ".parquet", ".tfrecord", ".png"}


def test_a_shard_says_what_its_files_are(tmp_path: Path) -> None:
    result = write_shard(tmp_path, plans()[0], ALL)
    formats = [file.format for file in result.files]
    assert formats == ["tfrecord", "parquet", *["png"] * (len(formats) - 2)]
    for file in result.files:
        data = (tmp_path / file.path).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.bytes, file.sha256)
    assert [row.shard_row for row in result.rows] == list(range(len(result.rows)))
    assert {row.shard for row in result.rows} == {result.name}


def test_rejects_have_rows_but_no_place(tmp_path: Path) -> None:
    files = (scanned("p", "1"), scanned("p", "2bad"), scanned("p", "3"))
    (plan,) = plan_shards(files, CONFIG)
    result = write_shard(tmp_path, plan)
    assert [row.status for row in result.rows] == [Status.PREPARED, Status.REJECTED, Status.PREPARED]
    assert [row.shard_row for row in result.rows] == [0, None, 1]
    assert (result.rows[1].reject_code, result.rows[1].shard) == ("blank_image", None)


def test_a_shard_of_rejects_has_a_journal_and_no_files(tmp_path: Path) -> None:
    (plan,) = plan_shards((scanned("p", "1bad"),), CONFIG)
    result = write_shard(tmp_path, plan)
    assert result.files == ()
    assert list(tree(tmp_path)) == [f".bcd/shards/{plan.name}.json"]
    assert load_finished(tmp_path, (plan,), CONFIG) == {plan.name: result}


def test_without_commit_nothing_is_left(tmp_path: Path) -> None:
    plan = plans()[0]
    with ShardWriter(tmp_path, plan, ALL, LABELS) as writer:
        writer.add(prepared(plan.sources[0], ALL))
        assert any(path.name.endswith(".tmp") for path in tmp_path.rglob("*"))
    assert tree(tmp_path) == {}


def test_outcomes_must_be_those_of_the_plan(tmp_path: Path) -> None:
    plan = plans()[0]
    with ShardWriter(tmp_path, plan, ALL, LABELS) as writer:
        with pytest.raises(ValueError, match="not that of the plan"):
            writer.add(prepared(plan.sources[1], ALL))
        writer.reject(reject(plan.sources[0]))
        with pytest.raises(ValueError, match="have no outcome"):
            writer.commit()


def test_pixels_of_another_size_are_refused(tmp_path: Path) -> None:
    plan = plans()[0]
    with ShardWriter(tmp_path, plan, ALL, LABELS) as writer, pytest.raises(ValueError, match="not 32x16"):
        writer.add(prepared(plan.sources[0], ALL.model_copy(update={"height": 40})))


def fail_at(monkeypatch: pytest.MonkeyPatch, name: str, call: int) -> None:
    """Let the call-th use of one of atomic's three calls fail as on a full disk."""
    original: Callable[..., None] = getattr(atomic, name)
    count = 0

    def failing(*args: object) -> None:
        nonlocal count
        count += 1
        if count == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(*args)

    monkeypatch.setattr(atomic, name, failing)


@pytest.mark.parametrize("step", ["_write_all", "_fsync", "_rename"])
@pytest.mark.parametrize("call", [1, 2, 3, 5])
def test_a_full_disk_aborts_and_the_next_run_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, call: int
) -> None:
    write_dataset(tmp_path / "whole", ALL)
    out = tmp_path / "OUT"
    with monkeypatch.context() as patch:
        fail_at(patch, step, call)
        with pytest.raises(RunAborted, match="ENOSPC"):
            write_dataset(out, ALL)
    assert not (out / "manifest.json").exists()
    assert not [path for path in out.rglob("*.tmp")]
    done = load_finished(out, plans(), ALL)
    results = [done.get(plan.name) or write_shard(out, plan, ALL) for plan in plans()]
    finish(out, results, [], config=ALL, label_columns=LABELS, ignored=3)
    assert without_state(out) == tree(tmp_path / "whole")


KILLED = """
import os, sys
from pathlib import Path
from preprocess import atomic
from tests.preprocess.test_shards import ALL
from tests.factories import write_dataset
left, rename = int(sys.argv[2]), atomic._rename
def dying(old, new):
    global left
    left -= 1
    if left == 0:
        os._exit(9)
    rename(old, new)
atomic._rename = dying
write_dataset(Path(sys.argv[1]), ALL)
"""


@pytest.mark.parametrize("call", [4, 19])
def test_a_killed_run_leaves_what_the_next_can_finish(tmp_path: Path, call: int) -> None:
    out = tmp_path / "OUT"
    root = Path(__file__).parents[2]
    died = subprocess.run([sys.executable, "-c", KILLED, str(out), str(call)], cwd=root, check=False)
    assert died.returncode == 9
    assert [path for path in out.rglob("*.tmp")]
    assert not (out / "manifest.json").exists()
    done = load_finished(out, plans(), ALL)
    results = [done.get(plan.name) or write_shard(out, plan, ALL) for plan in plans()]
    finish(out, results, [], config=ALL, label_columns=LABELS, ignored=3)
    write_dataset(tmp_path / "whole", ALL)
    assert without_state(out) == tree(tmp_path / "whole")


def without_state(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(out).items() if not name.startswith(".bcd/")}


def test_finished_shards_come_back_from_their_journals(tmp_path: Path) -> None:
    todo = plans()
    results = {plan.name: write_shard(tmp_path, plan, ALL) for plan in todo[:2]}
    assert load_finished(tmp_path, todo, ALL) == results


def test_a_complete_dataset_is_finished_without_journals(tmp_path: Path) -> None:
    results = {plan.name: write_shard(tmp_path, plan, ALL) for plan in plans()}
    finish(tmp_path, list(results.values()), [], config=ALL, label_columns=LABELS)
    before = tree(tmp_path)
    assert not [name for name in before if name.startswith(".bcd/")]
    assert load_finished(tmp_path, plans(), ALL) == results
    assert tree(tmp_path) == before


def test_new_inputs_reopen_a_complete_dataset_and_keep_what_still_holds(tmp_path: Path) -> None:
    config = ALL.model_copy(update={"folds": 1})
    few, more = plans(config, 6), plans(config, 9)
    write_dataset(tmp_path / "OUT", config)
    done = load_finished(tmp_path / "OUT", more, config)
    assert not (tmp_path / "OUT" / "manifest.json").exists()
    same = {plan.name for plan in few} & {plan.name for plan in more if plan in few}
    assert set(done) == same
    assert same
    results = [done.get(plan.name) or write_shard(tmp_path / "OUT", plan, config) for plan in more]
    finish(tmp_path / "OUT", results, [], config=config, label_columns=LABELS, ignored=3)
    write_dataset(tmp_path / "new", config, inputs(9))
    assert without_state(tmp_path / "OUT") == tree(tmp_path / "new")


@pytest.mark.parametrize("harm", ["cut", "removed", "journal", "config"])
def test_a_shard_that_is_not_as_planned_is_done_again(tmp_path: Path, harm: str) -> None:
    config, plan = CONFIG, plans(CONFIG)[0]
    result = write_shard(tmp_path, plan, config)
    data, journal = tmp_path / result.files[0].path, tmp_path / f".bcd/shards/{plan.name}.json"
    if harm == "cut":
        data.write_bytes(data.read_bytes()[:-1])
    elif harm == "removed":
        data.unlink()
    elif harm == "journal":
        journal.write_bytes(journal.read_bytes()[:-20])
    else:
        config = config.model_copy(update={"seed": 1})
    assert load_finished(tmp_path, (plan,), config) == {}
    assert tree(tmp_path) == {}


def test_a_shard_with_an_input_that_could_not_be_read_is_tried_again(tmp_path: Path) -> None:
    (plan,) = plan_shards((scanned("p", "1"), scanned("p", "2bad")), CONFIG)
    with ShardWriter(tmp_path, plan, CONFIG) as writer:
        writer.add(prepared(plan.sources[0]))
        writer.reject(dataclasses.replace(reject(plan.sources[1]), code="unreadable"))
        writer.commit()
    assert load_finished(tmp_path, (plan,), CONFIG) == {}


def test_data_files_of_no_journal_and_leftovers_go(tmp_path: Path) -> None:
    result = write_shard(tmp_path, plans()[0], ALL)
    before = tree(tmp_path)
    for stray in (
        "fold=7/part-00000.tfrecord",
        "images/x/y.png",
        "fold=0/.part-00009.tfrecord.77.tmp",
        "notes.txt",
    ):
        (tmp_path / stray).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / stray).write_bytes(b"x")
    clean_leftovers(tmp_path)
    load_finished(tmp_path, plans(), ALL)
    assert tree(tmp_path) == before | {"notes.txt": b"x"}
    assert not (tmp_path / "fold=7").exists()
    assert result.files


def test_journals_survive_a_round_trip(tmp_path: Path) -> None:
    result = write_shard(tmp_path, plans()[0], ALL)
    again = ShardResult.from_json(result.to_json())
    assert again == result
    assert [type(label.value) for label in again.rows[0].labels] == [int, int, str]


def test_file_names_that_are_not_utf8_are_written_escaped(tmp_path: Path) -> None:
    (plan,) = plan_shards((scanned("p", "1", source="bad\udcff.dcm"),), ALL)
    result = write_shard(tmp_path, plan, ALL)
    assert result.rows[0].source == "bad\\udcff.dcm"
    finish(tmp_path, [result], [], config=ALL)
    assert load_finished(tmp_path, (plan,), ALL) == {plan.name: result}


def test_statistics_are_exact_sums_over_content(tmp_path: Path) -> None:
    plan = plans()[0]
    images = [prepared(source, ALL) for source in plan.sources]
    result = write_shard(tmp_path, plan, ALL)
    content = np.stack([image.pixels[:, :-4] for image in images]).astype(object)
    found = result.statistics
    assert (found.count, found.sum, found.sum_squares) == (content.size, content.sum(), (content**2).sum())
    assert (found.minimum, found.maximum) == (content.min(), content.max())
    counts = np.bincount((content >> 8).astype(int).ravel(), minlength=256)
    assert found.histogram == tuple(counts)
    assert found.mean() == pytest.approx(content.astype(float).mean(), rel=1e-12)
    assert found.std() == pytest.approx(content.astype(float).std(), rel=1e-9)


def test_sums_beyond_64_bits_survive_the_journal() -> None:
    sums = PixelStatistics(count=2**40, sum=2**56, sum_squares=2**72)
    result = ShardResult("fold=0/part-00000", 0, "key", (), (), sums)
    assert ShardResult.from_json(result.to_json()) == result


def test_statistics_of_nothing_are_empty() -> None:
    total = PixelStatistics.total([])
    assert (total.count, total.mean(), total.std(), len(total.histogram)) == (0, None, None, 256)


HOSTILE = [
    "..",
    ".",
    "",
    "../../etc/passwd",
    "/abs",
    "C:\\x",
    "a\0b",
    "x" * 300,
    "y" * 301,
    "con",
    "NUL.txt",
    "a.",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_ids_stay_inside_images(tmp_path: Path, name: str) -> None:
    config = CONFIG.model_copy(update={"formats": (Format.PNG,)})
    (plan,) = plan_shards((scanned(name, name, source="a.dcm"),), config)
    result = write_shard(tmp_path, plan, config)
    path = (tmp_path / result.files[0].path).resolve()
    assert path.is_file()
    assert path.parent.parent == (tmp_path / "images").resolve()
    assert load_finished(tmp_path, (plan,), config) == {plan.name: result}


@given(st.lists(st.text(max_size=150), unique=True, max_size=20))
@settings(max_examples=60, deadline=None)
def test_safe_components_are_injective_and_plain(names: list[str]) -> None:
    safe = [safe_component(name) for name in [*names, *HOSTILE]]
    assert len(set(safe)) == len({*names, *HOSTILE})
    for component in safe:
        assert 0 < len(component.encode()) <= 100
        assert component.isascii()
        assert not component.startswith(".")
        assert not {"/", "\\", "\0", ":"} & set(component)
