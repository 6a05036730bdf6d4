"""Files through the pipeline in one limited process: `python -m tests.fuzz.limited FILE...`.

In:  paths on the command line.
Out: a JSON line each: name, outcome, seconds, and the process's largest resident size so far in MB.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from preprocess import pipeline
from preprocess.decode import CpuDecoder
from preprocess.records import Reject, SourceFile
from tests.fuzz.task import CONFIG

ADDRESS_SPACE_BYTES = 6_000_000_000
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Cost:
    """How one file ended, and at what price."""

    name: str
    outcome: str
    """prepared, or the code of its reject."""
    seconds: float
    peak_mb: float


def measure(path: str) -> Cost:
    """Put one file through the pipeline in this process."""
    start = time.process_time()
    outcome = pipeline.steps(SourceFile(Path(path).name, path, explicit=True), CONFIG, CpuDecoder()).outcome()
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return Cost(Path(path).name, outcome.code if isinstance(outcome, Reject) else "prepared", seconds, peak)


def measured(paths: Iterable[Path]) -> list[Cost]:
    """Put files through the pipeline in another process.

    Raises:
        CalledProcessError: the process died.
    """
    command = [sys.executable, "-m", "tests.fuzz.limited", *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=600)
    assert done.stderr == "", done.stderr
    return [Cost(**json.loads(line)) for line in done.stdout.splitlines()]


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    for argument in sys.argv[1:]:
        sys.stdout.write(json.dumps(asdict(measure(argument))) + "\n")
        sys.stdout.flush()
