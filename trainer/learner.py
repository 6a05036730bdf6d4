"""A fold's learner: model, loss and optimiser as config and labels ask for, on the devices of this run.

In:  a FoldJob.
Out: a Learner, with weights drawn from the seed or read from a file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from preprocess.errors import UsageError
from trainer.augment import Augmenter
from trainer.backends.base import Learner, Recipe, StepPlan, open_learner
from trainer.config import ExecutionConfig, TrainConfig
from trainer.dataset import Dataset
from trainer.records import Split
from trainer.runfolder import RunFolder
from trainer.targets import Labels
from trainer.windows import Marks, shown_size

if TYPE_CHECKING:
    import keras

    from trainer.models import WeightsRecord


@dataclass(frozen=True, slots=True)
class FoldJob:
    """What one fold's training needs."""

    run: RunFolder
    dataset: Dataset
    labels: Labels
    marks: Marks
    split: Split
    config: TrainConfig
    execution: ExecutionConfig
    devices: tuple[str, ...]
    augmenter: Augmenter
    """Read once, for all folds."""
    weights: WeightsRecord


def new_learner(job: FoldJob, steps_per_epoch: int, epoch: int) -> Learner:
    """Model and optimiser for the phase that `epoch` is in, drawn from the seed."""
    import keras

    from trainer.losses import loss_spec, per_example
    from trainer.models import PixelStatistics, build, with_lesion_map
    from trainer.optimizers import make_optimizer, phase_at

    config, dataset, train = job.config, job.dataset, job.split.train
    keras.backend.clear_session()
    keras.utils.set_random_seed(config.optimization.seed)
    keras.config.set_dtype_policy(config.optimization.precision.value)
    positives = job.labels.positives(train)
    spec = loss_spec(config, job.labels.heads, len(train) - positives, positives)
    # Labels of the batches are soft already.
    spec = replace(spec, soft_positive=1.0, positive_label=config.data.soft_positive)
    full, known = float((1 << dataset.bits) - 1), dataset.manifest.statistics
    statistics = PixelStatistics(known.mean / full, known.std / full) if known.mean and known.std else None

    def build_model() -> keras.Model:
        if weights_record(config) != job.weights:
            raise UsageError(
                f"--weights {config.model.weights}: the file has changed since the training began"
            )
        size, data = shown_size(dataset, config), config.data
        model = build(config.model, size, job.labels.heads, data.bags, data.bag_views, statistics)
        return model if job.marks.lesions is None else with_lesion_map(model)

    recipe = Recipe(
        build=build_model,
        optimizer=lambda model, phase: make_optimizer(config.optimization, model, steps_per_epoch, phase),
        loss=partial(per_example, spec=spec),
        phase=phase_at(config.optimization, epoch),
        plan=StepPlan.of(config.optimization, job.execution),
    )
    return open_learner(config.optimization.backend, recipe, job.devices)


def weights_record(config: TrainConfig) -> WeightsRecord:
    """Where the first weights come from, and their hash now. Raises UsageError."""
    from trainer.models import weights_record as record_of

    return record_of(config.model)
