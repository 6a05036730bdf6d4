"""A disk whose n-th call fails: every system call of Python on files under one folder, counted.

What is written must go through preprocess.atomic: files under the folder that are opened for writing in any
other way are a failure of the test itself.
"""

from __future__ import annotations

import builtins
import fcntl
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BY_PATH = ("open", "mkdir", "unlink", "remove", "rmdir", "replace", "rename", "scandir", "listdir")
BY_PATH += ("stat", "lstat")
BY_DESCRIPTOR = ("write", "fsync", "close", "fstat")


class FaultyDisk:
    """Counts calls below `root` (and on files whose names begin like it); fails the `nth`, or none.

    With `stays`, all later ones fail as well: a disk that is full or gone, not one that stumbles.
    """

    def __init__(self, root: Path, nth: int = 0, number: int = 0, *, stays: bool = False) -> None:
        self.calls: list[str] = []
        self._root, self._nth, self._number, self._stays = str(root), nth, number, stays
        self._descriptors: dict[int, object] = {}

    @property
    def failed(self) -> bool:
        return 0 < self._nth <= len(self.calls)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for name in BY_PATH:
            patch.setattr(os, name, self._by_path(name, getattr(os, name)))
        for name in BY_DESCRIPTOR:
            patch.setattr(os, name, self._by_descriptor(name, getattr(os, name)))
        patch.setattr(fcntl, "flock", self._by_descriptor("flock", fcntl.flock))
        opened = self._open(io.open)
        patch.setattr(io, "open", opened)
        patch.setattr(builtins, "open", opened)

    def step(self, call: str, where: object) -> None:
        self.calls.append(f"{call} {Path(str(where)).name}")
        count = len(self.calls)
        if self._nth and (count == self._nth or (self._stays and count > self._nth)):
            raise OSError(self._number, os.strerror(self._number), str(where))

    def _here(self, path: object, folder: object = None) -> bool:
        if isinstance(path, int):
            return path in self._descriptors
        if isinstance(folder, int) and folder in self._descriptors:
            return True
        return (
            os.fsdecode(path).startswith(self._root) if isinstance(path, str | bytes | os.PathLike) else False
        )

    def _by_path(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
            folder = kwargs.get("dir_fd")
            if not self._here(path, folder):
                return real(path, *args, **kwargs)
            self.step(name, path)
            result = real(path, *args, **kwargs)
            if name == "open":
                self._descriptors[result] = path
            return result

        return call

    def _by_descriptor(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(descriptor: Any, *args: Any) -> Any:
            if descriptor not in self._descriptors:
                return real(descriptor, *args)
            if name == "close":
                path = self._descriptors.pop(descriptor)
                real(descriptor)
                self.step(name, path)  # as close(2): the descriptor is gone even if it fails
                return None
            self.step(name, self._descriptors[descriptor])
            return real(descriptor, *args)

        return call

    def _open(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not self._here(file) or isinstance(file, int):
                return real(file, mode, *args, **kwargs)
            assert not set(mode) & set("wax+"), f"{file} is written without preprocess.atomic"
            self.step("open for reading", file)
            raw = io.BufferedReader(_FaultyReader(self, os.fspath(file)))
            return raw if "b" in mode else io.TextIOWrapper(raw, encoding=kwargs.get("encoding") or "utf-8")

        return call


class _FaultyReader(io.FileIO):
    """A file whose reads are counted too."""

    def __init__(self, disk: FaultyDisk, path: str) -> None:
        super().__init__(path, "r")
        self._disk = disk

    def readinto(self, buffer: Any) -> int:
        self._disk.step("read", self.name)
        return super().readinto(buffer)

    def readall(self) -> bytes:
        self._disk.step("read", self.name)
        return super().readall()
