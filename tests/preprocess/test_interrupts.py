"""A signal that a library swallows, or turns into its own error, interrupts all the same."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from preprocess import interrupts
from preprocess.exits import INTERRUPTS, DefaultGroup


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in INTERRUPTS}
    interrupts.handle(INTERRUPTS)
    yield
    interrupts.handle(())
    for number, handler in before.items():
        signal.signal(number, handler)


def swallow(number: signal.Signals) -> None:
    """What pydantic's serialiser does where a signal comes while it calls back."""
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(number)


@pytest.mark.parametrize("number", INTERRUPTS)
def test_a_swallowed_signal_is_raised_at_the_next_check(number: signal.Signals) -> None:
    interrupts.check()
    swallow(number)
    assert interrupts.asked()
    with pytest.raises(KeyboardInterrupt):
        interrupts.check()
    interrupts.handle(INTERRUPTS)
    assert not interrupts.asked()


def group(*, interrupted: bool, error: Exception) -> click.Group:
    @click.group(cls=DefaultGroup)
    def commands() -> None: ...

    @commands.command()
    def run() -> None:
        if interrupted:
            swallow(signal.SIGTERM)
        raise error

    return commands


def test_an_error_after_a_signal_is_an_interruption_and_without_one_a_fault() -> None:
    fault = ValueError("what a library made of it")
    done = CliRunner().invoke(group(interrupted=True, error=fault), ["run"])
    assert done.exit_code == 130
    assert "interrupted" in done.output
    assert "ValueError" not in done.output
    interrupts.handle(())
    assert CliRunner().invoke(group(interrupted=False, error=fault), ["run"]).exception is fault


def test_usage_errors_stay_usage_errors_after_a_signal() -> None:
    done = CliRunner().invoke(group(interrupted=True, error=click.UsageError("no such thing")), ["run"])
    assert done.exit_code == 2
