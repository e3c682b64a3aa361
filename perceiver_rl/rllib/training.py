"""One training run from start to end: RLlib's algorithm, TensorBoard, checkpoints, Ctrl-C, resuming."""

from __future__ import annotations

import json
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import gymnasium
from ray.exceptions import RayError
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from perceiver_rl.entities import EntitySchema
from perceiver_rl.rllib.callbacks import VerbCounts
from perceiver_rl.rllib.cluster import lose_no_time_over_the_lost, ray_for
from perceiver_rl.rllib.config_file import apply_overrides, load_factory, register_for, setting_of
from perceiver_rl.rllib.dealing import deal_out_environments
from perceiver_rl.rllib.learners import SquadLearner
from perceiver_rl.rllib.metrics import env_steps, flatten
from perceiver_rl.rllib.recorded_episodes import take_recordings
from perceiver_rl.rllib.recorder import PreparedRun, Progress, Recorder, TrainingError, process_ended
from perceiver_rl.rllib.recovery import find_resume_point
from perceiver_rl.rllib.run_folder import RunFolder, RunSettings
from perceiver_rl.rllib.watchdog import Watchdog, kill_silent_env_runners, patience_without_samples
from perceiver_rl.trial import try_environment, try_parallel_environment

MAX_FAILURES = 3
"""How often env runners may fail on end, without a single sample in between, before a run is given up."""

NO_ENV = "doesn't have an env!"
"""RLlib's words for an env runner without an environment."""

RESTART_DELAY_S = 1.0
"""Between an error in an environment and the new start of its env runner. RLlib's own minute would stand still."""


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended."""

    checkpoint: Path
    progress: Progress
    interrupted: bool
    """Whether Ctrl-C ended it before its time."""


def build_config(settings: RunSettings) -> AlgorithmConfig:
    """The RLlib config of a run, with all overrides applied and validated.

    Raises:
        ValueError: If the config, the environment, a key or a value is not valid.
    """
    # RLlib greets every config on the new API stack with a warning that it is on the new API stack.
    logging.getLogger("ray.rllib.algorithms.algorithm_config").setLevel(logging.ERROR)
    config = load_factory(settings.config)(total_env_steps=settings.total_env_steps)
    if not isinstance(config, AlgorithmConfig):
        raise ValueError(
            f"config {settings.config!r}: got {config!r} back, expected an AlgorithmConfig; is its `return` there?"
        )
    if settings.env is not None:
        config.environment(register_for(config, settings.env))
    config.debugging(seed=settings.seed)
    apply_overrides(config, list(settings.overrides))
    overridden = set(map(setting_of, settings.overrides))
    if "env_runners.num_env_runners" in overridden and "env_runners.num_envs_per_env_runner" not in overridden:
        deal_out_environments(config)
    lose_no_time_over_the_lost(config)
    if not isinstance(config.env, str):
        raise ValueError(
            f"environment: got {config.env!r}, expected a name such as 'smax/2s3z' or an import string 'module:callable', "
            "given to the config by register_env (register_multi_agent_env for many agents) or to the command line by --env"
        )
    try:
        json.dumps(config.env_config)
    except TypeError as error:
        raise ValueError(
            f"environment.env_config: {error}; expected what JSON can hold, for checkpoints to name it"
        ) from error
    if isinstance(config.learner_class, type) and issubclass(config.learner_class, SquadLearner):
        config.learner_class.settings(config)
    if config.delay_between_env_runner_restarts_s == AlgorithmConfig().delay_between_env_runner_restarts_s:
        config.fault_tolerance(delay_between_env_runner_restarts_s=RESTART_DELAY_S)
    present = config.callbacks_class
    config.callbacks([*(present if isinstance(present, list | tuple) else [present]), VerbCounts])
    if config.is_online:  # others are told their spaces by their datasets first
        config.copy(copy_frozen=False).validate()
    return config


def prepare(settings: RunSettings, folder: RunFolder, *, resume: bool = False) -> PreparedRun:
    """Check everything that can be wrong with a run, and begin its folder.

    Args:
        settings: What to do.
        folder: Where to write.
        resume: Go on where the run in the folder ended, or from the start if that was before its first iteration's end.
            Settings of checkpoints may be others than the run had, and are noted.

    Raises:
        ValueError: If the config, a key, a value, the environment, the folder or the checkpoint is not valid.
        ImportError: If the environment needs a package that is not installed.
    """
    config = build_config(settings)
    recordings = None if config.is_online else take_recordings(config)
    if recordings is not None:
        config.copy(copy_frozen=False).validate()
    schemas, agents = try_out(config, settings.seed)
    if recordings is not None:
        recordings.require(schemas[DEFAULT_MODULE_ID], config.env)
    if not resume:
        folder.create(settings)
        return PreparedRun(settings, folder, config, schemas, agents, resume_point=None)
    folder.change_checkpoints(settings)
    return PreparedRun(settings, folder, config, schemas, agents, find_resume_point(folder))


def try_out(config: AlgorithmConfig, seed: int) -> tuple[dict[str, EntitySchema], dict[str, str]]:
    """Play a few steps of a config's environment; give back the schema of each policy, and the policy of each agent.

    Raises:
        ValueError: If the environment does not keep its contract, or a policy is named for agents that it cannot play.
    """
    if not config.is_multi_agent:
        return {DEFAULT_MODULE_ID: try_environment(config.env, config.env_config, seed)}, {}
    of_agents = try_parallel_environment(config.env, config.env_config, seed)
    episode = MultiAgentEpisode()  # the mapping is asked for an agent in an episode
    agents = {agent: str(config.policy_mapping_fn(agent, episode)) for agent in of_agents}
    schemas: dict[str, EntitySchema] = {}
    for agent, module in agents.items():
        if module not in config.policies:
            raise ValueError(
                f"multi_agent.policy_mapping_fn: got policy {module!r} for agent {agent!r}, expected one of "
                f"{', '.join(map(str, config.policies))}"
            )
        if schemas.setdefault(module, of_agents[agent]) != of_agents[agent]:
            raise ValueError(
                f"multi_agent.policy_mapping_fn: got policy {module!r} for agents of several schemas, {agent!r} among them, "
                "expected one schema a policy; give each kind of agent a policy of its own"
            )
    return schemas, agents


def train(
    run: PreparedRun,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    on_checkpoint: Callable[[Path], None] | None = None,
    stop: Callable[[], bool] | None = None,
    address: str | None = None,
    on_waiting: Callable[[str], None] | None = None,
) -> TrainingResult:
    """Train until the run's steps are done or Ctrl-C is pressed, and leave a checkpoint in either case.

    The first Ctrl-C asks for an orderly end: after the running iteration, with a checkpoint. A second one ends at once.

    Args:
        run: What `prepare` gave back.
        on_progress: Called after every iteration.
        on_checkpoint: Called with each checkpoint that was written, the last one included; training waits for it.
        stop: Whether to end, where `stop_at_ctrl_c` is at work already; None to let it work here.
        address: Of a Ray cluster, see `cluster_address`; None for RAY_ADDRESS or, without that, a local Ray.
        on_waiting: Told what is waited for, if the cluster has no room yet.

    Raises:
        TrainingError: If the env runners deliver no samples, a learner's process ends, the disk takes no more, or training
            diverges.
        ClusterError: If the cluster does not take the run.
        KeyboardInterrupt: At a Ctrl-C before the first iteration, which leaves nothing to save, or at a second one.
    """
    with (
        nullcontext(stop) if stop else stop_at_ctrl_c() as stopping,
        ray_for(run.config, address, leave_out=run.folder.path, say=on_waiting or (lambda words: None), stop=stopping),
    ):
        _interrupt_if(stopping())
        with _building(run.config) as algorithm:
            if run.resume_point is not None:
                run.resume_point.restore(algorithm)
            _interrupt_if(stopping())
            recorder = Recorder(run, on_checkpoint or (lambda checkpoint: None))
            return _loop(algorithm, recorder, on_progress or (lambda progress: None), stopping)


def _loop(
    algorithm: Algorithm,
    recorder: Recorder,
    on_progress: Callable[[Progress], None],
    stop: Callable[[], bool],
) -> TrainingResult:
    total, checkpoint_every = recorder.run.settings.total_env_steps, recorder.run.settings.checkpoint_every
    defaults: dict[str, Any] = {"env_runners": {}, NUM_ENV_STEPS_SAMPLED_LIFETIME: 0}
    steps = env_steps({name: algorithm.metrics.peek(name, default=nothing) for name, nothing in defaults.items()})
    if algorithm.offline_data is not None:
        algorithm.offline_data.skip(steps)
    next_checkpoint = (steps // checkpoint_every + 1) * checkpoint_every
    seconds_before = recorder.run.resume_point.seconds if recorder.run.resume_point else 0.0
    progress = Progress(steps, total, seconds_before, 0.0, recorder.run.folder.numbers_at(steps))
    failures = _Failures(algorithm)
    began = time.perf_counter()
    with recorder.open_log(steps) as writer, Watchdog(algorithm):
        while progress.env_steps < total and not stop():
            result = _train_once(algorithm)
            steps = env_steps(result)
            seconds = seconds_before + time.perf_counter() - began
            if steps <= progress.env_steps:
                failures.require_hope(seconds - progress.seconds)
                continue
            rate = (steps - progress.env_steps) / (seconds - progress.seconds)
            progress = Progress(steps, total, seconds, rate, flatten(result) | failures.numbers())
            failures.forget()
            _require_finite(progress)
            recorder.log(writer, progress)
            recorder.save_recovery_point(algorithm, progress)
            on_progress(progress)
            if steps >= next_checkpoint and steps < total:
                recorder.save(algorithm, progress)
                next_checkpoint = (steps // checkpoint_every + 1) * checkpoint_every
        if progress.env_steps >= total:
            recorder.finish(writer)
        return TrainingResult(recorder.save(algorithm, progress), progress, interrupted=progress.env_steps < total)


def _train_once(algorithm: Algorithm) -> dict[str, Any]:
    """One iteration's result; nothing if there was no env runner to ask.

    Env runners that end in it are RLlib's affair, all other processes of Ray the run's end.
    """
    group = algorithm.env_runner_group
    try:
        return algorithm.train()
    except RayError as error:
        raise process_ended(error) from error
    except ValueError as error:
        # As long as no env runner is back, IMPALA and APPO ask that of the driver, which has no environment.
        if group and group.num_remote_env_runners() and not group.num_healthy_remote_env_runners() and NO_ENV in str(error):
            return {}
        raise


class _Failures:
    """Counts iterations without a sample, and the env runners that were started anew."""

    def __init__(self, algorithm: Algorithm) -> None:
        self._group = algorithm.env_runner_group  # None in offline training
        self._patience = patience_without_samples(algorithm.config)
        self.forget()

    def forget(self) -> None:
        """There were samples."""
        self._empty_iterations = 0
        self._restarts_before = self._restarts()

    def numbers(self) -> dict[str, float]:
        """For TensorBoard, once there is something to tell."""
        restarts = self._restarts()
        return {"faults/env_runner_restarts": float(restarts)} if restarts else {}

    def require_hope(self, seconds: float) -> None:
        """Raise if there will be no samples any more.

        Args:
            seconds: Since there were some.
        """
        self._empty_iterations += 1
        failed_anew = self._restarts() - self._restarts_before + 1 >= MAX_FAILURES * max(1, self._num_runners())
        if self._empty_iterations >= MAX_FAILURES and (failed_anew or seconds >= self._patience):
            raise TrainingError(
                f"no samples from the env runners in {self._empty_iterations} iterations on end, for {seconds:.0f} s: each "
                "of them fails or hangs; their errors are in the log above. Run with --env-runners 0 to see the first one "
                "as it is raised"
            )

    def _restarts(self) -> int:
        return int(self._group.num_remote_worker_restarts()) if self._group else 0

    def _num_runners(self) -> int:
        return int(self._group.num_remote_env_runners()) if self._group else 0


def _require_finite(progress: Progress) -> None:
    """Raise if the optimiser's numbers are no longer finite: what follows would be wasted, and its checkpoints useless."""
    bad = [tag for tag, value in progress.numbers.items() if not math.isfinite(value)]
    if bad:
        raise TrainingError(
            f"training diverged after {progress.env_steps:,} environment steps: {', '.join(bad)} got NaN or infinity; the "
            "checkpoints so far are from before. Try a smaller training.lr, or training.grad_clip"
        )


@contextmanager
def _building(config: AlgorithmConfig) -> Iterator[Algorithm]:
    """The algorithm; its actors are stopped at the end, whatever happens."""
    gymnasium.logger.min_level = gymnasium.logger.ERROR  # RLlib registers one and the same gymnasium name for every env
    algorithm = config.build_algo()
    try:
        yield algorithm
    finally:
        try:
            kill_silent_env_runners(algorithm)
        finally:
            algorithm.stop()


@contextmanager
def stop_at_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C ask for an orderly end, and a second one end at once.

    That holds while Ray starts and stops, too: an exception that falls into one of the forks there is lost in a hook of
    another library, and so would be the wish to end. Ray's own processes block the signal.
    """
    asked = False

    def handle(signal_number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, previous)


def _interrupt_if(asked: bool) -> None:
    if asked:
        raise KeyboardInterrupt
