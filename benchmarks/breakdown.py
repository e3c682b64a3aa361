"""Where the time of a finished training run went, from its own progress file.

    python -m benchmarks.breakdown runs/2s3z

Medians over the run's iterations, the first (which compiles) left out; microseconds for each environment step, so that
the parts add up to one second divided by the rate. For one env runner: with several, their seconds overlap. For squads:
the runs of multi-agent environments, which RLlib's own env runner samples, log no parts of it.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from benchmarks.progress import read_progress

SAMPLING, BATCH, GRADIENT = "time/sampling_s", "time/learning_batch_s", "time/learning_gradient_s"


def main(run: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Print a table of the parts."""
    try:
        records = read_progress(run)
        if SAMPLING not in records[-1]:
            raise ValueError(f"run {run}: got no {SAMPLING} in its log, expected a run that samples a squad's environment")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    parts: dict[str, list[float]] = {}
    for before, after in pairwise(records):
        steps = after["env_steps"] - before["env_steps"]
        seconds = after["seconds"] - before["seconds"]
        sampling, learning = after[SAMPLING], after["time/learning_s"]
        forward, env = after["time/sampling_forward_s"], after["time/sampling_env_s"]
        rows = {
            "sampling: environment": env,
            "sampling: forward passes": forward,
            "sampling: episodes and metrics": sampling - forward - env,
            **_learner_parts(after),
            "transport, weight broadcast, Ray, logging": seconds - sampling - learning,
            "altogether": seconds,
        }
        for name, value in rows.items():
            parts.setdefault(name, []).append(1e6 * value / steps)
    whole = median(parts["altogether"])
    print("| part | µs / env step | share |\n|---|---|---|")
    for name, values in parts.items():
        print(f"| {name} | {median(values):.0f} | {100 * median(values) / whole:.0f} % |")
    print(f"\n{1e6 / whole:,.0f} environment steps a second, median of {len(records) - 1} iterations")


def _learner_parts(record: dict[str, float]) -> dict[str, float]:
    """Seconds of an update. Runs of before its parts were logged have one for all of them."""
    learning = record["time/learning_s"]
    if GRADIENT not in record:
        return {"learner: train batch, value targets, epochs": learning}
    batch, gradient = record[BATCH], record[GRADIENT]
    return {
        "learner: forward, loss, gradient, optimiser": gradient,
        "learner: train batch by RLlib's connectors, value targets included": batch,
        "learner: minibatches, metrics": learning - gradient - batch,
    }


if __name__ == "__main__":
    typer.run(main)
