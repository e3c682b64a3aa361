"""`perceiver-rl tune`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from perceiver_rl.cli.console import EXIT_FAILED, EXIT_INTERRUPTED, clear_errors, console, say
from perceiver_rl.display import ProgressDisplay

if TYPE_CHECKING:
    from perceiver_rl.rllib.tuning import SearchFolder, SearchProgress, SearchSettings

REPORTS = {"asha": 16, "pbt": 8, "none": 16}
"""Of a trial, by scheduler, unless --report-every says otherwise."""
GRACE = 8
"""ASHA leaves every trial this part of its steps."""


def tune(
    config: Annotated[
        str,
        typer.Argument(help="Training config: a Python file with make_config(), or an import string 'module:function'."),
    ],
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            metavar="SECTION.KEY=DISTRIBUTION",
            help="What to search; may be repeated. Names are those of train's --set; distributions are "
            "choice:0,0.003,0.01, uniform:0.9:0.99, loguniform:1e-4:3e-3, int:1:8 and logint:128:2048. training.lr.0.1 is "
            "where a schedule of the learning rate begins; training.lr is a constant one.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The search's folder. Default: tuning/<config>-<time>.")] = None,
    samples: Annotated[int | None, typer.Option(help="Number of trials; PBT's population. Default: 8.", min=1)] = None,
    steps: Annotated[
        int | None, typer.Option(help="Length of a trial in environment steps. Default: what the config says.", min=1)
    ] = None,
    scheduler: Annotated[
        Literal["asha", "pbt", "none"] | None,
        typer.Option(
            help="asha stops the worse half early, after an eighth, a quarter and a half of the steps; pbt lets the worst "
            "copy the best and change; none runs every trial to its end. Default: asha."
        ),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="What is compared, by its name in TensorBoard. Default: outcome/win_rate.")
    ] = None,
    mode: Annotated[Literal["max", "min"] | None, typer.Option(help="Whether more is better. Default: max.")] = None,
    env: Annotated[str | None, typer.Option(help="Another environment than the config's.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of every trial, and of the parameters that are drawn. Default: 0.", min=0)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="A setting of all trials; may be repeated."),
    ] = None,
    report_every: Annotated[
        int | None,
        typer.Option(
            help="Environment steps between a trial's reports: a checkpoint each, and pbt's exchanges. Default: a 16th of "
            "--steps, an eighth for pbt.",
            min=1,
        ),
    ] = None,
    grace: Annotated[
        int | None,
        typer.Option(help="Environment steps that asha leaves every trial. Default: an eighth of --steps.", min=1),
    ] = None,
    concurrent: Annotated[int, typer.Option(help="Trials at a time.", min=1)] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in --out.")] = False,
) -> None:
    """Search for good settings with Ray Tune, and report what was found.

    [bold]Example[/bold]

    perceiver-rl tune configs/smax_2s3z_ppo.py --param training.lr.0.1=loguniform:1e-4:3e-3
    --param training.entropy_coeff=choice:0,0.003,0.01 --samples 8 --steps 200000 --out tuning/2s3z

    perceiver-rl tune configs/smax_2s3z_ppo.py --param training.lr.0.1=loguniform:1e-4:3e-3 --scheduler pbt --samples 4

    perceiver-rl tune configs/smax_2s3z_ppo.py --out tuning/2s3z --resume

    Each trial is a run folder in OUT/trials, which evaluate, replay and TensorBoard read. OUT/report.md says what came out,
    and the command that trains with the best trial's settings.

    Ctrl-C ends a search. However it ends, --resume goes on with it: with a trial that was under way from its last report,
    with those that had ended not at all.
    """
    with clear_errors():
        from perceiver_rl.cli.train import default_folder
        from perceiver_rl.provenance import provenance
        from perceiver_rl.rllib.config_file import default_steps, load_factory
        from perceiver_rl.rllib.tuning import SearchFolder, SearchSettings, best_of, make_table, prepare_search, run_search

        provenance()  # the code that runs is the one that is there now
        if resume and out is None:
            raise ValueError("--resume: expected --out OUT, the folder of the search to go on with")
        folder = SearchFolder(out or default_folder("tuning", config))
        asked = {
            "config": config,
            "env": env,
            "seed": seed,
            "total_env_steps": steps,
            "overrides": tuple(set_) if set_ else None,
            "parameters": tuple(param) if param else None,
            "samples": samples,
            "scheduler": scheduler,
            "metric": metric,
            "mode": mode,
            "report_every": report_every,
            "grace": grace,
        }
        asked = {name: value for name, value in asked.items() if value is not None}
        if resume:
            settings = _same(folder, asked)
        else:
            total = steps if steps is not None else default_steps(load_factory(config))
            defaults = SearchSettings(
                config=config,
                env=None,
                seed=0,
                total_env_steps=total,
                overrides=(),
                parameters=(),
                samples=8,
                scheduler="asha",
                metric="outcome/win_rate",
                mode="max",
                report_every=max(1, total // REPORTS[scheduler or "asha"]),
                grace=max(1, total // GRACE),
            )
            settings = replace(defaults, **asked)  # type: ignore[arg-type]
        search = prepare_search(settings, folder, resume=resume)
    say(f"{settings.samples} trials of {settings.total_env_steps:,} environment steps, seed {settings.seed}: {folder.path}")
    with clear_errors(), ProgressDisplay(console, "steps") as display:
        result = run_search(
            search,
            concurrent=concurrent,
            on_progress=lambda now: display.show(now.env_steps, now.total_env_steps, _describe(now, settings.metric)),
        )
    Console().print(make_table(settings, result.trials))
    best = best_of(result.trials)
    if best is not None:
        say(f"Best:       trial {best.number}, {best.folder}")
    say(f"Report:     {folder.path / 'report.md'}")
    say(f"Curves:     tensorboard --logdir {folder.trials}")
    if result.interrupted:
        say(f"Go on:      perceiver-rl tune {settings.config} --out {folder.path} --resume")
        raise typer.Exit(EXIT_INTERRUPTED)
    if best is None:
        raise typer.Exit(EXIT_FAILED)


def _same(folder: SearchFolder, asked: Mapping[str, object]) -> SearchSettings:
    """The settings of the search to go on with, where what is asked for says nothing else."""
    settings, _ = folder.read()
    for name, value in asked.items():
        begun = getattr(settings, name)
        if value != begun:
            raise ValueError(
                f"--resume: a search keeps its settings; got {name} {value!r}, but the search in {folder.path} was begun "
                f"with {begun!r}. Give the same command, or --out and --resume alone"
            )
    return settings


def _describe(progress: SearchProgress, metric: str) -> str:
    best = "" if progress.best is None else f"  best {metric} {progress.best:.3g}"
    return f"{progress.ended}/{progress.samples} trials ended{best}"
