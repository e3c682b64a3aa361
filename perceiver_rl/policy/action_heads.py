"""From the answers of actors and targets to logits: a verb, or a pointer at an entity."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perceiver_rl.entities import EntitySchema
from perceiver_rl.policy.embedding import module_key


class ActionHeads(nn.Module):
    """Logits of each actor's options: untargeted verbs by a linear layer, targeted ones by scaled dot products.

    No weight depends on the number of actors or targets.

    Args:
        schema: What may be done.
        dim: Width of the answers.
        pointer_dim: Width in which actors and targets meet.
        init_scale: Factor on the initial weights on the actors' side. Small, so that the first policy is near uniform over
            legal options.

    Source: pointer over entities as in AlphaStar's target-unit head (Vinyals et al. 2019); initial scale: Andrychowicz et
        al. 2021, section 3.2.
    """

    def __init__(self, schema: EntitySchema, dim: int, pointer_dim: int, init_scale: float) -> None:
        super().__init__()
        self.schema = schema
        self.target_types = target_types(schema)
        if self.target_types:
            self.target_norm = nn.LayerNorm(dim)
        self.actor_norm = nn.LayerNorm(dim)
        if schema.verbs:
            self.verb_head = _scaled(nn.Linear(dim, schema.num_verbs), init_scale)
        verbs = [module_key(verb.name) for verb in schema.targeted_verbs]
        self.pointer_queries = nn.ModuleDict({verb: _scaled(nn.Linear(dim, pointer_dim), init_scale) for verb in verbs})
        self.pointer_keys = nn.ModuleDict({verb: nn.Linear(dim, pointer_dim) for verb in verbs})

    def forward(
        self, actors: Float[Tensor, "batch actors dim"], targets: Float[Tensor, "batch targets dim"] | None
    ) -> Float[Tensor, "batch actors options"]:
        """Logits in the order of the schema's options.

        Args:
            actors: Their answers.
            targets: The answers of all target types' slots, in the order of `target_types`; None without targeted verbs.
        """
        return self.logits(actors, self.keys(targets))

    def keys(self, targets: Float[Tensor, "batch targets dim"] | None) -> list[Float[Tensor, "batch _ pointer_dim"]]:
        """For each targeted verb the keys of its targets, which do not depend on who points.

        Args:
            targets: As of `forward`.
        """
        if targets is None:
            return []
        counts = [self.schema.entity_type(name).max_count for name in self.target_types]
        by_type = dict(zip(self.target_types, self.target_norm(targets).split(counts, dim=1), strict=True))
        return [self.pointer_keys[module_key(verb.name)](by_type[verb.target]) for verb in self.schema.targeted_verbs]

    def logits(
        self, actors: Float[Tensor, "batch actors dim"], keys: list[Float[Tensor, "batch _ pointer_dim"]]
    ) -> Float[Tensor, "batch actors options"]:
        """Logits in the order of the schema's options, of some actors or all.

        Args:
            actors: Their answers.
            keys: What `keys` gave back.
        """
        actors = self.actor_norm(actors)
        logits = [self.verb_head(actors)] if self.schema.verbs else []
        for verb, key in zip(self.schema.targeted_verbs, keys, strict=True):
            query = self.pointer_queries[module_key(verb.name)](actors)
            logits.append(query @ key.transpose(1, 2) * query.shape[-1] ** -0.5)
        return torch.cat(logits, dim=-1)


def target_types(schema: EntitySchema) -> tuple[str, ...]:
    """Entity types that some verb is aimed at, each once, in the order of the verbs."""
    return tuple(dict.fromkeys(verb.target for verb in schema.targeted_verbs))


def _scaled(layer: nn.Linear, scale: float) -> nn.Linear:
    """Shrink a layer's initial weights and zero its bias."""
    with torch.no_grad():
        layer.weight.mul_(scale)
        layer.bias.zero_()
    return layer
