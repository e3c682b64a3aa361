"""Learning curves of finished runs as a picture and a table, from the runs' own progress files.

    python -m benchmarks.curves docs/images/smax_2s3z.png perceiver=runs/p0,runs/p1 transformer=runs/t0

One line a run, one colour a label. Win rates are of training episodes, with sampled actions, and means over as many
environment steps whatever the algorithm's iterations are; or of checkpoints, where `benchmarks.played` has played with them.
The table on standard output tells where each run reached 90 % so measured.
"""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path
from statistics import mean
from typing import Annotated

import matplotlib
import typer

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from benchmarks.progress import PLAYED, STEPS, WIN_RATE, read_progress

GOAL = 0.9
SMOOTHING = 16_800
"""Environment steps in a mean: four iterations of the PPO configs, and some 300 battles of 2s3z by a squad that wins."""
COLORS = ("#2f6fde", "#e07b39", "#3a9d5d", "#9a4fb5", "#b8433f", "#5b6670")


def main(
    picture: Annotated[Path, typer.Argument(help="PNG to write.")],
    groups: Annotated[list[str], typer.Argument(help="label=RUN,RUN,… for each group of runs.")],
    title: Annotated[str, typer.Option(help="Heading of the picture.")] = "Win rate in training",
    steps: Annotated[str, typer.Option(help="What is counted.")] = "environment steps",
) -> None:
    """Draw win rate against environment steps and against seconds."""
    if len(groups) > len(COLORS):
        raise typer.BadParameter(f"groups: got {len(groups)}, expected at most {len(COLORS)}, as many as there are colours")
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True)
    print("| run | steps to 90 % | seconds to 90 % | steps/s | last win rate |\n|---|---|---|---|---|")
    for color, group in zip(COLORS, groups, strict=False):
        label, _, runs = group.partition("=")
        for index, run in enumerate(runs.split(",")):
            records = _read(Path(run))
            for axis, key, scale in zip(axes, (STEPS, "seconds"), (1e3, 1.0), strict=True):
                axis.plot(
                    [record[key] / scale for record in records],
                    [100 * record[WIN_RATE] for record in records],
                    color=color,
                    alpha=0.8,
                    linewidth=1.4,
                    label=label if index == 0 else None,
                )
            print(_row(f"{label} {Path(run).name}", records))
    for axis, name in zip(axes, (f"{steps} (thousands)", "seconds (training)"), strict=True):
        axis.axhline(100 * GOAL, color="#888888", linewidth=0.8, linestyle=":")
        axis.set_xlabel(name)
        axis.set_xlim(left=0)
        axis.set_ylim(0, 100)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("win rate, %")
    axes[1].legend(frameon=False, loc=(0.66, 0.42))
    figure.suptitle(title)
    figure.tight_layout()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=130)


def _read(run: Path) -> list[dict[str, float]]:
    """What is drawn of a run."""
    return read_progress(run, PLAYED) if (run / PLAYED).is_file() else _smooth(read_progress(run))


def _smooth(records: list[dict[str, float]]) -> list[dict[str, float]]:
    """Each record in which episodes ended, with their mean win rate over the iterations of the last `SMOOTHING` steps."""
    begins = [0.0, *(record[STEPS] for record in records)]
    smooth = []
    for index, record in enumerate(records):
        first = min(bisect_left(begins, record[STEPS] - SMOOTHING), index)
        rates = [each[WIN_RATE] for each in records[first : index + 1] if WIN_RATE in each]
        if WIN_RATE in record:
            smooth.append(record | {WIN_RATE: mean(rates)})
    return smooth


def _row(name: str, records: list[dict[str, float]]) -> str:
    reached = next((record for record in records if record[WIN_RATE] >= GOAL), None)
    last = records[-1]
    to_goal = f"{reached[STEPS]:,.0f} | {reached['seconds']:.0f}" if reached else "not reached | not reached"
    return f"| {name} | {to_goal} | {last[STEPS] / last['seconds']:,.0f} | {100 * last[WIN_RATE]:.1f} % |"


if __name__ == "__main__":
    typer.run(main)
