"""Win rates of a run's checkpoints, played after training: the curve of a run that plays nothing while it learns.

    python -m benchmarks.played runs/bc

Writes `RUN/played.jsonl`, one record a checkpoint, which `benchmarks.curves` reads in place of the training figures. Actions
are sampled, as in training.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.progress import PLAYED, STEPS, WIN_RATE, write_records
from perceiver_rl.display import ProgressDisplay
from perceiver_rl.evaluation.contests import closing_all, contests_of
from perceiver_rl.evaluation.trained import find_trained
from perceiver_rl.rllib.checkpoint import checkpoints_in, load_info
from perceiver_rl.rllib.run_folder import CHECKPOINTS


def main(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run; train it with --keep-checkpoints 0 to have all.", show_default=False)
    ],
    episodes: Annotated[int, typer.Option(help="Of each checkpoint.", min=1)] = 256,
    seed: Annotated[int, typer.Option(help="Of environments and sampled actions.", min=0)] = 0,
) -> None:
    """Play with each checkpoint of a run and write down how often it won."""
    checkpoints = checkpoints_in(run / CHECKPOINTS)
    if not checkpoints:
        raise typer.BadParameter(f"run {run}: got no checkpoints, expected some")
    records = []
    with ProgressDisplay(Console(stderr=True), "episodes") as display:
        for checkpoint in checkpoints:
            contests = contests_of(find_trained(checkpoint, None), (), episodes)
            with closing_all(contests):
                (sampled,) = (contest for contest in contests if contest.mode == "sampled")
                summary = sampled.play(episodes, seed, partial(display.show, words=checkpoint.name))
            if summary.win_rate is None:
                raise typer.BadParameter(f"run {run}: got no wins or losses from {summary.env}, expected some")
            info = load_info(checkpoint)
            records.append({STEPS: info.env_steps, "seconds": round(info.seconds, 4), WIN_RATE: summary.win_rate})
    write_records(run / PLAYED, records)


if __name__ == "__main__":
    typer.run(main)
