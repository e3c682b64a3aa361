"""What a replay holds: for each moment what was there, what the policy thought of it, and what was chosen."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float16, Float32, Int16
from numpy.typing import NDArray

from perceiver_rl.entities import EntitySchema
from perceiver_rl.scene import Scene

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Episode:
    """One episode of `steps` steps, and so of `steps + 1` frames: the last shows how it ended.

    Entities are the slots of all types, in the schema's order. Tokens are those and, last, the globals' if there are any.
    Memory is what decisions are read from: the latents of a Perceiver, or the tokens themselves of a transformer.
    """

    name: str
    """What a viewer calls it: the episode's number, or whose view it is."""
    features: dict[str, Float32[np.ndarray, "frames slots features"]]
    """By entity type, in the units of the environment; absent slots mean nothing."""
    entity_mask: Bool[np.ndarray, "frames entities"]
    """True = present."""
    globals: Float32[np.ndarray, "frames globals"]
    visibility: Bool[np.ndarray, "frames actors entities"] | None
    """Under decentralized control: True = this actor sees that entity."""
    legal: Bool[np.ndarray, "steps actors options"]
    probabilities: Float16[np.ndarray, "steps actors options"]
    """Of each actor's options; zeros for illegal ones and absent actors. Of sequential choices, given those before."""
    options: Int16[np.ndarray, "steps actors"]
    """What was chosen; 0 for absent actors."""
    value: Float32[np.ndarray, " steps"]
    reward: Float32[np.ndarray, " steps"]
    """What the choice of the same step brought."""
    actors_to_memory: Float16[np.ndarray, "steps actors memory"]
    """Attention of each actor's query; rows of present actors sum to one, others are zeros."""
    latents_to_tokens: Float16[np.ndarray, "steps readers latents tokens"] | None
    """Attention of the latents: one reading for all actors (readers = 1), or, under decentralized control, one for each.
    Rows sum to one over what may be read, or are zeros. None for a transformer, which has no latents."""
    won: bool | None = None
    """What the environment's last info said; None if it says nothing of winning."""
    info: dict[str, float] = field(default_factory=dict)
    """Every other number of the last info."""

    @property
    def length(self) -> int:
        """Steps."""
        return len(self.reward)

    @property
    def total_reward(self) -> float:
        """The undiscounted sum of rewards."""
        return float(self.reward.sum(dtype=np.float64))

    def actors_to_tokens(self) -> Float32[np.ndarray, "steps actors tokens"]:
        """What each actor attends to by way of the latents: the product of both attentions.

        How latents read each other in between is left out.
        """
        asked = self.actors_to_memory.astype(np.float32)
        if self.latents_to_tokens is None:
            return asked
        read = self.latents_to_tokens.astype(np.float32)
        return np.einsum("sal,salt->sat", asked, np.broadcast_to(read, (*asked.shape[:2], *read.shape[2:])))


@dataclass(frozen=True)
class Recording:
    """Episodes of one policy in one environment."""

    env: str
    policy: str
    """What the policy is called, e.g. its run folder."""
    control: str
    """What a decision may see: that of the schema, or `"per agent"` in a multi-agent environment."""
    mode: str
    """`"greedy"` or `"sampled"`."""
    seed: int
    schema: EntitySchema
    scene: Scene
    episodes: tuple[Episode, ...]
