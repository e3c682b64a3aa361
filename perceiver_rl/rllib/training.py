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
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.impala import IMPALA
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from torch.utils.tensorboard import SummaryWriter

from perceiver_rl.descriptions import model_text, schema_text
from perceiver_rl.entities import EntitySchema
from perceiver_rl.rllib.callbacks import VerbCounts
from perceiver_rl.rllib.checkpoint import find_checkpoint, load_info
from perceiver_rl.rllib.cluster import lose_no_time_over_the_lost, ray_for
from perceiver_rl.rllib.config_file import apply_overrides, load_factory, register_for
from perceiver_rl.rllib.learners import SquadLearner
from perceiver_rl.rllib.metrics import ACTIONS, env_steps, flatten, verb_shares
from perceiver_rl.rllib.recorded_episodes import take_recordings
from perceiver_rl.rllib.run_description import METRICS, hyper_parameters, models, settings_text
from perceiver_rl.rllib.run_folder import RunFolder, RunSettings
from perceiver_rl.summaries import add_summary, hparams_session, verb_histogram
from perceiver_rl.trial import try_environment, try_parallel_environment

MAX_EMPTY_ITERATIONS = 3
"""Iterations without a single sample after which a run is given up: every env runner fails, again and again."""

ASYNCHRONOUS_PATIENCE_S = 180.0
"""An algorithm that does not wait for samples has iterations without any while env runners start. So long it may."""


class TrainingError(RuntimeError):
    """A run cannot go on; its checkpoints so far are whole."""


@dataclass(frozen=True)
class Progress:
    """How a run stands after an iteration."""

    env_steps: int
    total_env_steps: int
    seconds: float
    """Training time, from the first iteration on and over all resumptions."""
    env_steps_per_second: float
    """Over the last iteration."""
    numbers: dict[str, float]
    """By TensorBoard tag."""


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
    present = config.callbacks_class
    config.callbacks([*(present if isinstance(present, list | tuple) else [present]), VerbCounts])
    if config.is_online:  # others are told their spaces by their datasets first
        config.copy(copy_frozen=False).validate()
    return config


@dataclass(frozen=True)
class PreparedRun:
    """A run of which everything has been checked that can be before Ray starts."""

    settings: RunSettings
    folder: RunFolder
    config: AlgorithmConfig
    schemas: dict[str, EntitySchema]
    """What each policy sees and does, by module id."""
    agents: dict[str, str]
    """Module id of each agent of a multi-agent environment; empty for a squad."""
    checkpoint: Path | None
    """Where a resumed run goes on from."""
    seconds_before: float
    """Training time up to that checkpoint."""


def prepare(settings: RunSettings, folder: RunFolder, *, resume: bool = False) -> PreparedRun:
    """Check everything that can be wrong with a run, and begin its folder.

    Args:
        settings: What to do.
        folder: Where to write.
        resume: Go on from the folder's newest checkpoint, or from the start if the run ended before its first.

    Raises:
        ValueError: If the config, a key, a value, the environment, the folder or the checkpoint is not valid.
        ImportError: If the environment needs a package that is not installed.
    """
    config = build_config(settings)
    recordings = None if config.is_online else take_recordings(config)
    if recordings is not None:
        config.copy(copy_frozen=False).validate()
    schemas, agents = _try(config, settings.seed)
    if recordings is not None:
        recordings.require(schemas[DEFAULT_MODULE_ID], config.env)
    if not resume:
        folder.create(settings)
        return PreparedRun(settings, folder, config, schemas, agents, checkpoint=None, seconds_before=0.0)
    if not folder.has_checkpoint:  # ended before the first one: begin again, by the same settings
        return PreparedRun(settings, folder, config, schemas, agents, checkpoint=None, seconds_before=0.0)
    checkpoint = find_checkpoint(folder.path)
    return PreparedRun(settings, folder, config, schemas, agents, checkpoint, load_info(checkpoint).seconds)


def _try(config: AlgorithmConfig, seed: int) -> tuple[dict[str, EntitySchema], dict[str, str]]:
    """Play a few steps; give back the schema of each policy, and the policy of each agent."""
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
    checkpoint_every: int,
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
        checkpoint_every: Environment steps between checkpoints.
        on_progress: Called after every iteration.
        on_checkpoint: Called with each checkpoint that was written, the last one included; training waits for it.
        stop: Whether to end, where `stop_at_ctrl_c` is at work already; None to let it work here.
        address: Of a Ray cluster, see `cluster_address`; None for RAY_ADDRESS or, without that, a local Ray.
        on_waiting: Told what is waited for, if the cluster has no room yet.

    Raises:
        TrainingError: If the env runners deliver no samples, or training diverges.
        ClusterError: If the cluster does not take the run.
        KeyboardInterrupt: At a Ctrl-C before the first iteration, which leaves nothing to save, or at a second one.
    """
    with (
        nullcontext(stop) if stop else stop_at_ctrl_c() as stopping,
        ray_for(run.config, address, leave_out=run.folder.path, say=on_waiting or (lambda words: None), stop=stopping),
    ):
        _interrupt_if(stopping())
        with _building(run.config) as algorithm:
            if run.checkpoint:
                restore(algorithm, run.checkpoint)
            _interrupt_if(stopping())
            recorder = _Recorder(run, on_checkpoint or (lambda checkpoint: None))
            return _loop(algorithm, recorder, checkpoint_every, on_progress or (lambda progress: None), stopping)


def restore(algorithm: Algorithm, checkpoint: Path) -> None:
    """Let an algorithm go on from a checkpoint."""
    if algorithm.env_runner_group is None:  # of offline training; `Algorithm` would go on to tell env runners the weights
        Checkpointable.restore_from_path(algorithm, checkpoint.resolve())
    else:
        algorithm.restore_from_path(checkpoint.resolve())


class _Recorder:
    """Writes what a run leaves behind."""

    def __init__(self, run: PreparedRun, on_checkpoint: Callable[[Path], None]) -> None:
        self.run = run
        self._on_checkpoint = on_checkpoint
        self._info = {
            "env": run.config.env,
            "env_config": dict(run.config.env_config),
            "config": run.settings.config,
            "seed": run.settings.seed,
            "schemas": {module: schema.to_dict() for module, schema in run.schemas.items()},
            "agents": run.agents,
        }
        control = "per agent" if run.agents else next(iter(run.schemas.values())).control
        self._session = hparams_session(hyper_parameters(run.config, run.settings, control), METRICS)

    def open_log(self, env_steps: int) -> SummaryWriter:
        """TensorBoard's writer; what an earlier, interrupted part of the run logged after `env_steps` is taken back."""
        self.run.folder.cut_progress(env_steps)
        writer = SummaryWriter(str(self.run.folder.path), purge_step=env_steps + 1)
        if env_steps == 0:
            self._describe(writer)
        return writer

    def _describe(self, writer: SummaryWriter) -> None:
        """What was asked for, as text and as hyper-parameters."""
        config, settings = self.run.config, self.run.settings
        writer.add_text("run/settings", settings_text(settings, config))
        for module, model in models(config).items():
            writer.add_text(f"run/model/{module}" if module else "run/model", model_text(model))
        for module, schema in self.run.schemas.items():
            writer.add_text(f"run/schema{self._ending(module)}", schema_text(schema))
        *beginning, _ = self._session
        for summary in beginning:
            add_summary(writer, summary)

    def finish(self, writer: SummaryWriter) -> None:
        """Say that the run is complete."""
        add_summary(writer, self._session[-1])

    def log(self, writer: SummaryWriter, progress: Progress) -> None:
        """One iteration's numbers, to TensorBoard and to the progress file."""
        numbers = {**progress.numbers, "time/env_steps_per_second": progress.env_steps_per_second}
        for tag, value in numbers.items():
            writer.add_scalar(tag, value, progress.env_steps)
        for module, schema in self.run.schemas.items():
            if shares := verb_shares(numbers, schema, module):
                histogram = verb_histogram(f"{ACTIONS}/verbs{self._ending(module)}", shares)
                add_summary(writer, histogram, progress.env_steps)
        self.run.folder.append_progress({"env_steps": progress.env_steps, "seconds": progress.seconds, **numbers})

    def save(self, algorithm: Algorithm, progress: Progress) -> Path:
        """A checkpoint."""
        info = {**self._info, "seconds": progress.seconds}
        checkpoint = self.run.folder.save_checkpoint(algorithm, progress.env_steps, info)
        self._on_checkpoint(checkpoint)
        return checkpoint

    def _ending(self, module: str) -> str:
        """Of a tag that each policy has."""
        return f"/{module}" if len(self.run.schemas) > 1 else ""


def _loop(
    algorithm: Algorithm,
    recorder: _Recorder,
    checkpoint_every: int,
    on_progress: Callable[[Progress], None],
    stop: Callable[[], bool],
) -> TrainingResult:
    total = recorder.run.settings.total_env_steps
    defaults: dict[str, Any] = {"env_runners": {}, NUM_ENV_STEPS_SAMPLED_LIFETIME: 0}
    steps = env_steps({name: algorithm.metrics.peek(name, default=nothing) for name, nothing in defaults.items()})
    if algorithm.offline_data is not None:
        algorithm.offline_data.skip(steps)
    patience = ASYNCHRONOUS_PATIENCE_S if isinstance(algorithm, IMPALA) else 0.0
    next_checkpoint = steps + checkpoint_every
    empty_iterations = 0
    progress = Progress(steps, total, recorder.run.seconds_before, 0.0, {})
    began = time.perf_counter()
    with recorder.open_log(steps) as writer:
        while progress.env_steps < total and not stop():
            result = algorithm.train()
            steps = env_steps(result)
            seconds = recorder.run.seconds_before + time.perf_counter() - began
            if steps <= progress.env_steps:
                empty_iterations += 1
                if empty_iterations >= MAX_EMPTY_ITERATIONS and seconds - progress.seconds >= patience:
                    raise TrainingError(
                        f"no samples from the env runners in {empty_iterations} iterations on end: each of them fails; "
                        "their errors are in the log above. Run with --env-runners 0 to see the first one as it is raised"
                    )
                continue
            empty_iterations = 0
            rate = (steps - progress.env_steps) / (seconds - progress.seconds)
            progress = Progress(steps, total, seconds, rate, flatten(result))
            _require_finite(progress)
            recorder.log(writer, progress)
            on_progress(progress)
            if steps >= next_checkpoint and steps < total:
                recorder.save(algorithm, progress)
                next_checkpoint += checkpoint_every
        if progress.env_steps >= total:
            recorder.finish(writer)
        return TrainingResult(recorder.save(algorithm, progress), progress, interrupted=progress.env_steps < total)


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
