"""How likely a squad's choices are to a policy, actor by actor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perceiver_rl.policy.distribution import ActorCategorical


@dataclass(frozen=True)
class Choices:
    """Choices that one policy made, as another one sees them.

    The ratio of a joint action is the product of its actors' ratios: its variance grows with the squad, and one unit that
    changed its mind outweighs all others.
    """

    current: ActorCategorical
    """The policy that the gradient is of."""
    present: Float[Tensor, "batch actors"]
    """1 for who is there, 0 for who is not."""
    log_prob: Float[Tensor, "batch actors"]
    """Of the choices, to `current`; 0 where nobody is."""
    log_ratio: Float[Tensor, "batch actors"]
    """Of `log_prob` to what it was when they were made; 0 where nobody is."""

    @classmethod
    def of(cls, current: ActorCategorical, behaviour: ActorCategorical, actions: Int[Tensor, "batch actors"]) -> Choices:
        """See the actions of `behaviour` with the eyes of `current`."""
        log_prob = current.log_prob_per_actor(actions)
        return cls(current, current.present.float(), log_prob, log_prob - behaviour.log_prob_per_actor(actions))

    def only(self, rows: Bool[Tensor, " batch"]) -> Choices:
        """Those of these rows; nobody is there in the others, whatever they hold."""
        rows = rows.unsqueeze(1)
        log_prob, log_ratio = (torch.where(rows, each, 0.0) for each in (self.log_prob, self.log_ratio))
        return Choices(self.current, self.present * rows, log_prob, log_ratio)

    @property
    def joint_log_ratio(self) -> Float[Tensor, " batch"]:
        """Of the joint action."""
        return self.log_ratio.sum(dim=1)

    def mean_over_actors(self, values: Float[Tensor, "batch actors"]) -> Float[Tensor, " batch"]:
        """Over those present; 0 where nobody is."""
        return mean_over_actors(values, self.present)


def mean_over_actors(
    values: Float[Tensor, "batch actors"], present: Bool[Tensor, "batch actors"] | Float[Tensor, "batch actors"]
) -> Float[Tensor, " batch"]:
    """Over those present; 0 where nobody is."""
    return (values * present).sum(dim=1) / present.sum(dim=1).clamp(min=1)


def clipped_surrogate(
    ratio: Float[Tensor, "*batch"], advantages: Float[Tensor, "*#batch"], clip: float
) -> Float[Tensor, "*batch"]:
    """PPO's pessimistic objective, elementwise."""
    return torch.minimum(advantages * ratio, advantages * ratio.clamp(1 - clip, 1 + clip))
