"""`perceiver-rl evaluate` and `perceiver-rl aggregate`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from perceiver_rl.cli.console import clear_errors, console, say
from perceiver_rl.display import ProgressDisplay

if TYPE_CHECKING:
    from perceiver_rl.evaluation.statistics import Summary


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
    seed: Annotated[int, typer.Option(help="Seed of environments and sampled actions.", min=0)] = 0,
    against: Annotated[
        str,
        typer.Option(
            help="Agents and bundles to evaluate beside it, separated by commas, e.g. heuristic,my_module:MyAgent."
        ),
    ] = "",
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write one record for each row of the table.")
    ] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="The same as CSV.")] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Log for TensorBoard into DIR/evaluation. Without it a checkpoint's results go beside its training curves, "
            "and a bundle's nowhere: its folder stays as it is.",
            show_default=False,
        ),
    ] = None,
    no_tensorboard: Annotated[bool, typer.Option("--no-tensorboard", help="Log nothing for TensorBoard.")] = False,
) -> None:
    """Evaluate a checkpoint or a bundle, greedy and sampled, with 95 % Wilson intervals of the win rate.

    Every environment of the batch plays the same number of episodes, so that short ones do not count more often. The same
    seed gives the same figures to the digit.

    [bold]Examples[/bold]

    perceiver-rl evaluate runs/2s3z --episodes 512 --json runs/2s3z/evaluation.json

    perceiver-rl evaluate runs/2s3z/checkpoints/checkpoint_0000300000 --against heuristic,random

    perceiver-rl evaluate runs/2s3z --env smax/2s3z,smax/3s5z,smax/8m --csv transfer.csv

    perceiver-rl evaluate agents/bundles/smax_2s3z --tensorboard runs/shipped
    """
    with clear_errors():
        from perceiver_rl.bundle.load import require_no_bundle, require_place_for
        from perceiver_rl.evaluation.contests import closing_all, contests_of, policies_in
        from perceiver_rl.evaluation.report import make_table, make_units_table, write_csv, write_json
        from perceiver_rl.evaluation.tensorboard import log_summaries
        from perceiver_rl.evaluation.trained import find_trained
        from perceiver_rl.provenance import provenance

        if tensorboard is not None and no_tensorboard:
            raise ValueError("evaluate: got --tensorboard and --no-tensorboard, expected one of them at most")
        if json_file is not None and csv_file is not None and json_file.resolve() == csv_file.resolve():
            raise ValueError(f"--csv {csv_file}: got the file of --json, expected another one")
        if tensorboard is not None:
            require_no_bundle(tensorboard, f"--tensorboard {tensorboard}")
        provenance()  # the code that plays is the one that is there now
        trained = find_trained(checkpoint, env)
        for option, file in (("--json", json_file), ("--csv", csv_file)):
            if file is not None:
                require_place_for(file, option)
        contests = contests_of(trained, [name for name in against.split(",") if name], episodes)
        say(f"{trained.title}, {trained.env_steps:,} environment steps, on {', '.join(trained.envs)}, seed {seed}")
        summaries: list[Summary] = []
        with closing_all(contests):
            for contest in contests:
                words = f"{contest.policy} {contest.mode} on {contest.arena.env}"
                with ProgressDisplay(console, "episodes") as display:
                    summaries.append(contest.play(episodes, seed, partial(display.show, words=words)))
                if json_file is not None:  # after each, so that what was played is not lost
                    write_json(json_file, summaries)
                if csv_file is not None:
                    write_csv(csv_file, summaries)
    out = Console()
    out.print(make_table(summaries))
    if any(each.units for each in summaries):
        out.print()
        out.print(make_units_table(summaries))
    for file in filter(None, (json_file, csv_file)):
        say(f"Records:    {file}")
    curves = None if no_tensorboard else tensorboard or trained.curves
    if curves is not None:
        own = [each for each, contest in zip(summaries, contests, strict=True) if contest.is_evaluated]
        alone = trained.curves is None or curves.resolve() != trained.curves.resolve()
        log_summaries(curves, own, trained.env_steps, policies_in(contests), alone=alone)
        say(f"Curves:     tensorboard --logdir {curves}")


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
    with clear_errors():
        from perceiver_rl.evaluation.aggregation import aggregate as sum_up
        from perceiver_rl.evaluation.aggregation import read_evaluation
        from perceiver_rl.evaluation.contests import MODES
        from perceiver_rl.evaluation.report import make_aggregate_table

        groups: dict[str, list[list[dict[str, Any]]]] = {}
        for each in evaluations:
            # a path may hold an equals sign, too
            name, file = ("all", each) if "=" not in each or Path(each).exists() else each.split("=", 1)
            groups.setdefault(name, []).append(read_evaluation(Path(file)))
        rows = [sum_up(name, runs, mode, metric) for name, runs in groups.items() for mode in MODES]
    Console().print(make_aggregate_table(rows, metric))
