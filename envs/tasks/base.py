"""What all learning tasks share: batches of episodes in numpy arrays, seeds, autoreset, checks of the action.

A task's own file holds its rules alone: what an episode begins with (`draw`), what an action does (`act`), what is shown
(`observe`), and what the negative control hides (`hide`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from perceiver_rl.entities import ACTION_MASK, EntitySchema, Observation
from perceiver_rl.vector_arguments import checked_actions

State = dict[str, NDArray[Any]]
"""Every episode of a batch, as arrays with a leading axis of episodes."""

NO_OPTION = -1
"""What `TaskVectorEnv.act` is told of an actor that chose what is not legal."""


class TaskVectorEnv(VectorEnv[Observation, NDArray[np.integer[Any]], NDArray[Any]]):
    """A batch of episodes of one task; each task has one actor.

    Autoreset: in the next step. The step that ends an episode returns its last observation; the step after that ignores
    its action, returns the first observation of a new episode, reward 0, and neither terminated nor truncated.
    Infos: in a step that ends episodes, for those: `won`, whether the return is the best that there is.
    An illegal option does nothing, or counts as a wrong answer.

    Args:
        num_envs: Number of sub-environments.
        ablate: The negative control: the rules stay, what decides is hidden from the observation. Whoever learns
            something here learns it from elsewhere.

    Raises:
        ValueError: If `num_envs` is less than 1.
    """

    # a plain class attribute, as gymnasium declares it
    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012

    name: ClassVar[str]
    """Its name in the registry, without the family."""
    schema: ClassVar[EntitySchema]
    time_limit: ClassVar[int]
    """Steps after which an episode is truncated, if it has not terminated."""
    best_return: ClassVar[float] = 1.0
    """The return of perfect play, the same in every episode."""

    def __init__(self, num_envs: int = 1, *, ablate: bool = False) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs of task/{self.name}: got {num_envs}, expected at least 1")
        self.num_envs = num_envs
        self.ablate = ablate
        self.single_observation_space = self.schema.observation_space
        self.single_action_space = self.schema.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._random = np.random.default_rng()
        # The episodes as the last step left them; None until the first reset.
        self._state: State | None = None

    # -- a task's rules ----------------------------------------------------------------------------------------

    @abstractmethod
    def draw(self, random: np.random.Generator, count: int) -> State:
        """Begin `count` episodes."""

    @abstractmethod
    def act(self, state: State, choice: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Change the state in place by one option for each episode.

        Args:
            state: Every episode. Those that have ended are among them; what happens to them does not matter.
            choice: One option for each, `NO_OPTION` where an illegal one was chosen.

        Returns:
            Rewards, and which episodes are over, each `[episodes]`.
        """

    @abstractmethod
    def observe(self, state: State) -> Observation:
        """What is shown, in arrays of its own."""

    @abstractmethod
    def hide(self, observation: Observation) -> None:
        """Take what decides out of an observation, in place."""

    # -- gymnasium's side --------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin a new episode in every sub-environment.

        Args:
            seed: Seed of one random stream for the whole batch, an integer or a sequence of them. Without a seed the
                stream goes on.
            options: Not used.

        Returns:
            The first observations, and no infos.
        """
        super().reset(seed=None)
        if seed is not None:
            self._random = np.random.default_rng(seed)
        self._state = self.draw(self._random, self.num_envs)
        self._steps = np.zeros(self.num_envs, np.int64)
        self._return = np.zeros(self.num_envs)
        self._ended = np.zeros(self.num_envs, bool)
        return self._show(self._state), {}

    def step(
        self, actions: ArrayLike
    ) -> tuple[Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Advance every sub-environment by one step, or reset it if its episode has ended in the last one.

        Args:
            actions: One option for the actor of each, int `[num_envs, 1]`.

        Returns:
            Observations, rewards, terminated, truncated (each with a leading axis `[num_envs]`), and infos.

        Raises:
            ValueError: If actions have another shape or type, or an option does not exist.
            gymnasium.error.ResetNeeded: If `reset` was never called.
        """
        if self._state is None:
            raise gymnasium.error.ResetNeeded("step: the environment was never reset; call reset() first")
        resets = self._ended
        reward, over = self.act(self._state, self._checked(actions))
        self._steps += 1
        reward = np.where(resets, 0.0, reward)
        self._return += reward
        terminated = over & ~resets
        truncated = (self._steps >= self.time_limit) & ~over & ~resets
        self._ended = terminated | truncated
        infos: dict[str, Any] = {}
        if self._ended.any():
            infos = {"won": self._return > self.best_return - 1e-6, "_won": self._ended}
        if resets.any():
            fresh = self.draw(self._random, int(resets.sum()))
            for key, values in fresh.items():
                self._state[key][resets] = values
            self._steps[resets] = 0
            self._return[resets] = 0.0
        return self._show(self._state), reward, terminated, truncated, infos

    def _show(self, state: State) -> Observation:
        observation = self.observe(state)
        self._legal = observation[ACTION_MASK][:, 0].copy()
        if self.ablate:
            self.hide(observation)
        return observation

    def _checked(self, actions: ArrayLike) -> NDArray[np.int64]:
        """The option of each environment's actor, `NO_OPTION` where it is not legal."""
        choice = checked_actions(self.schema, actions, self.num_envs, f"task/{self.name}")[:, 0]
        legal = np.take_along_axis(self._legal, choice[:, None], axis=1)[:, 0]
        return np.where(legal, choice, NO_OPTION)


class TaskEnv(gymnasium.Env[Observation, NDArray[np.integer[Any]]]):
    """One episode at a time of a task, which is told of at its vector environment; there is no autoreset.

    Args:
        vector_env: The task, with one sub-environment.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, vector_env: TaskVectorEnv) -> None:
        self._vector = vector_env
        self.schema = vector_env.schema
        self.observation_space = vector_env.single_observation_space
        self.action_space = vector_env.single_action_space
        self._over = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Begin a new episode; see `TaskVectorEnv.reset`."""
        super().reset(seed=seed)
        observation, _ = self._vector.reset(seed=seed)
        self._over = False
        return _first(observation), {}

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Advance by one step.

        Args:
            action: The actor's option, int `[1]`.

        Raises:
            ValueError: If the action has another shape or type, or the option does not exist.
            gymnasium.error.ResetNeeded: If the episode has ended, or never began.
        """
        if self._over:
            raise gymnasium.error.ResetNeeded("step: the episode has ended or never began; call reset() first")
        observation, reward, terminated, truncated, infos = self._vector.step(np.asarray(action)[None])
        self._over = bool(terminated[0] | truncated[0])
        info = {"won": bool(infos["won"][0])} if self._over else {}
        return _first(observation), float(reward[0]), bool(terminated[0]), bool(truncated[0]), info


def _first(observation: Observation) -> Observation:
    return {key: values[0] for key, values in observation.items()}
