"""Whose code an error comes from: a message without file and line is of little use to who wrote the code."""

from __future__ import annotations

import sysconfig
import traceback
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
OURS = (PACKAGE, *(PACKAGE.parent / folder for folder in ("agents", "benchmarks", "envs")))
"""The library, and the folders beside it in a checkout."""

LIBRARIES = tuple({Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")})


@dataclass(frozen=True)
class Blame:
    """Where an error comes from, libraries left out: they raise what their caller has made them raise."""

    users: str | None
    """The last line of a user's own file that took part, as `file, line 12, in step: code`."""
    innermost: str | None
    """The line that raised it, be it in a library, in the same form."""
    raised_by: Path | None
    """Our own file that raised it; None if it comes from the user's line."""

    @property
    def users_own(self) -> str | None:
        """The user's line, if it is the one that the error comes from."""
        return self.users if self.raised_by is None else None


def blame(error: BaseException) -> Blame:
    """Find out where an error comes from."""
    raised_by = innermost = None
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if not path.is_file():  # made by a decorator, or frozen
            continue
        path = path.resolve()
        line = f"{frame.filename}, line {frame.lineno}, in {frame.name}: {frame.line}"
        innermost = innermost or line
        if any(path.is_relative_to(folder) for folder in OURS):
            raised_by = raised_by or path
        elif not any(path.is_relative_to(folder) for folder in LIBRARIES):
            return Blame(line, innermost, raised_by)
    return Blame(None, innermost, raised_by)
