"""`perceiver-rl collect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perceiver_rl.cli.console import clear_errors, console, say
from perceiver_rl.display import ProgressDisplay


def collect(
    policy: Annotated[
        str,
        typer.Argument(
            help="Who plays: a run folder, a checkpoint, a bundle, or an agent such as heuristic, random or "
            "my_module:MyAgent."
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The dataset's folder; must not be there yet.")],
    env: Annotated[
        str | None, typer.Option(help="Where to play. Default: where the policy was trained; agents need it.")
    ] = None,
    episodes: Annotated[
        int, typer.Option(help="Episodes, rounded up so that all environments play equally many.", min=1)
    ] = 1_000,
    seed: Annotated[int, typer.Option(help="Seed of environments and sampled actions.", min=0)] = 0,
    greedy: Annotated[bool, typer.Option("--greedy/--sampled", help="The best option of each actor, or a draw.")] = False,
) -> None:
    """Play whole episodes and write them into a dataset, from which BC and MARWIL learn.

    The dataset is Parquet, a row each episode, and a dataset.json that says who played what. No episode of it is one that an
    evaluation plays, whatever the seeds.

    [bold]Examples[/bold]

    perceiver-rl collect agents/bundles/smax_2s3z datasets/2s3z --episodes 1000

    perceiver-rl collect heuristic datasets/2s3z-heuristic --env smax/2s3z

    perceiver-rl train configs/smax_2s3z_bc.py --set offline_data.input_=datasets/2s3z
    """
    with clear_errors():
        from perceiver_rl.evaluation.collect import collect as play_and_write

        with ProgressDisplay(console, "episodes") as display:
            written = play_and_write(
                policy,
                out,
                env=env,
                episodes=episodes,
                seed=seed,
                greedy=greedy,
                on_episode=lambda done, total: display.show(done, total, f"{policy} on {env or 'its environment'}"),
            )
    won = "" if written.win_rate is None else f", {written.win_rate:.1%} won"
    say(f"Episodes:   {written.episodes:,} of {written.steps:,} steps, mean return {written.mean_return:.2f}{won}")
    say(f"Dataset:    {out} ({written.bytes / 1e6:.1f} MB)")
