"""The output folder of a run: who may write to it, and whether it holds what was asked for.

In:  OUT, the input roots and the result config.
Out: a held lock that a dead run does not keep and workers do not inherit, or a clear refusal.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from preprocess.atomic import write_atomically
from preprocess.config import SCHEMA_VERSION, ResultConfig
from preprocess.errors import ConfigMismatch, OutputLocked, RunAborted, UsageError

STATE = ".bcd"
"""Folder of an unfinished run's state inside OUT; gone once the manifest is there."""

THUMBNAILS = "thumbnails"
"""Folder in STATE: originals for the report, kept until it is drawn."""

_OURS = frozenset(
    {STATE, "manifest.json", "run.json", "instances.parquet", "report.html", "dataset_card.md", "images"}
)


@contextmanager
def opened(out: Path, config: ResultConfig, *, overwrite: bool) -> Iterator[None]:
    """Create or resume OUT and hold its lock; on leaving with a manifest written, drop the run's state.

    Raises UsageError, ConfigMismatch, OutputLocked or RunAborted.
    """
    try:
        (out / STATE).mkdir(parents=True, exist_ok=True)
        descriptor = _lock(out / STATE / "lock")
    except OSError as error:
        raise RunAborted(f"cannot write to {out}: {error.strerror}") from None
    try:
        _claim(out, config, overwrite=overwrite)
        yield
    finally:
        if (out / "manifest.json").exists():
            shutil.rmtree(out / STATE, ignore_errors=True)
        os.close(descriptor)


def refuse_foreign(out: Path) -> None:
    """Refuse a folder with files that no run of this program left behind."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is not a folder")
    foreign = sorted(
        entry.name
        for entry in out.iterdir()
        if entry.name not in _OURS and not entry.name.startswith("fold=")
    )
    if foreign:
        raise UsageError(f"{out} holds other files ({', '.join(foreign[:3])}); give --out an empty folder")


def _lock(path: Path) -> int:
    """Lock file that is still the one at `path` once locked: a finishing run removes its own."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise OutputLocked(f"another run is writing to {path.parent.parent}") from None
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                return descriptor
        os.close(descriptor)
        path.parent.mkdir(parents=True, exist_ok=True)


def _claim(out: Path, config: ResultConfig, *, overwrite: bool) -> None:
    """Note the config that OUT belongs to; refuse another one, or clear everything if told to."""
    stored = stored_config(out)
    mine = {"schema_version": SCHEMA_VERSION, "config": config.model_dump(mode="json")}
    if stored is not None and stored != mine:
        if not overwrite:
            there = stored["config"] if isinstance(stored.get("config"), dict) else {}
            fields = "; ".join(config.differences(there)) or "another schema version"
            raise ConfigMismatch(f"{out} was made with another config ({fields}); --overwrite replaces it")
        _clear(out)
    write_json(out / STATE / "config.json", mine)


def stored_config(out: Path) -> dict[str, Any] | None:
    """The config that OUT was made with, from its manifest or its unfinished state; None if new."""
    for path in (out / "manifest.json", out / STATE / "config.json"):
        with contextlib.suppress(OSError, ValueError):
            document = json.loads(path.read_text(encoding="utf-8"))
            return {"schema_version": document["schema_version"], "config": document["config"]}
    return None


def _clear(out: Path) -> None:
    for entry in out.iterdir():
        if entry.name == STATE:
            for inner in entry.iterdir():
                if inner.name != "lock":
                    shutil.rmtree(inner) if inner.is_dir() else inner.unlink()
        elif entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def key_file_of(out: Path, given: str | None) -> Path:
    """The key of --identifiers hash: as given, or beside OUT, so that sharing OUT does not share it."""
    return Path(given) if given else out.with_name(out.name + ".key")


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write JSON with sorted keys, atomically; raises RunAborted."""
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode())
