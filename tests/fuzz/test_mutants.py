"""Ten thousand damaged files: none ends a run, each has one documented end, and no pixels are misread.

BCD_FUZZ_MUTANTS says how many (300 in the usual tests), BCD_FUZZ_SEED which, BCD_FUZZ_OUT where a campaign is
kept that may be interrupted and goes on.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.phantom_dicom import SYNTAXES
from tests.fuzz.campaign import PIECE, campaign, faults, table
from tests.fuzz.mutators import MUTATORS
from tests.fuzz.seeds import phantom_seeds, write_seeds
from tests.fuzz.task import Finding, FuzzTask, Outcome
from tests.instances import DATA

MUTANTS = int(os.environ.get("BCD_FUZZ_MUTANTS", "300"))
SEED = int(os.environ.get("BCD_FUZZ_SEED", "0"))
REAL = DATA if DATA.is_dir() and MUTANTS > 1000 else None


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    out = Path(os.environ.get("BCD_FUZZ_OUT") or tmp_path_factory.mktemp("fuzz"))
    return campaign(out, MUTANTS, SEED, REAL, workers=2)


def test_every_mutant_has_one_end_with_a_documented_code_and_no_fault_of_ours(
    outcomes: list[Outcome],
) -> None:
    assert table(outcomes).count("\n") >= len(SYNTAXES)
    assert [one.number for one in outcomes] == list(range(MUTANTS))
    assert faults(outcomes) == []


def test_mutants_are_rejected_for_many_reasons_and_prepared_unchanged_too(outcomes: list[Outcome]) -> None:
    assert len({one.code for one in outcomes}) > 8
    assert sum(one.finding is Finding.EQUAL for one in outcomes) > MUTANTS / 20


def test_codes_that_show_damage_let_little_of_it_through(outcomes: list[Outcome]) -> None:
    """Arithmetic-coded and lossless JPEG data, where nearly every change of a bit leaves a trace."""
    shown = [one for one in outcomes if one.original.startswith(("phantom-jpeg-2000", "phantom-jpeg-ls"))]
    silent = [one for one in shown if one.finding is Finding.PAYLOAD]
    assert len(silent) <= 1 + 0.05 * len(shown), silent


def test_a_campaign_goes_on_where_it_was(tmp_path: Path) -> None:
    first = campaign(tmp_path, 20, 1, None, workers=1)
    kept = tmp_path / "seed-1" / "part-0000000.jsonl"
    before = kept.stat().st_mtime_ns
    assert campaign(tmp_path, 20, 1, None, workers=1) == first
    assert kept.stat().st_mtime_ns == before
    assert PIECE > 20


def test_a_mutant_is_a_function_of_seed_and_number(tmp_path: Path) -> None:
    names = write_seeds(tmp_path, None)
    one, other = (FuzzTask((7,), str(tmp_path), names, 3) for _ in range(2))
    assert [one.mutant(n) for n in range(30)] == [other.mutant(n) for n in range(30)]
    assert one.mutant(7) != FuzzTask((7,), str(tmp_path), names, 4).mutant(7)


def test_there_are_phantoms_of_every_transfer_syntax() -> None:
    files = phantom_seeds()
    for name, uid in SYNTAXES.items():
        assert any(uid.encode() + bytes(len(uid) % 2) in data[:600] for data in files.values()), name
    assert len(MUTATORS) == 17
