"""Functions compiled to machine code with Numba, once per machine and version.

In:  a function of numbers and arrays that does what its Python text says, only slowly.
Out: the same function, without the GIL. It is compiled when it is first called with arguments of new types.

The machine code is kept beside the source or, where that may not be written, in NUMBA_CACHE_DIR or the user's
cache folder. Where none may be written (a read-only container), each process compiles for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile on first use; integers wrap as in C, indices must be within bounds and not negative."""
    try:
        made = numba.njit(function, cache=True, nogil=True)
    except RuntimeError:  # no folder for the cache can be written
        made = numba.njit(function, nogil=True)
    return cast(F, made)


def inlined(function: F) -> F:
    """A part of compiled functions, made anew inside each."""
    return cast(F, numba.njit(function, nogil=True, inline="always"))
