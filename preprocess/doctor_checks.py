"""One finding of `bcd-prep doctor`, and how a package's version is asked for without importing it.

In:  names.
Out: Check values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: what was found, and what to do about it where something should be done."""

    name: str
    status: str
    """ok, warn or fail. fail: the mode asked for cannot work."""
    detail: str
    remedy: str = ""


def installed(distribution: str) -> str | None:
    """A distribution's version, or None; nothing is imported."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def release(version: str) -> tuple[int, ...]:
    """A version's leading numbers, for comparison: 3.0.2rc1 gives (3, 0, 2)."""
    return tuple(int(digits) for digits in re.findall(r"\d+", version)[:3])
