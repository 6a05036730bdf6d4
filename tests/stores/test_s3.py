"""OUT in S3, spoken over HTTP with a server on this machine: a run, a resume, kill -9, verify.

Needs the extra `stores` (s3fs, and moto as the server): `make stores`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench.phantom_dicom import DicomSpec, write_dicom
from preprocess.cli import main
from preprocess.config import ExecutionConfig, Format, PrepConfig, ResultConfig
from preprocess.errors import OutputLocked
from preprocess.locks import StoreLock
from preprocess.places import Place, RemotePath, files_below, name_below, read_bytes, size_of
from preprocess.planning import RunRequest
from preprocess.reading import read_images
from preprocess.runner import RunSummary, run
from preprocess.verify import verify
from tests.instances import smooth

moto = pytest.importorskip("moto.server", reason="needs the extra `stores`: make stores")
pytest.importorskip("s3fs")

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs
FORMATS = (Format.TFRECORD, Format.PNG)
RESULT = ResultConfig(height=32, width=24, formats=FORMATS, shard_images=2, folds=2)
OPTIONS = [
    "--size",
    "32x24",
    "--format",
    "tfrecord",
    "--format",
    "png",
    "--shard-images",
    "2",
    "--folds",
    "2",
]
UNPROMISED = {"run.json", "report.html", "dataset_card.md"}


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "nobody")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import fsspec

        fsspec.filesystem("s3").mkdir("bucket")
        yield
    server.stop()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("s3") / "in"
    for number in range(6):
        path = root / f"p{number // 2}" / f"i{number}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        spec = DicomSpec(windows=(("500", "900"),), patient_id=path.parent.name, instance=path.stem)
        write_dicom(path, np.roll(smooth((48, 40), 8), number, axis=0), spec)
    return root


@pytest.fixture(scope="module")
def expected(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("folder") / "OUT"
    prepare(inputs, out)
    return tree(out)


def prepare(inputs: Path, out: Place) -> RunSummary:
    execution = ExecutionConfig(workers=1)
    return run(RunRequest((str(inputs),), out, config=PrepConfig(result=RESULT, execution=execution)))


def tree(out: Place) -> dict[str, str]:
    names = {name_below(out, path): path for path in files_below(out)}
    return {
        name: "there" if name in UNPROMISED else hashlib.sha256(read_bytes(path)).hexdigest()
        for name, path in names.items()
    }


def test_s3_gets_the_bytes_of_a_folder_and_gives_them_back(inputs: Path, expected: dict[str, str]) -> None:
    out = RemotePath("s3://bucket/whole/OUT")
    assert prepare(inputs, out).prepared == 6
    assert tree(out) == expected
    assert verify(out).status == "whole"
    assert len(list(read_images(out))) == 6
    again = prepare(inputs, out)
    assert again.shards_reused == again.shards == 3
    assert tree(out) == expected


def test_inputs_may_lie_in_s3_too(inputs: Path, expected: dict[str, str]) -> None:
    import fsspec

    fsspec.filesystem("s3").put(str(inputs), "bucket/inputs", recursive=True)
    out = RemotePath("s3://bucket/copied/OUT")
    summary = run(
        RunRequest(
            ("s3://bucket/inputs",),
            out,
            config=PrepConfig(result=RESULT, execution=ExecutionConfig(workers=1)),
        )
    )
    assert summary.prepared == 6
    assert tree(out) == expected


def test_a_run_that_is_killed_is_taken_over_and_resumed(
    inputs: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = RemotePath("s3://bucket/killed/OUT")
    words = ["run", str(inputs), "--out", str(out), "--workers", "1", *OPTIONS]
    process = subprocess.Popen([sys.executable, "-m", "preprocess.cli", *words], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not any(".bcd/shards" in str(path) for path in files_below(out)):
        assert process.poll() is None
        assert time.monotonic() < deadline
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert verify(out).status == "incomplete"
    assert size_of(out / ".bcd" / "lock") is not None, "a dead run leaves its lock object"
    monkeypatch.setattr(StoreLock.__init__, "__kwdefaults__", {"beat_s": 10.0, "watch_s": 15.0, "wait": None})
    assert prepare(inputs, out).prepared == 6
    assert tree(out) == expected
    assert verify(out).status == "whole"


def test_a_live_run_is_not_disturbed(inputs: Path) -> None:
    state = RemotePath("s3://bucket/live/OUT/.bcd")
    held = StoreLock(state, beat_s=0.2)
    try:
        with pytest.raises(OutputLocked):
            StoreLock(state, watch_s=3.0)
        held.check()
    finally:
        held.release()
    StoreLock(state).release()


def test_a_server_that_is_gone_is_one_message(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    import fsspec

    fsspec.filesystem("s3").clear_instance_cache()
    words = ["run", str(inputs), "--out", "s3://bucket/gone/OUT", "--workers", "1", *OPTIONS]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert result.output.count("Error: ") == 1
    assert "Traceback" not in result.output
