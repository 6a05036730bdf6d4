"""From label columns to what is learned: a binary target, and classes for auxiliary heads.

In:  rows of a dataset, the data config, names of auxiliary columns.
Out: Labels: float32 (n, 1 + A), NaN where unknown; the heads; counts. Rows without a target are nobody's.

A rule is `COLUMN OP VALUE`, OP one of >= > <= < == != and `in {A,B}`; without COLUMN it judges --target.
"""

from __future__ import annotations

import operator
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from preprocess.errors import UsageError
from preprocess.records import LabelValue
from preprocess.schema import InstanceRow
from trainer.config import BagPooling, DataConfig
from trainer.records import AuxiliaryHead, Floats, Rows

VIEW = "view"
"""The one fixed column that an auxiliary head may learn."""

_MOST_CLASSES = 16
_RULE = re.compile(
    r"\s*(?P<column>[^<>=!{}]*?)\s*(?P<sign>>=|<=|==|!=|>|<|\bin(?=\s*\{))\s*(?P<value>.+?)\s*"
)
_ORDER: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """What makes a value positive."""

    column: str
    sign: str
    values: tuple[str, ...]
    """One, or several for `in`; text as written."""

    @classmethod
    def parse(cls, text: str, target: str) -> Self:
        """Read a rule; one that names no column judges `target`.

        Raises:
            UsageError: it is none, or orders by something that is no number.
        """
        match = _RULE.fullmatch(text)
        if match is None:
            raise UsageError(f"--positive {text!r} is no rule such as 'BIRADS>=4' or 'in {{A,B}}'")
        column, sign, value = match["column"] or target, match["sign"], match["value"]
        if sign == "in":
            if not value.endswith("}"):
                raise UsageError(f"--positive {text!r}: after `in` comes a set such as {{A,B}}")
            return cls(column, sign, tuple(part.strip() for part in value[1:-1].split(",")))
        if sign in _ORDER and _number(value) is None:
            raise UsageError(f"--positive {text!r}: {value!r} is no number")
        return cls(column, sign, (value.strip("'\""),))

    def holds(self, value: LabelValue) -> bool | None:
        """Whether a value is positive; None for an unknown one.

        Raises:
            UsageError: the rule orders by number, the value is text.
        """
        if value is None:
            return None
        if self.sign in _ORDER:
            number = _number(value)
            if number is None:
                raise UsageError(f"{self.column} has the value {value!r}: {self.sign} needs numbers")
            return _ORDER[self.sign](number, float(self.values[0]))
        found = any(_same(value, wanted) for wanted in self.values)
        return found != (self.sign == "!=")


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """What is known of each row of a dataset."""

    values: Floats = field(repr=False)
    """(n, 1 + A) float32: 0 or 1, then class numbers; NaN where unknown."""
    heads: tuple[AuxiliaryHead, ...]
    target: str
    """The target in words, such as `cancer` or `BIRADS>=4`."""

    @property
    def unknown(self) -> int:
        """Rows whose target is unknown: in no training, validation or test."""
        return int(np.isnan(self.values[:, 0]).sum())

    @property
    def known(self) -> Rows:
        """Rows whose target is known, ascending."""
        return np.flatnonzero(~np.isnan(self.values[:, 0])).astype(np.int64)

    def positives(self, rows: Rows) -> int:
        """How many of these rows are positive."""
        return int((self.values[rows, 0] == 1).sum())

    def head_unknown(self) -> tuple[int, ...]:
        """Rows of which each auxiliary head knows nothing."""
        return tuple(int(count) for count in np.isnan(self.values[:, 1:]).sum(axis=0))


def labels_of(
    rows: Sequence[InstanceRow],
    config: DataConfig,
    auxiliary: Sequence[str] = (),
    seed: int = 0,
    heads: tuple[AuxiliaryHead, ...] | None = None,
) -> Labels:
    """Labels of all rows.

    `heads`: those of a trained model, for another dataset; values that they do not know are unknown. `seed`
    is that of `shuffle_labels` only.

    Raises:
        UsageError: a column is not there or all unknown, the target is not binary, a head has one class or
            too many, or bags are to learn views.
    """
    known = known_columns(rows)
    target, words = _target(rows, config, known)
    if config.shuffle_labels:
        target = shuffled(rows, target, seed)
    if heads is None:
        _no_views_of_bags(config, auxiliary)
        heads = tuple(_head(rows, name, known) for name in auxiliary)
    columns = [target, *(_numbers(rows, head) for head in heads)]
    return Labels(np.stack(columns, axis=1).astype(np.float32), heads, words)


def known_columns(rows: Sequence[InstanceRow]) -> dict[str, int]:
    """Label columns and how many rows know them."""
    counts: dict[str, int] = defaultdict(int)
    for row in rows:
        for label in row.labels:
            counts[label.name] += label.value is not None
    return dict(sorted(counts.items()))


def shuffled(rows: Sequence[InstanceRow], target: Floats, seed: int) -> Floats:
    """The negative control: breasts' labels permuted among patients, whole patients at a time.

    Patients change places with patients of as many labelled breasts and the same side of the test split, so
    that prevalence, breasts that share a label, and positive patients stay what they were. A function of seed
    and rows. A breast's label is the largest of its images'; a patient of no peer keeps its labels.
    """
    breasts: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index in np.flatnonzero(~np.isnan(target)).tolist():
        row = rows[index]
        breasts[row.patient_id or row.source][row.laterality or ""].append(index)
    groups: dict[tuple[int, bool], list[str]] = defaultdict(list)
    for patient, sides in breasts.items():
        tested = any(rows[index].split == "test" for side in sides.values() for index in side)
        groups[len(sides), tested].append(patient)
    out = target.copy()
    bits = np.random.Philox(key=[seed, 0x5AFF1E])
    for _, patients in sorted(groups.items()):
        order = np.argsort(bits.random_raw(len(patients)), kind="stable").tolist()
        for patient, other in zip(patients, order, strict=True):
            theirs = breasts[patients[other]]
            for mine, side in zip(sorted(breasts[patient]), sorted(theirs), strict=True):
                out[breasts[patient][mine]] = target[theirs[side]].max()
    return out


def _target(rows: Sequence[InstanceRow], config: DataConfig, known: dict[str, int]) -> tuple[Floats, str]:
    rule = Rule.parse(config.positive, config.target) if config.positive is not None else None
    name = rule.column if rule else config.target
    values = _values(rows, name, known)
    if rule is None:
        others = sorted({_text(value) for value in values if value is not None} - {"0", "1"})
        if others:
            some = ", ".join(others[:_MOST_CLASSES])
            raise UsageError(f"{name} is not 0 or 1 but also {some}: say --positive '{name}==…'")
        answers = [None if value is None else _text(value) == "1" for value in values]
    else:
        answers = [rule.holds(value) for value in values]
    target = np.array([np.nan if answer is None else answer for answer in answers], np.float32)
    return target, f"{name}{rule.sign}{','.join(rule.values)}" if rule else name


def _values(rows: Sequence[InstanceRow], name: str, known: dict[str, int]) -> list[LabelValue]:
    if name == VIEW:
        return [row.view for row in rows]
    if name not in known:
        there = ", ".join(known) or "none: run bcd-prep with --labels"
        raise UsageError(f"there is no label {name}; the dataset has {there}")
    if not known[name]:
        raise UsageError(f"the label {name} is unknown for every image")
    return [next((label.value for label in row.labels if label.name == name), None) for row in rows]


def _no_views_of_bags(config: DataConfig, auxiliary: Sequence[str]) -> None:
    if config.bags is not BagPooling.NONE and VIEW in auxiliary:
        raise UsageError("an auxiliary head cannot learn the view of a bag, which has several")


def _head(rows: Sequence[InstanceRow], name: str, known: dict[str, int]) -> AuxiliaryHead:
    values = [value for value in _values(rows, name, known) if value is not None]
    classes = sorted({_text(value) for value in values}, key=_rank)
    if not 1 < len(classes) <= _MOST_CLASSES:
        raise UsageError(f"an auxiliary head learns 2 to {_MOST_CLASSES} classes; {name} has {len(classes)}")
    return AuxiliaryHead(name, tuple(classes))


def _numbers(rows: Sequence[InstanceRow], head: AuxiliaryHead) -> Floats:
    """Class numbers; NaN where the value is unknown, also to the head."""
    known = known_columns(rows)
    if head.name != VIEW and head.name not in known:
        return np.full(len(rows), np.nan, np.float32)
    number = {text: float(index) for index, text in enumerate(head.classes)}
    values = [row.view for row in rows] if head.name == VIEW else _labels(rows, head.name)
    return np.array([np.nan if v is None else number.get(_text(v), np.nan) for v in values], np.float32)


def _labels(rows: Sequence[InstanceRow], name: str) -> list[LabelValue]:
    return [next((label.value for label in row.labels if label.name == name), None) for row in rows]


def _text(value: LabelValue) -> str:
    """One text for 1, 1.0 and True: a column's type may differ between datasets."""
    if isinstance(value, bool | int | float) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _number(value: LabelValue) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]  # None is one of those that raise
    except (TypeError, ValueError):
        return None


def _same(value: LabelValue, wanted: str) -> bool:
    number = None if isinstance(value, str) else _number(wanted)
    return float(value) == number if number is not None else _text(value) == wanted  # type: ignore[arg-type]


def _rank(text: str) -> tuple[bool, float, str]:
    """Numbers first, by size."""
    number = _number(text)
    return number is None, number or 0.0, text
