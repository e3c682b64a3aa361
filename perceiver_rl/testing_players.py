"""Three kinds of environments played alike, for `perceiver_rl.testing`: one, a batch, or many agents.

A *seat* is whoever gets an observation of its own: the environment itself, one of a batch, or an agent. All are told as a
batch with NEXT_STEP autoreset is: the moment after an episode's end is the first one of another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from perceiver_rl.autoreset import require_next_step_autoreset
from perceiver_rl.entities import EntitySchema, Observation, schema_of

Seat = int | str
Actions = dict[Seat, NDArray[np.int64]]


class BrokenPromise(ValueError):
    """An environment does not keep its side of the contract."""


THE_ENVIRONMENT = ""
"""The seat of an environment that is neither a batch nor one of many agents."""


@runtime_checkable
class ParallelEnv(Protocol):
    """What is used of PettingZoo's `ParallelEnv`, so that it need not be installed.

    Its `agents` are who is alive; an environment need not have them before its first reset, so it is not told by them.
    """

    possible_agents: list[str]

    def observation_space(self, agent: str) -> gymnasium.Space[Any]:
        """An agent's observations."""

    def action_space(self, agent: str) -> gymnasium.Space[Any]:
        """An agent's actions."""

    def reset(self, seed: int | None = None) -> Any:
        """Begin an episode."""

    def step(self, actions: Any) -> Any:
        """Let every agent act."""

    def close(self) -> None:
        """Release everything."""


EntityEnv = gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any] | ParallelEnv


@dataclass(frozen=True)
class Moment:
    """What an environment returned from one call, seat by seat."""

    step: int
    """Number of the step; 0 after `reset`."""
    observations: dict[Seat, Observation]
    """One unbatched observation each."""
    rewards: dict[Seat, float]
    ended: dict[Seat, bool]
    returned: dict[str, NDArray[Any]]
    """The very arrays that were returned, by the words that messages call them."""
    resetting: tuple[Seat, ...] = ()
    """Seats of a batch whose episode ended in the step before: this one should have reset them."""
    actions: Actions = field(default_factory=dict)
    """What was done then."""


def name_of(seat: Seat) -> str:
    """What messages call a seat."""
    if seat == THE_ENVIRONMENT:
        return "the environment"
    return f"environment {seat}" if isinstance(seat, int) else f"agent {seat!r}"


class Player(ABC):
    """Resets and steps one environment.

    Args:
        schemas: What each seat sees and may do.
    """

    def __init__(self, schemas: dict[Seat, EntitySchema]) -> None:
        self.schemas = schemas

    @abstractmethod
    def action_space(self, seat: Seat) -> gymnasium.Space[Any]:
        """A seat's actions."""

    @abstractmethod
    def reset(self, seed: int | None, step: int = 0) -> Moment:
        """Begin an episode."""

    @abstractmethod
    def step(self, actions: Actions, step: int) -> Moment:
        """Act, or begin another episode where the last one has ended."""


class SinglePlayer(Player):
    """Plays a `gymnasium.Env`."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__({THE_ENVIRONMENT: schema_of(env.observation_space)})
        self._env = env

    def action_space(self, seat: Seat) -> gymnasium.Space[Any]:
        """The environment's."""
        return self._env.action_space

    def reset(self, seed: int | None, step: int = 0) -> Moment:
        """Begin an episode."""
        observation, _ = _tuple(self._env.reset(seed=seed), 2, "reset", step)
        return self._moment(observation, 0.0, False, step)

    def step(self, actions: Actions, step: int) -> Moment:
        """Act, or reset after an end, since a `gymnasium.Env` does not by itself."""
        if self._over:
            return self.reset(None, step)
        observation, reward, terminated, truncated, _ = _tuple(self._env.step(actions[THE_ENVIRONMENT]), 5, "step", step)
        return self._moment(observation, reward, bool(terminated or truncated), step)

    def _moment(self, observation: Any, reward: Any, ended: bool, step: int) -> Moment:
        self._over = ended
        _require_arrays(observation, "observation", step)
        returned = {f"observation[{key!r}]": array for key, array in observation.items()}
        seat = THE_ENVIRONMENT
        return Moment(step, {seat: observation}, {seat: _number(reward, seat, step)}, {seat: ended}, returned)


class VectorPlayer(Player):
    """Plays a `gymnasium.vector.VectorEnv`."""

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        require_next_step_autoreset(env, type(env).__name__)
        schema = schema_of(env.single_observation_space)
        super().__init__(dict.fromkeys(range(env.num_envs), schema))
        self._env = env
        for name in ("observation_space", "action_space"):
            expected = gymnasium.vector.utils.batch_space(getattr(env, f"single_{name}"), env.num_envs)
            if getattr(env, name) != expected:
                raise BrokenPromise(
                    f"promise 'spaces': got {name} {getattr(env, name)}, expected single_{name} for {env.num_envs} "
                    f"environments; use gymnasium.vector.utils.batch_space(single_{name}, num_envs)"
                )

    def action_space(self, seat: Seat) -> gymnasium.Space[Any]:
        """That of each sub-environment."""
        return self._env.single_action_space

    def reset(self, seed: int | None, step: int = 0) -> Moment:
        """Begin an episode in every sub-environment."""
        observation, _ = _tuple(self._env.reset(seed=seed), 2, "reset", step)
        zeros = np.zeros(self._env.num_envs)
        self._ended = zeros.astype(bool)
        return self._moment(observation, zeros, self._ended, step, {})

    def step(self, actions: Actions, step: int) -> Moment:
        """Act; sub-environments reset by themselves."""
        stacked = np.stack([actions[index] for index in range(self._env.num_envs)])
        observation, reward, terminated, truncated, _ = _tuple(self._env.step(stacked), 5, "step", step)
        arrays = {"reward": reward, "terminated": terminated, "truncated": truncated}
        for name, array in arrays.items():
            if np.shape(array) != (self._env.num_envs,):
                raise BrokenPromise(
                    f"promise 'spaces', step {step}: got {name} of shape {list(np.shape(array))}, expected one for "
                    f"each environment, shape [{self._env.num_envs}]"
                )
        return self._moment(observation, reward, np.asarray(terminated) | np.asarray(truncated), step, arrays)

    def _moment(self, observation: Any, reward: Any, ended: NDArray[np.bool_], step: int, arrays: dict[str, Any]) -> Moment:
        _require_arrays(observation, "observation", step)
        seats = range(self._env.num_envs)
        for key, array in observation.items():
            if len(array.shape) < 1 or len(array) != len(seats):
                raise BrokenPromise(
                    f"promise 'contract', step {step}, observation[{key!r}]: got shape {list(array.shape)}, expected "
                    f"a leading axis of {len(seats)} environments"
                )
        resetting = tuple(np.flatnonzero(self._ended).tolist())
        self._ended = ended.copy()
        returned = {f"observation[{key!r}]": array for key, array in observation.items()} | {
            name: array for name, array in arrays.items() if isinstance(array, np.ndarray)
        }
        return Moment(
            step,
            {seat: {key: array[seat] for key, array in observation.items()} for seat in seats},
            {seat: _number(reward[seat], seat, step) for seat in seats},
            {seat: bool(ended[seat]) for seat in seats},
            returned,
            resetting,
        )


class ParallelPlayer(Player):
    """Plays a PettingZoo `ParallelEnv`, whose agents may come and go."""

    def __init__(self, env: ParallelEnv) -> None:
        super().__init__({agent: schema_of(env.observation_space(agent)) for agent in env.possible_agents})
        self._env = env

    def action_space(self, seat: Seat) -> gymnasium.Space[Any]:
        """An agent's."""
        return self._env.action_space(str(seat))

    def reset(self, seed: int | None, step: int = 0) -> Moment:
        """Begin an episode."""
        observations, _ = _tuple(self._env.reset(seed=seed), 2, "reset", step)
        return self._moment(observations, {}, {}, step)

    def step(self, actions: Actions, step: int) -> Moment:
        """Let the agents act that are there, or reset when none is."""
        if not self._agents():
            return self.reset(None, step)
        acting = {agent: actions[agent] for agent in self._agents()}
        observations, rewards, terminated, truncated, _ = _tuple(self._env.step(acting), 5, "step", step)
        told = {"observations": observations, "rewards": rewards, "terminations": terminated, "truncations": truncated}
        for name, values in told.items():
            if missing := sorted(acting.keys() - values.keys()):
                raise BrokenPromise(
                    f"promise 'spaces', step {step}, {name}: got none of {', '.join(missing)}, expected one for each "
                    "agent that acted, in its last step too"
                )
        ended: dict[Seat, bool] = {agent: bool(terminated[agent] or truncated[agent]) for agent in acting}
        return self._moment(observations, rewards, ended, step)

    def _agents(self) -> list[str]:
        """Who is alive; asked after a reset only."""
        return list(self._env.agents)  # type: ignore[attr-defined]

    def _moment(self, observations: Any, rewards: Any, ended: dict[Seat, bool], step: int) -> Moment:
        returned: dict[str, NDArray[Any]] = {}
        for agent, observation in observations.items():
            _require_arrays(observation, f"observation of agent {agent!r}", step)
            returned |= {f"observation[{key!r}] of agent {agent!r}": array for key, array in observation.items()}
        for agent in self._agents():
            if agent not in observations:
                raise BrokenPromise(
                    f"promise 'spaces', step {step}: got no observation of agent {agent!r}, who is among env.agents"
                )
        return Moment(
            step,
            dict(observations),
            {agent: _number(rewards.get(agent, 0.0), agent, step) for agent in observations},
            {agent: ended.get(agent, False) for agent in observations},
            returned,
        )


def make_player(env: EntityEnv) -> Player:
    """A player of an environment, by its kind.

    Raises:
        ValueError: If it is of no known kind, carries no schema, or resets in another mode than NEXT_STEP.
    """
    if isinstance(env, VectorEnv):
        return VectorPlayer(env)
    if isinstance(env, gymnasium.Env):
        return SinglePlayer(env)
    if isinstance(env, ParallelEnv):
        return ParallelPlayer(env)
    raise ValueError(
        f"environment: got a {type(env).__name__}, expected a gymnasium.Env, a gymnasium.vector.VectorEnv, a "
        "PettingZoo ParallelEnv, or a function that makes one"
    )


def _tuple(result: Any, length: int, call: str, step: int) -> tuple[Any, ...]:
    if not isinstance(result, tuple) or len(result) != length:
        got = f"a tuple of {len(result)}" if isinstance(result, tuple) else f"a {type(result).__name__}"
        names = "(observation, info)" if length == 2 else "(observation, reward, terminated, truncated, info)"
        raise BrokenPromise(f"promise 'spaces', step {step}: {call} returned {got}, expected {names}")
    return result


def _require_arrays(observation: Any, what: str, step: int) -> None:
    if not isinstance(observation, dict):
        raise BrokenPromise(
            f"promise 'contract', step {step}, {what}: got a {type(observation).__name__}, expected a dict of arrays"
        )
    for key, array in observation.items():
        if not isinstance(array, np.ndarray):
            raise BrokenPromise(
                f"promise 'contract', step {step}, {what}[{key!r}]: got a {type(array).__name__}, expected a numpy array"
            )


def _number(reward: Any, seat: Seat, step: int) -> float:
    try:
        return float(reward)
    except (TypeError, ValueError) as error:
        raise BrokenPromise(
            f"promise 'finite rewards', {name_of(seat)}, step {step}: got reward {reward!r}, expected a number"
        ) from error
