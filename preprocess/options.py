"""The options of `bcd-prep`: made from the typed config, and --size and --gpu/--cpu beside it.

In:  ResultConfig and ExecutionConfig.
Out: click options, and back: a validated config. Command line > environment > --config file > default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import click

from preprocess.config import ExecutionConfig, PrepConfig, ResultConfig
from preprocess.config_options import ConfigOptions
from preprocess.errors import UsageError

ENVIRONMENT = "BCD_PREP_"
F = TypeVar("F", bound=Callable[..., object])


class Size(click.ParamType[tuple[int, int]]):
    """HEIGHTxWIDTH, as in 1024x512."""

    name = "HEIGHTxWIDTH"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Parse; anything but two whole numbers is a usage error."""
        if isinstance(value, tuple):
            return value
        parts = str(value).lower().split("x")
        if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
            self.fail(f"{value!r} is not HEIGHTxWIDTH, such as 1024x512", param, ctx)
        return int(parts[0]), int(parts[1])


def _unpack(name: str, value: object) -> dict[str, object] | None:
    if name == "size":
        height, width = Size().convert(value, None, None)
        return {"height": height, "width": width}
    if name == "format":
        return {"formats": value if isinstance(value, list) else [value]}
    return None


_OPTIONS = ConfigOptions(
    environment=ENVIRONMENT,
    models=(ResultConfig, ExecutionConfig),
    spelled={"formats": "format", "height": "size", "width": "size"},
    special=frozenset({"height", "width", "gpu"}),
    unpack=_unpack,
)


def result_options(command: F) -> F:
    """Add every option of ResultConfig, --size and --config."""
    command = _OPTIONS.of(ResultConfig)(command)
    command = click.option(
        "--size",
        type=Size(),
        default="1024x512",
        show_default=True,
        envvar=ENVIRONMENT + "SIZE",
        help="Size of a prepared image.",
    )(command)
    return _OPTIONS.file("size: 1024x512, folds: 5")(command)


def execution_options(command: F) -> F:
    """Add every option of ExecutionConfig, and --gpu/--cpu."""
    command = _OPTIONS.of(ExecutionConfig)(command)
    return click.option(
        "--gpu/--cpu",
        "gpu",
        default=False,
        show_default=True,
        envvar=ENVIRONMENT + "GPU",
        help="Decode and render on GPUs.",
    )(command)


def prep_config(context: click.Context) -> PrepConfig:
    """The validated config of the current command; raises UsageError with the field's name."""
    given = _OPTIONS.given(context)
    execution = _OPTIONS.validated(ExecutionConfig, given)
    if execution.require_gpu and not execution.gpu and not _turned_off(context):
        raise UsageError(
            "--require-gpu without --gpu: nothing would run on a GPU; say --gpu (or BCD_PREP_GPU=1) as well"
        )
    return PrepConfig(result=_OPTIONS.validated(ResultConfig, given), execution=execution)


def _turned_off(context: click.Context) -> bool:
    """Whether nothing asks for GPUs: no such option here, or --cpu against a standing --require-gpu."""
    said = {name: context.get_parameter_source(name) for name in ("gpu", "require_gpu")}
    here = click.core.ParameterSource.COMMANDLINE
    return "gpu" not in context.params or (said["gpu"] is here and said["require_gpu"] is not here)


def option_names() -> Iterator[str]:
    """Every option that is made from the config, as spelled on the command line."""
    return _OPTIONS.names()
