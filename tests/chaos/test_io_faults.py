"""The disk fails at every call, one after the other: nothing wrong is ever written, and nothing is lost.

Every run is a real one, with its tasks in this process. BCD_CHAOS=full fails each call in turn; otherwise
some of them, spread over the run.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from pathlib import Path

import pytest

from bench.phantom import PhantomSpec, generate
from preprocess.config import ExecutionConfig, Format, Identifiers, PrepConfig, ResultConfig
from preprocess.errors import RunAborted
from preprocess.planning import RunRequest
from preprocess.runner import RunSummary, run
from preprocess.verify import verify
from tests.chaos.faulty_disk import FaultyDisk
from tests.chaos.warm import Warm
from tests.inline import InlineExecutor

FULL = os.environ.get("BCD_CHAOS") == "full"
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)
RANDOM = re.compile(r"\.[0-9a-f]{8}\.tmp")
UNPROMISED = {"run.json", "report.html", "dataset_card.md"}
ALL = (Format.TFRECORD, Format.PARQUET, Format.PNG)
SMALL = ResultConfig(height=48, width=32, formats=ALL, shard_images=4, folds=2)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients with four images, of which two share a shard, and a file that is no image."""
    data = tmp_path_factory.mktemp("faults") / "in"
    generate(data, PhantomSpec(patients=3, size_factor=0.06, seed=5))
    for patient in sorted((data / "train_images").iterdir()):
        for extra in sorted(patient.iterdir())[1 if patient.name.endswith("1") else 2 :]:
            extra.unlink()
    shutil.rmtree(data / "test_images")
    (data / "train_images" / "broken.dcm").write_bytes(b"\0" * 200)
    return data


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocess.runner.LocalExecutor", InlineExecutor)


def prepare(data: Path, out: Path, result: ResultConfig = SMALL, **execution: object) -> RunSummary:
    config = PrepConfig(
        result=result,
        execution=ExecutionConfig(max_rejected="100%", **execution),  # type: ignore[arg-type]
    )
    return run(RunRequest((str(data),), out, config=config))


def tree(out: Path) -> dict[str, str]:
    """Everything in OUT: promised files by their hash, the others by their presence, folders too."""
    found = {}
    for path in out.rglob("*"):
        name = path.relative_to(out).as_posix()
        is_promised = path.is_file() and path.name not in UNPROMISED
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if is_promised else "there"
    return found


def state(out: Path) -> tuple[str, ...]:
    """All that the next run can see of OUT. Temporary files have random names, and nobody's content."""
    return tuple(sorted(f"{RANDOM.sub('.tmp', name)} {content}" for name, content in tree(out).items()))


class Scene:
    """A dataset at some stage of its life, which a run is to bring to its end."""

    def __init__(self, folder: Path, data: Path, result: ResultConfig = SMALL, **execution: object) -> None:
        self.out = folder / "OUT"
        self._before, self._data = folder / "before", data
        self._result, self._execution = result, execution
        self._warm: Warm | None = None

    def begin_with(self, out: Path | None) -> None:
        if out is not None:
            shutil.copytree(out, self._before)

    def reset(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        if self._before.exists():
            shutil.copytree(self._before, self.out)

    def warm_up(self) -> list[str]:
        """From now on only what touches OUT is done again; returns the calls on OUT of an undisturbed run."""
        calls = []
        for warm in (None, Warm(), ...):
            self._warm = self._warm if warm is ... else warm
            self.reset()
            disk = FaultyDisk(self.out)
            assert self.run(disk) is None
            calls.append([RANDOM.sub(".tmp", call) for call in disk.calls])
        cold, _, warmed = calls
        assert warmed == cold, "what is remembered takes calls away"
        return cold

    def run(self, disk: FaultyDisk | None = None) -> str | None:
        """Run once; the message of an aborted run. Whatever else is raised fails the test."""
        with pytest.MonkeyPatch.context() as patch:
            if self._warm is not None:
                self._warm.install(patch)
            if disk is not None:
                disk.install(patch)
            try:
                prepare(self._data, self.out, self._result, **self._execution)
            except RunAborted as error:
                return str(error)
        return None


def places(total: int) -> list[int]:
    """Which calls are to fail: all, or a few spread over the run."""
    return list(range(1, total + 1) if FULL else range(total // 9, total + 1, total // 9))


def fail_everywhere(scene: Scene, errors: list[tuple[int, bool]]) -> None:
    """Fail one call after the other, with each of the errors: (errno, whether all later calls fail too).

    What a resume makes of OUT depends on OUT alone: a state that came up before is not resumed again.
    """
    calls = scene.warm_up()
    whole = tree(scene.out)
    assert verify(scene.out).status == "whole"
    healed: dict[tuple[str, ...], str] = {}
    for number, stays in errors:
        aborted = 0
        for nth in places(len(calls)):
            scene.reset()
            disk = FaultyDisk(scene.out, nth, number, stays=stays)
            message = scene.run(disk)
            where = f"{errno.errorcode[number]} at {disk.calls[nth - 1]} ({nth}): {message}"
            assert disk.failed, where
            left = state(scene.out)
            check(healed.get(left) or verify(scene.out).status, message, where)
            if left not in healed:
                healed[left] = verify(scene.out).status
                assert scene.run() is None, where
                assert tree(scene.out) == whole, where
            aborted += message is not None
        assert aborted > 0


def check(status: str, message: str | None, where: str) -> None:
    """What an aborted run leaves is incomplete or whole; a run that went on has done its work."""
    assert status in (("whole",) if message is None else ("whole", "incomplete")), where
    if message is not None:
        assert "\n" not in message, where
        assert 10 < len(message) < 300, where
        assert "Traceback" not in message, where


EVERY = [(number, stays) for stays in (False, True) for number in ERRORS]


def test_a_disk_that_fails_anywhere_costs_no_row(images: Path, tmp_path: Path) -> None:
    fail_everywhere(Scene(tmp_path, images), EVERY if FULL else [(errno.EIO, False), (errno.ENOSPC, True)])


def scenes(images: Path, folder: Path, stage: str) -> Scene:
    """OUT as earlier runs left it, and what is asked of it now."""
    seed = folder / "earlier"
    if stage == "hashed":
        return Scene(folder, images, SMALL.model_copy(update={"identifiers": Identifiers.HASH}))
    if stage == "overwritten":
        prepare(images, seed, SMALL.model_copy(update={"bits": 8}))
        scene = Scene(folder, images, overwrite=True)
    else:
        part = folder / "part"
        shutil.copytree(images, part)
        if stage == "grown":
            shutil.rmtree(sorted((part / "train_images").glob("[0-9]*"))[0])
        else:
            (part / "train_images" / "broken.dcm").unlink()
        prepare(part, seed)
        scene = Scene(folder, images)
    scene.begin_with(seed)
    return scene


STAGES = ("grown", "another reject", "overwritten", "hashed")


@pytest.mark.parametrize("stage", STAGES if FULL else STAGES[:1])
def test_a_disk_that_fails_while_a_dataset_changes_loses_nothing(
    images: Path, tmp_path: Path, stage: str
) -> None:
    errors = [(number, False) for number in (ERRORS if FULL else ERRORS[1:2])]
    fail_everywhere(scenes(images, tmp_path, stage), errors)
