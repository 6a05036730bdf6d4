"""8-connected components by runs: one pass over the mask, union of touching runs, one pass to paint.

In:  a boolean mask.
Out: masks of some of its components, as in _mask.py.

A component's name is its first run in raster order, so of equals the one that comes first is the lower name.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from preprocess.compiled import compiled

Mask = npt.NDArray[np.bool_]
_Runs = npt.NDArray[np.int32]
"""(runs, 4): row, first column, one past the last column, name of the component."""


def largest_component(mask: Mask) -> Mask:
    """As in reference.py."""
    runs = _runs(np.ascontiguousarray(mask), True)
    areas, _ = _areas(runs, *mask.shape)
    keep = np.zeros(len(runs), dtype=np.bool_)
    if len(runs):
        keep[np.argmax(areas)] = True
    return _painted(np.zeros(mask.shape, dtype=np.bool_), runs, keep)


def border_connected(mask: Mask) -> Mask:
    """As in reference.py."""
    runs = _runs(np.ascontiguousarray(mask), True)
    _, at_border = _areas(runs, *mask.shape)
    return _painted(np.zeros(mask.shape, dtype=np.bool_), runs, at_border)


def fill_holes(mask: Mask, largest: int) -> Mask:
    """As in reference.py."""
    runs = _runs(np.ascontiguousarray(mask), False)
    areas, at_border = _areas(runs, *mask.shape)
    return _painted(mask.copy(), runs, (areas <= largest) & ~at_border)


@compiled
def _runs(mask: Mask, value: bool) -> _Runs:
    """Runs of `value` in raster order, each with its component's name: the number of its first run."""
    runs = np.empty((_count(mask, value), 4), np.int32)
    first_above = first = number = 0
    for row in range(mask.shape[0]):
        first_above, first = first, number
        number = _add_row(mask[row], value, row, runs, number)
        above = first_above
        for run in range(first, number):
            while above < first and runs[above, 2] < runs[run, 1]:
                above += 1
            touching = above
            while touching < first and runs[touching, 1] <= runs[run, 2]:
                _unite(runs, touching, run)
                touching += 1
    for run in range(number):
        runs[run, 3] = runs[runs[run, 3], 3]
    return runs


@compiled
def _count(mask: Mask, value: bool) -> int:
    """How many runs there are."""
    count = 0
    for row in range(mask.shape[0]):
        before = not value
        for column in range(mask.shape[1]):
            count += mask[row, column] == value and before != value
            before = mask[row, column]
    return count


@compiled
def _add_row(line: Mask, value: bool, row: int, runs: _Runs, number: int) -> int:
    """Append the runs of a row, each a component of its own; their number afterwards."""
    column = 0
    while column < line.size:
        if line[column] != value:
            column += 1
            continue
        runs[number, 0], runs[number, 1], runs[number, 3] = row, column, number
        while column < line.size and line[column] == value:
            column += 1
        runs[number, 2] = column
        number += 1
    return number


@compiled
def _root(runs: _Runs, number: int) -> int:
    """The first run that this one is known to be connected to; halves the way for later."""
    while runs[number, 3] != number:
        runs[number, 3] = runs[runs[number, 3], 3]
        number = runs[number, 3]
    return number


@compiled
def _unite(runs: _Runs, one: int, other: int) -> None:
    """Two runs are of one component: the lower root names it."""
    first, second = _root(runs, one), _root(runs, other)
    if first < second:
        runs[second, 3] = first
    else:
        runs[first, 3] = second


@compiled
def _areas(runs: _Runs, rows: int, columns: int) -> tuple[npt.NDArray[np.int64], Mask]:
    """Pixels of each component, and whether it touches the frame's border; 0 and False where no name is."""
    areas = np.zeros(len(runs), np.int64)
    at_border = np.zeros(len(runs), np.bool_)
    for number in range(len(runs)):
        row, start, stop, name = runs[number]
        areas[name] += stop - start
        at_border[name] |= row == 0 or row == rows - 1 or start == 0 or stop == columns
    return areas, at_border


@compiled
def _painted(canvas: Mask, runs: _Runs, keep: Mask) -> Mask:
    """The canvas with the runs of the components to keep set, in place."""
    for number in range(len(runs)):
        row, start, stop, name = runs[number]
        if keep[name]:
            canvas[row, start:stop] = True
    return canvas
