"""Decentralized control: each present actor looks at the world for itself, and sees a set of its own.

A batch of squads becomes a batch of *views*, one for each present actor, so that dead or missing actors cost nothing::

    squads [b]          actor 0   actor 1   actor 2
    sample 0               ●         ·         ●      ──►  views 0, 1
    sample 1               ●         ●         ●      ──►  views 2, 3, 4
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from perceiver_rl.entities import GLOBALS, VISIBILITY, EntitySchema, features_key, mask_key
from perceiver_rl.nn import Packed, Packing
from perceiver_rl.policy.embedding import EntityEmbedding, FeatureScaling
from perceiver_rl.policy.readout import TokenSource


@dataclass(frozen=True)
class Views:
    """Who looks, and at what."""

    samples: Int[Tensor, " views"]
    """Which squad of the batch."""
    actors: Int[Tensor, " views"]
    """Which actor of that squad."""
    own_slots: Int[Tensor, " views"]
    """Where that actor's own token stands."""
    mask: Bool[Tensor, "views tokens"]
    """Tokens that this actor sees: True = present and seen."""
    shape: tuple[int, int]
    """Squads of the batch, actors of a squad."""

    def by_actor(self, values: Float[Tensor, "views *rest"]) -> Float[Tensor, "batch actors *rest"]:
        """What was computed for each view, at its actor; zeros at absent ones."""
        batch, actors = self.shape
        places = self.samples * actors + self.actors
        return values.new_zeros(batch * actors, *values.shape[1:]).index_copy(0, places, values).unflatten(0, self.shape)


class ViewEmbedding(nn.Module):
    """The tokens of each view: what they are to everybody, and where they are relative to who looks.

    An entity's features are projected once, for all who see it. Each view adds the entity's `EntitySchema.relative` features
    less those of the observer, by a layer that all entity types share, and a mark on the observer's own token.

    Args:
        schema: What the observation means.
        dim: Width of the tokens.
    """

    actor_slots: Tensor
    readable: Tensor
    has_feature: Tensor

    def __init__(self, schema: EntitySchema, dim: int) -> None:
        super().__init__()
        self.embedding = EntityEmbedding(schema, dim)
        self.scaling = FeatureScaling(schema.relative)
        self.projection = nn.Linear(len(schema.relative) + 1, dim, bias=False)
        self.register_buffer("actor_slots", torch.tensor(schema.actor_slots), persistent=False)
        self.register_buffer("readable", readable_tokens(schema), persistent=False)
        has = torch.zeros(self.embedding.num_slots, len(schema.relative))
        for each in schema.entity_types:
            for column, feature in enumerate(schema.relative):
                has[self.embedding.slots[each.name], column] = feature.name in each.feature_names
        self.register_buffer("has_feature", has, persistent=False)

    def views(self, observation: Mapping[str, Tensor]) -> Views:
        """One view for each present actor; in graphs, whose sizes must not depend on data, one for each actor."""
        schema = self.embedding.schema
        present = torch.cat([observation[mask_key(name)] for name in schema.actors], dim=1)
        batch, actors = present.shape
        there = self.embedding.mask(observation) & self.readable
        if torch.compiler.is_compiling():
            numbers = torch.arange(batch * actors, device=present.device)
            samples, actors_of_views = numbers // actors, numbers % actors
        else:
            samples, actors_of_views = present.nonzero(as_tuple=True)
        sees = observation[VISIBILITY][samples, actors_of_views] & present[samples, actors_of_views].unsqueeze(1)
        if schema.globals:
            sees = torch.cat([sees, torch.ones_like(sees[:, :1])], dim=1)
        return Views(samples, actors_of_views, self.actor_slots[actors_of_views], there[samples] & sees, (batch, actors))

    def source(self, observation: Mapping[str, Tensor], views: Views) -> TokenSource:
        """The tokens of the views; zeros where an entity is not seen."""
        hidden = self.embedding.hidden(observation)  # b n d
        relative = self._relative(observation, views)  # v n r
        num_slots = hidden.shape[1]

        def padded() -> Tensor:
            tokens = self.embedding.activate(hidden[views.samples] + self.projection(relative))
            return torch.where(views.mask.unsqueeze(-1), tokens, 0.0)

        def packed(packing: Packing) -> Packed:
            view, slot = packing.positions // num_slots, packing.positions % num_slots
            seen = hidden.flatten(0, 1)[views.samples[view] * num_slots + slot]
            return Packed(self.embedding.activate(seen + self.projection(relative[view, slot])), packing)

        return TokenSource(views.mask, padded, packed)

    def _relative(self, observation: Mapping[str, Tensor], views: Views) -> Float[Tensor, "views tokens relative"]:
        """Relative features, scaled, and 1 at the observer itself; zeros at what it does not see."""
        columns = []
        for number, feature in enumerate(self.embedding.schema.relative):
            absolute = self._feature(observation, feature.name)[views.samples]  # v n
            difference = absolute - absolute.gather(1, views.own_slots.unsqueeze(1))
            scaled = (difference - self.scaling.center[number]) * self.scaling.scale[number]
            columns.append(scaled * self.has_feature[:, number])
        slots = torch.arange(self.embedding.num_slots, device=views.own_slots.device)
        columns.append((slots == views.own_slots.unsqueeze(1)).to(self.has_feature.dtype))
        return torch.where(views.mask.unsqueeze(-1), torch.stack(columns, dim=-1), 0.0)

    def _feature(self, observation: Mapping[str, Tensor], name: str) -> Float[Tensor, "batch tokens"]:
        """One feature of every token, zeros where a type has none of that name or nothing is present."""
        parts = []
        for each in self.embedding.schema.entity_types:
            mask = observation[mask_key(each.name)]
            if name in each.feature_names:
                values = observation[features_key(each.name)][..., each.feature_names.index(name)]
                parts.append(torch.where(mask, values, 0.0))
            else:
                parts.append(torch.zeros_like(mask, dtype=torch.float32))
        if self.embedding.schema.globals:
            parts.append(torch.zeros_like(parts[0][:, :1]))
        return torch.cat(parts, dim=1)


def readable_tokens(schema: EntitySchema) -> Bool[Tensor, " tokens"]:
    """Tokens that actors may read: those of types that are not privileged."""
    readable = [each.name not in schema.privileged for each in schema.entity_types for _ in range(each.max_count)]
    if schema.globals:
        readable.append(GLOBALS not in schema.privileged)
    return torch.tensor(readable)
