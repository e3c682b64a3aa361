"""`perceiver-rl train`."""

from __future__ import annotations

import shlex
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from perceiver_rl.cli.console import EXIT_FAILED, EXIT_INTERRUPTED, clear_errors, console, say, say_error
from perceiver_rl.display import ProgressDisplay, describe_training


def train(
    config: Annotated[
        str,
        typer.Argument(help="Training config: a Python file with make_config(), or an import string 'module:function'."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Run folder: checkpoints, TensorBoard, progress. Default: runs/<config>-<time>.")
    ] = None,
    env: Annotated[
        str | None, typer.Option(help="Another environment than the config's, e.g. smax/3s5z or my_module:make_env.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, environments, minibatches. Default: 0.", min=0)] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Length of the run in environment steps; it ends with the iteration that reaches them. Default: what the "
            "config says.",
            min=1,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.KEY=VALUE",
            help="Change a setting; may be repeated. Sections are the methods of RLlib's AlgorithmConfig "
            "(training.lr=3e-4) and 'model' (model.encoder=transformer, model.perceiver.num_latents=16).",
        ),
    ] = None,
    env_runners: Annotated[
        int | None,
        typer.Option(
            help="Processes that sample, beside the learner's; 0 samples in the learner's process. PPO deals its "
            "environments out among them.",
            min=0,
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="A running Ray cluster to train on: auto, host:port or ray://host:port. The current folder travels there. "
            "Default: RAY_ADDRESS, else this machine alone."
        ),
    ] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Environment steps between checkpoints. Default: 100,000.", min=1)
    ] = None,
    keep_checkpoints: Annotated[
        int | None,
        typer.Option(
            help="How many of the last checkpoints stay, beside the best one so far; 0 keeps all. Default: 10.", min=0
        ),
    ] = None,
    pictures: Annotated[
        bool, typer.Option(help="Draw each checkpoint's attention and an episode of it for TensorBoard, beside training.")
    ] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out where it ended.")] = False,
) -> None:
    """Train an agent.

    [bold]Examples[/bold]

    perceiver-rl train configs/smax_2s3z_ppo.py --seed 1 --out runs/2s3z

    perceiver-rl train configs/smax_2s3z_ppo.py --env smax/3s5z --set model.encoder=transformer

    perceiver-rl train configs/smax_2s3z_ppo.py --out runs/2s3z --resume

    perceiver-rl train configs/smax_2s3z_ppo.py --address auto --env-runners 16

    Ctrl-C ends a run after its current iteration and leaves a checkpoint. However a run ends, --resume loses its running
    iteration at most.
    """
    with clear_errors():
        from perceiver_rl.rllib.cluster import ClusterError, cluster_address
        from perceiver_rl.rllib.config_file import default_steps, load_factory
        from perceiver_rl.rllib.recorder import TrainingError
        from perceiver_rl.rllib.run_description import processes_text
        from perceiver_rl.rllib.run_folder import RunFolder, RunSettings
        from perceiver_rl.rllib.training import prepare, stop_at_ctrl_c
        from perceiver_rl.rllib.training import train as run_training
        from perceiver_rl.tensorboard import Painter

        cluster_address(address)  # before a run's folder is made
        overrides = list(set_ or [])
        given = {"checkpoint_every": checkpoint_every, "keep_checkpoints": keep_checkpoints}
        of_checkpoints: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        if env_runners is not None:
            overrides.append(f"env_runners.num_env_runners={env_runners}")
        if resume:
            if out is None:
                raise ValueError("--resume: expected --out RUN, the folder of the run to go on with")
            folder = RunFolder(out)
            settings = replace(folder.settings(), **of_checkpoints)
            if overrides or (env, seed, steps) != (None, None, None):
                raise ValueError(
                    f"--resume: a resumed run keeps its settings, which are in {out}/run.json; leave out --set, --env, "
                    "--seed, --steps and --env-runners"
                )
            if _same_place(config) != _same_place(settings.config):
                raise ValueError(f"--resume: got config {config!r}, but the run in {out} was begun with {settings.config!r}")
        else:
            total = steps if steps is not None else default_steps(load_factory(config))
            settings = RunSettings(config, env, seed or 0, total, tuple(overrides), **of_checkpoints)
            folder = RunFolder(out or default_folder("runs", config))
        run = prepare(settings, folder, resume=resume)
    length = f"{settings.total_env_steps:,} environment steps"
    say(f"Training on {run.config.env} for {length}, seed {settings.seed}: {folder.path}")
    go_on = shlex.join(
        ["perceiver-rl", "train", settings.config, "--out", str(folder.path), "--resume"]
        + (["--address", address] if address else [])
        + ([] if pictures else ["--no-pictures"])
    )
    if run.resume_point:
        say(f"Going on from {run.resume_point.path.name}: {run.resume_point.env_steps:,} steps")
    if run.resume_point and run.resume_point.env_steps >= settings.total_env_steps:
        if run.resume_point.path.is_dir():
            say("Nothing to do: this run is complete. Begin another one, in another folder, for more steps")
        else:
            say("All steps are done; what is missing is the last checkpoint")
    if processes := processes_text(run.config):
        say(f"Starting:   {processes}; where environments compile, minutes may pass before the first iteration")
    painter = None
    if pictures and run.agents:
        say("Pictures:   none, since the views of separate agents make no one picture; curves are there")
    elif pictures:
        painter = Painter(
            folder.path,
            run.config.env,
            run.config.env_config,
            seed=settings.seed,
            say=lambda words: say(f"Pictures:   {words}"),
        )
    # Ctrl-C asks for an orderly end before any process is started: an exception in the midst of that can get lost. While the
    # last pictures are drawn, after that, it ends at once.
    with (
        ExitStack() as until_pictures_are_done,
        stop_at_ctrl_c() as stop,
        ProgressDisplay(console, "steps") as display,
    ):
        if painter is not None:
            until_pictures_are_done.enter_context(painter)
        try:
            result = run_training(
                run,
                on_checkpoint=None if painter is None else painter.paint,
                stop=stop,
                address=address,
                on_waiting=say,
                on_progress=lambda now: display.show(now.env_steps, now.total_env_steps, describe_training(now)),
            )
        except (TrainingError, ClusterError) as error:
            say_error(error)
            say(f"Go on:      {go_on}")
            raise typer.Exit(EXIT_FAILED) from error
    say(f"Checkpoint: {result.checkpoint}")
    if painter is not None and painter.count:
        share = painter.waited / max(result.progress.seconds, 1.0)
        say(
            f"Pictures:   of {painter.count} checkpoint{'s' * (painter.count > 1)}, {painter.seconds:.1f} s beside "
            f"{result.progress.seconds:.0f} s of training; it or its end waited {painter.waited:.1f} s for them "
            f"({share:.1%}; --no-pictures leaves them out)"
        )
    say(f"Curves:     tensorboard --logdir {folder.path}")
    say(f"Evaluate:   perceiver-rl evaluate {folder.path}")
    if result.interrupted:
        say(f"Go on:      {go_on}")
        raise typer.Exit(EXIT_INTERRUPTED)


def default_folder(parent: str, config: str) -> Path:
    """A folder that is named after a config and the time."""
    return Path(parent, f"{default_name(config)}-{time.strftime('%Y%m%d-%H%M%S')}")


def default_name(config: str) -> str:
    """A config's name for a run folder: `configs/kaz_ppo.py` → `kaz_ppo`, `configs.tasks_ppo:xor` → `tasks_ppo-xor`."""
    module, colon, function = config.partition(":")
    return f"{module.rpartition('.')[2]}-{function}" if colon else Path(config).stem


def _same_place(config: str) -> str | Path:
    """A config's path in one spelling; import strings have one only."""
    return config if ":" in config else Path(config).resolve()
