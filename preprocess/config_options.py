"""Click options made from typed configs: one definition of each name, type, default and help text.

In:  a program's pydantic config classes, its environment prefix, the options that need words of their own.
Out: click options, and back: field values by name. Command line > environment > --config file > default.

Both programs use it: `preprocess.options` for bcd-prep, `trainer.options` for bcd-train.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from preprocess.errors import UsageError
from preprocess.failures import describe
from preprocess.places import Place, RemotePath, place

F = TypeVar("F", bound=Callable[..., object])
M = TypeVar("M", bound=BaseModel)
Unpack = Callable[[str, object], dict[str, object] | None]


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


def _nothing_special(name: str, value: object) -> dict[str, object] | None:
    return None


@dataclass(frozen=True, slots=True)
class ConfigOptions:
    """A program's options."""

    environment: str
    """Prefix of its environment variables."""
    models: tuple[type[BaseModel], ...]
    """Config classes, whose fields' names differ from each other's."""
    spelled: Mapping[str, str] = field(default_factory=dict)
    """Fields whose option has another name."""
    special: frozenset[str] = frozenset()
    """Fields for which the program writes the options itself."""
    unpack: Unpack = _nothing_special
    """Field values of such an option by its name, on the command line or in a file; None if it is none."""

    def of(self, model: type[BaseModel]) -> Callable[[F], F]:
        """Add an option for every field of `model`."""

        def decorate(command: F) -> F:
            for name, info in reversed(model.model_fields.items()):
                if name not in self.special:
                    command = self._option(name, info)(command)
            return command

        return decorate

    def file(self, example: str) -> Callable[[F], F]:
        """Add --config."""
        return click.option(
            "--config",
            "config_file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            envvar=self.environment + "CONFIG",
            help=f"YAML file with any of the options below, by name ({example}, …).",
        )

    def given(self, context: click.Context) -> dict[str, object]:
        """Field values by name: the file's, overridden by what the command line or environment says."""
        values: dict[str, object] = {}
        path = context.params.get("config_file")
        if path is not None:
            values |= self._from_file(path)
        weak = (click.core.ParameterSource.DEFAULT, click.core.ParameterSource.DEFAULT_MAP)
        for name, value in context.params.items():
            if context.get_parameter_source(name) not in weak:
                values |= self.unpack(name, value) or {name: value}
        return values

    def validated(self, model: type[M], values: Mapping[str, object]) -> M:
        """Those of `values` that are fields of `model`, as one. Raises UsageError with the option's name."""
        known = {name: value for name, value in values.items() if name in model.model_fields}
        try:
            return model.model_validate(known)
        except ValidationError as error:
            raise UsageError(self._explain(error)) from None

    def names(self) -> Iterator[str]:
        """Every option that is made from a field, as spelled on the command line."""
        for model in self.models:
            for name in model.model_fields:
                if name not in self.special:
                    yield self._flag(name)

    def _flag(self, name: str) -> str:
        return f"--{self.spelled.get(name, name).replace('_', '-')}"

    def _from_file(self, path: Path) -> dict[str, object]:
        import yaml  # only where a file is given

        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: {describe(error)}") from None
        except yaml.YAMLError as error:
            raise UsageError(f"{path}: {error}") from None
        if document is not None and not isinstance(document, Mapping):
            raise UsageError(f"{path}: must hold option names and values")
        return self._named(path, document or {})

    def _named(self, path: Path, document: Mapping[object, object]) -> dict[str, object]:
        fields = {name for model in self.models for name in model.model_fields}
        values: dict[str, object] = {}
        for key, value in document.items():
            name = str(key).replace("-", "_")
            unpacked = self.unpack(name, value)
            if unpacked is None and name not in fields:
                raise UsageError(f"{path}: unknown option {key!r}")
            values |= {name: value} if unpacked is None else unpacked
        return values

    def _explain(self, error: ValidationError) -> str:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        return f"{self._flag(str(first['loc'][0]))}: {message}" if first["loc"] else message

    def _option(self, name: str, info: FieldInfo) -> Callable[[F], F]:
        flag, kind = self._flag(name), _plain(info.annotation)
        if kind is bool and info.default is True:
            flag = f"{flag}/--no-{flag.removeprefix('--')}"
        return click.option(
            flag,
            name,
            type=click.BOOL if kind is bool else _click_type(kind, info),
            is_flag=kind is bool,
            multiple=typing.get_origin(info.annotation) is tuple,
            default=_shown(info.default),
            help=info.description,
            envvar=self.environment + self.spelled.get(name, name).upper(),
            show_default=True,
        )


def _plain(annotation: object) -> object:
    """The plain type: int of `int | None`, Format of `tuple[Format, ...]`."""
    origin = typing.get_origin(annotation)
    if origin in (tuple, types.UnionType):
        return typing.get_args(annotation)[0]
    return annotation


def _click_type(kind: object, info: FieldInfo) -> click.Choice[str] | click.ParamType[Any]:
    """The click type of a field; its bounds (pydantic's ge, gt, le, lt) show in --help."""
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return click.Choice([item.value for item in kind])
    bounds = {
        name: value
        for mark in info.metadata
        for name in ("ge", "gt", "le", "lt")
        if (value := getattr(mark, name, None)) is not None
    }
    lower, upper = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if not bounds and kind in (int, float):
        return click.INT if kind is int else click.FLOAT
    if kind is int:
        return click.IntRange(lower, upper, min_open="gt" in bounds, max_open="lt" in bounds)
    if kind is float:
        return click.FloatRange(lower, upper, min_open="gt" in bounds, max_open="lt" in bounds)
    return click.STRING


def _shown(default: object) -> object:
    if isinstance(default, tuple):
        return [_shown(item) for item in default]
    return default.value if isinstance(default, StrEnum) else default
