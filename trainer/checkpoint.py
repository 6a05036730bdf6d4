"""Checkpoints: everything that a training goes on from, in one file that is whole or not there.

In:  a Position and the learner's arrays.
Out: fold=K/checkpoint/step-NNNNNNNN.npz, the newest two; best-NNNN.npz, the best epoch's weights and logits.

An .npz carries a CRC of each array, and is read whole before anything uses it: one that the disk has damaged
is passed over for the one before.
"""

from __future__ import annotations

import errno
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.atomic import aborting_on_io_error, new_file, remove_file
from preprocess.errors import RunAborted
from preprocess.failures import describe
from trainer.backends.base import Arrays
from trainer.position import Position
from trainer.records import Floats

KEPT = 2
_META = "position"
_STEP = re.compile(r"step-\d{8}\.npz")
_OF_DAMAGE = (None, errno.EINVAL)
"""What a file that is not whole may lead to; with any other error it may be whole, but cannot be read now."""
_BEST = re.compile(r"best-\d{4}\.npz")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a training stood, and its state."""

    position: Position
    arrays: Arrays


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The checkpoints of one fold."""

    folder: Path

    def save(self, checkpoint: Checkpoint, steps_per_epoch: int) -> None:
        """Write one more and drop what it replaces. Raises RunAborted: the disk."""
        position = checkpoint.position
        step = position.epoch * steps_per_epoch + position.tally.steps
        name = f"step-{step:08}.npz"
        _write(self.folder / name, position.to_json(), checkpoint.arrays)
        best = f"best-{position.best_epoch:04}.npz"
        steps = self._files(_STEP)
        stale = [path for path in steps if path.name > name]  # of a future that was given up
        for path in (*stale, *[path for path in steps if path not in stale][:-KEPT]):
            remove_file(path)
        for path in self._files(_BEST):
            # A checkpoint that is still kept never names an older one than the last but one.
            if path.name < best:
                self._drop_unnamed(path)

    def latest(self, note: Callable[[str], None]) -> Checkpoint | None:
        """The newest that can be read, and whose best weights can; None if there is none.

        Says what is passed over, and removes it. Raises RunAborted: the disk does not give one that is there,
        which may well be whole.
        """
        for path in reversed(self._files(_STEP)):
            try:
                text, arrays = _read(path)
                found = Checkpoint(_position(text), arrays)
                if found.position.best_epoch:
                    _read(self._best(found.position.best_epoch))
            except (_Damaged, FileNotFoundError):
                note(f"{path.name}, or the best epoch that it names, is damaged: it is passed over")
                remove_file(path)
            except OSError as error:
                raise RunAborted(f"{path.name} cannot be read: {describe(error)}") from None
            else:
                return found
        if self._files(_BEST):
            note("no checkpoint of this fold can be read: it starts over")
        return None

    def save_best(self, epoch: int, weights: Arrays, logits: Floats) -> None:
        """Keep the weights and validation logits of an epoch (from 1). Raises RunAborted."""
        _write(self._best(epoch), "", (*weights, ("logits", logits)))

    def best(self, epoch: int) -> tuple[Arrays, Floats]:
        """What `save_best` kept. Raises RunAborted if it is damaged."""
        path = self._best(epoch)
        try:
            *weights, (_, logits) = _read(path)[1]
        except (_Damaged, OSError) as error:
            raise RunAborted(f"{path.name} cannot be read: {describe(error)}") from None
        return tuple(weights), logits

    def _best(self, epoch: int) -> Path:
        return self.folder / f"best-{epoch:04}.npz"

    def _drop_unnamed(self, path: Path) -> None:
        """Remove a best epoch's weights that no kept checkpoint goes back to."""
        named = set()
        for step in self._files(_STEP):
            try:
                named.add(_position(_meta(step)).best_epoch)
            except (_Damaged, OSError):
                continue
        if int(path.stem.removeprefix("best-")) not in named:
            remove_file(path)

    def _files(self, pattern: re.Pattern[str]) -> list[Path]:
        """Oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if pattern.fullmatch(path.name))


def _write(path: Path, text: str, arrays: Arrays) -> None:
    """Arrays by place: names may hold what zip members may not."""
    head = json.dumps({"text": text, "names": [name for name, _ in arrays]})
    members = {f"{place:05}": array for place, (_, array) in enumerate(arrays)}
    with aborting_on_io_error(path), new_file(path) as file:
        np.savez(file, **{_META: np.frombuffer(head.encode(), np.uint8)}, **members)  # type: ignore[arg-type]  # by name
        file.commit()


class _Damaged(Exception):
    """A file is not what was written."""


@contextmanager
def _members(path: Path) -> Iterator[zipfile.ZipFile]:
    """An archive of ours. Raises _Damaged, or OSError where it may be whole and the disk does not give it."""
    try:
        with zipfile.ZipFile(path) as members:
            yield members
    except (MemoryError, FileNotFoundError):
        raise
    except Exception as error:  # a flipped bit may look like anything to a parser
        if isinstance(error, OSError) and error.errno not in _OF_DAMAGE:
            raise
        raise _Damaged(f"{type(error).__name__} in {path.name}") from None


def _read(path: Path) -> tuple[str, Arrays]:
    with _members(path) as members:
        head = json.loads(bytes(_array(members, _META)))
        arrays = tuple((name, _array(members, f"{place:05}")) for place, name in enumerate(head["names"]))
    return head["text"], arrays


def _meta(path: Path) -> str:
    with _members(path) as members:
        text: str = json.loads(bytes(_array(members, _META)))["text"]
    return text


def _position(text: str) -> Position:
    """Raises _Damaged: it is of another version of this program."""
    try:
        return Position.from_json(text)
    except (ValueError, TypeError, KeyError) as error:
        raise _Damaged(type(error).__name__) from None


def _array(members: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    """One array; its CRC is verified before anything parses it, whatever its header says of its size."""
    array: npt.NDArray[Any] = np.load(io.BytesIO(members.read(f"{name}.npy")), allow_pickle=False)
    return array
