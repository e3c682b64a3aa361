"""Copy what finished runs leave behind, in the size that belongs into a repository.

    python -m benchmarks.collect perceiver-s0=runs/2s3z --into benchmarks/results/smax_2s3z

`RESULTS/NAME/run.json` is the run's own; `evaluation.json` too, with the run's policy under the name that the results have;
`progress.jsonl` keeps of each iteration what `benchmarks.curves` and `benchmarks.breakdown` read, beside the return and the
entropy, to four decimals; `played.jsonl` is there if `benchmarks.played` wrote one. Checkpoints and TensorBoard's files stay
where they are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.progress import PLAYED, PROGRESS, STEPS, read_progress, write_records

RUN, EVALUATION = "run.json", "evaluation.json"
KEPT = (
    "seconds",
    "outcome/win_rate",
    "outcome/return",
    "policy/entropy_per_actor",
    "policy/lag_kl",
    "time/sampling_forward_s",
    "time/sampling_env_s",
    "time/sampling_s",
    "time/learning_batch_s",
    "time/learning_gradient_s",
    "time/learning_s",
)
"""What is kept of an iteration besides its environment steps, where the run has it."""


@dataclass(frozen=True)
class Result:
    """One run's result, read and checked."""

    name: str
    run: dict[str, Any]
    evaluation: list[dict[str, Any]]
    progress: list[dict[str, float]]
    played: list[dict[str, float]]
    """Of its checkpoints, if `benchmarks.played` has played with them."""

    def write(self, folder: Path) -> None:
        """Write the files; those of the same name that are there already are replaced."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RUN).write_text(json.dumps(self.run, indent=2) + "\n")
        (folder / EVALUATION).write_text(json.dumps(self.evaluation, indent=2) + "\n")
        write_records(folder / PROGRESS, map(_trim, self.progress))
        if self.played:
            write_records(folder / PLAYED, self.played)


def main(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]RUN...",
            help="Folders of finished, evaluated runs. Without NAME a result is named like its run's folder.",
            show_default=False,
        ),
    ],
    into: Annotated[
        Path,
        typer.Option(help="Folder of the results; each run gets a folder in it.", metavar="RESULTS", show_default=False),
    ],
) -> None:
    """Copy runs' settings and evaluations, and the part of their progress that curves and tables are made from.

    A run has to be finished and evaluated:

    perceiver-rl train configs/smax_2s3z_ppo.py --seed 0 --out runs/2s3z

    perceiver-rl evaluate runs/2s3z --episodes 512 --against heuristic,random --json runs/2s3z/evaluation.json

    python -m benchmarks.collect perceiver-s0=runs/2s3z --into benchmarks/results/smax_2s3z

    Nothing is written unless all runs are in order. Results of the same name are replaced. benchmarks.curves and
    benchmarks.breakdown take what is written for the run's own folder.
    """
    try:
        results = [read_result(*_name_and_path(run)) for run in runs]
        names = [result.name for result in results]
        if len(set(names)) < len(names):
            raise ValueError(f"results: got the names {', '.join(names)}, expected each once; name runs by NAME=RUN")
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    for result in results:
        result.write(into / result.name)
        commit = str(result.run["commit"])
        note = ": of code that was not committed, so nobody can run it again" if commit.endswith("-dirty") else ""
        typer.echo(f"{into / result.name}: {result.progress[-1][STEPS]:,.0f} steps, commit {commit}{note}")


def read_result(name: str, run: Path) -> Result:
    """What is worth keeping of a run.

    Args:
        name: Name of the result.
        run: The run's folder.

    Raises:
        ValueError: If a file is missing or cannot be read, or the run has not come to its end.
    """
    settings = _read_json(run / RUN, "expected the folder of a run of `perceiver-rl train`")
    evaluation = _read_json(
        run / EVALUATION, f"expected the run's evaluation: `perceiver-rl evaluate {run} --json {run / EVALUATION}`"
    )
    if not isinstance(evaluation, list) or not evaluation:
        raise ValueError(f"{run / EVALUATION}: got no list of records, expected what `perceiver-rl evaluate --json` writes")
    progress = read_progress(run)
    done, total = progress[-1][STEPS], settings["total_env_steps"]
    if done < total:
        raise ValueError(
            f"run {run}: got {done:,.0f} of {total:,} environment steps, expected a finished run: "
            f"`perceiver-rl train {settings['config']} --out {run} --resume`, then evaluate it again"
        )
    own = evaluation[0]["policy"]  # `evaluate` begins with the run's policy; agents that it is compared with follow
    renamed = [record | {"policy": name} if record["policy"] == own else record for record in evaluation]
    played = read_progress(run, PLAYED) if (run / PLAYED).is_file() else []
    return Result(name, settings, renamed, progress, played)


def _name_and_path(run: str) -> tuple[str, Path]:
    name, equals, path = run.rpartition("=")
    return (name, Path(path)) if equals else (Path(path).resolve().name, Path(path))


def _read_json(file: Path, expected: str) -> Any:
    if not file.is_file():
        raise ValueError(f"run {file.parent}: got no {file.name}, {expected}")
    try:
        return json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: got what is no JSON ({error}), {expected}") from error


def _trim(record: dict[str, float]) -> dict[str, float]:
    return {STEPS: int(record[STEPS])} | {key: round(record[key], 4) for key in KEPT if key in record}


if __name__ == "__main__":
    typer.run(main)
