"""What the commands say, how they end, and how they tell a user's mistake from a bug."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

console = Console(stderr=True)

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def say(words: str) -> None:
    """Print words as they are: paths and messages may hold brackets, which rich would read as markup."""
    console.print(words, markup=False, highlight=False, soft_wrap=True)


def say_error(error: Exception) -> None:
    """Print an error's message."""
    console.print("error:", style="bold red", end=" ")
    say(str(error))


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn mistakes of the user into one message without a traceback. Everything else is a bug, and keeps its traceback."""
    try:
        yield
    except (ValueError, ImportError, OSError) as error:
        say_error(error)
        raise typer.Exit(EXIT_BAD_INPUT) from error
    except KeyboardInterrupt:
        console.print("Interrupted.")
        raise typer.Exit(EXIT_INTERRUPTED) from None
