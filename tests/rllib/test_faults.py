"""What happens to processes in the midst of training, and that training goes on, or says how it can."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.ppo import PPOConfig

from perceiver_rl.rllib import SquadAPPOLearner
from perceiver_rl.rllib.checkpoint import Score, checkpoints_in, load_info, require_whole
from perceiver_rl.rllib.recorder import PreparedRun, Progress, Recorder, TrainingError
from perceiver_rl.rllib.recovery import find_resume_point
from perceiver_rl.rllib.run_folder import RunFolder, RunSettings
from perceiver_rl.rllib.training import RESTART_DELAY_S, TrainingResult, _building, _Failures, _loop, build_config
from tests.environments import COURIERS

PPO_CONFIG, APPO_CONFIG = "tests/courier_config.py", "tests.rllib.test_faults:make_appo_config"
BATCH = 256
TROUBLED = "tests.troubled_environments:make_troubled_couriers"


def make_appo_config(total_env_steps: int = 4_000) -> APPOConfig:
    """APPO on couriers."""
    from tests.courier_config import make_config

    like: PPOConfig = make_config(total_env_steps)
    return (
        APPOConfig()
        .environment(like.env)
        .env_runners(
            env_runner_cls=like.env_runner_cls,
            gym_env_vectorize_mode="vector_entry_point",
            num_env_runners=1,
            num_envs_per_env_runner=16,
            rollout_fragment_length=16,
        )
        .rl_module(rl_module_spec=like.rl_module_spec)
        .training(lr=1e-3, train_batch_size_per_learner=BATCH, minibatch_size=128, num_epochs=1, use_kl_loss=False)
        .learners(num_learners=0, learner_class=SquadAPPOLearner)
        .reporting(min_time_s_per_iteration=0.2)
    )


def settings(config: str, *overrides: str, steps: int, env: str | None = None) -> RunSettings:
    return RunSettings(config, env=env, seed=0, total_env_steps=steps, overrides=overrides)


def prepared(path: Path, asked: RunSettings) -> PreparedRun:
    """A run as `prepare` prepares it, but that the environment is not tried: it may do something to this process."""
    folder = RunFolder(path)
    if not folder.exists:
        folder.create(asked)
    return PreparedRun(asked, folder, build_config(asked), {"default_policy": COURIERS}, {}, find_resume_point(folder))


def train_in_this_ray(
    run: PreparedRun,
    *,
    on_progress: Callable[[Algorithm, Progress], None] = lambda algorithm, progress: None,
    stop: Callable[[Algorithm], bool] = lambda algorithm: False,
) -> TrainingResult:
    """As `train` does, without starting a Ray of its own."""
    with _building(run.config) as algorithm:
        if run.resume_point is not None:
            run.resume_point.restore(algorithm)
        return _loop(
            algorithm,
            Recorder(run, on_checkpoint=lambda checkpoint: None),
            lambda progress: on_progress(algorithm, progress),
            lambda: stop(algorithm),
        )


def progress_of(run: PreparedRun) -> list[dict[str, float]]:
    log = run.folder.path / "progress.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@contextmanager
def full_disk(folder: Path) -> Iterator[Callable[[], None]]:
    """Gives back what makes a folder's disk full until the context ends: a disk of its own, or a limit of this process."""
    folder.mkdir()
    ballast = folder / "ballast"
    own = os.geteuid() == 0 and not subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder]).returncode
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        if not own:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
            return
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(512))

    try:
        yield fill
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        ballast.unlink(missing_ok=True)
        if own:
            subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's writer ends by it
def test_full_disk__ends_the_run_with_all_that_was_saved_whole(ray_local: None, tmp_path: Path) -> None:
    asked = replace(settings(PPO_CONFIG, "env_runners.num_env_runners=0", steps=8 * BATCH), checkpoint_every=BATCH)
    with full_disk(tmp_path / "disk") as fill:
        run = prepared(tmp_path / "disk" / "run", asked)
        told = []

        def fill_after_three(algorithm: Algorithm, progress: Progress) -> None:
            told.append(progress.env_steps)
            if len(told) == 3:
                fill()

        with pytest.raises(TrainingError, match=r"cannot be written .*the checkpoints so far are whole\. Make room"):
            train_in_this_ray(run, on_progress=fill_after_three)
        shutil.copytree(run.folder.path, tmp_path / "run")
    for checkpoint in checkpoints_in(tmp_path / "run" / "checkpoints"):
        require_whole(checkpoint)
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))
    resumed = prepared(tmp_path / "run", asked)
    assert resumed.resume_point is not None
    assert resumed.resume_point.env_steps == told[-1], "the running iteration is all that was lost"
    train_in_this_ray(resumed)
    steps = [record["env_steps"] for record in progress_of(resumed)]
    assert steps[: len(told)] == told
    assert steps == sorted(set(steps))
    assert steps[-1] >= 8 * BATCH


def test_run_killed_before_its_last_checkpoint__leaves_one_with_its_score(
    ray_local: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = settings(PPO_CONFIG, "env_runners.num_env_runners=0", steps=4 * BATCH)
    run = prepared(tmp_path / "run", asked)
    with monkeypatch.context() as killed:
        killed.setattr(Recorder, "save", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train_in_this_ray(run)
    resumed = prepared(tmp_path / "run", asked)
    assert resumed.resume_point is not None
    assert resumed.resume_point.env_steps >= 4 * BATCH
    checkpoint = train_in_this_ray(resumed).checkpoint
    assert load_info(checkpoint).score == Score("outcome/return", progress_of(run)[-1]["outcome/return"])
    assert (run.folder.path / "best").resolve() == checkpoint


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Data, which comes with learners, uses what it deprecates
@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "processes"),
    [
        (PPO_CONFIG, "learners.num_learners=1"),
        (APPO_CONFIG, "learners.num_learners=1"),
        (APPO_CONFIG, "learners.num_aggregator_actors_per_learner=1"),
    ],
)
def test_killed_learner_or_aggregator__ends_the_run_and_it_can_be_gone_on_with(
    config: str, processes: str, ray_local: None, tmp_path: Path
) -> None:
    asked = settings(config, processes, "env_runners.num_env_runners=1", steps=8 * BATCH)
    run = prepared(tmp_path / "run", asked)
    told: list[int] = []

    def kill_after_two(algorithm: Algorithm, progress: Progress) -> None:
        told.append(progress.env_steps)
        if len(told) == 2:
            aggregators = getattr(algorithm, "_aggregator_actor_manager", None)
            ask = aggregators.foreach_actor if aggregators else algorithm.learner_group.foreach_learner
            (pid,) = (each.get() for each in ask(lambda actor: os.getpid()))
            assert pid != os.getpid()
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(TrainingError, match=r"it was no env runner: .*Go on with --resume"):
        train_in_this_ray(run, on_progress=kill_after_two)
    resumed = prepared(tmp_path / "run", asked)
    assert resumed.resume_point is not None
    assert resumed.resume_point.env_steps == told[-1]
    assert train_in_this_ray(resumed).progress.env_steps >= 8 * BATCH


def trouble(kind: str, mark: Path, **options: Any) -> str:
    return "environment.env_config=" + repr({"trouble": kind, "mark": str(mark), **options})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (PPO_CONFIG, "kill"),
        (PPO_CONFIG, "raise"),
        (PPO_CONFIG, "hang"),
        (PPO_CONFIG, "freeze"),
        (APPO_CONFIG, "kill"),
        (APPO_CONFIG, "raise"),
        (APPO_CONFIG, "hang"),
    ],
)
def test_env_runner__is_replaced_and_training_goes_on(config: str, kind: str, ray_local: None, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    asked = settings(
        config,
        trouble(kind, mark, at=1_000),  # in the midst of a rollout of 16 steps
        "env_runners.num_env_runners=2",
        "env_runners.num_envs_per_env_runner=8",
        "env_runners.sample_timeout_s=3",
        "fault_tolerance.env_runner_health_probe_timeout_s=60",  # on a busy machine a quarter of a second is too short
        env=TROUBLED,
        steps=1_000_000,
    )
    run = prepared(tmp_path / "run", asked)
    deadline = time.monotonic() + 180

    def replaced(algorithm: Algorithm) -> bool:
        assert time.monotonic() < deadline, "the env runner was not replaced"
        return algorithm.env_runner_group.num_remote_worker_restarts() > 0 and "faults" in str(progress_of(run)[-1:])

    result = train_in_this_ray(run, stop=replaced)
    assert mark.exists(), "nothing happened"
    steps = [record["env_steps"] for record in progress_of(run)]
    assert len(steps) > 2
    assert steps == sorted(set(steps))
    require_whole(result.checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize(("config", "kind"), [(APPO_CONFIG, "kill"), (APPO_CONFIG, "hang"), (PPO_CONFIG, "hang")])
def test_only_env_runner__is_waited_for(config: str, kind: str, ray_local: None, tmp_path: Path) -> None:
    asked = settings(
        config,
        trouble(kind, tmp_path / "mark", at=1_000),  # long after the start, for which there is more patience
        "env_runners.sample_timeout_s=3",
        "fault_tolerance.env_runner_health_probe_timeout_s=0.1",  # sooner than a process starts
        env=TROUBLED,
        steps=80 * BATCH,
    )
    assert train_in_this_ray(prepared(tmp_path / "run", asked)).progress.env_steps >= 80 * BATCH
    assert (tmp_path / "mark").exists(), "nothing happened"


@pytest.mark.slow
def test_env_runner__that_always_fails_ends_the_run(ray_local: None, tmp_path: Path) -> None:
    asked = settings(PPO_CONFIG, trouble("raise", tmp_path / "mark", at=2, always=True), env=TROUBLED, steps=8 * BATCH)
    with pytest.raises(TrainingError, match=r"no samples from the env runners in \d+ iterations on end"):
        train_in_this_ray(prepared(tmp_path / "run", asked))


class _Silent(Algorithm):
    """Has one env runner, which neither fails nor delivers anything."""

    def __init__(self, config: AlgorithmConfig) -> None:
        self.config = config
        self.env_runner_group = SimpleNamespace(num_remote_worker_restarts=lambda: 0, num_remote_env_runners=lambda: 1)


@pytest.mark.parametrize(("timeout", "patience"), [(60, 600 + 600), (400, 800 + 600)])
def test_silent_env_runner__is_waited_for_as_long_as_its_hanging_and_its_new_start_take(timeout: int, patience: int) -> None:
    asked = settings(PPO_CONFIG, f"env_runners.sample_timeout_s={timeout}", steps=BATCH)
    failures = _Failures(_Silent(build_config(asked)))
    for _ in range(5):
        failures.require_hope(patience - 1.0)
    with pytest.raises(TrainingError, match=rf"no samples from the env runners in 6 iterations on end, for {patience} s"):
        failures.require_hope(float(patience))


@pytest.mark.slow
def test_environment_in_the_drivers_process__raises_its_own_error(ray_local: None, tmp_path: Path) -> None:
    asked = settings(
        PPO_CONFIG,
        trouble("raise", tmp_path / "mark", at=40),
        "env_runners.num_env_runners=0",
        env=TROUBLED,
        steps=8 * BATCH,
    )
    with pytest.raises(ConnectionResetError, match="the simulator is gone"):
        train_in_this_ray(prepared(tmp_path / "run", asked))
    asked_again = prepared(tmp_path / "run", asked)
    assert asked_again.resume_point is not None
    assert train_in_this_ray(asked_again).progress.env_steps >= 8 * BATCH


@pytest.mark.parametrize(("set_to", "expected"), [(None, RESTART_DELAY_S), (7.0, 7.0)])
def test_restart_delay__is_not_rllibs_minute_unless_the_config_says_so(set_to: float | None, expected: float) -> None:
    overrides = () if set_to is None else (f"fault_tolerance.delay_between_env_runner_restarts_s={set_to}",)
    config = build_config(settings(PPO_CONFIG, *overrides, steps=BATCH))
    assert config.delay_between_env_runner_restarts_s == expected
    assert config.restart_failed_env_runners
