"""A small battle with positions, and a policy for it, for tests of the recorder and of the page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from perceiver_rl.entities import Control, EntitySchema, EntityType, Feature, Observation, TargetedVerb
from perceiver_rl.nn import EntityTransformerConfig, PerceiverIOConfig
from perceiver_rl.policy.entity_policy import EntityPolicy, EntityPolicyConfig
from perceiver_rl.replay import Recording, record

NASTY = "<img src=x onerror=window.hurt=1>"
NASTIER = "</script><script>window.hurt=1</script><!--"

UNIT = (Feature("health", 0.0, 1.0), Feature("cooldown", 0.0, 1.0), Feature("x", 0.0, 9.0), Feature("y", 0.0, 9.0))
DUEL = EntitySchema(
    entity_types=(EntityType("knight", (*UNIT, "is_lancer", "is_archer"), 3), EntityType(NASTY, UNIT, 4)),
    actors=("knight",),
    verbs=("stop", NASTIER),
    targeted_verbs=(TargetedVerb("attack", NASTY),),
    globals=(Feature("clock", 0.0, 10.0),),
)
NUM_LATENTS = 5


class DuelVectorEnv(gymnasium.vector.VectorEnv[Observation, NDArray[Any], NDArray[Any]]):
    """Knights that may attack whoever is there. The last foe is never there, and in frame 2 the first knight is gone.

    Sub-environment `i` ends after `4 + i` steps. Under decentralized control knight `i` does not see foe `i`.
    """

    def __init__(self, num_envs: int, control: Control = "centralized") -> None:
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        relative = (Feature("x", -9.0, 9.0), Feature("y", -9.0, 9.0)) if control == "decentralized" else ()
        self.schema = replace(DUEL, control=control, relative=relative)
        self.single_observation_space = self.schema.observation_space
        self.single_action_space = self.schema.action_space
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        self._random = np.random.default_rng(seed)
        self._time = np.zeros(self.num_envs, int)
        self._ended = np.zeros(self.num_envs, bool)
        self._places = self._random.uniform(0, 9, size=(self.num_envs, 7, 2)).astype(np.float32)
        return self._observe(), {}

    def step(self, actions: NDArray[Any]) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        self._time = np.where(self._ended, 0, self._time + 1)
        self._places = (self._places + self._random.normal(size=self._places.shape) * 0.3).astype(np.float32)
        reward = np.where(self._ended, 0.0, np.square(actions + 1).mean(axis=1))
        self._ended = self._time == 4 + np.arange(self.num_envs)
        infos = {"won": self._ended.copy(), "_won": self._ended, "score": self._time * 1.5, "_score": self._ended}
        return self._observe(), reward, self._ended.copy(), np.zeros(self.num_envs, bool), infos

    def _observe(self) -> Observation:
        mask = np.tile(np.array([True] * 6 + [False]), (self.num_envs, 1))
        mask[:, 0] = self._time != 2
        units = np.concatenate([np.full((self.num_envs, 7, 2), 0.5, np.float32), self._places], axis=2)
        kinds = np.tile(np.array([[1, 0], [0, 1], [0, 1]], np.float32), (self.num_envs, 1, 1))
        legal = np.ones((self.num_envs, 3, 6), bool)
        legal[:, :, 2:] = mask[:, None, 3:]
        legal[:, 1, 1] = False
        observation = {
            "entities/knight": np.concatenate([units[:, :3], kinds], axis=2),
            "entity_mask/knight": mask[:, :3],
            f"entities/{NASTY}": units[:, 3:],
            f"entity_mask/{NASTY}": mask[:, 3:],
            "globals": self._time[:, None].astype(np.float32),
            "action_mask": legal & mask[:, :3, None],
        }
        if self.schema.control == "decentralized":
            sees = np.ones((self.num_envs, 3, 7), bool)
            sees[:, [0, 1, 2], [3, 4, 5]] = False
            observation["visibility"] = sees
            observation["action_mask"][:, [0, 1, 2], [2, 3, 4]] = False
        return observation


def make_policy(schema: EntitySchema, encoder: str = "perceiver") -> EntityPolicy:
    """A fresh policy whose weights are large enough that probabilities and attention are far from uniform."""
    torch.manual_seed(3)
    perceiver = PerceiverIOConfig(num_latents=NUM_LATENTS, latent_dim=32, num_blocks=2, num_cross_attends=2)
    config = EntityPolicyConfig(
        encoder=encoder, perceiver=perceiver, transformer=EntityTransformerConfig(model_dim=32), policy_init_scale=2.0
    )
    policy = EntityPolicy(schema, config)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if name.endswith(("query.weight", "key_value.weight")):
                parameter.mul_(3.0)
    return policy


def record_duels(
    control: Control = "centralized", encoder: str = "perceiver", seed: int = 7, greedy: bool = False, num_envs: int = 2
) -> Recording:
    """Duels of a fresh policy."""
    env = DuelVectorEnv(num_envs, control)
    policy = make_policy(env.schema, encoder)
    return record(policy, env, env_name=f"duel {NASTIER}", policy_name="fresh", seed=seed, greedy=greedy)
