"""How long work shows itself: a live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from perceiver_rl.rllib.recorder import Progress as TrainingProgress

LINE_EVERY_S = 20.0
"""Seconds between lines where there is no terminal to redraw."""


class ProgressDisplay:
    """A count towards a total with a few words beside it.

    Args:
        console: Where to write.
        unit: What is counted, e.g. `"steps"`.
    """

    def __init__(self, console: Console, unit: str) -> None:
        self._console = console
        self._unit = unit
        self._bar = Progress(
            BarColumn(),
            TextColumn(f"{{task.completed:,.0f}}/{{task.total:,.0f}} {unit}"),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=None)
        self._next_line = 0.0

    def show(self, done: int, total: int, words: str) -> None:
        """Redraw, or write a line if the last one is old enough or this is the last."""
        self._bar.update(self._task, completed=done, total=total, description=words)
        now = time.monotonic()
        if not self._console.is_terminal and (now >= self._next_line or done >= total):
            self._console.print(f"{done:,}/{total:,} {self._unit}  {words}", highlight=False, markup=False)
            self._next_line = now + LINE_EVERY_S

    def __enter__(self) -> ProgressDisplay:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()


def describe_training(progress: TrainingProgress) -> str:
    """A training iteration in a few words."""
    words = [f"{progress.env_steps_per_second:,.0f} steps/s"]
    for tag, label in (("outcome/win_rate", "win rate"), ("outcome/return", "return")):
        if tag in progress.numbers:
            words.append(f"{label} {progress.numbers[tag]:.2f}")
    return "  ".join(words)
