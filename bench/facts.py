"""What a figure was measured on: processor, cores, load, versions, commit, command.

In:  the names of the packages that matter to a measurement, and the command line without machine paths.
Out: MachineFacts. Nothing in it names a host, a user or a path.
"""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("bcd-mammography", "imagecodecs", "numpy", "pillow", "pydicom", "scipy")
"""What decides our own speed."""

_CPUINFO = Path("/proc/cpuinfo")
_ROOT = Path(__file__).resolve().parents[1]
_CODE = ("preprocess", "dali_pipelines", "trainer", "bench", ":!bench/results")


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """Machine, software and command of one run of a benchmark."""

    cpu: str
    cores: int
    """Cores that this process may use."""
    memory_bytes: int
    system: str
    python: str
    versions: tuple[tuple[str, str | None], ...]
    commit: str | None
    changed: bool
    """Whether the code differed from the commit."""
    command: str
    started: str


def machine_facts(command: str, packages: tuple[str, ...] = PACKAGES) -> MachineFacts:
    """Look this machine up. `command` is kept as it is: give names, not paths."""
    return MachineFacts(
        cpu=cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        versions=tuple((name, installed(name)) for name in packages),
        commit=_git("rev-parse", "--short=12", "HEAD") or os.environ.get("BCD_COMMIT"),  # of a bare copy
        changed=bool(_git("status", "--porcelain", "--untracked-files=no", "--", *_CODE)),
        command=command,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def cpu_model() -> str:
    """The processor's name as Linux tells it, or the architecture."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def load_average() -> tuple[float, float, float]:
    """Processes waiting or running, over 1, 5 and 15 minutes."""
    one, five, fifteen = os.getloadavg()
    return round(one, 2), round(five, 2), round(fifteen, 2)


def installed(package: str) -> str | None:
    """A package's version, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ("git", "-C", str(_ROOT), *arguments), capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
