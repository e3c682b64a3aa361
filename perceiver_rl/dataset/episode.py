"""One whole episode, and the columns that it is stored in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64
from numpy.typing import NDArray

from perceiver_rl.entities import ACTION_MASK, EntitySchema, Observation

OBSERVATION = "obs/"
"""Prefix of the observation's columns."""
ACTIONS, REWARDS = "actions", "rewards"
ENDINGS = ("terminated", "truncated", "won")


@dataclass(frozen=True)
class Episode:
    """An episode from its first observation to its last."""

    observations: Observation
    """`[length + 1, …]` each, in the types of the schema; the last one is where the episode ended."""
    actions: Int64[np.ndarray, "length actors"]
    rewards: Float32[np.ndarray, " length"]
    terminated: bool
    truncated: bool
    """Whether it was cut off, such as by a time limit."""
    won: bool | None
    """What the environment's last info said; None if it says nothing of winning."""

    @property
    def length(self) -> int:
        """Number of steps."""
        return len(self.rewards)


def columns_of(schema: EntitySchema) -> pa.Schema:
    """The columns of a file of episodes, a row each: arrays as flat lists, the time axis first.

    Plain lists, so that whatever reads Parquet reads them, and nothing in a file names code.
    """
    types = {np.float32: pa.float32(), np.bool_: pa.bool_()}
    fields = [(OBSERVATION + key, pa.list_(types[dtype])) for key, (_, dtype) in schema.arrays.items()]
    fields += [(ACTIONS, pa.list_(pa.int32())), (REWARDS, pa.list_(pa.float32()))]
    return pa.schema([*fields, *((name, pa.bool_()) for name in ENDINGS)])


def row_of(episode: Episode) -> dict[str, Any]:
    """What stands in the columns."""
    row: dict[str, Any] = {OBSERVATION + key: array.ravel() for key, array in episode.observations.items()}
    row |= {ACTIONS: episode.actions.ravel().astype(np.int32), REWARDS: episode.rewards}
    return row | {name: getattr(episode, name) for name in ENDINGS}


def require_choices(schema: EntitySchema, observations: Observation, actions: NDArray[np.int64]) -> None:
    """Raise if a choice was not to be had: an illegal option of a present actor, or any but 0 of an absent one.

    Args:
        schema: What the observations mean.
        observations: `[steps, …]` each, of the steps in which something was chosen.
        actions: `[steps, max_actors]`.

    Raises:
        ValueError: The first such step, its actor and what it chose.
    """
    legal = observations[ACTION_MASK]
    inside = (actions >= 0) & (actions < schema.num_options)
    chosen = np.take_along_axis(legal, np.where(inside, actions, 0)[..., None], axis=-1)[..., 0] & inside
    wrong = np.argwhere(np.where(schema.actor_mask(observations), ~chosen, actions != 0))
    if len(wrong):
        step, actor = wrong[0].tolist()
        options = np.flatnonzero(legal[step, actor]).tolist() or [0]
        raise ValueError(
            f"actions, step {step}, {schema.actor_name(actor)}: got option {actions[step, actor]}, expected one of {options}"
        )
