"""A search's folder: what the search was asked to do, its trials, its report.

::

    OUT/search.json            what was asked for, the parameters of each trial, versions, commit
    OUT/trials/00003/          a trial: the run folder of `train`, and besides
               history.json      since which step it has which parameters; a trial of PBT changes them
               error.txt         why it failed, if it did
    OUT/tune/                  Ray Tune's own state, from which a search goes on
    OUT/report.md, .json       what came out, written anew whenever a trial ends
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from perceiver_rl.provenance import provenance
from perceiver_rl.rllib.run_folder import RunSettings
from perceiver_rl.whole_file import write_whole

Scheduler = Literal["asha", "pbt", "none"]
Mode = Literal["max", "min"]
FORMAT = 1


@dataclass(frozen=True)
class SearchSettings:
    """What a search was asked to do.

    Args:
        config: Path or import string of the training config.
        env: Environment in place of the config's own; None to keep that.
        seed: Seed of every trial, and of the parameters that are drawn.
        total_env_steps: Length of a trial in environment steps.
        overrides: `--set` assignments that all trials share.
        parameters: `--param` texts, in order.
        samples: Number of trials; PBT's population.
        scheduler: Who ends or changes trials: `"asha"`, `"pbt"` or `"none"`.
        metric: TensorBoard tag that is compared.
        mode: Whether more of it is better.
        report_every: Environment steps between the reports of a trial: a checkpoint, and the next chance to decide.
        grace: Environment steps that ASHA leaves to each trial.
    """

    config: str
    env: str | None
    seed: int
    total_env_steps: int
    overrides: tuple[str, ...]
    parameters: tuple[str, ...]
    samples: int
    scheduler: Scheduler
    metric: str
    mode: Mode
    report_every: int
    grace: int

    def trial_settings(self, assignments: tuple[str, ...]) -> RunSettings:
        """What a trial with these assignments is asked to do."""
        return RunSettings(
            self.config,
            self.env,
            self.seed,
            self.total_env_steps,
            (*self.overrides, *assignments),
            checkpoint_every=self.report_every,
        )


class SearchFolder:
    """Reads and writes a search's folder.

    Args:
        path: The folder; need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trials = path / "trials"
        self.tune = path / "tune"

    @property
    def exists(self) -> bool:
        """Whether a search was begun here."""
        return (self.path / "search.json").is_file()

    def has_state(self) -> bool:
        """Whether Ray Tune got as far as writing its state.

        Raises:
            ValueError: If the state cannot be read: Ray Tune does not write it beside its place and rename it.
        """
        states = sorted(self.tune.glob("experiment_state-*.json"))
        for state in states:
            try:
                json.loads(state.read_text())
            except ValueError as error:
                raise ValueError(
                    f"search folder {self.path}: Ray Tune's state {state.name} breaks off ({error}); trials can still be "
                    "evaluated, but the search cannot be gone on with. Begin another one, in another --out"
                ) from error
        return bool(states)

    def trial(self, number: int) -> Path:
        """The run folder of a trial."""
        return self.trials / f"{number:05d}"

    def create(self, settings: SearchSettings, plan: list[dict[str, Any]]) -> None:
        """Begin a search.

        Raises:
            ValueError: If there is a search already.
        """
        if self.exists:
            raise ValueError(
                f"search folder {self.path}: holds a search already; go on with it by --resume, choose another --out, "
                "or delete it"
            )
        self.trials.mkdir(parents=True, exist_ok=True)
        record = {"format": FORMAT, "settings": asdict(settings), "plan": plan, **provenance()}
        write_whole(self.path / "search.json", json.dumps(record, indent=2) + "\n")

    def read(self) -> tuple[SearchSettings, list[dict[str, Any]]]:
        """What the search was asked to do, and the parameters that each trial begins with.

        Raises:
            ValueError: If there is no search here, or another version wrote it.
        """
        if not self.exists:
            raise ValueError(
                f"search folder {self.path}: got no search.json, expected the folder of a search begun by `tune`"
            )
        record = json.loads((self.path / "search.json").read_text())
        if record["format"] != FORMAT:
            raise ValueError(f"search folder {self.path}: got format {record['format']!r}, expected {FORMAT}")
        settings = record["settings"]
        settings |= {key: tuple(settings[key]) for key in ("overrides", "parameters")}
        return SearchSettings(**settings), record["plan"]
