"""Where a training stands, and what it has come to so far: the small half of a checkpoint.

In:  what the loop counts.
Out: frozen values, and JSON that gives back the very same numbers.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from trainer.backends.base import Outcome
from trainer.config import Monitor
from trainer.metrics import Scores

Cell = float | int | None
TIMING = ("seconds", "images_per_second", "wait_share")
"""Columns of history that differ between two runs of the same training."""


@dataclass(frozen=True, slots=True)
class EpochRow:
    """One epoch: a line of history.csv. Epochs count from 1."""

    epoch: int
    train_loss: float
    """Mean of the steps' losses."""
    gradient_norm: float
    """Mean of the global norms before clipping."""
    learning_rate: float
    """At the last step."""
    skipped_steps: int
    """Steps that float16 overflowed in."""
    seconds: float
    images_per_second: float
    wait_share: float
    """Share of the training time in which no batch was ready."""
    image: Scores
    breast: Scores

    def cells(self) -> tuple[tuple[str, Cell], ...]:
        """Column and value, scores by their names and those of breasts with `breast_` before."""
        own = [(f.name, getattr(self, f.name)) for f in fields(self) if f.name not in ("image", "breast")]
        scored = [(name, getattr(self.image, name)) for name in Scores.names()]
        scored += [(f"breast_{name}", getattr(self.breast, name)) for name in Scores.names()]
        return (*own, *scored)

    def score(self, monitor: Monitor) -> float | None:
        """What to choose by, larger is better; None where validation has one class or none.

        Of negatives alone the log loss is best for who says no the loudest: nothing can be chosen by it.
        """
        if self.image.positives in (0, self.image.count):
            return None
        name = monitor.value.removeprefix("breast_")
        scores = self.breast if monitor.value.startswith("breast_") else self.image
        value = None if monitor is Monitor.LOSS else getattr(scores, name)
        if value is not None:
            return float(value)
        return -(self.image.log_loss or 0.0)


def chosen_by(monitor: str, score: float | None) -> tuple[str, float | None]:
    """What an epoch was chosen by, and its value: of a score below 0, the log loss that it is.

    None: there was nothing to choose by, and the last epoch was taken.
    """
    if score is None or score == float("-inf"):
        return monitor, None
    return ("log_loss", -score) if score < 0 else (monitor, score)


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over an epoch's steps so far."""

    steps: int = 0
    loss: float = 0.0
    norm: float = 0.0
    skipped: int = 0
    learning_rate: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0

    def add(self, outcome: Outcome) -> Self:
        """One step more."""
        counts = outcome.applied
        return replace(
            self,
            steps=self.steps + 1,
            loss=self.loss + (outcome.loss if counts else 0.0),
            norm=self.norm + (outcome.gradient_norm if counts else 0.0),
            skipped=self.skipped + (not counts),
            learning_rate=outcome.learning_rate,
        )

    def took(self, seconds: float, waited: float) -> Self:
        """So much time more, `waited` of it without a batch."""
        return replace(self, seconds=self.seconds + seconds, waited=self.waited + waited)

    def row(self, epoch: int, images: int, image: Scores, breast: Scores) -> EpochRow:
        """The finished epoch's line."""
        counted = max(self.steps - self.skipped, 1)
        return EpochRow(
            epoch=epoch + 1,
            train_loss=self.loss / counted,
            gradient_norm=self.norm / counted,
            learning_rate=self.learning_rate,
            skipped_steps=self.skipped,
            seconds=self.seconds,
            images_per_second=images / max(self.seconds, 1e-9),
            wait_share=self.waited / max(self.seconds, 1e-9),
            image=image,
            breast=breast,
        )


@dataclass(frozen=True, slots=True)
class Position:
    """The next step is step `tally.steps` of epoch `epoch`, both from 0."""

    epoch: int = 0
    tally: Tally = Tally()
    history: tuple[EpochRow, ...] = ()
    best_epoch: int = 0
    """From 1; 0: none yet."""
    best_score: float = float("-inf")
    parts: int = 1
    """Parts that a batch is gone through in."""

    def after_epoch(self, row: EpochRow, monitor: Monitor) -> Self:
        """The beginning of the next epoch. Of equal scores the first is the best, of none the last."""
        score = row.score(monitor)
        moved = replace(self, epoch=self.epoch + 1, tally=Tally(), history=(*self.history, row))
        if score is None:
            return replace(moved, best_epoch=row.epoch)
        better = self.best_epoch == 0 or score > self.best_score
        return replace(moved, best_epoch=row.epoch, best_score=score) if better else moved

    def is_over(self, epochs: int, patience: int) -> bool:
        """All epochs are done, or `patience` (unless 0) epochs have brought nothing better."""
        stalled = bool(patience) and self.epoch - self.best_epoch >= patience and self.best_epoch > 0
        return self.epoch >= epochs or stalled

    def to_json(self) -> str:
        """As text; floats as Python writes them, which is exact."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote. Raises ValueError, TypeError or KeyError if it is something else."""
        document: dict[str, Any] = json.loads(text)
        rows = tuple(_row(row) for row in document.pop("history"))
        return cls(**{**document, "tally": Tally(**document["tally"]), "history": rows})


def _row(document: dict[str, Any]) -> EpochRow:
    image, breast = (Scores(**document.pop(name)) for name in ("image", "breast"))
    return EpochRow(**document, image=image, breast=breast)
