"""The output folder of a run: who may write to it, and whether it holds what was asked for.

In:  OUT, the input roots and the result config.
Out: a held lock that a dead run does not keep and workers do not inherit, or a clear refusal.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from preprocess.atomic import (
    aborting_on_io_error,
    clean_leftovers,
    is_temporary,
    remove_file,
    remove_folder,
    write_atomically,
)
from preprocess.config import SCHEMA_VERSION, ResultConfig
from preprocess.errors import ConfigMismatch, DatasetDamaged, RunAborted, UsageError
from preprocess.journal import DATA_FILE, remove_empty_folders
from preprocess.locks import LOCK, Lock, lock
from preprocess.manifest import JOURNALS, MANIFEST, unsealed
from preprocess.places import Place, files_below, name_below, names_in, read_bytes, size_of

STATE = ".bcd"
"""Folder of an unfinished run's state inside OUT; gone once the manifest is there."""

THUMBNAILS = "thumbnails"
"""Folder in STATE: originals for the report, kept until it is drawn."""

_CONFIG = "config.json"
_SHARDS = JOURNALS.removeprefix(f"{STATE}/")
_OURS = frozenset(
    {STATE, MANIFEST, "run.json", "instances.parquet", "report.html", "dataset_card.md", "images"}
)
_SIGNS = ({MANIFEST}, {STATE}, {"instances.parquet", "run.json"})
"""Any of these says that `fold=*` and `images` are of our making too."""
_OF_THE_SYSTEM = re.compile(
    r"lost\+found|\.DS_Store|\._.*|Thumbs\.db|desktop\.ini|\.nfs.*|\.Trash.*|\.snapshot"
)
"""What file systems and desktops leave in any folder: neither ours nor in the way."""


@contextmanager
def opened(out: Place, config: ResultConfig, *, overwrite: bool) -> Iterator[Lock]:
    """Create or resume OUT and hold its lock; on leaving, drop the state that nobody needs any more.

    After a run that finished, that is all of it; of one that was interrupted before its first shard, too.
    Raises UsageError, ConfigMismatch, OutputLocked or RunAborted.
    """
    is_new = isinstance(out, Path) and not os.path.isdir(out)
    held = lock(out / STATE)
    finished = False
    try:
        _claim(out, config, overwrite=overwrite)
        yield held
        finished = True
    finally:
        with contextlib.suppress(OSError, RunAborted):
            _leave(out, finished=finished)
            if is_new and isinstance(out, Path):
                out.rmdir()  # if it is empty: made for nothing
        held.release()


def _leave(out: Place, *, finished: bool) -> None:
    """Best effort: whatever stays is removed by the next run."""
    complete = size_of(out / MANIFEST) is not None
    state = [name_below(out / STATE, path) for path in files_below(out / STATE)]
    begun = complete or any(
        name.startswith((_SHARDS, "fold=", "images")) for name in [*names_in(out), *state]
    )
    drawn = finished or not any(name.startswith(THUMBNAILS) for name in state)
    if (complete and drawn) or not begun:
        remove_folder(out / STATE)
    if not complete:
        clean_leftovers(out)


def refuse_foreign(out: Place) -> None:
    """Refuse a folder with files that no run of this program left behind. Raises UsageError, RunAborted."""
    with aborting_on_io_error(out):
        try:
            names = set(names_in(out))
        except NotADirectoryError:
            raise UsageError(f"{out} is not a folder") from None
    ours = {name for name in names if _is_ours(name)}
    known = any(signs <= names for signs in _SIGNS)
    foreign = sorted(name for name in names - ours if not _OF_THE_SYSTEM.fullmatch(name))
    if foreign and known:
        raise UsageError(f"{out} holds other files ({', '.join(foreign[:3])}): put them elsewhere")
    foreign = foreign or sorted(name for name in ours if not known and not is_temporary(name))
    if foreign:
        raise UsageError(f"{out} holds other files ({', '.join(foreign[:3])}); give --out an empty folder")


def _is_ours(name: str) -> bool:
    return name in _OURS or name.startswith("fold=") or is_temporary(name)


def _claim(out: Place, config: ResultConfig, *, overwrite: bool) -> None:
    """Note the config that OUT belongs to; refuse another one, or clear everything if told to."""
    mine = {"schema_version": SCHEMA_VERSION, "config": config.model_dump(mode="json")}
    with aborting_on_io_error(out):
        stored = stored_config(out)
        damaged = stored != mine and _is_damaged(out)
    if stored != mine and (stored is not None or damaged):
        if not overwrite:
            raise ConfigMismatch(_difference(out, config, {} if damaged else stored or {}))
        _clear(out)
    write_json(out / STATE / _CONFIG, mine)


def _difference(out: Place, config: ResultConfig, stored: dict[str, Any]) -> str:
    if not stored:
        return f"{out}/{MANIFEST} is damaged, so its config is not known; --overwrite makes all of it anew"
    there = stored["config"] if isinstance(stored.get("config"), dict) else {}
    fields = "; ".join(config.differences(there)) or "another schema version"
    return f"{out} was made with another config ({fields}); --overwrite replaces it"


def _is_damaged(out: Place) -> bool:
    """True if there is a manifest that is not what was written."""
    try:
        unsealed(read_bytes(out / MANIFEST))
    except FileNotFoundError:
        return False
    except DatasetDamaged:
        return True
    return False


def stored_config(out: Place) -> dict[str, Any] | None:
    """The config that OUT was made with, from its manifest or its unfinished state; None if new.

    Raises OSError: a manifest that cannot be read is not an absent one.
    """
    for path in (out / MANIFEST, out / STATE / _CONFIG):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError):
            document = json.loads(read_bytes(path))
            return {"schema_version": document["schema_version"], "config": document["config"]}
    return None


def _clear(out: Place) -> None:
    """Remove all that we have written but the lock; the manifest first: a part never claims to be complete.

    What else lies in `fold=*` and `images` is somebody's, perhaps an input that a list names.
    """
    remove_file(out / MANIFEST)
    with aborting_on_io_error(out):
        files = files_below(out)
    for path in files:
        name = name_below(out, path)
        written = name in _OURS or name.startswith(f"{STATE}/") or DATA_FILE.fullmatch(name)
        if path != out / STATE / LOCK and (written or is_temporary(path.name)):
            remove_file(path)
    if isinstance(out, Path):
        remove_empty_folders(out)


def key_file_of(out: Place, given: str | None) -> Path:
    """The key of --identifiers hash: as given, or beside OUT, so that sharing OUT does not share it.

    Raises UsageError: beside a store's objects is not a place for a key.
    """
    if given:
        return Path(given)
    if not isinstance(out, Path):
        raise UsageError("--identifiers hash with OUT in an object store needs --key-file (a local file)")
    whole = Path(os.path.abspath(out))  # `.` has no name
    return whole.with_name(whole.name + ".key")


def write_json(path: Place, document: dict[str, Any]) -> None:
    """Write JSON with sorted keys, atomically; raises RunAborted."""
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode())
