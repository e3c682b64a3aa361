"""Schemas and observations that tests share. Sizes are coprime, so that a swapped axis fails."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from perceiver_rl.entities import EntitySchema, EntityType, Feature, Observation, TargetedVerb

SKIRMISH = EntitySchema(
    entity_types=(
        EntityType("marine", (Feature("health", 0.0, 45.0), "x", "y"), max_count=3),
        EntityType("medic", ("health", Feature("energy", 0.0, 200.0)), max_count=2),
        EntityType("zergling", ("health", "x", "y", "vx", "vy"), max_count=7),
        EntityType("rock", ("size",), max_count=4),
    ),
    actors=("marine", "medic"),
    verbs=("stop", "north"),
    targeted_verbs=(
        TargetedVerb("attack", "zergling"),
        TargetedVerb("heal", "marine"),
        TargetedVerb("stun", "zergling"),
    ),
    globals=(Feature("clock", 0.0, 100.0),),
)
"""Everything at once: two actor types, one type that is only seen, two verbs at one type, globals."""

NUM_OPTIONS = 2 + 7 + 3 + 7
"""Of SKIRMISH: stop and north, attack, heal, stun."""

STOP, NORTH, ATTACK_1, HEAL_1 = 0, 1, 3, 10
"""Some of these options."""


def raises(message: str) -> Any:
    """Expect a ValueError with exactly this message."""
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


def skirmish() -> Observation:
    """Two marines, one medic, two zerglings: the medic may only stop and heal."""
    return SKIRMISH.pack(
        {
            "marine": [[45.0, 0.1, 0.2], [30.0, 0.3, 0.4]],
            "medic": [[1.0, 50.0]],
            "zergling": np.arange(10).reshape(2, 5),
        },
        action_mask=[legal_row("stop", "attack zergling 1"), legal_row("north"), legal_row("stop", "heal marine 1")],
        globals=[7.0],
    )


def legal_row(*options: str) -> list[bool]:
    """A row of SKIRMISH's action mask in which these options are legal."""
    names = [SKIRMISH.option_name(option) for option in range(SKIRMISH.num_options)]
    assert set(options) <= set(names)
    return [name in options for name in names]


def observe(schema: EntitySchema, batch: int, seed: int, empty: bool = True) -> Observation:
    """A batch of random legal observations `[batch, …]`; the last is empty, and every other shows something.

    Args:
        schema: What to observe.
        batch: How many.
        seed: Of the random features, masks and legal options.
        empty: Whether the last observation shows no entity at all.
    """
    random = np.random.default_rng(seed)
    observation: Observation = {}
    for each in schema.entity_types:
        present = random.random((batch, each.max_count)) < 0.6
        present[:, 0] = True
        if empty:
            present[-1] = False
        features = random.normal(size=(batch, each.max_count, each.num_features)).astype(np.float32)
        observation[f"entities/{each.name}"] = features
        observation[f"entity_mask/{each.name}"] = present
    observation["globals"] = random.normal(size=(batch, len(schema.globals))).astype(np.float32)
    legal = random.random((batch, schema.max_actors, schema.num_options)) < 0.7
    for verb, targets in zip(schema.targeted_verbs, schema.target_slices, strict=True):
        legal[..., targets] &= observation[f"entity_mask/{verb.target}"][:, None, :]
    if schema.verbs:
        legal[..., 0] = True
    else:  # whoever acts can aim at the first target, which is there in every observation but the empty one
        legal[..., schema.target_slices[0].start] = True
    legal &= schema.actor_mask(observation)[..., None]
    observation["action_mask"] = legal
    schema.check(observation, batch_shape=(batch,))
    return observation


def to_tensors(observation: Observation) -> dict[str, Tensor]:
    """The same as tensors that share no memory with it."""
    return {key: torch.from_numpy(array.copy()) for key, array in observation.items()}
