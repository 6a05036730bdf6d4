"""Many mutants, in pieces that are kept: an interrupted campaign goes on where it was.

    python -m tests.fuzz.campaign --mutants 10000 --out DIR [--seed 0] [--data REAL_FILES]

In:  a number of mutants and a folder.
Out: DIR/seed-N/part-*.jsonl, and a table in Markdown of what became of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from preprocess.errors import REJECT_CODES
from preprocess.executors.local import LocalExecutor
from tests.fuzz.seeds import write_seeds
from tests.fuzz.task import Finding, FuzzTask, Outcome

PIECE = 100
ITEM_TIMEOUT_S = 30.0
MEMORY_BYTES = 2_000_000_000
FORBIDDEN = frozenset({"internal_error", "decoder_crashed", "out_of_memory", "timeout"})
"""Codes that a mutant may not end in: each is a fault of ours to mend."""


def campaign(out: Path, mutants: int, seed: int, real: Path | None, workers: int) -> list[Outcome]:
    """Run what is missing of mutants 0 … `mutants`, and return every outcome."""
    names = write_seeds(out / "seeds", real)
    folder = out / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    missing = [first for first in range(0, mutants, PIECE) if not _part(folder, first).exists()]
    tasks = (
        FuzzTask(tuple(range(first, min(first + PIECE, mutants))), str(out / "seeds"), names, seed)
        for first in missing
    )
    with LocalExecutor(workers, ITEM_TIMEOUT_S, MEMORY_BYTES) as executor:
        for outcomes in executor.run(tasks):
            _save(_part(folder, outcomes[0].number), outcomes)
    return [outcome for first in range(0, mutants, PIECE) for outcome in _load(_part(folder, first))]


def _part(folder: Path, first: int) -> Path:
    return folder / f"part-{first:07d}.jsonl"


def _save(path: Path, outcomes: Iterable[Outcome]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(dataclasses.asdict(one)) + "\n" for one in outcomes))
    temporary.rename(path)


def _load(path: Path) -> Iterator[Outcome]:
    for line in path.read_text().splitlines():
        fields = json.loads(line)
        yield Outcome(**{**fields, "finding": Finding(fields["finding"])})


def faults(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Outcomes that must not be: undocumented codes, our own faults, pixels misread."""
    return [
        one
        for one in outcomes
        if one.finding in (Finding.MISREAD, Finding.KILLED)
        or (one.finding is Finding.REJECTED and (one.code in FORBIDDEN or one.code not in REJECT_CODES))
    ]


def family(original: str) -> str:
    """The transfer syntax of a phantom, or "real files"."""
    return (
        original.removeprefix("phantom-").rsplit("-", 1)[0]
        if original.startswith("phantom")
        else "real files"
    )


def table(outcomes: Iterable[Outcome]) -> str:
    """Counts by transfer syntax, as Markdown."""
    counts: dict[str, Counter[Finding]] = defaultdict(Counter)
    for one in outcomes:
        counts[family(one.original)][one.finding] += 1
    lines = [
        "| seeds | mutants | rejected | prepared, equal | header says so | silently changed | of all |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    total: Counter[Finding] = sum(counts.values(), Counter())
    for name, row in [*sorted(counts.items()), ("**all**", total)]:
        cells = (
            row.total(),
            row[Finding.REJECTED],
            row[Finding.EQUAL],
            row[Finding.HEADER],
            row[Finding.PAYLOAD],
        )
        share = 100 * row[Finding.PAYLOAD] / row.total()
        lines.append(f"| {name} | " + " | ".join(f"{cell:,}" for cell in cells) + f" | {share:.1f} % |")
    return "\n".join(lines)


def main() -> int:
    """Run a campaign, print its table and its faults; 1 if there are any."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    outcomes = campaign(options.out, options.mutants, options.seed, options.data, options.workers)
    wrong = faults(outcomes)
    codes = Counter(one.code for one in outcomes if one.code).most_common()
    slowest = max(one.seconds for one in outcomes)
    lines = [table(outcomes), f"rejected: {dict(codes)}", f"slowest: {slowest:.2f} s"]
    sys.stdout.write("\n".join([*lines, *(f"FAULT {one}" for one in wrong)]) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
