"""Play a fixed number of episodes in every environment of a batch.

Taking the first N episodes that end in a batch of environments would favour short ones: an environment whose
battles end quickly contributes many, one whose battles drag on few, and whatever goes with length (a quick
victory, a slow draw) is counted too often. Here each environment's first `episodes_per_env` episodes count,
and what it plays while others are not done yet is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from perceiver_rl.autoreset import require_next_step_autoreset
from perceiver_rl.entities import EntitySchema, Observation, schema_of
from perceiver_rl.evaluation.agent import Agent
from perceiver_rl.infos import UNITS, info_of, outcome_in
from perceiver_rl.rewards import require_finite
from perceiver_rl.seeding import AGENT, EVALUATION, stream_seed


@dataclass(frozen=True)
class EpisodeRecord:
    """How one episode went."""

    total_reward: float
    """Its return: the undiscounted sum of rewards."""
    length: int
    """Steps."""
    won: bool | None
    """What the environment's last info said; None if it says nothing of winning."""
    info: dict[str, float] = field(default_factory=dict)
    """Every other number of the last info, e.g. `allies_left`."""
    units: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """What the last info tells of each acting unit under `"units"`: arrays `[units]` of numbers by name, e.g. `kills`, and
    under `"kind"` of strings; empty if it tells nothing of them."""


@dataclass(frozen=True)
class Step:
    """One step of a batch of environments; what it led to is in the arrays that they gave back: copy what shall be kept."""

    observation: Observation
    """What was seen before it, `[num_envs, …]` each; a copy."""
    actions: NDArray[np.int64]
    rewards: NDArray[Any]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    infos: dict[str, Any]
    resets: NDArray[np.bool_]
    """Environments that reset themselves in it: there it belongs to no episode."""
    following: Observation
    """What was seen after it; of an episode that ended in it, the last of all."""


def evaluate(
    agent: Agent,
    env: VectorEnv[Any, Any, Any],
    *,
    episodes_per_env: int,
    seed: int,
    greedy: bool,
    on_episode: Callable[[int, int], None] | None = None,
    torch_threads: int = 1,
    on_step: Callable[[Step], None] | None = None,
    purpose: int = EVALUATION,
) -> list[EpisodeRecord]:
    """Play `env.num_envs * episodes_per_env` episodes. The same arguments give the same records.

    Args:
        agent: Who plays.
        env: Where. Its autoreset mode is NEXT_STEP, and its observation space carries an `EntitySchema`. It is
            reset first, and not closed.
        episodes_per_env: Episodes that count in each sub-environment.
        seed: Seeds the environments (sub-environment `i` by `seed + i`, as gymnasium has it) and the agent.
        greedy: The agent's best option rather than a draw.
        on_episode: Called after every episode that counts, with how many are done and how many will be.
        torch_threads: Threads of the policy's forward passes. More than one pays for large models on idle cores
            only: beside a busy simulator or another run, threads wait for each other (docs/performance.md).
        on_step: Called after every step.
        purpose: What is played for: another purpose plays other episodes (`perceiver_rl.seeding`).

    Returns:
        The records, those of sub-environment 0 first, each environment's in the order of time.

    Raises:
        ValueError: If `episodes_per_env` is not positive, the environment resets in another mode or has no
            schema, an observation does not keep the contract, or a reward is not finite.
        Exception: Whatever else the environment or the agent raises. All errors of a step carry a note that
            tells the environment and the step.
    """
    if episodes_per_env < 1:
        raise ValueError(f"episodes_per_env: got {episodes_per_env}, expected at least 1")
    require_next_step_autoreset(env, type(env).__name__)
    schema = schema_of(env.single_observation_space)
    with torch_threads_of(torch_threads):
        observation, _ = env.reset(seed=stream_seed(purpose, seed))
        agent.reset(env.num_envs, stream_seed(AGENT, seed))
        return _play(
            agent, env, schema, observation, episodes_per_env, greedy, on_episode or (lambda done, total: None), on_step
        )


def _play(
    agent: Agent,
    env: VectorEnv[Any, Any, Any],
    schema: EntitySchema,
    observation: Observation,
    episodes_per_env: int,
    greedy: bool,
    on_episode: Callable[[int, int], None],
    on_step: Callable[[Step], None] | None,
) -> list[EpisodeRecord]:
    num_envs = env.num_envs
    records: list[list[EpisodeRecord]] = [[] for _ in range(num_envs)]
    done, total = 0, num_envs * episodes_per_env
    rewards_so_far = np.zeros(num_envs)
    length = np.zeros(num_envs, np.int64)
    started = np.ones(num_envs, bool)  # this observation is an episode's first
    ended = np.zeros(num_envs, bool)  # … its last: the coming step resets the environment and ignores the action
    step = 0
    while done < total:
        step += 1
        resets = ended
        with telling_where(f"in step {step} of an evaluation in {num_envs} environments of {type(env.unwrapped).__name__}"):
            schema.check(observation, (num_envs,))
            actions = agent.act(observation, started, greedy)
            # The environment may fill the same arrays anew.
            seen = {} if on_step is None else {key: np.array(array) for key, array in observation.items()}
            following, reward, terminated, truncated, infos = env.step(actions)
            require_finite(reward)
        if on_step is not None:
            on_step(Step(seen, actions, reward, terminated, truncated, infos, resets, following))
        observation = following
        rewards_so_far += np.where(resets, 0.0, reward)
        length += ~resets
        started, ended = resets, terminated | truncated
        for index in np.flatnonzero(ended).tolist():
            if len(records[index]) < episodes_per_env:
                records[index].append(_record(float(rewards_so_far[index]), int(length[index]), info_of(infos, index)))
                done += 1
                on_episode(done, total)
        rewards_so_far[ended] = 0.0
        length[ended] = 0
    return [record for of_one_env in records for record in of_one_env]


@contextmanager
def telling_where(note: str) -> Iterator[None]:
    """Add to an error where it happened: the traceback of an environment's own bug tells of no evaluation or replay."""
    try:
        yield
    except Exception as error:
        error.add_note(note)
        raise


@contextmanager
def torch_threads_of(count: int) -> Iterator[None]:
    """Let torch use that many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _record(total_reward: float, length: int, info: dict[str, Any]) -> EpisodeRecord:
    outcome = outcome_in(info)
    return EpisodeRecord(total_reward, length, outcome.won, outcome.numbers, info.get(UNITS, {}))
