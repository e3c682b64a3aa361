"""The command line: `perceiver-rl train | tune | evaluate | aggregate | collect | export | replay | bench`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from perceiver_rl import __version__
from perceiver_rl.cli.bench import bench_encoder
from perceiver_rl.cli.collect import collect
from perceiver_rl.cli.evaluate import aggregate, evaluate
from perceiver_rl.cli.export import export
from perceiver_rl.cli.replay import replay
from perceiver_rl.cli.train import train
from perceiver_rl.cli.tune import tune


def _tell_version(asked: bool) -> bool:
    if asked:
        typer.echo(__version__)
        raise typer.Exit
    return asked


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Train and evaluate entity agents: a Perceiver IO (or a transformer) that reads a set of units and decides for "
    "each of its own, trained by RLlib.\n\n"
    "Start with: [bold]perceiver-rl train configs/smax_2s3z_ppo.py[/bold] in a checkout, or with a config of your own: "
    "docs/extending.md",
)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Tell the version and exit.")
    ] = False,
) -> None:
    """What all commands share."""


for command in (train, tune, evaluate, aggregate, collect, export, replay):
    app.command()(command)
bench_app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Measure speed and memory on this machine.")
bench_app.command("encoder")(bench_encoder)
app.add_typer(bench_app, name="bench")


POLICY_FILE = "policy.json"
"""What makes a folder a bundle; said again here, so that a command need not load torch to tell its --help."""


def main() -> None:
    """Entry point of the console script."""
    # As uvicorn does: `envs.…`, `configs.…` and a user's own modules are found in the folder where the command is given. Not
    # in a bundle: it may come from anybody, and nothing in it is run.
    here = Path.cwd()
    if "" not in sys.path and not any((folder / POLICY_FILE).exists() for folder in (here, *here.parents)):
        sys.path.insert(0, "")
    app()
