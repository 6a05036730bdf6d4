"""Who may write to OUT: one run at a time.

In:  OUT's state folder.
Out: a held lock, or OutputLocked. A dead run does not keep it, and workers do not inherit it.

In a folder it is flock, which the kernel drops with the process. A store has no such thing: there a small
object names its owner, and a thread of the owner rewrites it every few seconds with another number. Who finds
one watches it, and takes it over if it stands still: no two clocks are compared.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from preprocess.atomic import aborting_on_io_error, remove_file
from preprocess.errors import OutputLocked, RunAborted
from preprocess.failures import describe
from preprocess.places import Place, RemotePath, read_bytes, store_of

LOCK = "lock"
BEAT_S = 10.0
WATCH_S = 60.0
"""A lock object that stays the same for so long is a dead run's."""

Wait = Callable[[float], object]


class Lock(Protocol):
    """The right to write to OUT."""

    def check(self) -> None:
        """Raise RunAborted if it is ours no longer: OUT was removed, replaced or taken over."""

    def release(self) -> None:
        """Give it up."""


def lock(state: Place) -> Lock:
    """Lock OUT by its state folder. Raises OutputLocked or RunAborted."""
    return FolderLock(state) if isinstance(state, Path) else StoreLock(state)


class FolderLock:
    """flock on OUT/.bcd/lock."""

    def __init__(self, state: Path) -> None:
        self._path = state / LOCK
        self._out = state.parent
        try:
            self._descriptor = self._take()
        except OSError as error:
            raise RunAborted(f"cannot write to {self._out}: {describe(error)}") from None

    def _take(self) -> int:
        """A lock file that is still the one at its path once locked: a finishing run removes its own."""
        while True:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_at_its_path(descriptor):
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise OutputLocked(f"another run is writing to {self._out}") from None
            except OSError:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _is_at_its_path(self, descriptor: int) -> bool:
        with contextlib.suppress(FileNotFoundError):
            mine, there = os.fstat(descriptor), os.stat(self._path)
            return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)
        return False

    def check(self) -> None:
        """Raise RunAborted if OUT was removed or replaced."""
        with aborting_on_io_error(self._out):
            if not self._is_at_its_path(self._descriptor):
                raise RunAborted(f"{self._out} was removed or replaced during the run")

    def release(self) -> None:
        """Give it up; the file stays."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


class StoreLock:
    """An object OUT/.bcd/lock with its owner's name and a number that grows while it lives."""

    def __init__(
        self, state: RemotePath, *, beat_s: float = BEAT_S, watch_s: float = WATCH_S, wait: Wait | None = None
    ) -> None:
        self._path = state / LOCK
        self._owner = secrets.token_hex(16)
        self._beats = 0
        self._over = threading.Event()
        self._lost = ""
        with aborting_on_io_error(self._path):
            if not self._create():
                self._take_over(watch_s, wait or self._over.wait)
        self._heart = threading.Thread(target=self._beat, args=(beat_s,), name="bcd-lock", daemon=True)
        self._heart.start()

    def _text(self) -> bytes:
        return json.dumps({"owner": self._owner, "beats": self._beats}).encode()

    def _create(self) -> bool:
        """Make the object if there is none; in one step where the store can, else look first."""
        with store_of(self._path) as (store, name):
            try:
                store.pipe_file(name, self._text(), mode="create")
            except FileExistsError:
                return False
            except (TypeError, ValueError, NotImplementedError):  # a store without conditional writes
                if store.exists(name):
                    return False
                store.pipe_file(name, self._text())
        return self._is_mine()

    def _take_over(self, watch_s: float, wait: Wait) -> None:
        """Watch another run's object; remove it and make ours if it stands still."""
        before = self._there()
        wait(watch_s)
        if before is not None and self._there() != before:
            raise OutputLocked(f"another run is writing to {self._path.parent.parent}")
        remove_file(self._path)
        if not self._create():
            raise OutputLocked(f"another run has just begun to write to {self._path.parent.parent}")

    def _there(self) -> bytes | None:
        try:
            return read_bytes(self._path)
        except FileNotFoundError:
            return None

    def _is_mine(self) -> bool:
        return self._owner.encode() in (self._there() or b"")

    def _beat(self, beat_s: float) -> None:
        while not self._over.wait(beat_s):
            try:
                if not self._is_mine():
                    self._lost = f"another run has taken over {self._path.parent.parent}"
                    return
                self._beats += 1
                with store_of(self._path) as (store, name):
                    store.pipe_file(name, self._text())
            except OSError:
                continue  # the next beat may get through; a long silence is noticed by `check`

    def check(self) -> None:
        """Raise RunAborted if another run has taken over."""
        with aborting_on_io_error(self._path):
            if self._lost or not self._is_mine():
                raise RunAborted(self._lost or f"the lock of {self._path.parent.parent} is gone")

    def release(self) -> None:
        """Stop beating and remove the object if it is still ours."""
        self._over.set()
        self._heart.join()
        with contextlib.suppress(OSError, RunAborted):
            if self._is_mine():
                remove_file(self._path)
