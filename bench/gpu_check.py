"""`make gpu-check`: everything about the GPU path that only hardware can say, in one JSON file.

In:  a machine with a GPU and the extra gpu-cu12 or gpu-cu13; real files in BCD_TEST_DATA where there are any.
Out: bench/results/gpu-<name>-<date>.json: {device, commit, checks: {name: {ok, …figures}}, rates: …}.
     Exit code 0: all checks are ok; 1: some are not; 2: there is no device, and nothing was written.

Every check runs in a process of its own with a time limit, so that one failure cannot lose the rest.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from bench.facts import machine_facts
from bench.gpu import runs
from bench.gpu.checks import CHECKS, Check, named
from bench.gpu.child import as_json
from bench.gpu.context import Figure, Figures, Request
from bench.phantom import PhantomSpec, generate
from preprocess import gpus
from preprocess.doctor_checks import FAIL
from preprocess.doctor_gpu import gpu_checks

ROOT = Path(__file__).resolve().parents[1]
BUDGET_S = 470.0
RSNA_IMAGES, RSNA_J2K_SHARE = 54_706, 0.54
_RATES = ("bare", "compared", "end_to_end", "training")
_PACKAGES = (
    "bcd-mammography", "nvidia-dali-cuda130", "nvidia-dali-cuda120", "nvidia-nvimgcodec-cu13",
    "nvidia-nvimgcodec-cu12", "nvidia-nvjpeg2k-cu13", "nvidia-nvjpeg2k-cu12", "cupy-cuda13x", "cupy-cuda12x",
    "keras", "jax", "tensorflow",
)  # fmt: skip


def missing() -> str:
    """What a GPU run lacks here; empty if nothing."""
    failed = [check for check in gpu_checks(needed=True) if check.status == FAIL]
    return "; ".join(f"{check.name}: {check.detail}" for check in failed)


def prepare_inputs(folder: Path, *, small: int = 6, patients: int = 3, full: float = 1.0) -> None:
    """Small phantoms in every codec of the default mix, and full-size ones."""
    workers = len(os.sched_getaffinity(0))
    generate(folder / "small", PhantomSpec(patients=small, test_patients=0, size_factor=0.15, seed=7))
    generate(
        folder / "full",
        PhantomSpec(patients=patients, test_patients=0, size_factor=full, seed=8, workers=workers),
    )


def run_check(check: Check, request: Request, folder: Path, limit_s: float) -> Figures:
    """One check in a process of its own; what it had found where it crashed or ran out of time."""
    result = folder / f"{check.name}.json"
    command = [sys.executable, "-m", "bench.gpu.child", check.name, as_json(request), str(result)]
    end = ""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit_s)
        if done.returncode not in (0, 1) or not result.exists():
            end = f"its process ended with {done.returncode}: {done.stderr[-500:]}"
    except subprocess.TimeoutExpired:
        end = f"ran out of its {limit_s:.0f} s"
    figures: Figures = json.loads(result.read_text(encoding="utf-8")) if result.exists() else {"ok": False}
    return figures | {"ok": False, "error": end} if end else figures


def run_all(
    checks: Sequence[Check],
    request: Request,
    folder: Path,
    budget_s: float = BUDGET_S,
    keep: Callable[[Figures], object] = len,
) -> Figures:
    """All checks in order; none begins that could not end within the budget, but for a fifth of its limit.

    keep: is given what was found so far, after each check.
    """
    begin = time.monotonic()
    found: Figures = {}
    for check in checks:
        left = budget_s - (time.monotonic() - begin)
        if left < check.limit_s / 5:
            found[check.name] = {"ok": False, "error": "no time was left"}
            continue
        found[check.name] = figures = run_check(check, request, folder, min(check.limit_s, left))
        keep(found)
        click.echo(f"{check.name}: {'ok' if figures['ok'] else figures.get('error', 'not ok')}")
    return found


def document(checks: Figures, device: Figures, request: Request) -> Figures:
    """The one JSON: rates apart from the other checks, and what they would mean for RSNA's set."""
    facts = machine_facts("make gpu-check", _PACKAGES)
    versions: Figures = {name: version for name, version in facts.versions if version}
    rates: Figures = {name: checks[name] for name in _RATES if name in checks}
    return {
        "device": device,
        "commit": facts.commit,
        "changed": facts.changed,
        "started": facts.started,
        "machine": {"cpu": facts.cpu, "cores": facts.cores, "memory_bytes": facts.memory_bytes},
        "versions": versions,
        "real_files": request.real is not None,
        "checks": {name: figures for name, figures in checks.items() if name not in rates},
        "rates": rates | {"projection": projection(checks)},
    }


def projection(checks: Figures) -> Figures:
    """Hours for RSNA's set at the rates measured end to end; their share of bare decoding; assumptions."""
    found: Figures = {
        "assumed": f"{RSNA_IMAGES} images like the full-size phantoms measured here, read from page cache."
        f" {runs.MIX}: two of three are JPEG 2000, of RSNA's {RSNA_J2K_SHARE:.0%}; the CPU decodes the rest"
    }
    rates = {name: _rate(figures) for name, figures in _parts(checks.get("end_to_end"))}
    for name, per_second in rates.items():
        if per_second:
            found[f"hours, {name}"] = round(RSNA_IMAGES / per_second / 3600, 3)
    bare = [_rate(figures) for name, figures in _parts(checks.get("bare")) if " level 0 " in name]
    full = rates.get(f"{runs.JPEG_2000}, --decode full")
    if full and any(bare):
        found["full decode, end to end as a share of bare"] = round(full / max(bare), 3)
    return found


def _parts(check: Figure) -> Iterator[tuple[str, Figures]]:
    for name, figures in check.items() if isinstance(check, dict) else ():
        if isinstance(figures, dict):
            yield name, figures


def _rate(figures: Figures) -> float:
    per_second = figures.get("images_per_second")
    return float(per_second) if isinstance(per_second, int | float) else 0.0


def file_name(device: Figures, day: str) -> str:
    """gpu-<name>-<date>.json."""
    plain = re.sub(r"[^a-z0-9]+", "-", str(device["name"]).lower()).strip("-")
    return f"gpu-{plain}-{day}.json"


def device_facts() -> Figures:
    """The device as it calls itself, asked by another process: this one never touches it."""
    program = "import json; from bench.gpu.device import facts; print(json.dumps(facts()))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    found: dict[str, Figure] = json.loads(done.stdout)
    return found


@click.command()
@click.option("--out", default=ROOT / "bench" / "results", type=click.Path(path_type=Path), help="Folder.")
@click.option("--only", multiple=True, help="Names of checks; all by default.")
@click.option("--seconds", default=2.0, help="Of one measurement.")
@click.option("--budget", default=BUDGET_S, help="Seconds for all; what would not end in time is left out.")
@click.option("--inputs", type=click.Path(path_type=Path), help="Phantoms of an earlier run; made if absent.")
def main(out: Path, only: tuple[str, ...], seconds: float, budget: float, inputs: Path | None) -> None:
    """Check the GPU path on this machine's first visible GPU."""
    begin = time.monotonic()
    lacking = missing()
    if lacking:
        click.echo(f"no device: {lacking}", err=True)
        sys.exit(2)
    real = Path(os.environ.get("BCD_TEST_DATA", ROOT.parent / "shared" / "data"))
    device = device_facts()
    path = out / file_name(device, datetime.now(UTC).strftime("%Y-%m-%d"))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = inputs or Path(scratch) / "inputs"
        if not (folder / "full").exists():
            prepare_inputs(folder)
        cores = len(os.sched_getaffinity(0))
        request = Request(gpus.ENGINES, folder, real if real.is_dir() else None, cores, seconds)

        def keep(checks: Figures) -> None:
            path.write_text(json.dumps(document(checks, device, request), indent=1) + "\n", encoding="utf-8")

        chosen = [named(name) for name in only] or list(CHECKS)
        found = run_all(chosen, request, Path(scratch), budget - (time.monotonic() - begin), keep)
        keep(found)
    click.echo(f"{path.name}: {json.dumps(projection(found))}")
    sys.exit(0 if all(isinstance(figures, dict) and figures.get("ok") for figures in found.values()) else 1)


if __name__ == "__main__":
    main()
