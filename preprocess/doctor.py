"""What this machine can do, and the reason for whatever it cannot: `bcd-prep doctor`.

In:  the mode asked for (cpu, gpu, train) and, optionally, OUT.
Out: a Diagnosis: checks with status, detail and remedy; `works` says whether the mode can work here.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from preprocess import wording
from preprocess.doctor_checks import FAIL, OK, WARN, Check, installed, release
from preprocess.doctor_codecs import codec_checks
from preprocess.doctor_gpu import gpu_checks
from preprocess.errors import UsageError

MODES = ("cpu", "gpu", "train")
_PACKAGES = (
    "numpy",
    "pandas",
    "pyarrow",
    "pydicom",
    "pillow",
    "scipy",
    "pydantic",
    "imagecodecs",
    "google-crc32c",
)
_OURS = ("preprocess", "bench", "trainer", "dali_pipelines")
_DISTRIBUTION = "bcd-mammography"
_FREE_BYTES = 10_000_000_000
_MEMORY_BYTES = 4_000_000_000
_FILES = 1024
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_COLORS = {OK: "green", WARN: "yellow", FAIL: "bold red"}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All checks for one mode."""

    mode: str
    checks: tuple[Check, ...]

    @property
    def works(self) -> bool:
        """True if nothing that the mode needs has failed."""
        return all(check.status != FAIL for check in self.checks)

    def to_json(self) -> str:
        """The diagnosis as one JSON object."""
        checks = [dataclasses.asdict(check) for check in self.checks]
        return json.dumps({"mode": self.mode, "works": self.works, "checks": checks}, indent=2)


def examine(mode: str = "cpu", out: Path | None = None) -> Diagnosis:
    """Check this machine for a mode. Raises UsageError for an unknown mode.

    What another mode needs is reported as a warning, never as a failure.
    """
    if mode not in MODES:
        raise UsageError(f"unknown mode {mode!r}: {', '.join(MODES)}")
    checks = [
        *_machine(),
        *_limits(),
        *_packages(),
        *_collisions(),
        *codec_checks(),
        *gpu_checks(needed=mode == "gpu"),
        *_training(needed=mode == "train"),
        *_disks(out),
    ]
    return Diagnosis(mode, tuple(checks))


def show(diagnosis: Diagnosis, console: Console | None = None) -> None:
    """Print the checks as a table, and the verdict."""
    console = console or Console(highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in diagnosis.checks:
        detail = Text(check.detail)
        if check.remedy and check.status != OK:
            detail.append(f"\n→ {check.remedy}", style="dim")
        table.add_row(Text(check.status, style=_COLORS[check.status]), check.name, detail)
    console.print(table)
    color, word = ("green", "can work") if diagnosis.works else ("bold red", "cannot work")
    console.print(Text(f"\nMode {diagnosis.mode} {word} here.", style=color))


def _machine() -> Iterator[Check]:
    version = platform.python_version()
    supported = (3, 11) <= sys.version_info[:2] < (3, 14)
    yield Check("python", OK if supported else FAIL, f"{version} ({platform.python_implementation()})",
                "" if supported else "Install Python 3.11, 3.12 or 3.13.")  # fmt: skip
    yield Check("system", OK, f"{platform.system()} {platform.release()} {platform.machine()}")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Check("cores", OK, f"{usable} usable of {os.cpu_count()}")
    yield _memory()


def _memory() -> Check:
    amount = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    detail = wording.byte_size(amount)
    limit = _cgroup_limit()
    if limit is not None and limit < amount:
        amount, detail = limit, f"{wording.byte_size(limit)} (container limit) of {detail}"
    if amount < _MEMORY_BYTES:
        return Check("memory", WARN, detail, "A worker may take 2 GB: use few --workers.")
    return Check("memory", OK, detail)


def _cgroup_limit() -> int | None:
    for name in _CGROUP_LIMITS:
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text.isdigit():
            return int(text)
    return None


def _limits() -> Iterator[Check]:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = files == resource.RLIM_INFINITY or files >= _FILES
    yield Check("open files", OK if enough else WARN, f"at most {files}",
                "" if enough else f"Raise the limit: ulimit -n {4 * _FILES}.")  # fmt: skip
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if space != resource.RLIM_INFINITY:
        yield Check("address space", WARN, f"limited to {wording.byte_size(space)}",
                    "Large images may be rejected out_of_memory: ulimit -v unlimited.")  # fmt: skip


def _packages() -> Iterator[Check]:
    for package in (_DISTRIBUTION, *_PACKAGES):
        version = installed(package)
        if version is not None:
            yield Check(package, OK, version)
        elif package == _DISTRIBUTION:
            yield Check(package, WARN, "not installed, run from its folder", "pip install -e .")
        else:
            yield Check(package, FAIL, "not installed", f"pip install {package}")
    if (version := installed("pydicom")) is not None and release(version) < (3, 0, 2):
        yield Check("pydicom", FAIL, f"{version} has CVE-2026-32711", "pip install 'pydicom>=3.0.2'")


def _collisions() -> Iterator[Check]:
    """Import names of ours that another distribution owns as well, and doubles of TensorFlow."""
    owners = metadata.packages_distributions()
    found = {name: sorted(set(owners.get(name, ())) - {_DISTRIBUTION}) for name in _OURS}
    taken = {name: others for name, others in found.items() if others}
    for name, others in taken.items():
        yield Check(f"import {name}", FAIL, f"also owned by {', '.join(others)}",
                    f"pip uninstall {' '.join(others)}: its files lie over ours.")  # fmt: skip
    if not taken:
        yield Check("import names", OK, f"{', '.join(_OURS)} are ours alone")
    doubles = [name for name in ("tensorflow", "tensorflow-cpu", "tensorflow-intel") if installed(name)]
    if len(doubles) > 1:
        yield Check("tensorflow", FAIL, f"{' and '.join(doubles)} share one folder",
                    f"pip uninstall {' '.join(doubles)}, then install one of them.")  # fmt: skip


def _training(*, needed: bool) -> Iterator[Check]:
    missing = FAIL if needed else WARN
    for package in ("keras", "albumentations", "scikit-learn", "matplotlib"):
        yield _wanted(package, installed(package), missing)
    tensorflow = installed("tensorflow") or installed("tensorflow-cpu")
    backend = tensorflow or installed("jax")
    yield _wanted("tensorflow" if tensorflow or not backend else "jax", backend, missing)
    augmenter = installed("albumentations")
    if augmenter is not None and augmenter != "2.0.8":
        yield Check(
            "albumentations", missing, f"{augmenter} is not 2.0.8", "pip install albumentations==2.0.8"
        )


def _wanted(package: str, version: str | None, missing: str) -> Check:
    if version is None:
        return Check(package, missing, "not installed; training needs it", "pip install '.[train]'")
    return Check(package, OK, version)


def _disks(out: Path | None) -> Iterator[Check]:
    if out is not None:
        yield _disk("disk of OUT", _existing(out))
    yield _disk("temporary files", Path(tempfile.gettempdir()))


def _existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    absolute = path.absolute()
    return next(parent for parent in (absolute, *absolute.parents) if parent.exists())


def _disk(name: str, folder: Path) -> Check:
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"bcd")
            file.flush()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check(name, FAIL, f"{folder} cannot be written: {error.strerror}", "Choose another folder.")
    detail = f"{wording.byte_size(free)} free at {folder}"
    if free < _FREE_BYTES:
        return Check(name, WARN, detail, "54,706 images of 1024x512 take about 30 GB.")
    return Check(name, OK, detail)
