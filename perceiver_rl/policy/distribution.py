"""The distribution of a squad's action: one masked choice for each actor, independent given the state."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perceiver_rl.nn.softmax import log_softmax


class ActorCategorical:
    """One categorical for each actor: illegal options have probability 0, absent actors do not count.

    An actor is present if it has a legal option. An absent actor's action is option 0, and it contributes
    exactly nothing: its log-probability, entropy, divergence and their gradients are 0.

    Args:
        logits: Unnormalised log-probabilities `[*batch, actors, options]`; illegal options' are never read.
        legal: True = legal, `[*batch, actors, options]`.

    Source: the product of per-unit policies of independent learners (e.g. de Witt et al. 2020), here under
        one value.
    """

    def __init__(self, logits: Float[Tensor, "*batch actors options"], legal: Bool[Tensor, "*batch actors options"]) -> None:
        self.legal = legal
        self.present: Bool[Tensor, "*batch actors"] = legal.any(dim=-1)
        # The smallest finite number rather than -inf: exp() of it is exactly 0, and no gradient becomes inf -
        # inf. An absent actor's row is constant, hence uniform and finite, and masked away wherever it would
        # count.
        masked = torch.where(legal, logits.float(), torch.finfo(torch.float32).min)
        self.log_probs: Float[Tensor, "*batch actors options"] = log_softmax(masked)

    def sample(self, generator: torch.Generator | None = None) -> Int[Tensor, "*batch actors"]:
        """Draw one option for each actor, option 0 for absent ones.

        Args:
            generator: Source of randomness; torch's global generator if None.
        """
        # The exponential race: argmax of p / Exp(1) is a categorical draw. One pass, no per-row loop as in
        # multinomial. An illegal option has p = 0 and can only be chosen where no option is legal, that is
        # for an absent actor.
        race = torch.empty_like(self.log_probs).exponential_(generator=generator)
        return self._choose(self.log_probs.exp() / race)

    def mode(self) -> Int[Tensor, "*batch actors"]:
        """The most probable option of each actor, option 0 for absent ones."""
        return self._choose(self.log_probs)

    def log_prob_per_actor(self, actions: Int[Tensor, "*batch actors"]) -> Float[Tensor, "*batch actors"]:
        """Log-probability of each actor's option, 0 for absent actors."""
        chosen = self.log_probs.gather(-1, actions.long().unsqueeze(-1)).squeeze(-1)
        return torch.where(self.present, chosen, 0.0)

    def log_prob(self, actions: Int[Tensor, "*batch actors"]) -> Float[Tensor, "*batch"]:
        """Log-probability of the joint action: the sum over present actors."""
        return self.log_prob_per_actor(actions).sum(dim=-1)

    def entropy_per_actor(self) -> Float[Tensor, "*batch actors"]:
        """Entropy of each actor's choice in nats, 0 for absent actors."""
        return -self._expectation(self.log_probs)

    def entropy(self) -> Float[Tensor, "*batch"]:
        """Entropy of the joint action in nats: the sum over present actors."""
        return self.entropy_per_actor().sum(dim=-1)

    def kl_per_actor(self, other: ActorCategorical) -> Float[Tensor, "*batch actors"]:
        """Divergence KL(self ‖ other) of each actor's choice in nats, 0 for absent actors.

        Args:
            other: A distribution over the same options with the same legal ones.
        """
        return self._expectation(self.log_probs - other.log_probs)

    def kl(self, other: ActorCategorical) -> Float[Tensor, "*batch"]:
        """Divergence KL(self ‖ other) of the joint action in nats: the sum over present actors."""
        return self.kl_per_actor(other).sum(dim=-1)

    def _choose(self, score: Float[Tensor, "*batch actors options"]) -> Int[Tensor, "*batch actors"]:
        return torch.where(self.present, score.argmax(dim=-1), 0)

    def _expectation(self, values: Float[Tensor, "*batch actors options"]) -> Float[Tensor, "*batch actors"]:
        """Mean of `values` over the legal options; `where` keeps 0 · huge out of value and gradient."""
        legal_values = torch.where(self.legal, values, 0.0)
        legal_probs = torch.where(self.legal, self.log_probs, float("-inf")).exp()
        return (legal_probs * legal_values).sum(dim=-1)
