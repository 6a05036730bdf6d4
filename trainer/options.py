"""The options of `bcd-train`: made from the typed config, as `preprocess.options` makes those of bcd-prep.

In:  TrainConfig's sections and ExecutionConfig.
Out: click options, and back: validated configs. Command line > environment > --config file > default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import click

from preprocess.config_options import ConfigOptions
from trainer.config import DataConfig, ExecutionConfig, ModelConfig, OptimizationConfig, TrainConfig

ENVIRONMENT = "BCD_TRAIN_"
F = TypeVar("F", bound=Callable[..., object])

_OPTIONS = ConfigOptions(
    environment=ENVIRONMENT,
    models=(DataConfig, ModelConfig, OptimizationConfig, ExecutionConfig),
)


def train_options(command: F) -> F:
    """Add --config and every option of a training."""
    for model in reversed(_OPTIONS.models):
        command = _OPTIONS.of(model)(command)
    return _OPTIONS.file("model: convnext_tiny, epochs: 20")(command)


def train_config(context: click.Context) -> tuple[TrainConfig, ExecutionConfig]:
    """The validated configs of the current command; raises UsageError with the option's name."""
    given = _OPTIONS.given(context)
    config = TrainConfig(
        data=_OPTIONS.validated(DataConfig, given),
        model=_OPTIONS.validated(ModelConfig, given),
        optimization=_OPTIONS.validated(OptimizationConfig, given),
    )
    return config, _OPTIONS.validated(ExecutionConfig, given)


def option_names() -> Iterator[str]:
    """Every option that is made from the config, as spelled on the command line."""
    return _OPTIONS.names()
