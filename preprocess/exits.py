"""How a program of this project ends: the exception tree turned into exit codes and one clear line.

In:  whatever a command raises.
Out: exit codes: 1 aborted, 2 usage, 130 interrupted and resumable.
"""

from __future__ import annotations

import contextlib
import os
import signal
import traceback
from difflib import get_close_matches
from types import TracebackType
from typing import NoReturn

import click

from preprocess import interrupts
from preprocess.errors import BcdError, RunAborted, UsageError
from preprocess.failures import describe

EXIT_ABORTED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DefaultGroup(click.Group):
    """Commands of which one is meant where none is named: `bcd-prep INPUT` means `bcd-prep run INPUT`."""

    default = "run"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command in front unless a command or a group option comes first."""
        own = {"--help", "-h", "--version"}
        if args and args[0] not in self.commands and args[0] not in own:
            self._refuse_misspelt(ctx, args[0])
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def _refuse_misspelt(self, ctx: click.Context, word: str) -> None:
        """A word that is nearly a command and names no file is no input. Raises click.UsageError."""
        close = get_close_matches(word, self.commands, n=1, cutoff=0.7)
        if close and word.isalpha() and not os.path.lexists(word):
            ctx.fail(f"no such command: {word}; did you mean {close[0]}?")

    def invoke(self, ctx: click.Context) -> object:
        """Turn the exception tree into exit codes and one clear line."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _end_interrupted(ctx)
        except UsageError as error:
            _fail(ctx, error, EXIT_USAGE)
        except BcdError as error:
            _fail(ctx, error, EXIT_ABORTED)
        except OSError as error:  # its own text quotes a path, which may name a patient
            _fail(ctx, RunAborted(describe(error)), EXIT_ABORTED)
        except Exception as error:  # whatever a library made of the signal that came while it was at work
            if not interrupts.asked() or isinstance(error, click.ClickException | click.exceptions.Exit):
                raise
            _end_interrupted(ctx)


def _end_interrupted(ctx: click.Context) -> NoReturn:
    for number in INTERRUPTS:  # a second Ctrl-C must not turn this exit into another
        signal.signal(number, signal.SIG_IGN)
    say("interrupted; run the same command again to finish")
    ctx.exit(EXIT_INTERRUPTED)


def _fail(ctx: click.Context, error: BcdError, code: int) -> NoReturn:
    say(f"Error: {error}")
    ctx.exit(code)


def say(line: str) -> None:
    """A line on stderr; the terminal may be gone, and the exit code is still worth having."""
    with contextlib.suppress(OSError):
        click.echo(line, err=True)


def tell_fault(kind: type[BaseException], _: BaseException, trace: TracebackType | None) -> None:
    """A traceback without the exception's text, which may quote a header. For sys.excepthook."""
    frames = "".join(traceback.format_tb(trace))
    say(f"{frames}internal fault: {kind.__name__} (its text is withheld); please report this")
