"""Click options made from the typed config: one definition of each name, type, default and help text.

In:  pydantic config classes.
Out: click options, and back: a validated config. Command line > environment > --config file > default.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from preprocess.config import ExecutionConfig, PrepConfig, ResultConfig
from preprocess.errors import UsageError
from preprocess.places import Place, RemotePath, place

ENVIRONMENT = "BCD_PREP_"
F = TypeVar("F", bound=Callable[..., object])
Value = str | int | float | bool | tuple[str, ...] | None

_SPELLED = {"formats": "format"}
_SPECIAL = frozenset({"height", "width", "gpu"})


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


class Where(click.ParamType[Place]):
    """A folder, or the URL of a prefix in an object store."""

    name = "folder or URL"

    def __init__(self, *, existing: bool = False) -> None:
        self.existing = existing

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        """Parse; a folder that has to exist but does not is a usage error."""
        where = value if isinstance(value, Path | RemotePath) else place(str(value))
        if self.existing and isinstance(where, Path) and not where.is_dir():
            self.fail(f"folder {str(where)!r} does not exist", param, ctx)
        return where


def result_options(command: F) -> F:
    """Add every option of ResultConfig, --size and --config."""
    command = _config_options(ResultConfig)(command)
    command = click.option(
        "--size",
        type=Size(),
        default="1024x512",
        show_default=True,
        envvar=ENVIRONMENT + "SIZE",
        help="Size of a prepared image.",
    )(command)
    return click.option(
        "--config",
        "config_file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar=ENVIRONMENT + "CONFIG",
        help="YAML file with any of the options below, by name (size: 1024x512, folds: 5, …).",
    )(command)


def execution_options(command: F) -> F:
    """Add every option of ExecutionConfig, and --gpu/--cpu."""
    command = _config_options(ExecutionConfig)(command)
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
    given = _given(context)
    try:
        return PrepConfig(
            result=ResultConfig.model_validate(_only(given, ResultConfig)),
            execution=ExecutionConfig.model_validate(_only(given, ExecutionConfig)),
        )
    except ValidationError as error:
        raise UsageError(_explain(error)) from None


def _given(context: click.Context) -> dict[str, object]:
    """Config fields by name: the file's, overridden by what the command line or environment says."""
    values: dict[str, object] = {}
    path = context.params.get("config_file")
    if path is not None:
        values |= _from_file(path)
    weak = (click.core.ParameterSource.DEFAULT, click.core.ParameterSource.DEFAULT_MAP)
    for name, value in context.params.items():
        if context.get_parameter_source(name) in weak:
            continue
        if name == "size":
            values["height"], values["width"] = value
        else:
            values[name] = value
    return values


def _from_file(path: Path) -> dict[str, object]:
    import yaml  # only where a file is given

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: {error}") from None
    if document is not None and not isinstance(document, Mapping):
        raise UsageError(f"{path}: must hold option names and values")
    return _named(path, document or {})


def _named(path: Path, document: Mapping[object, object]) -> dict[str, object]:
    fields = ResultConfig.model_fields.keys() | ExecutionConfig.model_fields.keys()
    values: dict[str, object] = {}
    for key, value in document.items():
        name = str(key).replace("-", "_")
        if name == "size":
            values["height"], values["width"] = Size().convert(value, None, None)
        elif name == "format":
            values["formats"] = value if isinstance(value, list) else [value]
        elif name in fields:
            values[name] = value
        else:
            raise UsageError(f"{path}: unknown option {key!r}")
    return values


def _only(values: Mapping[str, object], model: type[BaseModel]) -> dict[str, object]:
    return {name: value for name, value in values.items() if name in model.model_fields}


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message
    name = str(first["loc"][0])
    spelled = "size" if name in ("height", "width") else _SPELLED.get(name, name)
    return f"--{spelled.replace('_', '-')}: {message}"


def _config_options(model: type[BaseModel]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for name, field in reversed(model.model_fields.items()):
            if name not in _SPECIAL:
                command = _option(name, field)(command)
        return command

    return decorate


def _option(name: str, field: FieldInfo) -> Callable[[F], F]:
    spelled = _SPELLED.get(name, name)
    kind = _plain(field.annotation)
    return click.option(
        f"--{spelled.replace('_', '-')}",
        name,
        type=click.BOOL if kind is bool else _click_type(kind, field),
        is_flag=kind is bool,
        multiple=typing.get_origin(field.annotation) is tuple,
        default=_shown(field.default),
        help=field.description,
        envvar=ENVIRONMENT + spelled.upper(),
        show_default=True,
    )


def _plain(annotation: object) -> object:
    """The plain type: int of `int | None`, Format of `tuple[Format, ...]`."""
    origin = typing.get_origin(annotation)
    if origin in (tuple, types.UnionType):
        return typing.get_args(annotation)[0]
    return annotation


def _click_type(kind: object, field: FieldInfo) -> click.Choice[str] | click.ParamType[Any]:
    """The click type of a field; its bounds (pydantic's ge, gt, le, lt) show in --help."""
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return click.Choice([item.value for item in kind])
    bounds = {
        name: value
        for mark in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if (value := getattr(mark, name, None)) is not None
    }
    lower, upper = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if kind is int:
        return click.IntRange(lower, upper, min_open="gt" in bounds, max_open="lt" in bounds)
    if kind is float:
        return click.FloatRange(lower, upper, min_open="gt" in bounds, max_open="lt" in bounds)
    return click.STRING


def _shown(default: object) -> object:
    if isinstance(default, tuple):
        return [_shown(item) for item in default]
    return default.value if isinstance(default, StrEnum) else default


def option_names() -> Iterator[str]:
    """Every option that is made from the config, as spelled on the command line."""
    for model in (ResultConfig, ExecutionConfig):
        for name in model.model_fields:
            if name not in _SPECIAL:
                yield f"--{_SPELLED.get(name, name).replace('_', '-')}"
