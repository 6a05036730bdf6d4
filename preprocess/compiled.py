"""Functions compiled to machine code with Numba, once per machine and version.

In:  a function of numbers and arrays that does what its Python text says, only slowly.
Out: the same function, without the GIL. It is compiled when it is first called with arguments of new types.

The machine code is kept beside the source or, where that may not be written, in NUMBA_CACHE_DIR or the user's
cache folder. Where none may be written (a read-only container), each process compiles for itself. Numba would
take old code for good as long as the function's own file is the same; here the functions and constants of
other files that were compiled into it count, too.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher
from numba.cpython.unsafe.numbers import leading_zeros, trailing_zeros

__all__ = ["compiled", "inlined", "leading_zeros", "trailing_zeros"]

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile on first use; integers wrap as in C, indices must be within bounds and not negative."""
    made = numba.njit(function, nogil=True)
    with contextlib.suppress(RuntimeError):  # no folder for the cache can be written
        made._cache = _Cache(function)
    return cast(F, made)


def inlined(function: F) -> F:
    """A part of compiled functions, made anew inside each."""
    return cast(F, numba.njit(function, nogil=True, inline="always"))


class _Cache(FunctionCache):  # type: ignore[misc]  # Numba has no types
    """Numba's cache of one function, which also knows what the function is made of."""

    def _index_key(self, sig: object, codegen: object) -> tuple[object, ...]:
        return (*super()._index_key(sig, codegen), fingerprint(self._py_func))


def fingerprint(function: FunctionType) -> str:
    """Hex digest of all compiled functions that a function calls, directly or not, and of their constants."""
    return hashlib.sha256("\n".join(_parts(function, set())).encode()).hexdigest()


def _parts(function: FunctionType, seen: set[str]) -> Iterator[str]:
    name = f"{function.__module__}.{function.__qualname__}"
    if name in seen:
        return
    seen.add(name)
    code = function.__code__
    yield f"{name} {code.co_code.hex()} {code.co_consts!r} {code.co_names!r}"
    for used in code.co_names:
        value = function.__globals__.get(used)
        if isinstance(value, Dispatcher):
            yield from _parts(value.py_func, seen)
        elif isinstance(value, int | float | np.generic | tuple):
            yield f"{used} = {value!r}"
        elif isinstance(value, np.ndarray):
            yield f"{used} = {value.dtype.str} {value.shape} {value.tobytes().hex()}"
