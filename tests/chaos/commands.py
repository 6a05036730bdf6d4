"""`bcd-prep run` as a process of its own, or, where nothing is to be killed, in this one: that costs less."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from preprocess import runner
from preprocess.cli import main
from tests.inline import InlineExecutor

FULL = os.environ.get("BCD_CHAOS") == "full"
ROOT = Path(__file__).resolve().parents[2]


def start(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    """Begin a run."""
    return subprocess.Popen(
        [sys.executable, "-m", "preprocess.cli", "run", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for it; its exit status and what it said."""
    output, errors = process.communicate(timeout=900)
    return process.returncode, output + errors


def inline(arguments: list[str], patch: pytest.MonkeyPatch) -> tuple[int, str]:
    """The same with its tasks in this process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    with patch.context() as patched:
        patched.setattr(runner, "LocalExecutor", InlineExecutor)
        patched.setattr(sys, "excepthook", sys.excepthook)
        result = CliRunner().invoke(main, ["run", *arguments])
    for number, handler in before.items():
        signal.signal(number, handler)
    return result.exit_code, result.output
