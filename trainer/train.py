"""A training, from top to bottom: config → dataset → folds → model → steps → validation → best model.

In:  a FitRequest.
Out: RUN (see `trainer.runfolder`), and a FitSummary. Doing it again finishes what is missing.

What is learned is a function of dataset and TrainConfig. A step's batch is a pure function of (seed, epoch,
step), and a checkpoint holds model, optimiser, averages, loss scale, dropout's seeds and the position: a
training that was killed at any moment goes on to the same numbers (with --deterministic, to the last bit).
"""

from __future__ import annotations

import contextlib
import gc
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from preprocess.errors import UsageError
from preprocess.places import Place
from trainer.architectures import architecture_of
from trainer.augment import Augmenter
from trainer.backends.base import (
    Learner,
    PendingStep,
    choose_backend,
    parts_that_fit,
    prepare,
    require_divisible,
)
from trainer.checkpoint import Checkpoint, Checkpoints
from trainer.config import ExecutionConfig, TrainConfig
from trainer.data import EvaluationBatches, TrainBatches, evaluation_batches, train_batches
from trainer.dataset import Dataset, open_dataset
from trainer.errors import Diverged
from trainer.folds import fold_facts, split, without_positives
from trainer.interrupts import Interrupts
from trainer.learner import FoldJob, new_learner, weights_record
from trainer.lesions import LesionMaps
from trainer.logs import Log, logs_of
from trainer.metrics import scores
from trainer.mixup import mixed
from trainer.position import Position, Tally, chosen_by
from trainer.predictions import Level, Predictions
from trainer.progress import Reporter
from trainer.records import Floats
from trainer.runfolder import (
    MODEL,
    PREDICTIONS,
    WEIGHTS,
    FoldResult,
    Identity,
    opened,
    write_environment,
    write_json,
)
from trainer.targets import Labels, labels_of
from trainer.windows import Marks, lesions_of, shown_size, windows_of

if TYPE_CHECKING:
    from trainer.optimizers import Phase

_TOLD = 20
"""Corrupt records that are named one by one."""
MOST_OVERFLOWS = 50
"""Steps in a row that float16 may leave out before the training counts as diverged."""


@dataclass(frozen=True, slots=True)
class FitRequest:
    """What to train."""

    dataset: Place
    out: Path
    config: TrainConfig
    execution: ExecutionConfig


@dataclass(frozen=True, slots=True)
class FitSummary:
    """What a training came to."""

    out: Path
    results: tuple[FoldResult, ...]
    """Of the folds asked for."""
    was_finished: bool = False
    """True if there was nothing left to do."""


def fit(request: FitRequest, report: Reporter, interrupts: Interrupts) -> FitSummary:
    """Train the folds asked for, or go on where they were left.

    Raises:
        UsageError: config, dataset or folds that cannot be meant; ConfigMismatch: RUN holds something else.
        LeakageError: a patient would be on both sides of a fold.
        DatasetDamaged, RunAborted, Diverged, OutOfMemory: the training cannot go on.
        KeyboardInterrupt: a signal; everything is saved.
    """
    config, execution = request.config, request.execution
    architecture_of(config.model.model)  # a name that is none, before anything takes time
    choose_backend(config.optimization.backend)  # before anything imports Keras
    dataset = open_dataset(request.dataset)
    dataset.keep(execution.cache)
    if not len(dataset):
        raise UsageError(f"{request.dataset} has no prepared image")
    seed = config.optimization.seed
    augmenter = Augmenter.named(config.data.augment)
    labels = labels_of(dataset.rows, config.data, config.model.auxiliary, seed=seed)
    lesions = lesions_of(dataset, labels, config)
    augmenter.require_size(shown_size(dataset, config))
    usable = labels if not config.data.window or lesions is None else lesions.known(labels)
    splits = [split(dataset, usable, fold) for fold in _folds(execution.fold, dataset)]
    augmentation = augmenter.to_yaml()
    record = weights_record(config)
    marks = lesions.sha256() if lesions else ""
    identity = Identity(config, dataset, augmentation, record.sha256 or "", marks)
    with opened(request.out, identity, overwrite=execution.overwrite) as run:
        missing = [one for one in splits if run.result(one.fold) is None]
        if missing:
            _tell(dataset, labels, lesions, report)
            devices = prepare(execution, config.optimization)
            require_divisible(config.data.batch_size, len(devices), config.optimization.accumulate)
            write_environment(run, execution, devices, config.optimization.backend)
            write_json(run.path / WEIGHTS, asdict(record))
        for one in missing:
            marked = Marks(lesions, windows_of(dataset, lesions, config, one))
            job = FoldJob(run, dataset, labels, marked, one, config, execution, devices, augmenter, record)
            _train(job, report, interrupts)
        run.finish_run()
        results = tuple(result for one in splits if (result := run.result(one.fold)) is not None)
    return FitSummary(request.out, results, was_finished=not missing)


def _train(job: FoldJob, report: Reporter, interrupts: Interrupts) -> None:
    """One fold, to its result; nothing of its model stays in memory for the next."""
    with contextlib.closing(FoldTraining(job, report, interrupts)) as training:
        result = training.run()
    del training
    gc.collect()
    job.run.finish(job.split.fold, result)
    job.run.finish_run()


class FoldTraining:
    """One fold: where it stands, and what moves it on."""

    def __init__(self, job: FoldJob, report: Reporter, interrupts: Interrupts) -> None:
        self.job, self.report, self.interrupts = job, report, interrupts
        data, workers = job.config.data, job.execution.data_workers
        self.folder = job.run.fold(job.split.fold)
        self.batches: TrainBatches = train_batches(
            job.dataset, job.labels, job.split.train, job.config, workers, job.marks, job.augmenter
        )
        self.validation: EvaluationBatches = evaluation_batches(
            job.dataset, job.labels, job.split.validation, data, workers, job.marks
        )
        self.checkpoints = Checkpoints(self.folder / "checkpoint")
        self.logs: tuple[Log, ...] = logs_of(self.folder, job.config, job.execution, report.note)
        self.learner, self.position = self._opened()
        self._pending: PendingStep | None = None
        self._overflows = 0
        self._clock = (time.perf_counter(), 0.0)
        self._saved_at = time.monotonic()

    def run(self) -> FoldResult:
        """Train to the end; the fold's files are there then, but for result.json."""
        config = self.job.config.optimization
        steps, batch = self.batches.steps_per_epoch, self.job.config.data.batch_size
        self.report.fold(self.job.split.fold, config.epochs, steps, batch)
        for log in self.logs:
            log.resume(self.position.history)
        with self.interrupts.noted():
            while not self.position.is_over(config.epochs, config.patience):
                self._train_epoch()
                self._validate_epoch()
        return self._finish()

    def close(self) -> None:
        """Let logs go."""
        for log in self.logs:
            log.close()

    def _opened(self) -> tuple[Learner, Position]:
        """The learner as the last checkpoint left it, or a new one."""
        job = self.job
        found = self.checkpoints.latest(self.report.note)
        position = found.position if found else Position(parts=job.config.optimization.accumulate)
        learner = new_learner(job, self.batches.steps_per_epoch, position.epoch)
        if found is not None:
            learner.restore(found.arrays)
            at = f"epoch {position.epoch + 1}, step {position.tally.steps}"
            self.report.note(f"fold {job.split.fold}: going on from {at}")
            if job.execution.memory_limit is not None:
                told = f"a batch is still gone through in {position.parts} parts"
                self.report.note(f"--memory-limit is for a training that begins: {told}")
        elif job.execution.memory_limit is not None:
            batch = self.batches.batch(0, 0)
            parts = parts_that_fit(learner, batch, job.execution.memory_limit, position.parts)
            self.report.note(f"a batch is gone through in {parts} parts, to fit --memory-limit")
            position = replace(position, parts=parts)
        require_divisible(job.config.data.batch_size, len(job.devices), position.parts)
        learner.parts = position.parts
        return learner, position

    def _train_epoch(self) -> None:
        """Steps from where the epoch stands to its end."""
        begun, optimization = self.position, self.job.config.optimization
        self._clock = (time.perf_counter(), self.batches.waited_s)
        with contextlib.closing(self.batches.iterate(begun.epoch, begun.tally.steps)) as batches:
            for number, batch in enumerate(batches, begun.tally.steps):
                key = (optimization.seed, begun.epoch, number)
                step = self.learner.step(mixed(batch, optimization.mixup, key, self.job.labels.heads))
                self._settle()  # the step before, while the devices work on this one
                self._pending = step
                self._save_if_due()
        self._settle()

    def _settle(self) -> None:
        """Wait for the step that is under way, and count it. Raises Diverged."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        outcome = pending.outcome()
        self._overflows = 0 if outcome.applied else self._overflows + 1
        if not outcome.is_finite or self._overflows > MOST_OVERFLOWS:
            where = f"epoch {self.position.epoch + 1}, step {self.position.tally.steps + 1}"
            raise Diverged(
                f"the loss is no longer a number at {where}, learning rate {outcome.learning_rate:.3g}:"
                " lower --learning-rate, raise --warmup-epochs, or use --precision float32"
            )
        self.position = replace(self.position, tally=self._timed(self.position.tally.add(outcome)))
        self.report.step(self.position)

    def _timed(self, tally: Tally) -> Tally:
        """With the time since the last step was settled."""
        (then, waited), self._clock = self._clock, (time.perf_counter(), self.batches.waited_s)
        return tally.took(self._clock[0] - then, self._clock[1] - waited)

    def _validate_epoch(self) -> None:
        """Score the epoch, keep its weights if they are the best, and go on to the next."""
        logits = self._validation_logits()
        cases = [self._predictions(logits).cases(level).known() for level in (Level.IMAGE, Level.BREAST)]
        image, breast = (scores(case.labels, case.probabilities) for case in cases)
        tally, monitor = self.position.tally, self.job.config.optimization.monitor
        row = tally.row(self.position.epoch, tally.steps * self.job.config.data.batch_size, image, breast)
        phase = self._phase()
        self.position = self.position.after_epoch(row, monitor)
        if self.position.best_epoch == row.epoch:
            self.checkpoints.save_best(row.epoch, self.learner.weights(), logits)
        if self._phase() is not phase:
            self.learner.begin_phase(self._phase())
        self._save()
        for log in self.logs:
            log.epoch(self.position.history)
        self.report.epoch(row, monitor)
        self._stop_if_asked()

    def _validation_logits(self) -> Floats:
        """(examples,): the target's logits; NaN for an example that could not be read."""
        found: list[Floats] = []
        with self.learner.averaged(), contextlib.closing(self.validation.iterate()) as batches:
            for batch in batches:
                logits = self.learner.predict(batch)[:, 0]
                if not np.isfinite(logits).all():
                    raise Diverged(f"predictions are no longer numbers after epoch {self.position.epoch + 1}")
                found.append(np.where(batch.weights > 0, logits, np.nan).astype(np.float32))
                if self.interrupts.requested:
                    break
        if self.interrupts.requested:
            self._save()
            raise KeyboardInterrupt
        whole = np.concatenate(found) if found else np.empty(0, np.float32)
        return whole[: len(self.validation.examples)]

    def _predictions(self, logits: Floats) -> Predictions:
        """Of every image that could be read: a bag's prediction is that of each of its views."""
        with np.errstate(over="ignore"):
            probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
        examples = self.validation.examples
        read = [place for place in range(len(examples)) if not np.isnan(logits[place])]
        rows = [int(row) for place in read for row in examples[place]]
        values = [probabilities[place] for place in read for _ in examples[place]]
        labels = self.job.labels.values[rows, 0] if rows else np.empty(0)
        fold = np.full(len(rows), self.job.split.fold)
        return Predictions.of([self.job.dataset.rows[row] for row in rows], fold, labels, values)

    def _finish(self) -> FoldResult:
        """Write the best epoch's model and predictions."""
        from trainer.models import save, without_lesion_map

        position, split = self.position, self.job.split
        weights, logits = self.checkpoints.best(position.best_epoch)
        save(without_lesion_map(self.learner.finish(weights)), self.folder / MODEL)
        self._predictions(logits).write(self.folder / PREDICTIONS)
        name, value = chosen_by(self.job.config.optimization.monitor.value, position.best_score)
        corrupt = {record.row for feed in (self.batches, self.validation) for record in feed.corrupt}
        if corrupt:
            self.report.note(f"{len(corrupt)} records were corrupt and left out (--on-corrupt skip)")
            messages = {record.message for feed in (self.batches, self.validation) for record in feed.corrupt}
            for message in sorted(messages)[:_TOLD]:
                self.report.note(f"left out: {message}")
        return FoldResult(
            fold=split.fold,
            best_epoch=position.best_epoch,
            monitor=name,
            score=value,
            epochs=position.epoch,
            seconds=sum(row.seconds for row in position.history),
            train_images=len(split.train),
            validation_images=len(split.validation),
            corrupt_records=len(corrupt),
        )

    def _phase(self) -> Phase:
        from trainer.optimizers import phase_at

        return phase_at(self.job.config.optimization, self.position.epoch)

    def _save(self) -> None:
        """Everything, durably."""
        steps = self.batches.steps_per_epoch
        self.checkpoints.save(Checkpoint(self.position, self.learner.arrays()), steps)
        self._saved_at = time.monotonic()

    def _save_if_due(self) -> None:
        """After so many minutes, and when a signal asks to end."""
        due = time.monotonic() - self._saved_at >= self.job.execution.checkpoint_minutes * 60
        asked = self.interrupts.requested  # once: a signal that comes later finds the next step
        if due or asked:
            self._settle()
            self._save()
        if asked:
            raise KeyboardInterrupt

    def _stop_if_asked(self) -> None:
        if self.interrupts.requested:
            raise KeyboardInterrupt


def _folds(wanted: str, dataset: Dataset) -> tuple[int, ...]:
    return tuple(range(dataset.manifest.config.folds)) if wanted == "all" else (int(wanted),)


def _tell(dataset: Dataset, labels: Labels, lesions: LesionMaps | None, report: Reporter) -> None:
    """What is in the data that a reader of the numbers should know."""
    known = labels.known
    report.note(
        f"{len(dataset)} images, {len(known)} with a known {labels.target},"
        f" {labels.positives(known)} of them positive"
    )
    if (line := without_positives(fold_facts(dataset, labels))) is not None:
        report.note(line)
    if lesions is not None:
        unmarked = labels.positives(known) - lesions.marked
        report.note(f"{lesions.marked} positive images have lesion boxes, {unmarked} have none")
