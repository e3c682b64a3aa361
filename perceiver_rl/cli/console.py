"""What the commands say, how they end, and how they tell a user's mistake from a bug."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from perceiver_rl.blame import blame

console = Console(stderr=True)

MISTAKES = (ValueError, ImportError, OSError)
"""Errors whose messages are meant for the user."""

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def say(words: str) -> None:
    """Print words as they are: paths and messages may hold brackets, which rich would read as markup."""
    console.print(words, markup=False, highlight=False, soft_wrap=True)


def say_error(error: Exception) -> None:
    """Print an error's message and notes and, if a line of the user's own code raised it, that line."""
    users = blame(error).users_own
    told = isinstance(error, MISTAKES)
    console.print("error:", style="bold red", end=" ")
    say(str(error) if told else f"{type(error).__name__}: {error}")
    for line in (*getattr(error, "__notes__", ()), *([users] if users else ())):
        say(f"  {line}")


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn mistakes of the user into one message without a traceback. Everything else is a bug, and keeps its traceback.

    Whatever a line of the user's own code raises, in an environment or a config, is such a mistake.
    """
    try:
        yield
    except typer.Exit:
        raise
    except Exception as error:
        if not isinstance(error, (*MISTAKES, SyntaxError)) and blame(error).users_own is None:
            raise
        say_error(error)
        raise typer.Exit(EXIT_BAD_INPUT) from error
    except KeyboardInterrupt:
        console.print("Interrupted.")
        raise typer.Exit(EXIT_INTERRUPTED) from None
