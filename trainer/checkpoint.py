"""Checkpoints: everything that a training goes on from, in one file that is whole or not there.

In:  a Position and the learner's arrays.
Out: fold=K/checkpoint/step-NNNNNNNN.npz, the newest two; best-NNNN.npz, the best epoch's weights and logits.

An .npz carries a CRC of each array, and is read whole before anything uses it: one that the disk has damaged
is passed over for the one before.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocess.atomic import aborting_on_io_error, new_file, remove_file
from preprocess.errors import RunAborted
from preprocess.failures import describe
from trainer.backends.base import Arrays
from trainer.position import Position
from trainer.records import Floats

KEPT = 2
_META = "position"
_STEP = re.compile(r"step-\d{8}\.npz")
_BEST = re.compile(r"best-\d{4}\.npz")
_DAMAGE = (zipfile.BadZipFile, ValueError, TypeError, KeyError, EOFError, OSError)


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
        for path in self._files(_STEP)[:-KEPT]:
            remove_file(path)
        for path in self._files(_BEST):
            if (
                path.name < best
            ):  # a checkpoint that is still kept never names an older one than the last but one
                self._drop_unnamed(path)

    def latest(self, note: Callable[[str], None]) -> Checkpoint | None:
        """The newest that can be read, and whose best weights can; None if there is none."""
        for path in reversed(self._files(_STEP)):
            try:
                text, arrays = _read(path)
                found = Checkpoint(Position.from_json(text), arrays)
                if found.position.best_epoch:
                    self.best(found.position.best_epoch)
            except (*_DAMAGE, RunAborted):
                note(f"{path.name} cannot be read; going on from the checkpoint before it")
            else:
                return found
        return None

    def save_best(self, epoch: int, weights: Arrays, logits: Floats) -> None:
        """Keep the weights and validation logits of an epoch (from 1). Raises RunAborted."""
        _write(self.folder / f"best-{epoch:04}.npz", "", (*weights, ("logits", logits)))

    def best(self, epoch: int) -> tuple[Arrays, Floats]:
        """What `save_best` kept. Raises RunAborted if it is damaged."""
        path = self.folder / f"best-{epoch:04}.npz"
        try:
            *weights, (_, logits) = _read(path)[1]
        except _DAMAGE as error:
            raise RunAborted(f"{path.name} cannot be read: {describe(error)}") from None
        return tuple(weights), logits

    def _drop_unnamed(self, path: Path) -> None:
        """Remove a best epoch's weights that no kept checkpoint goes back to."""
        named = set()
        for step in self._files(_STEP):
            try:
                named.add(Position.from_json(_meta(step)).best_epoch)
            except _DAMAGE:
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


def _read(path: Path) -> tuple[str, Arrays]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as members:
        head = json.loads(bytes(members[_META]))
        arrays = tuple((name, members[f"{place:05}"]) for place, name in enumerate(head["names"]))
    return head["text"], arrays


def _meta(path: Path) -> str:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as members:
        text: str = json.loads(bytes(members[_META]))["text"]
    return text
