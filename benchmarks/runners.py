"""What more env runner processes gain: environment steps a second with one and with two, sampling alone and training.

    python -m benchmarks.runners
    python -m benchmarks.runners --runners 1,2,4 --iterations 20

Runs of one config with different numbers of env runners take turns, one PPO iteration at a time; who is not at its turn
waits. A train batch has the same size in all of them: the environments are dealt out among the env runners. Beside what was
measured stands what the capacity model of docs/cluster.md makes of the first run's costs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from statistics import median
from typing import Annotated, Any

import typer

from benchmarks.capacity import Cost
from perceiver_rl.rllib.cluster import local_ray
from perceiver_rl.rllib.config_file import load_factory
from perceiver_rl.rllib.dealing import deal_out_environments
from perceiver_rl.rllib.metrics import env_steps, flatten

UNTIMED = 2
"""Iterations at the beginning, in which environments compile."""


@dataclass
class Run:
    """One number of env runners: its algorithm, and what its iterations took."""

    runners: int
    algorithm: Any
    steps: int = 0
    seconds: list[float] = field(default_factory=list)
    """Of an environment step, iteration by iteration."""
    waiting: list[float] = field(default_factory=list)
    """The part of them in which the learner did not: sampling, transport, weights."""
    sampling: list[float] = field(default_factory=list)
    """Seconds of an env runner that a step took."""
    learning: list[float] = field(default_factory=list)

    def iterate(self) -> None:
        """Train one iteration and note what it took."""
        began = time.perf_counter()
        result = self.algorithm.train()
        seconds = time.perf_counter() - began
        table = flatten(result)
        before, self.steps = self.steps, env_steps(result)
        steps = self.steps - before
        self.seconds.append(seconds / steps)
        self.sampling.append(table["time/sampling_s"] / steps)
        self.learning.append(table["time/learning_s"] / steps)
        self.waiting.append((seconds - table["time/learning_s"]) / steps)

    def of(self, values: list[float]) -> float:
        """Median over the iterations that count."""
        return median(values[UNTIMED:])

    @property
    def cost(self) -> Cost:
        """As of the capacity model."""
        sampling, learning = self.of(self.sampling), self.of(self.learning)
        return Cost(sampling, learning, self.of(self.seconds) - sampling / self.runners - learning)


def main(
    config: Annotated[str, typer.Argument(help="A PPO config.")] = "configs/smax_2s3z_ppo.py",
    runners: Annotated[str, typer.Option(help="Numbers of env runner processes.")] = "1,2",
    iterations: Annotated[int, typer.Option(help="Timed iterations of each.", min=1)] = 15,
) -> None:
    """Print environment steps a second, medians, and ratios to the first number."""
    counts = [int(count) for count in runners.split(",")]
    with local_ray(sum(counts) + 1):
        runs = [_run(config, count) for count in counts]
        for number in range(UNTIMED + iterations):
            for each in runs:
                each.iterate()
            typer.echo(f"\riteration {number + 1}/{UNTIMED + iterations}", err=True, nl=False)
        typer.echo(err=True)
        for each in runs:
            each.algorithm.stop()
    typer.echo(
        "| env runners | sampling, env steps / s | of the first | training, env steps / s | of the first | by the model |"
    )
    typer.echo("|---|---|---|---|---|---|")
    first = runs[0]
    for each in runs:
        sampling, training = each.of(each.waiting), each.of(each.seconds)
        model = first.cost.step_s(first.runners) / first.cost.step_s(each.runners)
        typer.echo(
            f"| {each.runners} | {1 / sampling:,.0f} | {first.of(first.waiting) / sampling:.2f} | {1 / training:,.0f} | "
            f"{first.of(first.seconds) / training:.2f} | {model:.2f} |"
        )


def _run(config: str, count: int) -> Run:
    made = load_factory(config)()
    made.env_runners(num_env_runners=count)
    deal_out_environments(made)
    return Run(count, made.debugging(seed=0).build_algo())


if __name__ == "__main__":
    typer.run(main)
