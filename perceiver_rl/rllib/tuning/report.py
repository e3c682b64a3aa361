"""What came out of a search: its trials by metric, as Markdown, a table on the terminal, and JSON."""

from __future__ import annotations

import enum
import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from perceiver_rl.provenance import provenance
from perceiver_rl.rllib.run_folder import RunFolder
from perceiver_rl.rllib.tuning.settings import SearchFolder, SearchSettings
from perceiver_rl.rllib.tuning.space import assignments, value_text
from perceiver_rl.rllib.tuning.trial import ERROR_FILE, HISTORY_FILE
from perceiver_rl.whole_file import write_whole

UNKNOWN = "-"


class Ended(enum.Enum):
    """How a trial stands."""

    FINISHED = "finished"
    EARLY = "stopped early"
    FAILED = "failed"
    NOT = "not finished"


@dataclass(frozen=True)
class TrialRecord:
    """How a trial went."""

    number: int
    parameters: dict[str, Any]
    """The last ones, where PBT changed them."""
    history: list[dict[str, Any]]
    """Since which `env_steps` which `parameters` hold, and of which `trial` its weights were then."""
    ended: Ended
    score: float | None
    """The metric's last value."""
    scores: list[tuple[int, float]]
    """All of them by environment steps."""
    env_steps: int
    seconds: float
    """Training time, that of a trial that was copied up to then included."""
    folder: str
    error: str | None


def read_trials(
    settings: SearchSettings, folder: SearchFolder, plan: Sequence[dict[str, Any]], ended: dict[int, Ended]
) -> list[TrialRecord]:
    """How the trials of a search went, from their run folders: best first, those without a score last.

    Args:
        settings: What was asked for.
        folder: The search's.
        plan: The parameters that each trial began with.
        ended: How those that have ended did so, by number.
    """
    trials = [_read(settings, folder, number, point, ended.get(number, Ended.NOT)) for number, point in enumerate(plan)]
    sign = -1 if settings.mode == "max" else 1
    return sorted(trials, key=lambda trial: math.inf if trial.score is None else sign * trial.score)


def _read(settings: SearchSettings, folder: SearchFolder, number: int, point: dict[str, Any], ended: Ended) -> TrialRecord:
    path = folder.trial(number)
    history = json.loads(_text(path / HISTORY_FILE) or "[]")
    lines = RunFolder(path).progress()
    scores = [(int(line["env_steps"]), float(line[settings.metric])) for line in lines if settings.metric in line]
    return TrialRecord(
        number=number,
        parameters=history[-1]["parameters"] if history else point,
        history=history,
        ended=ended,
        score=scores[-1][1] if scores else None,
        scores=scores,
        env_steps=int(lines[-1]["env_steps"]) if lines else 0,
        seconds=float(lines[-1]["seconds"]) if lines else 0.0,
        folder=str(path),
        error=(_text(path / ERROR_FILE) or "").strip() or None,
    )


def best_of(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The best trial among those that finished; if none did, among all. None if none has a score."""
    scored = [trial for trial in trials if trial.score is not None and trial.ended is not Ended.FAILED]
    return next(iter([trial for trial in scored if trial.ended is Ended.FINISHED] or scored), None)


def train_command(settings: SearchSettings, trial: TrialRecord, out: str, seed: int | None = None) -> str:
    """The command that trains with a trial's (last) parameters from the beginning."""
    words = ["perceiver-rl", "train", settings.config]
    words += [] if settings.env is None else ["--env", settings.env]
    words += ["--seed", str(settings.seed if seed is None else seed), "--steps", str(settings.total_env_steps)]
    for assignment in (*settings.overrides, *assignments(trial.parameters)):
        words += ["--set", assignment]
    return shlex.join([*words, "--out", out])


# -- writing ---------------------------------------------------------------------------------------------------


def make_table(settings: SearchSettings, trials: Sequence[TrialRecord]) -> Table:
    """A row for each trial, for `rich.console.Console.print`."""
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    head, rows = _head(settings, trials), _rows(trials)
    for name in head:
        table.add_column(escape(name), justify="left" if name == "ended" else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def write_report(settings: SearchSettings, folder: SearchFolder, trials: Sequence[TrialRecord]) -> None:
    """Write `report.md` and `report.json` into the search's folder."""
    write_whole(folder.path / "report.md", _markdown(settings, folder, trials))
    best = best_of(trials)
    record = {
        "settings": asdict(settings),
        "best": None if best is None else best.number,
        "trials": [{**asdict(trial), "ended": trial.ended.value} for trial in trials],
        **provenance(),
    }
    write_whole(folder.path / "report.json", json.dumps(record, indent=2, allow_nan=False) + "\n")


def _markdown(settings: SearchSettings, folder: SearchFolder, trials: Sequence[TrialRecord]) -> str:
    counts = {ended: sum(trial.ended is ended for trial in trials) for ended in Ended}
    told = ", ".join(f"{count} {ended.value}" for ended, count in counts.items() if count)
    steps, seconds = sum(trial.env_steps for trial in trials), sum(trial.seconds for trial in trials)
    aim = "largest" if settings.mode == "max" else "smallest"
    commit = provenance()["commit"] or "unknown"
    parts = [
        f"# Search: {settings.config}",
        f"The {aim} `{settings.metric}` after {settings.total_env_steps:,} environment steps; {settings.samples} trials, "
        f"scheduler {settings.scheduler}, seed {settings.seed} for all of them, commit {commit}. {told.capitalize()}; "
        f"{steps:,} environment steps and {seconds:,.0f} s of training in all.",
        "Searched: " + ", ".join(f"`{each}`" for each in settings.parameters) + ".",
    ]
    if settings.overrides:
        parts.append("The same for all: " + ", ".join(f"`{each}`" for each in settings.overrides) + ".")
    if (best := best_of(trials)) is not None:
        parts += _best(settings, best)
    parts += ["## Trials", _markdown_table(_head(settings, trials), _rows(trials))]
    if failed := [trial for trial in trials if trial.error]:
        parts += ["## Failures", *(f"- trial {trial.number}: {(trial.error or '').splitlines()[-1]}" for trial in failed)]
    parts.append(f"Curves: `{shlex.join(['tensorboard', '--logdir', str(folder.trials)])}`")
    return "\n\n".join(parts) + "\n"


def _best(settings: SearchSettings, best: TrialRecord) -> list[str]:
    head = [f"## Best: trial {best.number}, {settings.metric} {_number(best.score)}"]
    if len(best.history) > 1:
        rows = [
            (f"{each['env_steps']:,}", str(each["trial"]), *map(value_text, each["parameters"].values()))
            for each in best.history
        ]
        names = [f"`{name}`" for name in best.parameters]
        head += [
            "Its parameters changed on the way, and weights were copied from other trials:",
            _markdown_table(("from step", "in trial", *names), rows),
            f"Its weights: `{best.folder}`. With its last parameters from the beginning, which need not do as well:",
        ]
    else:
        head += [_markdown_table(("parameter", "value"), _pairs(best)), "Again, on its own:"]
    return [*head, f"```bash\n{train_command(settings, best, 'runs/best')}\n```"]


def _pairs(trial: TrialRecord) -> list[tuple[str, str]]:
    return [(f"`{name}`", value_text(value)) for name, value in trial.parameters.items()]


def _names(trials: Sequence[TrialRecord]) -> list[str]:
    return list(trials[0].parameters) if trials else []


def _head(settings: SearchSettings, trials: Sequence[TrialRecord]) -> list[str]:
    return ["trial", *_names(trials), settings.metric, "steps", "seconds", "ended"]


def _rows(trials: Sequence[TrialRecord]) -> list[list[str]]:
    return [
        [
            str(each.number),
            *map(value_text, each.parameters.values()),
            _number(each.score),
            f"{each.env_steps:,}",
            f"{each.seconds:.0f}",
            each.ended.value,
        ]
        for each in trials
    ]


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows])


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.4g}"


def _text(path: Any) -> str | None:
    return path.read_text() if path.exists() else None
