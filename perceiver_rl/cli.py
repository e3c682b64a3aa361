"""The command line: `perceiver-rl train | evaluate | aggregate | export | replay | bench`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from perceiver_rl.display import ProgressDisplay, describe_training

if TYPE_CHECKING:
    from perceiver_rl.evaluation.statistics import Mode

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Train and evaluate entity agents: a Perceiver IO (or a transformer) that reads a set of units and decides for "
    "each of its own, trained by RLlib.\n\n"
    "Start with: [bold]perceiver-rl train configs/smax_2s3z_ppo.py[/bold]",
)
bench_app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Measure speed and memory on this machine.")
app.add_typer(bench_app, name="bench")
console = Console(stderr=True)

ENCODER_BENCHMARK = "benchmarks.encoder:run"
"""What `bench encoder` runs: the checkout's `benchmarks` folder."""

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def main() -> None:
    """Entry point of the console script."""
    # As uvicorn does: `envs.…`, `configs.…` and a user's own modules are found in the folder where the command is given.
    if "" not in sys.path:
        sys.path.insert(0, "")
    app()


@app.command()
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
    seed: Annotated[int | None, typer.Option(help="Seed of weights, environments and minibatches. Default: 0.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Length of the run in environment steps. Default: what the config says.", min=1)
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
        typer.Option(help="Processes that sample, beside the learner's; 0 samples in the learner's process.", min=0),
    ] = None,
    checkpoint_every: Annotated[int, typer.Option(help="Environment steps between checkpoints.", min=1)] = 100_000,
    pictures: Annotated[
        bool, typer.Option(help="Draw each checkpoint's attention and an episode of it for TensorBoard, beside training.")
    ] = True,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out from its newest checkpoint.")
    ] = False,
) -> None:
    """Train an agent.

    [bold]Examples[/bold]

    perceiver-rl train configs/smax_2s3z_ppo.py --seed 1 --out runs/2s3z

    perceiver-rl train configs/smax_2s3z_ppo.py --env smax/3s5z --set model.encoder=transformer

    perceiver-rl train configs/smax_2s3z_ppo.py --out runs/2s3z --resume

    Ctrl-C ends a run after its current iteration and leaves a checkpoint.
    """
    with _clear_errors():
        from perceiver_rl.rllib.config_file import default_steps, load_factory
        from perceiver_rl.rllib.run_folder import RunFolder, RunSettings
        from perceiver_rl.rllib.training import TrainingError, prepare
        from perceiver_rl.rllib.training import train as run_training
        from perceiver_rl.tensorboard import Painter

        overrides = list(set_ or [])
        if env_runners is not None:
            overrides.append(f"env_runners.num_env_runners={env_runners}")
        if resume:
            if out is None:
                raise ValueError("--resume: expected --out RUN, the folder of the run to go on with")
            folder = RunFolder(out)
            settings = folder.settings()
            if overrides or (env, seed, steps) != (None, None, None):
                raise ValueError(
                    f"--resume: a resumed run keeps its settings, which are in {out}/run.json; leave out --set, --env, "
                    "--seed, --steps and --env-runners"
                )
            if _same_place(config) != _same_place(settings.config):
                raise ValueError(f"--resume: got config {config!r}, but the run in {out} was begun with {settings.config!r}")
        else:
            total = steps if steps is not None else default_steps(load_factory(config))
            settings = RunSettings(config, env, seed or 0, total, tuple(overrides))
            folder = RunFolder(out or Path("runs") / f"{Path(config).stem}-{time.strftime('%Y%m%d-%H%M%S')}")
        run = prepare(settings, folder, resume=resume)
    say(f"Training for {settings.total_env_steps:,} environment steps, seed {settings.seed}: {folder.path}")
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
    with ProgressDisplay(console, "steps") as display, painter or nullcontext():
        try:
            result = run_training(
                run,
                checkpoint_every=checkpoint_every,
                on_checkpoint=None if painter is None else painter.paint,
                on_progress=lambda now: display.show(now.env_steps, now.total_env_steps, describe_training(now)),
            )
        except TrainingError as error:
            say_error(error)
            raise typer.Exit(EXIT_FAILED) from error
    say(f"Checkpoint: {result.checkpoint}")
    if painter is not None and painter.count:
        share = painter.waited / max(result.progress.seconds, 1.0)
        say(
            f"Pictures:   of {painter.count} checkpoints, {painter.seconds:.1f} s beside {result.progress.seconds:.0f} s of "
            f"training, which waited {painter.waited:.1f} s ({share:.1%})"
        )
    say(f"Curves:     tensorboard --logdir {folder.path}")
    say(f"Evaluate:   perceiver-rl evaluate {folder.path}")
    if result.interrupted:
        say(f"Go on:      perceiver-rl train {settings.config} --out {folder.path} --resume")
        raise typer.Exit(EXIT_INTERRUPTED)


@app.command()
def evaluate(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="A run folder (its newest checkpoint is taken), one checkpoint folder in it, or a bundle."),
    ],
    env: Annotated[
        str | None,
        typer.Option(
            help="Environments to play in, separated by commas, in place of the one trained on, e.g. smax/2s3z,smax/3s5z; "
            "their schemas may differ from it in numbers of slots alone."
        ),
    ] = None,
    episodes: Annotated[
        int,
        typer.Option(
            help="Episodes for each policy and mode, rounded up so that all environments play equally many.", min=1
        ),
    ] = 256,
    seed: Annotated[int, typer.Option(help="Seed of environments and sampled actions.")] = 0,
    against: Annotated[
        str,
        typer.Option(
            help="Agents and bundles to evaluate beside it, separated by commas, e.g. heuristic,random,my_module:MyAgent."
        ),
    ] = "",
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write one record for each row of the table.")
    ] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="The same as CSV.")] = None,
    tensorboard: Annotated[bool, typer.Option(help="Log the checkpoint's results beside its training curves.")] = True,
) -> None:
    """Evaluate a checkpoint or a bundle, greedy and sampled, with 95 % Wilson intervals of the win rate.

    Every environment of the batch plays the same number of episodes, so that short ones do not count more often. The same
    seed gives the same figures to the digit.

    [bold]Examples[/bold]

    perceiver-rl evaluate runs/2s3z --episodes 512 --json runs/2s3z/evaluation.json

    perceiver-rl evaluate runs/2s3z/checkpoints/checkpoint_0000300000 --against heuristic,random

    perceiver-rl evaluate runs/2s3z --env smax/2s3z,smax/3s5z,smax/8m --csv transfer.csv
    """
    with _clear_errors():
        from perceiver_rl.evaluation.contests import contests_of
        from perceiver_rl.evaluation.report import make_table, make_units_table, write_csv, write_json
        from perceiver_rl.evaluation.tensorboard import log_summaries
        from perceiver_rl.evaluation.trained import find_trained

        trained = find_trained(checkpoint, env)
        contests = contests_of(trained, [name for name in against.split(",") if name], episodes)

    say(f"{trained.title}, {trained.env_steps:,} environment steps, on {', '.join(trained.envs)}, seed {seed}")
    summaries = []
    for contest in contests:
        words = f"{contest.policy} {contest.mode} on {contest.arena.env}"
        with ProgressDisplay(console, "episodes") as display:
            summaries.append(contest.play(episodes, seed, partial(display.show, words=words)))
    for arena in {id(contest.arena): contest.arena for contest in contests}.values():
        arena.close()
    out = Console()
    out.print(make_table(summaries))
    if any(each.units for each in summaries):
        out.print()
        out.print(make_units_table(summaries))
    if json_file is not None:
        write_json(json_file, summaries)
        say(f"Records:    {json_file}")
    if csv_file is not None:
        write_csv(csv_file, summaries)
        say(f"Records:    {csv_file}")
    if tensorboard and trained.curves is not None:
        own = [each for each, contest in zip(summaries, contests, strict=True) if contest.is_trained]
        log_summaries(trained.curves, own, trained.env_steps)
        say(f"Curves:     tensorboard --logdir {trained.curves}")


@app.command()
def aggregate(
    evaluations: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]FILE...",
            help="What `evaluate --json` wrote, or run folders that hold it as evaluation.json, one for each seed. Runs of "
            "one NAME are summed up together.",
            show_default=False,
        ),
    ],
    metric: Annotated[str, typer.Option(help="win_rate or return_mean.")] = "win_rate",
) -> None:
    """Sum up evaluations over seeds and environments: mean and interquartile mean with bootstrap intervals.

    [bold]Example[/bold]

    perceiver-rl aggregate perceiver=runs/p-s0 perceiver=runs/p-s1 transformer=runs/t-s0 transformer=runs/t-s1
    """
    with _clear_errors():
        from perceiver_rl.evaluation.aggregate import aggregate as sum_up
        from perceiver_rl.evaluation.aggregate import read_evaluation
        from perceiver_rl.evaluation.report import make_aggregate_table

        groups: dict[str, list[list[dict[str, Any]]]] = {}
        for each in evaluations:
            name, _, file = each.rpartition("=")
            groups.setdefault(name or "all", []).append(read_evaluation(Path(file)))
        modes: tuple[Mode, ...] = ("greedy", "sampled")
        rows = [sum_up(name, runs, mode, metric) for name, runs in groups.items() for mode in modes]
    Console().print(make_aggregate_table(rows, metric))


@app.command()
def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="A run folder (its newest checkpoint is taken) or one checkpoint folder in it.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The bundle's folder.")],
    policy: Annotated[
        str | None, typer.Option(metavar="MODULE_ID", help="Which policy, where several were trained.")
    ] = None,
    onnx: Annotated[
        bool,
        typer.Option("--onnx/--no-onnx", help="Write policy.onnx, too; it needs the packages of the extra 'export'."),
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there already.")] = False,
) -> None:
    """Write a checkpoint's policy as a bundle, which others can load without Ray, without pickle and without trust.

    [bold]Examples[/bold]

    perceiver-rl export runs/2s3z bundles/2s3z

    perceiver-rl evaluate bundles/2s3z --against heuristic,random
    """
    with _clear_errors():
        from perceiver_rl.rllib.export import export_checkpoint

        exported = export_checkpoint(checkpoint, folder, module=policy, onnx=onnx, force=force)
    say(f"Bundle:     {folder}, policy {exported.policy} of {exported.checkpoint}")
    if exported.evaluation_left_out:
        say(f"Left out:   {exported.evaluation_left_out}")
    say(f"Evaluate:   perceiver-rl evaluate {folder}")


@app.command()
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
    seed: Annotated[int, typer.Option(help="Seed of environments and sampled actions.")] = 0,
    greedy: Annotated[bool, typer.Option("--greedy/--sampled", help="The best option of each actor, or a draw.")] = True,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file to write. Default: replay.html in the run or bundle."),
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
    """
    with _clear_errors():
        from perceiver_rl.evaluation.trained import find_trained
        from perceiver_rl.replay import write_page
        from perceiver_rl.replay.trained import record_trained

        trained = find_trained(checkpoint, env)
        file = out or (trained.curves or checkpoint) / "replay.html"
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
    for episode in recording.episodes:
        result = {True: "  won", False: "  lost", None: ""}[episode.won]
        say(f"{episode.name.capitalize()}:  {episode.length} steps, return {episode.total_reward:.2f}{result}")
    say(f"Replay:     {file} ({size / 1e6:.2f} MB)")


@bench_app.command("encoder")
def bench_encoder(
    entities: Annotated[
        str | None,
        typer.Option(
            help="Sizes of the set, separated by commas.", show_default="16,64,256,512,1024,4096,8192; quick: 64,512"
        ),
    ] = None,
    fills: Annotated[
        str | None,
        typer.Option(
            help="Shares of slots with an entity in them, separated by commas.", show_default="0.1,0.25,0.5,1; quick: 0.25,1"
        ),
    ] = None,
    slots: Annotated[
        int, typer.Option(help="Slots of a batch: many small sets or few large ones. Quick: at most 4096.", min=1)
    ] = 8192,
    latents: Annotated[int, typer.Option(help="Latents of every Perceiver.", min=1)] = 32,
    repeats: Annotated[int, typer.Option(help="Timed repeats; all implementations take turns in each.", min=1)] = 7,
    threads: Annotated[int, typer.Option(help="Torch threads.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Seed of weights, batches and masks.")] = 0,
    device: Annotated[str, typer.Option(help="Torch device, e.g. cuda.")] = "cpu",
    quick: Annotated[bool, typer.Option("--quick", help="Fewer sizes and smaller batches: less than a minute.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write every measurement.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw entities against time.")] = None,
) -> None:
    """Time the Perceiver IO encoder, padded and packed, beside transformers and other Perceivers of the same size.

    Width 128, 3 layers, 4 heads; forward, and forward and backward; medians over repeats, and peak memory.
    Without --entities or --quick also how time and memory grow with entities and with queries, up to 16,384; all of it takes
    about 20 minutes on a core, most of them for transformers.

    [bold]Examples[/bold]

    perceiver-rl bench encoder --quick

    perceiver-rl bench encoder --json encoder.json --plot encoder.png
    """
    with _clear_errors():
        from perceiver_rl.environments import load

        # Torch's profiler, which measures memory, would say on stderr whenever it starts; it reads this when it is imported.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        run = load(ENCODER_BENCHMARK)
        growth = entities is None and not quick
        entities = entities or ("64,512" if quick else "16,64,256,512,1024,4096,8192")
        fills = fills or ("0.25,1" if quick else "0.1,0.25,0.5,1")
        sizes = [_number(each, "--entities", int) for each in entities.split(",")]
        shares = [_number(each, "--fills", float) for each in fills.split(",")]
        if min(sizes) < 1 or not all(0 < share <= 1 for share in shares):
            raise ValueError("bench encoder: expected --entities of at least 1 and --fills above 0 and up to 1")
    with _clear_errors(), ProgressDisplay(console, "batches") as display:
        run(
            entities=sizes,
            fills=shares,
            repeats=repeats,
            threads=threads,
            seed=seed,
            device=device,
            slots=min(slots, 4096) if quick else slots,
            latents=latents,
            growth=growth,
            json_file=json_file,
            plot_file=plot_file,
            on_case=partial(display.show, words="bench encoder"),
        )


def _number(text: str, option: str, kind: type[int] | type[float]) -> int | float:
    """One number of a list, or a message that says which option was wrong."""
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(f"{option}: got {text!r}, expected numbers separated by commas") from error


def say(words: str) -> None:
    """Print words as they are: paths and messages may hold brackets, which rich would read as markup."""
    console.print(words, markup=False, highlight=False, soft_wrap=True)


def say_error(error: Exception) -> None:
    """Print an error's message."""
    console.print("error:", style="bold red", end=" ")
    say(str(error))


def _same_place(config: str) -> str | Path:
    """A config's path in one spelling; import strings have one only."""
    return config if ":" in config else Path(config).resolve()


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Turn mistakes of the user into one message without a traceback. Everything else is a bug, and keeps its traceback."""
    try:
        yield
    except (ValueError, ImportError, OSError) as error:
        say_error(error)
        raise typer.Exit(EXIT_BAD_INPUT) from error
    except KeyboardInterrupt:
        console.print("Interrupted.")
        raise typer.Exit(EXIT_INTERRUPTED) from None
