from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from preprocess import output
from preprocess.config import ResultConfig
from preprocess.errors import ConfigMismatch, OutputLocked, RunAborted, UsageError


def hold(out: str, ready: multiprocessing.synchronize.Event) -> None:
    with output.opened(Path(out), ResultConfig(), overwrite=False):
        ready.set()
        multiprocessing.Event().wait(60)


def test_two_runs_cannot_hold_one_folder(tmp_path: Path) -> None:
    with (
        output.opened(tmp_path, ResultConfig(), overwrite=False),
        pytest.raises(OutputLocked),
        output.opened(tmp_path, ResultConfig(), overwrite=False),
    ):
        pass


def test_a_killed_run_does_not_keep_its_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(str(tmp_path), ready))
    process.start()
    assert ready.wait(60)
    with pytest.raises(OutputLocked), output.opened(tmp_path, ResultConfig(), overwrite=False):
        pass
    process.kill()
    process.join()
    with output.opened(tmp_path, ResultConfig(), overwrite=False):
        assert (tmp_path / output.STATE / "lock").exists()


def test_another_config_is_refused_with_the_differing_fields(tmp_path: Path) -> None:
    with output.opened(tmp_path, ResultConfig(), overwrite=False):
        (tmp_path / "fold=0").mkdir()
    with (
        pytest.raises(ConfigMismatch, match=r"bits: 16 there, 8 asked for"),
        output.opened(tmp_path, ResultConfig(bits=8), overwrite=False),
    ):
        pass


def test_an_attempt_that_made_nothing_binds_nobody_to_its_config(tmp_path: Path) -> None:
    for bits in (16, 8):
        with (
            pytest.raises(KeyboardInterrupt),
            output.opened(tmp_path / "OUT", ResultConfig(bits=bits), overwrite=False),
        ):
            raise KeyboardInterrupt
        assert not (tmp_path / "OUT").exists()


def test_a_folder_removed_or_replaced_is_noticed(tmp_path: Path) -> None:
    out = tmp_path / "OUT"
    with output.opened(out, ResultConfig(), overwrite=False) as lock:
        lock.check()
        out.rename(tmp_path / "elsewhere")
        with pytest.raises(RunAborted, match="removed or replaced"):
            lock.check()
        (out / output.STATE).mkdir(parents=True)
        (out / output.STATE / "lock").touch()
        with pytest.raises(RunAborted, match="removed or replaced"):
            lock.check()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"config": {}}'])
def test_a_dataset_whose_config_cannot_be_known_is_not_replaced_unasked(
    tmp_path: Path, damage: bytes
) -> None:
    (tmp_path / "manifest.json").write_bytes(damage)
    with (
        pytest.raises(ConfigMismatch, match="damaged"),
        output.opened(tmp_path, ResultConfig(), overwrite=False),
    ):
        pass
    assert (tmp_path / "manifest.json").read_bytes() == damage
    with output.opened(tmp_path, ResultConfig(), overwrite=True):
        assert not (tmp_path / "manifest.json").exists()


def test_overwrite_clears_what_was_there(tmp_path: Path) -> None:
    with output.opened(tmp_path, ResultConfig(), overwrite=False):
        (tmp_path / "fold=0").mkdir()
        (tmp_path / "fold=0" / "part-00000.tfrecord").write_bytes(b"old")
    with output.opened(tmp_path, ResultConfig(bits=8), overwrite=True):
        assert not (tmp_path / "fold=0").exists()
        assert json.loads((tmp_path / ".bcd" / "config.json").read_text())["config"]["bits"] == 8


def test_state_goes_once_the_manifest_is_there(tmp_path: Path) -> None:
    with output.opened(tmp_path, ResultConfig(), overwrite=False):
        document = {"schema_version": 1, "config": ResultConfig().model_dump(mode="json")}
        (tmp_path / "manifest.json").write_text(json.dumps(document))
    assert not (tmp_path / output.STATE).exists()
    with pytest.raises(ConfigMismatch), output.opened(tmp_path, ResultConfig(folds=3), overwrite=False):
        pass


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"thesis\.docx"):
        output.refuse_foreign(tmp_path)


def test_overwrite_leaves_what_we_did_not_write(tmp_path: Path) -> None:
    with output.opened(tmp_path, ResultConfig(), overwrite=False):
        for name in ("images/p/i.png", "images/p/i.dcm", "fold=0/part-00000.parquet", ".bcd/thumbnails/t"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"x")
    with output.opened(tmp_path, ResultConfig(bits=8), overwrite=True):
        left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"images/p/i.dcm", ".bcd/lock", ".bcd/config.json"}


@pytest.mark.parametrize("name", ["images", "fold=0", "report.html"])
def test_what_only_looks_like_ours_is_not(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=f"holds other files .{name}.; give --out an empty folder"):
        output.refuse_foreign(tmp_path)
    (tmp_path / "manifest.json").touch()
    output.refuse_foreign(tmp_path)


def test_what_the_system_leaves_is_in_nobodys_way_and_stays(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    for name in (".DS_Store", "Thumbs.db", "._report.html", ".nfs0000000001"):
        (tmp_path / name).touch()
    before = set(os.listdir(tmp_path))
    output.refuse_foreign(tmp_path)
    with output.opened(tmp_path, ResultConfig(), overwrite=False):
        (tmp_path / "fold=0").mkdir()
    output.refuse_foreign(tmp_path)
    with output.opened(tmp_path, ResultConfig(bits=8), overwrite=True):
        assert not (tmp_path / "fold=0").exists()
    assert before <= set(os.listdir(tmp_path))


def test_files_among_a_dataset_are_told_to_go_elsewhere(tmp_path: Path) -> None:
    for name in ("manifest.json", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match=r"notes\.txt.: put them elsewhere"):
        output.refuse_foreign(tmp_path)


def test_an_unwritable_place_is_a_clear_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(RunAborted, match="cannot write to"),
        output.opened(tmp_path / "file" / "out", ResultConfig(), overwrite=False),
    ):
        pass


def test_the_lock_is_not_inherited_by_children(tmp_path: Path) -> None:
    with output.opened(tmp_path, ResultConfig(), overwrite=False):
        inheritable = [fd for fd in os.listdir("/proc/self/fd") if _inheritable(int(fd))]
    assert all(int(fd) < 3 for fd in inheritable)


def _inheritable(descriptor: int) -> bool:
    try:
        target = os.readlink(f"/proc/self/fd/{descriptor}")
        return os.get_inheritable(descriptor) and target.endswith("/lock")
    except OSError:
        return False
