"""What the worked examples share: one training loop, one table of results, one command line."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor, nn

TEST_SEED = 2**31
"""Held-out samples come from a stream of their own, the same for every `--seed`."""


@dataclass(frozen=True)
class Result:
    """One measured quantity beside what it must beat."""

    metric: str
    measured: float
    baselines: Mapping[str, float]
    """By name, what is reached without the network."""
    threshold: float
    """What must be reached."""
    higher_is_better: bool = False

    @property
    def passed(self) -> bool:
        """Whether the threshold is met; a NaN never meets it."""
        return self.measured >= self.threshold if self.higher_is_better else self.measured <= self.threshold


class Example(nn.Module, ABC):
    """A network, the data it learns from and the measure of what it learned.

    A subclass builds its network in `__init__`, which takes no arguments, so that every example can be run, and
    tested, in the same way.
    """

    steps: ClassVar[int]
    """Training steps by default: enough to meet the threshold."""
    learning_rate: ClassVar[float] = 2e-3

    @abstractmethod
    def loss(self, generator: torch.Generator) -> Tensor:
        """The loss of a batch drawn from the generator: a number with a gradient."""

    @abstractmethod
    def evaluate(self, generator: torch.Generator) -> Sequence[Result]:
        """Measure on held-out samples drawn from the generator."""


def build(example: type[Example], seed: int) -> Example:
    """An example with initial weights from a seed, leaving torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return example()


def train(example: Example, *, steps: int, seed: int) -> None:
    """Minimise the loss: Adam, a short warm-up, then a cosine to zero.

    Args:
        example: What to train, in place.
        steps: Updates.
        seed: Of the batches.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(example.parameters(), lr=example.learning_rate)
    warm_up = max(1, steps // 20)

    def scale(step: int) -> float:
        return min((step + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * step / steps))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    columns = (
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=steps)
        for _ in range(steps):
            loss = example.loss(generator)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(example.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            progress.update(bar, advance=1, description=f"loss {loss.item():.4f}")


def command_line(example: type[Example], help_text: str | None) -> typer.Typer:
    """The command `--steps --seed --threads`, which exits with 1 if a threshold is missed.

    Args:
        example: What it trains.
        help_text: What `--help` says first: the file's docstring.
    """
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

    @app.command(help=help_text)
    def main(
        steps: Annotated[
            int, typer.Option(help="Training steps; thresholds are set for the default.", min=1)
        ] = example.steps,
        seed: Annotated[int, typer.Option(help="Seed of weights and batches; held-out samples stay the same.")] = 0,
        threads: Annotated[int, typer.Option(help="CPU threads torch may use.", min=1)] = 1,
    ) -> None:
        torch.set_num_threads(threads)
        console = Console(width=120)
        model = build(example, seed)
        started = time.perf_counter()
        train(model, steps=steps, seed=seed)
        seconds = time.perf_counter() - started
        model.eval()
        with torch.no_grad():
            results = model.evaluate(torch.Generator().manual_seed(TEST_SEED))
        num_parameters = sum(parameter.numel() for parameter in model.parameters())
        console.print(
            f"{example.__name__}: {num_parameters:,} parameters, {steps} steps, seed {seed}, {seconds:.0f} s of training"
        )
        table = Table("metric", "measured", "baselines", "threshold", "passed")
        for result in results:
            baselines = ", ".join(f"{name} {value:.4g}" for name, value in result.baselines.items())
            threshold = f"{'≥' if result.higher_is_better else '≤'} {result.threshold:.4g}"
            table.add_row(result.metric, f"{result.measured:.4g}", baselines, threshold, "yes" if result.passed else "NO")
        console.print(table)
        if not all(result.passed for result in results):
            raise typer.Exit(code=1)

    return app
