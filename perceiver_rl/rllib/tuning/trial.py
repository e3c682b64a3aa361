"""One trial of a search: a training run like any other, which tells Ray Tune how it goes."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from perceiver_rl.entities import EntitySchema
from perceiver_rl.rllib.checkpoint import load_info
from perceiver_rl.rllib.recorder import PreparedRun, Progress
from perceiver_rl.rllib.recovery import ResumePoint
from perceiver_rl.rllib.run_folder import RunFolder
from perceiver_rl.rllib.training import build_config, train
from perceiver_rl.rllib.tuning.settings import SearchSettings
from perceiver_rl.rllib.tuning.space import assignments
from perceiver_rl.whole_file import write_whole

SCORE = "score"
"""The metric under a name of Tune's, where a slash would mean a group."""
ENV_STEPS = "env_steps"
HISTORY = "history"
HISTORY_FILE = "history.json"
ERROR_FILE = "error.txt"
NO_EPISODE = "outcome/return"
"""What is logged as soon as an episode has ended, whatever the environment."""


@dataclass(frozen=True)
class TriedEnvironment:
    """What is known of an environment that was tried before Ray started."""

    schemas: dict[str, EntitySchema]
    agents: dict[str, str]


def environment_key(config: Any) -> str:
    """The same for configs with the same environment."""
    return json.dumps([config.env, config.env_config], sort_keys=True)


def run_trial(
    settings: SearchSettings, path: Path, number: int, point: dict[str, Any], environments: dict[str, TriedEnvironment]
) -> None:
    """Train a trial inside Ray Tune, from the checkpoint that Tune gives or from the beginning.

    Args:
        settings: Of the search.
        path: The trial's run folder.
        number: Of the trial.
        point: Its parameters.
        environments: By `environment_key`.

    Raises:
        ValueError: If the run logs nothing under the search's metric.
        TrainingError: If training diverges. Whatever is raised stands in the trial's `error.txt`, too.
    """
    try:
        (path / ERROR_FILE).unlink(missing_ok=True)
        _Trial(settings, path, number, point).run(environments)
    except Exception as error:
        path.mkdir(parents=True, exist_ok=True)
        (path / ERROR_FILE).write_text(f"{type(error).__name__}: {error}\n")
        raise


class _Trial:
    def __init__(self, settings: SearchSettings, path: Path, number: int, point: dict[str, Any]) -> None:
        self._settings = settings
        self._folder = RunFolder(path)
        self._number = number
        self._point = point
        self._numbers: dict[str, float] = {}
        self._progress: Progress | None = None
        self._history: list[dict[str, Any]] = []

    def run(self, environments: dict[str, TriedEnvironment]) -> None:
        given = tune.get_checkpoint()
        steps, begin = 0, None
        if given:
            info = load_info(Path(given.path))
            begin = ResumePoint(Path(given.path), info.env_steps, info.seconds)
            steps = info.env_steps
            self._history = given.get_metadata()[HISTORY]
        settings = self._settings.trial_settings(assignments(self._point))
        config = build_config(settings)
        _clear(self._folder, steps)
        self._folder.create(settings)
        self._note_parameters(steps)
        tried = environments[environment_key(config)]
        run = PreparedRun(settings, self._folder, config, tried.schemas, tried.agents, begin)
        train(
            run,
            on_progress=self._look,
            on_checkpoint=self._report,
            stop=lambda: False,  # Tune ends this thread when it is to end, in the midst of a report
        )
        if self._settings.metric not in self._numbers:
            raise ValueError(self._no_metric())

    def _note_parameters(self, steps: int) -> None:
        """Since which step which parameters hold; after a copy, the history is that of the trial that was copied."""
        if not self._history or self._history[-1]["parameters"] != self._point:
            self._history.append({"env_steps": steps, "trial": self._number, "parameters": self._point})
        write_whole(self._folder.path / HISTORY_FILE, json.dumps(self._history, indent=2) + "\n")

    def _look(self, progress: Progress) -> None:
        self._progress = progress
        self._numbers |= progress.numbers

    def _report(self, path: Path) -> None:
        """Tell Tune; Tune copies the checkpoint, and may end or pause the trial here."""
        score = self._numbers.get(self._settings.metric)
        if score is None and NO_EPISODE in self._numbers:
            raise ValueError(self._no_metric())
        if score is None or self._progress is None:
            return
        checkpoint = tune.Checkpoint.from_directory(path)
        checkpoint.set_metadata({HISTORY: self._history})
        tune.report({SCORE: score, ENV_STEPS: self._progress.env_steps}, checkpoint=checkpoint)

    def _no_metric(self) -> str:
        return (
            f"--metric {self._settings.metric}: the run has logged no such number; it has "
            f"{', '.join(sorted(self._numbers)) or 'none at all'}"
        )


def _clear(folder: RunFolder, steps: int) -> None:
    """Take back what a trial wrote that goes on from an earlier step, or from another one's checkpoint."""
    if steps == 0:
        shutil.rmtree(folder.path, ignore_errors=True)
    for checkpoint in folder.checkpoints.glob("checkpoint_*"):
        if load_info(checkpoint).env_steps > steps:
            shutil.rmtree(checkpoint)
    (folder.path / "run.json").unlink(missing_ok=True)  # a copy of another trial has other settings now
