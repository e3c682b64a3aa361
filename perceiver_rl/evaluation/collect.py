"""Play episodes and write them into a dataset, for offline training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from perceiver_rl.dataset import DatasetDescription, DatasetWriter, Episode, Origin
from perceiver_rl.entities import EntitySchema, Observation, schema_of
from perceiver_rl.environments import make_vector_env
from perceiver_rl.evaluation.agent import Agent, PolicyAgent, make_agent
from perceiver_rl.evaluation.contests import MAX_ENVS, num_envs_for
from perceiver_rl.evaluation.rollout import Step, evaluate
from perceiver_rl.evaluation.trained import find_trained
from perceiver_rl.infos import info_of, won_in
from perceiver_rl.mixture import members_of
from perceiver_rl.provenance import provenance
from perceiver_rl.seeding import COLLECTION


def collect(
    policy: str,
    out: Path,
    *,
    env: str | None,
    episodes: int,
    seed: int,
    greedy: bool,
    on_episode: Callable[[int, int], None] | None = None,
) -> DatasetDescription:
    """Let a squad's policy play, and write whole episodes of it into a dataset.

    No episode is one that training or evaluation with the same seed plays.

    Args:
        policy: Path of a run, a checkpoint or a bundle, or an agent as of `make_agent`.
        out: The dataset's folder.
        env: Where to play; None for the environment that a trained policy was trained in.
        episodes: At least so many: rounded up so that each environment of the batch plays equally many.
        seed: Of environments and choices.
        greedy: Each actor's best option rather than a draw.
        on_episode: Called after every episode with how many are done and how many will be.

    Raises:
        ValueError: If there is no such policy or environment, they do not go together, the policy is no squad's, there is
            something at `out`, or an observation does not keep the contract.
        ImportError: If the environment needs a package that is not installed.
    """
    code = provenance()  # first: a checkout may move on meanwhile
    player = _Player.find(policy, env)
    num_envs = max(num_envs_for(episodes, MAX_ENVS), len(members_of(player.env)))
    vector_env = make_vector_env(player.env, num_envs, **player.env_config)
    try:
        schema = schema_of(vector_env.single_observation_space)
        agent = player.agent(schema, num_envs)
        with DatasetWriter(out, schema) as writer:
            per_env = math.ceil(episodes / num_envs)
            evaluate(
                agent,
                vector_env,
                episodes_per_env=per_env,
                seed=seed,
                greedy=greedy,
                on_episode=on_episode,
                on_step=_Cutter(vector_env, per_env, writer.add),
                purpose=COLLECTION,
            )
            return writer.finish(Origin(player.env, player.env_config, player.name, greedy, seed, **code))
    finally:
        vector_env.close()


class _Player:
    """Who plays, and where."""

    def __init__(self, env: str, env_config: dict[str, Any], name: str, agent: Callable[[EntitySchema, int], Agent]) -> None:
        self.env = env
        self.env_config = env_config
        self.name = name
        self.agent = agent

    @classmethod
    def find(cls, policy: str, env: str | None) -> _Player:
        """What is meant by a path or an agent's name."""
        if not Path(policy).exists():
            if "/" in policy:
                raise ValueError(
                    f"policy {policy}: does not exist; expected a run folder, a checkpoint, a bundle or an agent"
                )
            if env is None:
                raise ValueError(f"policy {policy!r}: expected --env, the environment to play in, since no path says it")
            return cls(env, {}, policy, lambda schema, rows: make_agent(policy, schema))
        trained = find_trained(Path(policy), env)
        if trained.module is None or len(trained.envs) > 1:
            got = "policies of separate agents" if trained.module is None else f"environments {', '.join(trained.envs)}"
            raise ValueError(f"policy {policy}: got {got}, expected a squad's policy in one environment (--env)")
        module = trained.module
        return cls(
            trained.envs[0],
            trained.env_config,
            trained.checkpoint,
            lambda schema, rows: PolicyAgent(trained.policy(schema, module, rows)),
        )


class _Cutter:
    """Keeps the steps of a batch of environments until the episodes that they belong to have ended.

    Args:
        env: Where is played.
        episodes_per_env: Episodes of each sub-environment that are wanted; the rest is thrown away.
        write: Gets each of them.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], episodes_per_env: int, write: Callable[[Episode], None]) -> None:
        self._wanted = np.full(env.num_envs, episodes_per_env)
        self._write = write
        self._steps: list[Step] = []
        self._dropped = 0
        """Steps from the beginning that are no longer in the list."""
        self._begin = np.zeros(env.num_envs, np.int64)
        """The step in which each running episode began, counted over all steps."""

    def __call__(self, step: Step) -> None:
        """One step more."""
        self._steps.append(replace(step, actions=np.array(step.actions), rewards=np.array(step.rewards)))
        now = self._dropped + len(self._steps)
        self._begin[step.resets] = now
        for index in np.flatnonzero(step.terminated | step.truncated).tolist():
            if self._wanted[index]:
                self._write(self._episode(index, step.following))
            self._wanted[index] = max(self._wanted[index] - 1, 0)
        begin = int(self._begin[self._wanted > 0].min(initial=now))
        del self._steps[: begin - self._dropped]
        self._dropped = begin

    def _episode(self, index: int, final: Observation) -> Episode:
        steps = self._steps[int(self._begin[index]) - self._dropped :]
        last = steps[-1]
        return Episode(
            observations={
                key: np.stack([*(step.observation[key][index] for step in steps), array[index]])
                for key, array in final.items()
            },
            actions=np.stack([step.actions[index] for step in steps]).astype(np.int64),
            rewards=np.array([step.rewards[index] for step in steps], np.float32),
            terminated=bool(last.terminated[index]),
            truncated=bool(last.truncated[index]),
            won=won_in(info_of(last.infos, index)),
        )
