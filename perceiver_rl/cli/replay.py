"""`perceiver-rl replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perceiver_rl.cli.console import clear_errors, console, say
from perceiver_rl.display import ProgressDisplay


def replay(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="A run folder (its newest checkpoint is taken), one checkpoint folder in it, or a bundle."),
    ],
    env: Annotated[
        str | None,
        typer.Option(help="Another environment than the one trained on; its schema may differ in numbers of slots alone."),
    ] = None,
    episodes: Annotated[int, typer.Option(help="Episodes to record.", min=1, max=32)] = 2,
    seed: Annotated[int, typer.Option(help="Seed of environments and sampled actions.", min=0)] = 0,
    greedy: Annotated[bool, typer.Option("--greedy/--sampled", help="The best option of each actor, or a draw.")] = True,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What to write. Default: replay.html in the run, NAME.html beside a bundle."),
    ] = None,
    film: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the first episode's field as a film, too: a .gif, or an .mp4."),
    ] = None,
    policy: Annotated[
        str | None, typer.Option(metavar="MODULE_ID", help="Whose agents to show, where several policies play together.")
    ] = None,
) -> None:
    """Record episodes into one HTML file: the battle, the policy's probabilities, its value and its attention.

    The file needs no network and no server; open it in a browser, and press ? there for the keys. Of a multi-agent
    environment it holds what each agent saw, one after the other.

    [bold]Examples[/bold]

    perceiver-rl replay runs/2s3z

    perceiver-rl replay runs/2s3z --env smax/3s5z --sampled --episodes 4 --out 3s5z.html

    perceiver-rl replay runs/2s3z --film battle.gif
    """
    with clear_errors():
        from perceiver_rl.bundle.load import require_place_for
        from perceiver_rl.evaluation.trained import find_trained
        from perceiver_rl.replay import write_page
        from perceiver_rl.replay.trained import record_trained
        from perceiver_rl.tensorboard.film import film_writer

        write_film = None if film is None else film_writer(film)
        trained = find_trained(checkpoint, env)
        beside = checkpoint.resolve().with_name(f"{trained.name}.html")  # a bundle holds nothing but what it promises
        file = out or (beside if trained.curves is None else trained.curves / "replay.html")
        for option, written in (("--out", file), ("--film", film)):
            if written is not None:
                require_place_for(written, option)
        with ProgressDisplay(console, "episodes") as display:
            recording = record_trained(
                trained,
                episodes=episodes,
                seed=seed,
                greedy=greedy,
                policy=policy,
                on_step=lambda done, total, steps: display.show(done, total, f"step {steps}"),
            )
        size = write_page(recording, file)
        film_size = None if write_film is None else write_film(recording)
    for episode in recording.episodes:
        result = {True: "  won", False: "  lost", None: ""}[episode.won]
        say(f"{episode.name.capitalize()}:  {episode.length} steps, return {episode.total_reward:.2f}{result}")
    say(f"Replay:     {file} ({size / 1e6:.2f} MB)")
    if film_size is not None:
        say(f"Film:       {film} ({film_size / 1e6:.2f} MB)")
