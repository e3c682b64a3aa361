"""An RLlib env runner that samples whole vector steps as arrays.

RLlib's `SingleAgentEnvRunner` takes every vector step apart into Python objects, some for each environment, and builds
episodes from them item by item. Beside a small network that is a large part of the time (docs/performance.md). Here a vector
step stays the arrays that it is, and episodes are cut out of the stacked arrays once, at the end of `sample()`. All else is
RLlib's: weights, metrics, callbacks at an episode's end, fault tolerance, evaluation.
"""

from __future__ import annotations

import logging
import time
import uuid
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.core.columns import Columns
from ray.rllib.env.env_runner import NUM_ENV_STEP_FAILURES_LIFETIME
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer
from ray.rllib.utils.metrics import ENV_RESET_TIMER, ENV_STEP_TIMER

from perceiver_rl.autoreset import require_next_step_autoreset
from perceiver_rl.rllib.determinism import leave_memory_unfilled
from perceiver_rl.rllib.rollout import Arrays, Chunk, Rollout
from perceiver_rl.seeding import EVALUATION, TRAINING, stream_seed

logger = logging.getLogger(__name__)

SAMPLING_KEY = "sampling_s"
"""Metrics group: seconds spent in forward passes, in environment steps, and in `sample()` altogether."""

TORCH_THREADS = 1
"""More would fight the simulator, and the learner, for cores (docs/performance.md)."""


class VectorEnvRunner(SingleAgentEnvRunner):
    """Samples from one native `gymnasium.vector.VectorEnv` in bulk.

    Use with `gym_env_vectorize_mode="vector_entry_point"` and an environment whose autoreset mode is NEXT_STEP. What it
    does not run: env-to-module and module-to-env connectors (the module reads the environment's arrays as they are), and
    the callbacks `on_episode_created`, `on_episode_start` and `on_episode_step`, for which episodes would have to exist
    step by step. `on_episode_end` gets the episode's last chunk, with the environment's last info.
    """

    env: Any  # RLlib's own attributes, which it sets without saying of what type they are
    _needs_initial_reset: bool

    _observation: Arrays
    """What the environments show now."""
    _resetting: NDArray[np.bool_]
    """Environments that will reset themselves in the coming step, `[num_envs]`."""
    _running: list[_RunningEpisode]
    """The episode of each environment that has not ended yet."""
    _num_made_anew = 0
    """How often the environments failed and were made anew; in evaluation, since `sample()` began."""

    def __init__(self, *, config: AlgorithmConfig, **kwargs: Any) -> None:
        if config._env_to_module_connector is not None or config._module_to_env_connector is not None:
            raise ValueError(
                "config: got env-to-module or module-to-env connectors, which VectorEnvRunner does not run; "
                "remove them, or use RLlib's own runner with config.env_runners(env_runner_cls=SingleAgentEnvRunner)"
            )
        # RLlib calls its own deprecated constructor for every module, and warns of it in every process.
        logging.getLogger("ray._common.deprecation").setLevel(logging.ERROR)
        leave_memory_unfilled()
        super().__init__(config=config, **kwargs)
        if self.worker_index:  # an actor of its own, not the driver's process, whose threads belong to the learner
            torch.set_num_threads(TORCH_THREADS)

    def make_env(self) -> None:
        """Create the environment and check that it resets in the step after an episode's end."""
        super().make_env()
        self.env = self.env.env  # below RLlib's wrapper, which turns infos into one dictionary for each environment
        require_next_step_autoreset(self.env, repr(self.config.env))

    def _sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[SingleAgentEpisode]:
        """Sample until there are that many real steps, or that many ended episodes, and give back episode chunks."""
        if self.config.in_evaluation:  # the next one plays its usual battles
            self._num_made_anew = 0
        if force_reset or num_episodes is not None or self._needs_initial_reset:
            self._reset()
        rollout = Rollout(self._observation, self._resetting)

        def enough() -> bool:
            if num_episodes is not None:
                return rollout.num_ended >= num_episodes
            return num_timesteps is None or rollout.num_steps >= num_timesteps

        forward_s = env_s = 0.0
        num_vector_steps = 0
        started = time.perf_counter()
        self.module.eval()  # once: RLlib's `forward_exploration` walks over all parts of the module in every step
        while not enough():
            began = time.perf_counter()
            actions, extra = self._random_act() if random_actions else self._act(explore)
            acted = time.perf_counter()
            results = self._step(actions)
            if results is None:
                # The environment is a new one. What was sampled of running episodes has no end: drop it all.
                self._reset()
                rollout = Rollout(self._observation, self._resetting)
                continue
            self._observation, rewards, terminated, truncated, infos = results
            forward_s += acted - began
            env_s += time.perf_counter() - acted
            num_vector_steps += 1
            rollout.add(self._observation, actions, rewards, terminated, truncated, infos, extra)
        self._resetting = rollout.resetting
        self._needs_initial_reset = num_episodes is not None
        episodes = [self._finish(chunk) for chunk in rollout.chunks()]
        seconds = {"forward": forward_s, "env": env_s, "total": time.perf_counter() - started}
        self.metrics.log_dict(seconds, key=SAMPLING_KEY, reduce="sum")
        if num_vector_steps:
            self.metrics.log_value(ENV_STEP_TIMER, env_s / num_vector_steps)
            self._log_env_steps(metric=self._metrics_num_try_env_step, num_steps=num_vector_steps)
        self._log_env_steps(metric=self._metrics_num_env_steps_sampled, num_steps=rollout.num_steps)
        self._increase_sampled_metrics(rollout.num_steps, rollout.num_ended)
        return [episode for episode in episodes if episode.is_done] if num_episodes is not None else episodes

    def _reset(self) -> None:
        """Reset the environments and begin an episode in each.

        Not by RLlib's `_try_env_reset`, which resets environments that it made anew with the seed, or without one, that the
        failed ones had.
        """
        seed = self._stream_seed() if self._needs_initial_reset else None
        if seed is not None:
            torch.manual_seed(seed)
        try:
            with self.metrics.log_time(ENV_RESET_TIMER):
                self._observation, _ = self.env.reset(seed=seed)
        except Exception:
            if not self.config.restart_failed_sub_environments:
                raise
            self._make_anew("a reset")
            self._reset()
            return
        self._resetting = np.zeros(self.num_envs, bool)
        self._running = [_RunningEpisode() for _ in range(self.num_envs)]

    def _stream_seed(self) -> int | None:
        """A seed of this runner's own, and another one after a restart: a resumed run plays new battles.

        So do environments that were made anew, where the same battles might fail again.
        """
        if self.config.seed is None:
            return None
        words = [self.config.seed, self.worker_index or 0]
        if not self.config.in_evaluation:
            words.append(int(self.num_env_steps_sampled_lifetime))
        if self._num_made_anew:
            words.append(self._num_made_anew)
        return stream_seed(EVALUATION if self.config.in_evaluation else TRAINING, *words)

    def _make_anew(self, what: str) -> None:
        """Replace the environments, for what was just raised of them."""
        logger.exception("environments of env runner %s: %s failed; they are made anew", self.worker_index, what)
        self._num_made_anew += 1
        self.make_env()  # which says that they need their first reset

    def _step(self, actions: NDArray[np.int64]) -> Any:
        """What the environments return, or None if they failed and were made anew.

        As RLlib's `_try_env_step`, but for its metrics of every step, which `_sample` logs once for all of a rollout's.
        """
        try:
            return self.env.step(actions)
        except Exception:
            self.metrics.log_value(NUM_ENV_STEP_FAILURES_LIFETIME, 1, reduce="lifetime_sum")
            if not self.config.restart_failed_sub_environments:
                raise
            self._make_anew("a step")
            return None

    @torch.inference_mode()
    def _act(self, explore: bool) -> tuple[NDArray[np.int64], Arrays]:
        """One forward pass: actions, and what the learner wants to know of them."""
        observation = {key: torch.from_numpy(array).to(self._device) for key, array in self._observation.items()}
        batch = {Columns.OBS: observation}
        if explore:
            output = self.module._forward_exploration(batch, t=self.num_env_steps_sampled_lifetime)
            distribution_class = self.module.get_exploration_action_dist_cls()
        else:
            output = self.module._forward_inference(batch)
            distribution_class = self.module.get_inference_action_dist_cls()
        if Columns.ACTIONS not in output:
            distribution = distribution_class.from_logits(output[Columns.ACTION_DIST_INPUTS])
            distribution = distribution if explore else distribution.to_deterministic()
            actions = distribution.sample()
            output = {**output, Columns.ACTIONS: actions, Columns.ACTION_LOGP: distribution.logp(actions)}
        arrays = {key: output[key].cpu().numpy() for key in (Columns.ACTION_DIST_INPUTS, Columns.ACTION_LOGP)}
        return output[Columns.ACTIONS].cpu().numpy(), arrays

    def _random_act(self) -> tuple[NDArray[np.int64], Arrays]:
        return self.env.action_space.sample(), {}

    def _finish(self, chunk: Chunk) -> SingleAgentEpisode:
        """Make RLlib's episode object of a chunk; at an episode's end, log it and tell the callbacks."""
        running = self._running[chunk.env_index]
        # Finalised buffers: RLlib then reads them as arrays, here and in the learner's connectors.
        episode = SingleAgentEpisode(
            id_=running.id,
            observations=InfiniteLookbackBuffer(chunk.observations),
            actions=InfiniteLookbackBuffer(chunk.actions),
            rewards=InfiniteLookbackBuffer(chunk.rewards),
            infos=[*({} for _ in range(chunk.length)), chunk.info],
            extra_model_outputs={key: InfiniteLookbackBuffer(array) for key, array in chunk.extra.items()},
            terminated=chunk.terminated,
            truncated=chunk.truncated,
            t_started=running.length,
            len_lookback_buffer=0,
        )
        running.length += chunk.length
        running.total_reward += float(chunk.rewards.sum())
        if episode.is_done:
            self._log_episode_metrics(running.length, running.total_reward, time.perf_counter() - running.began)
            make_callback(
                "on_episode_end",
                callbacks_objects=self._callbacks,
                callbacks_functions=self.config.callbacks_on_episode_end,
                kwargs={
                    "episode": episode,
                    "prev_episode_chunks": [],
                    "env_runner": self,
                    "metrics_logger": self.metrics,
                    "env": self.env.unwrapped,
                    "rl_module": self.module,
                    "env_index": chunk.env_index,
                },
            )
            self._running[chunk.env_index] = _RunningEpisode()
        return episode


class _RunningEpisode:
    """What is known of an episode across the chunks that were already given away."""

    def __init__(self) -> None:
        self.id = uuid.uuid4().hex
        self.length = 0
        self.total_reward = 0.0
        self.began = time.perf_counter()
