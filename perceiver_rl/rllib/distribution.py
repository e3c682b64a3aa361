"""The policy's distribution in the form that RLlib expects: made from, and stored as, one flat tensor a sample."""

from __future__ import annotations

from functools import lru_cache

import gymnasium
import torch
from jaxtyping import Float, Int
from ray.rllib.core.distribution.distribution import Distribution
from torch import Tensor

from perceiver_rl.policy.distribution import ActorCategorical
from perceiver_rl.policy.entity_policy import PolicyOutput

# What stands in the flat tensor for an illegal option. Finite, since RLlib's checks reject infinities.
ILLEGAL = torch.finfo(torch.float32).min


def to_dist_inputs(output: PolicyOutput) -> Float[Tensor, "batch inputs"]:
    """The flat tensor from which `SquadDistribution.from_logits` restores logits, legal options and present actors."""
    return torch.where(output.legal, output.logits.float(), ILLEGAL).flatten(1)


class SquadDistribution(Distribution):
    """`ActorCategorical` behind RLlib's interface; the algorithms' code sees the joint action.

    Its per-actor view, for losses that need it, is the attribute `per_actor`.

    Args:
        per_actor: The distribution of each actor's choice.
        deterministic: Whether `sample` returns the mode.
    """

    num_options: int
    """Options of each actor; set by the subclass that `squad_distribution_class` makes."""

    def __init__(self, per_actor: ActorCategorical, *, deterministic: bool = False) -> None:
        self.per_actor = per_actor
        self.deterministic = deterministic

    @classmethod
    def from_logits(cls, logits: Float[Tensor, "*batch inputs"], **kwargs: object) -> SquadDistribution:
        """Restore the distribution from the flat tensor that `to_dist_inputs` made."""
        per_option = logits.unflatten(-1, (-1, cls.num_options))
        # Not `> ILLEGAL`: a logit that became NaN would count as illegal, and a diverged policy as a squad of absent ones.
        return cls(ActorCategorical(per_option, ~(per_option <= ILLEGAL)))

    def sample(self, *, sample_shape: tuple[int, ...] | None = None, **kwargs: object) -> Int[Tensor, "*batch actors"]:
        """One option for each actor. Only one draw at a time is supported, as everywhere in RLlib."""
        if sample_shape:
            raise ValueError(f"sample_shape: got {sample_shape}, expected None: draw once for each row of the batch")
        return self.per_actor.mode() if self.deterministic else self.per_actor.sample()

    def rsample(self, **kwargs: object) -> Tensor:
        """Not defined for discrete choices."""
        raise NotImplementedError("a squad's choices are discrete: there is no reparameterised sample")

    def logp(self, value: Int[Tensor, "*batch actors"], **kwargs: object) -> Float[Tensor, "*batch"]:
        """Log-probability of the joint action."""
        return self.per_actor.log_prob(value)

    def entropy(self, **kwargs: object) -> Float[Tensor, "*batch"]:
        """Entropy of the joint action, in nats."""
        return self.per_actor.entropy()

    def kl(self, other: SquadDistribution, **kwargs: object) -> Float[Tensor, "*batch"]:
        """KL(self ‖ other) of the joint action, in nats."""
        return self.per_actor.kl(other.per_actor)

    def to_deterministic(self) -> SquadDistribution:
        """The same choices without chance."""
        return type(self)(self.per_actor, deterministic=True)

    @staticmethod
    def required_input_dim(space: gymnasium.Space[object], **kwargs: object) -> int:
        """Length of the flat tensor for an action space `MultiDiscrete([options] * actors)`."""
        if not isinstance(space, gymnasium.spaces.MultiDiscrete):
            raise ValueError(f"action space: got {space}, expected the MultiDiscrete of an EntitySchema")
        return int(space.nvec.sum())


@lru_cache
def squad_distribution_class(num_options: int) -> type[SquadDistribution]:
    """The distribution class for actors with that many options. RLlib wants a class that needs nothing but the inputs."""
    return type(f"SquadDistribution{num_options}", (SquadDistribution,), {"num_options": num_options})
