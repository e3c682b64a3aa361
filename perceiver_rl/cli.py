"""The command line: `perceiver-rl train | evaluate | export | replay | bench`."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from perceiver_rl.display import ProgressDisplay, describe_training

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
        typer.Option(help="Another environment than the one trained on; its schema may differ in numbers of slots alone."),
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
    tensorboard: Annotated[bool, typer.Option(help="Log the checkpoint's results beside its training curves.")] = True,
) -> None:
    """Evaluate a checkpoint or a bundle, greedy and sampled, with 95 % Wilson intervals of the win rate.

    Every environment of the batch plays the same number of episodes, so that short ones do not count more often. The same
    seed gives the same figures to the digit.

    [bold]Examples[/bold]

    perceiver-rl evaluate runs/2s3z --episodes 512 --json runs/2s3z/evaluation.json

    perceiver-rl evaluate runs/2s3z/checkpoints/checkpoint_0000300000 --against heuristic,random
    """
    with _clear_errors():
        from perceiver_rl.bundle import is_bundle, load_policy
        from perceiver_rl.evaluation.agent import Agent, PolicyAgent, make_agent
        from perceiver_rl.evaluation.arena import Arena, ParallelArena, VectorArena
        from perceiver_rl.evaluation.report import make_table, write_json
        from perceiver_rl.evaluation.statistics import Mode, summarize
        from perceiver_rl.evaluation.tensorboard import log_summaries
        from perceiver_rl.evaluation.trained import find_trained

        trained = find_trained(checkpoint, env)
        arena: Arena
        if trained.module is None:
            num_envs = _num_envs(episodes, MAX_PARALLEL_ENVS)
            arena = ParallelArena(trained.env, num_envs, trained.env_config, trained.agents)
        else:
            arena = VectorArena(trained.env, _num_envs(episodes, MAX_ENVS), trained.env_config, trained.module)
        schemas = arena.schemas
        contests: list[tuple[str, Mode, dict[str, Agent]]] = []
        policies: dict[str, Agent] = {
            module: PolicyAgent(trained.policy(schema, module)) for module, schema in schemas.items()
        }
        contests += [(trained.name, "greedy", policies), (trained.name, "sampled", policies)]
        for name in filter(None, against.split(",")):
            players: dict[str, Agent]
            if is_bundle(Path(name)):
                bundle = load_policy(name)
                players = {module: PolicyAgent(bundle.for_schema(schema)) for module, schema in schemas.items()}
                contests += [(name, "greedy", players), (name, "sampled", players)]
            else:
                players = {module: make_agent(name, schema) for module, schema in schemas.items()}
                contests.append((name, "sampled", players))

    say(f"{trained.title}, {trained.env_steps:,} environment steps, on {trained.env}, seed {seed}")
    summaries = []
    for name, mode, players in contests:
        with ProgressDisplay(console, "episodes") as display:
            records = arena.play(
                players,
                episodes_per_env=math.ceil(episodes / arena.num_envs),
                seed=seed,
                greedy=mode == "greedy",
                on_episode=partial(display.show, words=f"{name} {mode}"),
            )
        summaries.append(summarize(records, env=trained.env, policy=name, mode=mode, seed=seed, control=arena.control))
    arena.close()
    Console().print(make_table(summaries))
    if json_file is not None:
        write_json(json_file, summaries)
        say(f"Records:    {json_file}")
    if tensorboard and trained.curves is not None:
        log_summaries(trained.curves, summaries[:2], trained.env_steps)
        say(f"Curves:     tensorboard --logdir {trained.curves}")


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
        Path, typer.Argument(help="A run folder (its newest checkpoint is taken) or one checkpoint folder in it.")
    ],
    env: Annotated[
        str | None,
        typer.Option(help="Another environment than the one trained on; its schema may differ in numbers of slots alone."),
    ] = None,
    episodes: Annotated[int, typer.Option(help="Episodes to record.", min=1, max=32)] = 2,
    seed: Annotated[int, typer.Option(help="Seed of environments and sampled actions.")] = 0,
    greedy: Annotated[bool, typer.Option("--greedy/--sampled", help="The best option of each actor, or a draw.")] = True,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file to write. Default: replay.html in the run folder.")
    ] = None,
) -> None:
    """Record episodes into one HTML file: the battle, the policy's probabilities, its value and its attention.

    The file needs no network and no server; open it in a browser, and press ? there for the keys.

    [bold]Examples[/bold]

    perceiver-rl replay runs/2s3z

    perceiver-rl replay runs/2s3z --env smax/3s5z --sampled --episodes 4 --out 3s5z.html
    """
    with _clear_errors():
        from perceiver_rl.entities import schema_of
        from perceiver_rl.environments import make_vector_env
        from perceiver_rl.replay import record, write_page
        from perceiver_rl.rllib.checkpoint import find_checkpoint, load_info, load_policy
        from perceiver_rl.rllib.run_folder import run_of

        found = find_checkpoint(checkpoint)
        info = load_info(found)
        if info.agents:
            raise ValueError(
                f"replay: got a checkpoint of the multi-agent environment {info.env!r}, expected one of a squad, which a "
                "vector environment plays: the views of separate agents make no one picture"
            )
        env_name = env or info.env
        vector_env = make_vector_env(env_name, episodes, **info.env_config)
        policy = load_policy(found, schema_of(vector_env.single_observation_space))
        run = run_of(found)
        file = out or run / "replay.html"
        with ProgressDisplay(console, "episodes") as display:
            recording = record(
                policy,
                vector_env,
                env_name=env_name,
                policy_name=f"{run.name}, {info.env_steps:,} steps",
                seed=seed,
                greedy=greedy,
                on_step=lambda done, total, steps: display.show(done, total, f"step {steps}"),
            )
        vector_env.close()
        size = write_page(recording, file)
    for number, episode in enumerate(recording.episodes):
        result = {True: "  won", False: "  lost", None: ""}[episode.won]
        say(f"Episode {number}:  {episode.length} steps, return {episode.total_reward:.2f}{result}")
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


MAX_ENVS = 128
"""Environments of an evaluation's batch at most."""

MAX_PARALLEL_ENVS = 16
"""The same for multi-agent environments, which are single ones, each stepped by itself."""


def _num_envs(episodes: int, at_most: int) -> int:
    """Environments for at least that many episodes, so that each plays the same number."""
    episodes_per_env = math.ceil(episodes / at_most)
    return math.ceil(episodes / episodes_per_env)


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
