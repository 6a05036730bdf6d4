"""What libraries and the system raise, in words for a message.

In:  an exception.
Out: words, never its own text, which may quote a path, a header or a key.
"""

from __future__ import annotations

import csv
import errno
import os
import zipfile
import zlib

_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (FileNotFoundError, "there is no such file"),
    (PermissionError, "permission denied"),
    (TimeoutError, "no answer in time"),
    (ConnectionError, "the connection failed"),
    (EOFError, "it ends too soon"),
    (zipfile.BadZipFile, "a damaged archive"),
    (zlib.error, "damaged compressed data"),
    (csv.Error, "not a table"),
    (UnicodeError, "not UTF-8 text"),
    (KeyError, "a part of it is missing"),
    (ValueError, "not of the expected form"),
    (TypeError, "not of the expected form"),
    # What zipfile and pyarrow raise for compression or types that they do not know.
    (NotImplementedError, "of a kind that is not supported"),
    (RuntimeError, "refused by a library, as encrypted data is"),
)
"""Kinds of exceptions in words, the narrower first."""


def describe(error: BaseException) -> str:
    """A failure in words; a type's name where there are none.

    `No space left on device (ENOSPC)` for what the system said, `needs the package s3fs` for one that lacks.
    """
    inner = getattr(error, "reason", None)  # urllib wraps what went wrong
    if isinstance(inner, OSError):
        return describe(inner)
    if type(error).__module__ == "ssl":  # its numbers are OpenSSL's
        return "the encrypted connection failed"
    if isinstance(error, OSError) and error.errno:
        if error.errno < 0:
            return "there is no address for that host"
        return f"{os.strerror(error.errno)} ({errno.errorcode.get(error.errno, error.errno)})"
    if isinstance(error, ImportError) and error.name:
        return f"needs the package {error.name}"
    if isinstance(status := getattr(error, "code", None), int):
        return f"the server answered {status}"
    return next((words for kind, words in _WORDS if isinstance(error, kind)), type(error).__name__)
