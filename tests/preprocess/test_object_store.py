"""OUT in an object store: the same dataset, the same promises. memory:// stands for s3:// and others."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from click.testing import CliRunner

from bench.phantom import PhantomSpec, generate
from preprocess.cli import main
from preprocess.config import ExecutionConfig, Format, PrepConfig, ResultConfig
from preprocess.errors import ConfigMismatch, OutputLocked, RunAborted, UsageError
from preprocess.locks import StoreLock
from preprocess.places import Place, RemotePath, files_below, name_below, place, read_bytes, size_of
from preprocess.planning import RunRequest
from preprocess.reading import read_images
from preprocess.runner import RunSummary, run
from preprocess.verify import verify
from tests.inline import InlineExecutor

ALL = (Format.TFRECORD, Format.PARQUET, Format.PNG)
SMALL = ResultConfig(height=48, width=32, formats=ALL, shard_images=4, folds=2)
UNPROMISED = {"run.json", "report.html", "dataset_card.md"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("store") / "in"
    generate(data, PhantomSpec(patients=2, size_factor=0.06, seed=5))
    return data


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """memory:// lives in one process."""
    monkeypatch.setattr("preprocess.runner.LocalExecutor", InlineExecutor)


@pytest.fixture
def out(request: pytest.FixtureRequest) -> Iterator[RemotePath]:
    where = RemotePath(f"memory://bucket/{request.node.name}/OUT")
    yield where
    store = fsspec.filesystem("memory")
    for path in store.find("/bucket"):
        store.rm_file(path)


def prepare(data: Path, out: Place, result: ResultConfig = SMALL) -> RunSummary:
    config = PrepConfig(result=result, execution=ExecutionConfig(max_rejected="100%"))
    return run(RunRequest((str(data),), out, config=config))


def tree(out: Place) -> dict[str, str]:
    names = {name_below(out, path): path for path in files_below(out)}
    return {
        name: hashlib.sha256(read_bytes(path)).hexdigest() if name not in UNPROMISED else "there"
        for name, path in names.items()
    }


def test_a_store_gets_the_same_bytes_as_a_folder(images: Path, tmp_path: Path, out: RemotePath) -> None:
    prepare(images, tmp_path / "OUT")
    prepare(images, out)
    assert tree(out) == tree(tmp_path / "OUT")
    assert verify(out).status == "whole"
    ours, theirs = list(read_images(out)), list(read_images(tmp_path / "OUT"))
    assert [row for row, _ in ours] == [row for row, _ in theirs]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(ours, theirs, strict=True))


class Refusing:
    """A store whose n-th PUT is refused, as when a quota is used up or the network is gone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, nth: int, error: Exception) -> None:
        store = type(fsspec.filesystem("memory"))
        put, self.puts = store.put_file, 0

        def refusing(this: object, source: str, target: str, *args: object, **kwargs: object) -> object:
            self.puts += 1
            if self.puts == nth:
                raise error
            return put(this, source, target, *args, **kwargs)

        monkeypatch.setattr(store, "put_file", refusing)


class ClientError(Exception):
    """As stores' clients raise: no OSError, and its text is not for the public."""


@pytest.mark.parametrize(
    ("nth", "error"),
    [(1, OSError(5, "EIO")), (4, PermissionError("denied")), (11, ClientError("key AKIA123"))],
)
def test_a_refused_put_ends_the_run_and_the_next_finishes_it(
    images: Path, out: RemotePath, nth: int, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        Refusing(patch, nth, error)
        with pytest.raises(RunAborted) as aborted:
            prepare(images, out)
    assert "AKIA" not in str(aborted.value)
    assert verify(out).status == "incomplete"
    before = {name for name in tree(out) if name.startswith(".bcd/shards/")}
    summary = prepare(images, out)
    assert summary.shards_reused == len(before)
    assert verify(out).status == "whole"
    assert not [name for name in tree(out) if name.startswith(".bcd")]


def test_objects_of_a_killed_run_are_removed_or_taken_over(images: Path, out: RemotePath) -> None:
    prepare(images, out)
    whole = tree(out)
    store = fsspec.filesystem("memory")
    store.pipe_file(f"{out.url.removeprefix('memory:/')}/fold=9/part-00000.tfrecord", b"no journal names it")
    assert verify(out).status == "damaged"
    prepare(images, out)
    assert tree(out) == whole


def test_another_config_is_refused_and_overwrite_replaces_it(images: Path, out: RemotePath) -> None:
    prepare(images, out)
    other = SMALL.model_copy(update={"bits": 8})
    with pytest.raises(ConfigMismatch, match="bits"):
        prepare(images, out, other)
    config = PrepConfig(result=other, execution=ExecutionConfig(max_rejected="100%", overwrite=True))
    run(RunRequest((str(images),), out, config=config))
    assert verify(out).status == "whole"


def test_the_command_line_takes_urls(images: Path, out: RemotePath) -> None:
    runner = CliRunner()
    words = ["run", str(images), "--out", out.url, "--size", "48x32", "--max-rejected", "100%"]
    assert runner.invoke(main, words).exit_code == 0
    assert runner.invoke(main, ["verify", out.url]).exit_code == 0
    assert runner.invoke(main, ["report", out.url]).exit_code == 0
    assert runner.invoke(main, ["verify", out.url + "-not"]).exit_code == 3
    assert runner.invoke(main, ["report", out.url + "-not"]).exit_code == 1
    hashed = runner.invoke(main, [*words, "--identifiers", "hash", "--overwrite"])
    assert (hashed.exit_code, "--key-file" in hashed.output) == (2, True)


def test_a_store_that_no_client_is_installed_for_is_one_message(images: Path) -> None:
    with pytest.raises((RunAborted, UsageError)) as error:
        prepare(images, RemotePath("nosuchstore://bucket/OUT"))
    assert "Traceback" not in str(error.value)


def test_a_live_run_keeps_its_store_and_a_dead_one_does_not(out: RemotePath) -> None:
    state = out / ".bcd"
    beaten = threading.Event()

    def until_it_beats(_: float) -> None:
        before = read_bytes(state / "lock")
        while read_bytes(state / "lock") == before:
            beaten.wait(0.001)

    first = StoreLock(state, beat_s=0.001)
    with pytest.raises(OutputLocked):
        StoreLock(state, wait=until_it_beats)
    first.check()
    first.release()
    assert size_of(state / "lock") is None
    dead = StoreLock(state, beat_s=600)
    second = StoreLock(state, beat_s=600, wait=lambda seconds: None)  # nothing has moved meanwhile
    second.check()
    with pytest.raises(RunAborted):
        dead.check()
    dead.release()
    second.check()
    second.release()
    assert size_of(state / "lock") is None


def test_file_urls_and_paths_are_folders() -> None:
    assert place("file:///a/b") == place("/a/b") == Path("/a/b")
    assert place("s3://bucket/a/") == RemotePath("s3://bucket/a")
