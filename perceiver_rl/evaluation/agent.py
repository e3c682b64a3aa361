"""Who plays: the protocol that policies, scripted and random agents share."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from perceiver_rl.entities import EntitySchema, Observation
from perceiver_rl.environments import load, registry
from perceiver_rl.evaluation.random_agent import RandomAgent
from perceiver_rl.policy.entity_policy import EntityPolicy

REGISTRY = "agents.registry:make_agent"
"""Where plain names such as `heuristic` are looked up: the checkout's `agents` folder."""

RANDOM = "random"
"""The one name that needs no checkout."""


@runtime_checkable  # signatures are checked at run time under pytest
class Agent(Protocol):
    """Chooses an option for every actor of every environment of a batch."""

    def reset(self, num_envs: int, seed: int) -> None:
        """Begin anew with that many environments: forget everything, seed all randomness."""

    def act(self, observation: Observation, started: NDArray[np.bool_], greedy: bool) -> NDArray[np.int64]:
        """Choose.

        Args:
            observation: Batched arrays `[num_envs, …]`, by the keys of the environment's schema.
            started: True where this is the first observation of an episode, `[num_envs]`.
            greedy: The best option rather than a draw, for agents that know the difference.

        Returns:
            Options, `[num_envs, max_actors]`; 0 for absent actors.
        """


class PolicyAgent:
    """An `EntityPolicy` as an agent: greedy takes each actor's most probable option, else options are drawn.

    Args:
        policy: Used as it is, on the device where it is, and put into evaluation mode.
    """

    def __init__(self, policy: EntityPolicy) -> None:
        self.policy = policy.eval()
        """What chooses."""
        self._device = next(policy.parameters()).device
        self._generator = torch.Generator(self._device)

    def reset(self, num_envs: int, seed: int) -> None:
        """Begin anew, with a random stream that depends on the seed alone."""
        self._generator.manual_seed(seed)

    def act(self, observation: Observation, started: NDArray[np.bool_], greedy: bool) -> NDArray[np.int64]:
        """Choose for every actor; see `Agent.act`. `started` is not used: the policy remembers nothing."""
        # torch.tensor copies: environments may hand out read-only views of memory that is not theirs (JAX).
        tensors = {key: torch.tensor(array, device=self._device) for key, array in observation.items()}
        with torch.inference_mode():
            options, _ = self.policy.act(tensors, greedy=greedy, generator=self._generator)
        return options.cpu().numpy()


def make_agent(name: str, schema: EntitySchema) -> Agent:
    """Build an agent.

    Args:
        name: `"random"`, an import string `"module:Class"` of your own, whose class is called with the schema, or a name
            that the checkout's `agents.registry` knows.
        schema: The environment's schema.

    Raises:
        ValueError: If there is no such agent, or it cannot play the schema.
    """
    agent: Agent
    if name == RANDOM:
        agent = RandomAgent(schema)
    elif ":" in name:
        agent = load(name)(schema)
    else:
        agent = registry(REGISTRY, f"agent {name!r}")(name, schema)
    return agent
