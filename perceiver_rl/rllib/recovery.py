"""Where a run goes on from after its end: the recovery point of its last iteration, or its newest whole checkpoint.

A recovery point is RLlib's whole state (weights, optimizer, counters, metrics) in one file, which every iteration replaces.
It is quicker to write than a checkpoint, and makes the running iteration all that a killed run can lose. Checkpoints are
what stays: they are evaluated and exported, and step in where the recovery point cannot be read.
"""

from __future__ import annotations

import logging
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import COMPONENT_LEARNER_GROUP, COMPONENT_METRICS_LOGGER
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune.result import TRAINING_ITERATION

from perceiver_rl.rllib.checkpoint import find_checkpoint, load_info
from perceiver_rl.rllib.run_folder import RunFolder

logger = logging.getLogger(__name__)

RECOVERY_POINT = "recovery.pkl"
FORMAT = 1


@dataclass(frozen=True)
class ResumePoint:
    """Where a run goes on from."""

    path: Path
    """The recovery point's file, or a checkpoint's folder."""
    env_steps: int
    seconds: float
    """Training time up to it."""

    def restore(self, algorithm: Algorithm) -> None:
        """Put an algorithm that was just built into the state that was saved."""
        if algorithm.env_runner_group is None:  # of offline training; RLlib would go on to tell env runners the weights
            self._restore_offline(algorithm)
            return
        if self.path.is_dir():
            algorithm.restore_from_path(self.path.resolve())
        else:
            state = _read(self.path)["state"]
            algorithm.metrics.set_state(state[COMPONENT_METRICS_LOGGER])  # RLlib reads its counters before it sets them
            algorithm.set_state(state)
        # Neither of RLlib's two ways tells env runners how far the run is, from which they seed their next battles.
        counter = {NUM_ENV_STEPS_SAMPLED_LIFETIME: self.env_steps}
        algorithm.env_runner_group.foreach_env_runner(lambda runner: runner.set_state(counter))

    def _restore_offline(self, algorithm: Algorithm) -> None:
        if self.path.is_dir():
            Checkpointable.restore_from_path(algorithm, self.path.resolve())
            return
        state = _read(self.path)["state"]
        algorithm.learner_group.set_state(state[COMPONENT_LEARNER_GROUP])
        algorithm.metrics.set_state(state[COMPONENT_METRICS_LOGGER])
        algorithm._iteration = state[TRAINING_ITERATION]


def save_recovery_point(folder: RunFolder, algorithm: Algorithm, env_steps: int, seconds: float) -> None:
    """Write where the run stands beside the place of the last such file, and put it there.

    Raises:
        OSError: If it cannot be written; the one before is whole then.
    """
    target = folder.path / RECOVERY_POINT
    scratch = target.with_name(f".{target.name}")
    record = {"format": FORMAT, "env_steps": env_steps, "seconds": seconds, "state": algorithm.get_state()}
    try:
        with scratch.open("wb") as file:
            pickle.dump(record, file, protocol=pickle.HIGHEST_PROTOCOL)
        scratch.replace(target)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise


def find_resume_point(folder: RunFolder) -> ResumePoint | None:
    """The recovery point or the newest whole checkpoint, whichever has more steps; None if there is neither yet.

    What is passed over because it is damaged is logged as a warning.

    Raises:
        ValueError: If there are checkpoints, but none of them is whole, and there is no recovery point.
    """
    recovery, checkpoint = _recovery_point(folder), None
    if folder.has_checkpoint:
        try:
            found = find_checkpoint(folder.path)
        except ValueError as error:
            if recovery is None:
                raise
            logger.warning("passed over: %s; using %s", error, recovery.path.name)
        else:
            info = load_info(found)
            checkpoint = ResumePoint(found, info.env_steps, info.seconds)
    if recovery and checkpoint:
        return recovery if recovery.env_steps > checkpoint.env_steps else checkpoint
    return recovery or checkpoint


def _recovery_point(folder: RunFolder) -> ResumePoint | None:
    path = folder.path / RECOVERY_POINT
    if not path.is_file():
        return None
    try:
        record = _read(path)
        return ResumePoint(path, record["env_steps"], record["seconds"])
    except Exception as error:  # unpickling what is damaged fails in many ways
        logger.warning("passed over: %s: cannot be read (%s: %s)", path, type(error).__name__, error)
        return None


def _read(path: Path) -> dict[str, Any]:
    """Loads a pickle, like all that RLlib saves: resume only runs of your own."""
    with path.open("rb") as file:
        record: dict[str, Any] = pickle.load(file)
    if record["format"] != FORMAT:
        raise ValueError(f"{path}: got format {record['format']!r}, expected {FORMAT}")
    return record
