"""How many env runners feed a learner, from what a run measured.

    python -m benchmarks.capacity runs/2s3z
    python -m benchmarks.capacity runs/2s3z --learners 4 --overlapping

An environment step costs seconds of an env runner, seconds of a learner, and seconds of what lies between them: transport,
weights, Ray, logging. Runners share the first and learners the second; nobody shares the third. So with r runners and k
learners a step takes

    sampling / r + learning / k + between        where sampling waits for the update (PPO)
    max(sampling / r, learning / k + between)    where the two overlap (APPO, IMPALA)

That is what can be reached: it takes each runner's and learner's core for its own, weights that reach any number of runners
in the time that they reached those of the run, and batches that grow with the learners.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from benchmarks.progress import read_progress

SAMPLING, LEARNING = "time/sampling_s", "time/learning_s"


@dataclass(frozen=True)
class Cost:
    """Seconds of each environment step."""

    sampling: float
    """Of one env runner."""
    learning: float
    """Of one learner."""
    between: float
    """Of what nobody shares."""

    def step_s(self, runners: int, learners: int = 1, *, overlapping: bool = False) -> float:
        """Seconds a step takes, with that many env runners and learners."""
        update = self.learning / learners + self.between
        return max(self.sampling / runners, update) if overlapping else self.sampling / runners + update

    def runners_to_feed(self, learners: int = 1, *, waiting: float = 0.1, overlapping: bool = False) -> int:
        """The fewest env runners with which learners wait for samples no more than this share of the time."""
        update = self.learning / learners + self.between
        most = update / (1 - waiting) if overlapping else update * waiting / (1 - waiting)
        return math.ceil(self.sampling / most)


def cost_of(run: Path, *, runners: int = 1, learners: int = 1) -> Cost:
    """What a step of a run cost: medians over its iterations, the first (which compiles) left out.

    Args:
        run: Run folder of an algorithm whose sampling waits for the update.
        runners: Env runners of that run.
        learners: Learners of that run, 1 for one in the driver's process, too.

    Raises:
        ValueError: If the run did not log what it takes, or sampling and learning went on at the same time.
    """
    records = read_progress(run)
    if len(records) < 2 or SAMPLING not in records[-1]:
        raise ValueError(f"run {run}: expected two iterations or more with {SAMPLING}, of a squad's environment")
    sampling, learning, between = [], [], []
    for before, after in pairwise(records):
        steps = after["env_steps"] - before["env_steps"]
        # What was logged is the sum over all runners, and over all learners.
        sampling.append(after[SAMPLING] / steps)
        learning.append(after[LEARNING] / steps)
        between.append((after["seconds"] - before["seconds"]) / steps - sampling[-1] / runners - learning[-1] / learners)
    cost = Cost(median(sampling), median(learning), median(between))
    if cost.between < 0:
        raise ValueError(
            f"run {run}: sampling and learning took {-1e6 * cost.between:.0f} µs more of a step than the step itself; "
            "expected a run in which one waits for the other (PPO), with its own --run-runners and --run-learners"
        )
    return cost


def main(
    run: Annotated[Path, typer.Argument(help="Run folder of a PPO run.")],
    learners: Annotated[int, typer.Option(help="Learners to plan for.", min=1)] = 1,
    overlapping: Annotated[bool, typer.Option(help="Sampling goes on during updates: APPO, IMPALA.")] = False,
    waiting: Annotated[float, typer.Option(help="The share of its time that a learner may wait for samples.")] = 0.1,
    run_runners: Annotated[int, typer.Option(help="Env runners of the run.", min=1)] = 1,
    run_learners: Annotated[int, typer.Option(help="Learners of the run.", min=1)] = 1,
) -> None:
    """Print the number of env runners, and the rate with others."""
    if not 0 < waiting < 1:
        raise typer.BadParameter(f"--waiting: got {waiting:g}, expected a share between 0 and 1")
    try:
        cost = cost_of(run, runners=run_runners, learners=run_learners)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    enough = cost.runners_to_feed(learners, waiting=waiting, overlapping=overlapping)
    parts = (f"{1e6 * part:.0f}" for part in (cost.sampling, cost.learning, cost.between))
    print("{} µs of an env runner, {} of a learner, {} between them, an environment step".format(*parts))
    fed = f"{enough} env runner{'s feed' if enough > 1 else ' feeds'} {learners} learner{'s' * (learners > 1)}"
    print(f"{fed} (waiting at most {waiting:.0%})\n")
    alone = cost.step_s(1)
    print("| env runners | env steps / s | speedup | learners wait |\n|---|---|---|---|")
    for runners in sorted({1, 2, 4, 8, 16, 32, enough}):
        step = cost.step_s(runners, learners, overlapping=overlapping)
        share = 1 - (cost.learning / learners + cost.between) / step
        print(f"| {runners} | {1 / step:,.0f} | {alone / step:.2f} | {share:.0%} |")


if __name__ == "__main__":
    typer.run(main)
