"""Joint action beyond independence: actors choose one after the other, each knowing what those before it chose."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_rl.entities import EntitySchema
from perceiver_rl.nn import MLP
from perceiver_rl.policy.action_heads import ActionHeads, target_types
from perceiver_rl.policy.distribution import ActorCategorical


@dataclass(frozen=True)
class Turn:
    """What all actors' choices depend on but the choices themselves."""

    actors: Float[Tensor, "batch actors dim"]
    """Their answers."""
    targets: Float[Tensor, "batch targets dim"] | None
    """Answers of the target types' slots."""
    legal: Bool[Tensor, "batch actors options"]
    """Legal options; none for an absent actor."""

    @property
    def present(self) -> Bool[Tensor, "batch actors"]:
        """Which actors choose."""
        return self.legal.any(dim=-1)


class SequentialChoice(nn.Module):
    """Actors choose in the order of their slots; each one attends to the answers and choices of those before it.

    The probability of the joint action is the product of each actor's conditional one. Where the choices are known, as in
    training, all conditionals come from one pass with a causal mask (`forward`); where they are not, actors are sampled one
    by one, and keys and values of those who have chosen are kept (`choose`). Both give the same probabilities.

    A choice is told by its verb, and by what its target is: nothing depends on how many slots there are.

    Args:
        schema: What may be done.
        dim: Width of the answers.
        num_heads: Heads of the attention to earlier actors.

    Raises:
        ValueError: If the heads cannot share the width evenly.

    Source: the decoder of the Multi-Agent Transformer (Wen et al. 2022); AlphaStar's arguments, each of which depends on
        those before it (Vinyals et al. 2019).
    """

    def __init__(self, schema: EntitySchema, dim: int, num_heads: int = 4) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"sequential choices: got width {dim}, expected a multiple of their {num_heads} heads")
        self.schema = schema
        self.num_heads = num_heads
        self.verbs = nn.Embedding(schema.num_verbs + len(schema.targeted_verbs), dim)
        self.target = nn.Linear(dim, dim)
        self.query_norm, self.key_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key_value, self.output = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.mlp = MLP(dim)

    def forward(
        self, turn: Turn, heads: ActionHeads, actions: Int[Tensor, "batch actors"]
    ) -> Float[Tensor, "batch actors options"]:
        """Each actor's logits, given the choices of those before it.

        Args:
            turn: Who chooses what.
            heads: From an actor's answer to its logits.
            actions: The option of each actor; absent actors' are not read.
        """
        key, value = self._key_value(turn.actors + self._choice(turn, actions))
        count = turn.actors.shape[1]
        before = torch.ones(count, count, dtype=torch.bool, device=actions.device).tril(-1)
        told = self._told(turn.actors, key, value, before & turn.present[:, None, :])
        return heads.logits(told, heads.keys(turn.targets))

    def choose(
        self, turn: Turn, heads: ActionHeads, *, greedy: bool, generator: torch.Generator | None = None
    ) -> tuple[Int[Tensor, "batch actors"], Float[Tensor, "batch actors options"]]:
        """Sample actor after actor, or take each one's most probable option.

        The greedy joint action is the best for each actor given those before it, which need not be the most probable one.

        Args:
            turn: Who chooses what.
            heads: From an actor's answer to its logits.
            greedy: The most probable option rather than a draw.
            generator: Source of randomness; torch's global one if None.

        Returns:
            The options, 0 for absent actors, and each actor's logits given the choices of those before it.
        """
        keys = heads.keys(turn.targets)
        actions: list[Tensor] = []
        logits: list[Tensor] = []
        cache: list[tuple[Tensor, Tensor]] = []
        for actor in range(turn.actors.shape[1]):
            one = turn.actors[:, actor : actor + 1]
            if cache:
                key, value = (torch.cat(each, dim=2) for each in zip(*cache, strict=True))
                told = self._told(one, key, value, turn.present[:, None, :actor])
            else:
                told = self._told(one, *self._key_value(one), torch.zeros_like(turn.present[:, None, :1]))
            logits.append(heads.logits(told, keys))
            distribution = ActorCategorical(logits[-1], turn.legal[:, actor : actor + 1])
            actions.append(distribution.mode() if greedy else distribution.sample(generator))
            cache.append(self._key_value(one + self._choice(turn, actions[-1])))
        return torch.cat(actions, dim=1), torch.cat(logits, dim=1)

    def _choice(self, turn: Turn, actions: Int[Tensor, "batch some"]) -> Float[Tensor, "batch some dim"]:
        """What the options mean: a vector for the verb, and one for the target if it has one."""
        actions = actions.long()
        verb = actions
        for number, targets in enumerate(self.schema.target_slices):
            aimed = (actions >= targets.start) & (actions < targets.stop)
            verb = torch.where(aimed, self.schema.num_verbs + number, verb)
        choice = self.verbs(verb)
        return choice if turn.targets is None else choice + self._aimed(self.target(turn.targets), actions)

    def _aimed(
        self, targets: Float[Tensor, "batch targets dim"], actions: Int[Tensor, "batch some"]
    ) -> Float[Tensor, "batch some dim"]:
        """The vector of each option's target, zeros for options without one."""
        starts, start = {}, 0
        for name in target_types(self.schema):
            starts[name] = start
            start += self.schema.entity_type(name).max_count
        slot = torch.zeros_like(actions)
        for verb, options in zip(self.schema.targeted_verbs, self.schema.target_slices, strict=True):
            aimed = (actions >= options.start) & (actions < options.stop)
            slot = torch.where(aimed, actions - options.start + starts[verb.target], slot)
        chosen = targets.gather(1, slot.unsqueeze(-1).expand(-1, -1, targets.shape[-1]))
        return torch.where((actions >= self.schema.num_verbs).unsqueeze(-1), chosen, 0.0)

    def _key_value(self, told: Float[Tensor, "batch some dim"]) -> tuple[Tensor, Tensor]:
        """Keys and values, each `[batch, heads, some, dim per head]`."""
        key, value = self.key_value(self.key_norm(told)).unflatten(-1, (2, self.num_heads, -1)).unbind(2)
        return key.transpose(1, 2), value.transpose(1, 2)

    def _told(
        self,
        actors: Float[Tensor, "batch some dim"],
        key: Float[Tensor, "batch heads earlier head_dim"],
        value: Float[Tensor, "batch heads earlier head_dim"],
        mask: Bool[Tensor, "batch #some earlier"],
    ) -> Float[Tensor, "batch some dim"]:
        """Actors' answers after they were told what those chose whom the mask names."""
        query = self.query(self.query_norm(actors)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        anybody = mask.any(dim=-1)[:, None, :, None]
        # As in `attend`: whoever has nobody before it reads everybody, finite, and that is thrown away.
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask.unsqueeze(1) | ~anybody)
        read = torch.where(anybody, attended, 0.0).transpose(1, 2).flatten(2)
        actors = actors + self.output(read)
        return actors + self.mlp(actors)
