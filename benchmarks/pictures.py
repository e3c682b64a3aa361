"""What TensorBoard's pictures cost a training run: the same run with and without them, in turn.

    python -m benchmarks.pictures

Seconds of training are the run's own, from the first iteration to the last; those of the command have start-up and the last
checkpoint's pictures, too, for which it waits. The second pair is in the other order. Wants two idle cores.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Annotated

import typer

from benchmarks.progress import read_progress

ORDER = (True, False, False, True)


@dataclass(frozen=True)
class Run:
    """How long one took."""

    pictures: bool
    training: float
    command: float


def main(
    config: Annotated[str, typer.Argument(help="Config file.")] = "configs/smax_2s3z_ppo.py",
    steps: Annotated[int, typer.Option(help="Environment steps of each run; a checkpoint every 100,000.")] = 200_000,
    pairs: Annotated[int, typer.Option(help="Runs with pictures, and as many without.", min=1)] = 2,
    seed: Annotated[int, typer.Option(help="Of every run.")] = 0,
) -> None:
    """Print a table."""
    runs = []
    for turn in range(2 * pairs):
        runs.append(_run(config, steps, seed, ORDER[turn % len(ORDER)]))
        typer.echo(f"{turn + 1}/{2 * pairs} {runs[-1]}", err=True)
    print("| pictures | training, s | mean | command, s | mean |\n|---|---|---|---|---|")
    for pictures in (True, False):
        own = [run for run in runs if run.pictures == pictures]
        training, command = [run.training for run in own], [run.command for run in own]
        cells = [_list(training), f"{mean(training):.1f}", _list(command), f"{mean(command):.1f}"]
        print(f"| {'drawn' if pictures else 'none'} | " + " | ".join(cells) + " |")


def _run(config: str, steps: int, seed: int, pictures: bool) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = ["perceiver-rl", "train", config, "--steps", str(steps), "--seed", str(seed), "--out", str(out)]
        began = time.perf_counter()
        subprocess.run([*command, "--pictures" if pictures else "--no-pictures"], check=True, capture_output=True)
        return Run(pictures, read_progress(out)[-1]["seconds"], time.perf_counter() - began)


def _list(seconds: list[float]) -> str:
    return ", ".join(f"{each:.1f}" for each in seconds)


if __name__ == "__main__":
    typer.run(main)
