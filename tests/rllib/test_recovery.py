"""Where a run goes on from, and that it goes on there with everything it had."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import tree
from ray.rllib.algorithms.ppo import PPO, PPOConfig

from perceiver_rl.rllib.recovery import RECOVERY_POINT, ResumePoint, find_resume_point, save_recovery_point
from perceiver_rl.rllib.run_folder import RunFolder
from tests.environments import COURIERS

INFO = {"env": "tests.environments:make_couriers", "env_config": {}, "config": "x", "seed": 0, "seconds": 1.5}
STEPS = 128


@dataclass(frozen=True)
class Saved:
    """A run of two iterations, and what its algorithm was like."""

    folder: RunFolder
    config: PPOConfig
    learner: dict[str, Any]
    iteration: int


@pytest.fixture(scope="module")
def saved(ray_local: None, make_config: Callable[..., PPOConfig], tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    config = make_config(num_envs=4, num_epochs=1, lr=[[0, 1e-2], [1_000, 0.0]])
    algorithm = config.build_algo()
    try:
        for _ in range(2):
            algorithm.train()
        save_recovery_point(folder, algorithm, STEPS, 1.5)
        folder.save_checkpoint(algorithm, STEPS, INFO | {"schema": COURIERS.to_dict()})
        return Saved(folder, config, learner_state(algorithm), algorithm.training_iteration)
    finally:
        algorithm.stop()


def learner_state(algorithm: PPO) -> dict[str, Any]:
    """Weights, optimizer and its learning rate, as copies."""
    state = algorithm.learner_group.get_state()["learner"]
    return {name: tree.map_structure(_copied, state[name]) for name in ("rl_module", "optimizer")}


def _copied(leaf: Any) -> Any:
    return torch.as_tensor(leaf).clone() if hasattr(leaf, "shape") else leaf


@pytest.fixture
def folder(saved: Saved, tmp_path: Path) -> RunFolder:
    """A copy, to be damaged."""
    return RunFolder(Path(shutil.copytree(saved.folder.path, tmp_path / "run")))


@pytest.mark.parametrize("path", [RECOVERY_POINT, f"checkpoints/checkpoint_{STEPS:010d}"])
def test_resume__has_weights_optimizer_counters_and_schedule(path: str, saved: Saved) -> None:
    algorithm = saved.config.build_algo()
    try:
        ResumePoint(saved.folder.path / path, STEPS, 1.5).restore(algorithm)
        tree.map_structure(_require_equal, learner_state(algorithm), saved.learner)
        assert algorithm.training_iteration == saved.iteration
        assert algorithm.metrics.peek(("env_runners", "num_env_steps_sampled_lifetime")) == pytest.approx(STEPS, abs=20)
        # From which an env runner seeds what it plays: not what the run began with.
        assert algorithm.env_runner.num_env_steps_sampled_lifetime == STEPS
        rate = algorithm.train()["learners"]["default_policy"]["default_optimizer_learning_rate"]
        assert rate == pytest.approx(1e-2 * (1 - STEPS / 1_000), abs=1e-3)
    finally:
        algorithm.stop()


def _require_equal(got: Any, expected: Any) -> None:
    if isinstance(expected, torch.Tensor):
        torch.testing.assert_close(torch.as_tensor(got), expected, rtol=0, atol=0)
    else:
        assert got == expected


def test_resume_point__is_the_one_with_more_steps(folder: RunFolder) -> None:
    recovery, checkpoint = folder.path / RECOVERY_POINT, folder.checkpoints / f"checkpoint_{STEPS:010d}"
    assert find_resume_point(folder) == ResumePoint(checkpoint, STEPS, 1.5), "of equals the one that can be evaluated"
    record = pickle.loads(recovery.read_bytes())
    for steps, expected in ((STEPS - 1, checkpoint), (STEPS + 1, recovery)):
        recovery.write_bytes(pickle.dumps(record | {"env_steps": steps}))
        point = find_resume_point(folder)
        assert point is not None
        assert point.path == expected


def test_resume_point__is_none_before_the_first_iteration(tmp_path: Path) -> None:
    assert find_resume_point(RunFolder(tmp_path)) is None


@pytest.mark.parametrize("keep", [0, 1, 1_000, -1])
def test_resume_point__passes_over_a_torn_recovery_point(
    keep: int, folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    recovery = folder.path / RECOVERY_POINT
    os.truncate(recovery, keep % recovery.stat().st_size)
    point = find_resume_point(folder)
    assert point is not None
    assert point.path.name == f"checkpoint_{STEPS:010d}"
    assert "recovery.pkl: cannot be read" in caplog.text


def test_resume_point__passes_over_torn_checkpoints(folder: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    (folder.checkpoints / f"checkpoint_{STEPS:010d}" / "algorithm_state.pkl").unlink()
    with caplog.at_level(logging.WARNING):
        assert find_resume_point(folder) == ResumePoint(folder.path / RECOVERY_POINT, STEPS, 1.5)
    assert "algorithm_state.pkl is missing" in caplog.text


def test_resume_point__is_refused_where_nothing_is_whole(folder: RunFolder) -> None:
    (folder.path / RECOVERY_POINT).unlink()
    (folder.checkpoints / f"checkpoint_{STEPS:010d}" / "algorithm_state.pkl").unlink()
    with pytest.raises(ValueError, match=r"algorithm_state\.pkl is missing"):
        find_resume_point(folder)


class _Stateful(PPO):
    def __init__(self, state: Any) -> None:
        self._state = state

    def get_state(self) -> Any:  # type: ignore[override]
        return self._state


class _NoRoom:
    def __reduce__(self) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_recovery_point__is_the_old_one_if_the_disk_takes_no_new_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    save_recovery_point(folder, _Stateful("old"), 5, 1.0)
    with pytest.raises(OSError, match="No space left"):
        save_recovery_point(folder, _Stateful(["a" * 1_000_000, _NoRoom()]), 6, 1.0)
    assert find_resume_point(folder) == ResumePoint(tmp_path / RECOVERY_POINT, 5, 1.0)
    assert [path.name for path in tmp_path.iterdir()] == [RECOVERY_POINT]
