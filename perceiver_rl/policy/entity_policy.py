"""The policy: entities in, one masked choice for each actor and a value out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from perceiver_rl.entities import ACTION_MASK, EntitySchema, mask_key
from perceiver_rl.nn import (
    EncoderConfig,
    EntityQueries,
    EntityTransformerConfig,
    LearnedQueries,
    PerceiverIOConfig,
    QueryArray,
    QueryPart,
    build_encoder,
)
from perceiver_rl.policy.action_heads import ActionHeads, target_types
from perceiver_rl.policy.critic import CentralCritic, value_head
from perceiver_rl.policy.distribution import ActorCategorical
from perceiver_rl.policy.embedding import EntityEmbedding
from perceiver_rl.policy.readout import Slots, TokenSource, answer, embedded, read
from perceiver_rl.policy.views import ViewEmbedding, readable_tokens


@dataclass(frozen=True, kw_only=True)
class EntityPolicyConfig:
    """Size and kind of an `EntityPolicy`.

    Args:
        encoder: Which of the two following configurations is used.
        perceiver: The Perceiver IO entity encoder.
        transformer: The entity transformer that it replaces, AlphaStar's shape.
        token_dim: Width of entity tokens and of queries.
        pointer_dim: Width of the keys by which actors point at targets.
        policy_init_scale: Factor on the initial weights of the action heads, see `ActionHeads`.
        critic: What the value may read where actors do not see everything. `"central"`: all that is observed, by a network
            of its own, as in MAPPO. `"local"`: what the actors see, by a query in their own pass; the squad's value is then
            the mean over present actors of the value of what each one sees. Where all see everything the two are the same.
        packing: Whether to compute on present entities only where sets are large and many slots absent; results
            are the same up to rounding. Compiled and exported graphs are always padded.
    """

    encoder: Literal["perceiver", "transformer"] = "perceiver"
    perceiver: PerceiverIOConfig = field(default_factory=PerceiverIOConfig)
    transformer: EntityTransformerConfig = field(default_factory=EntityTransformerConfig)
    token_dim: int = 64
    pointer_dim: int = 32
    policy_init_scale: float = 0.1
    critic: Literal["central", "local"] = "central"
    packing: bool = True

    def __post_init__(self) -> None:
        for name in ("token_dim", "pointer_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")

    @property
    def encoder_config(self) -> EncoderConfig:
        """The configuration that `encoder` names."""
        return self.perceiver if self.encoder == "perceiver" else self.transformer


@dataclass(frozen=True)
class PolicyOutput:
    """What one forward pass decodes."""

    logits: Float[Tensor, "batch actors options"]
    """Unnormalised; those of illegal options mean nothing."""
    legal: Bool[Tensor, "batch actors options"]
    """Legal options of present actors."""
    value: Float[Tensor, " batch"] | None
    """None if it was not asked for."""

    @property
    def distribution(self) -> ActorCategorical:
        """The distribution of the squad's action."""
        return ActorCategorical(self.logits, self.legal)


class EntityPolicy(nn.Module):
    """A squad's policy and value: tokens are read into a memory, queries read the decisions out of it.

    Data flow, with b batch, n tokens, a actors, t targets, d `token_dim`::

        observation ─ EntityEmbedding ─► tokens [b n d] ─ encoder.read ─► memory
        actor tokens  ─► actor queries  [b a d] ┐
        target tokens ─► target queries [b t d] ├─ encoder.decode ─► verb logits    [b a verbs]
        learned       ─► value query    [b 1 d] ┘                     pointer logits [b a t]
                                                                      value          [b]

    All queries are decoded in one call, and only what is asked: entities that neither act nor can be targets
    get no query. No weight depends on the number of slots.

    Under decentralized control each present actor is a sample of its own: b becomes the number of views, n the tokens that
    this actor sees, a is 1 (`perceiver_rl.policy.views`), and the value comes from a `CentralCritic`, or is the mean of the
    views' own.

    Args:
        schema: What the environment shows and what may be done.
        config: Sizes.

    Source: queries from entity features as in Perceiver IO's StarCraft II agent (Jaegle et al. 2022, appendix
        B).
    """

    readable: Tensor

    def __init__(self, schema: EntitySchema, config: EntityPolicyConfig) -> None:
        super().__init__()
        self.schema = schema
        self.packing = config.packing
        dim = config.token_dim
        self.views: ViewEmbedding | None = ViewEmbedding(schema, dim) if schema.control == "decentralized" else None
        if self.views is None:
            self.embedding = EntityEmbedding(schema, dim)
            self.register_buffer("readable", readable_tokens(schema), persistent=False)
        self.encoder = build_encoder(config.encoder_config, input_dim=dim, query_dim=dim)
        has_critic = config.critic == "central" and (self.views is not None or bool(schema.privileged))
        self.critic = CentralCritic(schema, config.encoder_config, dim, config.packing) if has_critic else None
        parts: dict[str, QueryPart] = {} if has_critic else {"value": LearnedQueries(1, dim)}
        parts["actors"] = EntityQueries(dim, dim)
        if target_types(schema):
            parts["targets"] = EntityQueries(dim, dim)
        self.queries = QueryArray(dim, parts)
        self.heads = ActionHeads(schema, self.encoder.output_dim, config.pointer_dim, config.policy_init_scale)
        if not has_critic:
            self.value_head = value_head(self.encoder.output_dim)

    def forward(self, observation: Mapping[str, Tensor], *, with_value: bool = True) -> PolicyOutput:
        """Decode every actor's options, and the value.

        Args:
            observation: Tensors by key as `EntitySchema` tells, each with one leading batch axis.
            with_value: Whether the value is wanted.
        """
        logits, value = (
            self._choose_together(observation) if self.views is None else self._choose_apart(self.views, observation)
        )
        if with_value and self.critic is not None:
            value = self.critic(observation)
        present = torch.cat([observation[mask_key(actor)] for actor in self.schema.actors], dim=1)
        return PolicyOutput(
            logits=logits,
            legal=observation[ACTION_MASK] & present.unsqueeze(-1),
            value=value if with_value else None,
        )

    def value(self, observation: Mapping[str, Tensor]) -> Float[Tensor, " batch"]:
        """The value alone: decodes one query, for each view where views have values."""
        if self.critic is not None:
            return self.critic(observation)
        if self.views is not None:
            views = self.views.views(observation)
            memory = read(self.encoder, self.views.source(observation, views), packing=self.packing)
        else:
            memory = read(self.encoder, self._source(observation), packing=self.packing)
        asked = self.queries.parts["value"](len(memory.values))
        values = self.value_head(self.encoder.decode(memory, asked)).flatten()
        return values if self.views is None else _mean_over_actors(views.by_actor(values), observation, self.schema)

    def _source(self, observation: Mapping[str, Tensor]) -> TokenSource:
        """What all actors see."""
        return embedded(self.embedding, observation, self.readable if self.schema.privileged else None)

    def _choose_together(
        self, observation: Mapping[str, Tensor]
    ) -> tuple[Float[Tensor, "batch actors options"], Float[Tensor, " batch"] | None]:
        """Logits and, where it is read here, the value, of actors who see the same."""
        asked: dict[str, Slots] = {"actors": self._slots_of(self.schema.actors)}
        if self.heads.target_types:
            asked["targets"] = self._slots_of(self.heads.target_types)
        answers = answer(self.encoder, self.queries, self._source(observation), asked, packing=self.packing)
        value = self.value_head(answers["value"]).flatten() if "value" in answers else None
        return self.heads(answers["actors"], answers.get("targets")), value

    def _choose_apart(
        self, view_embedding: ViewEmbedding, observation: Mapping[str, Tensor]
    ) -> tuple[Float[Tensor, "batch actors options"], Float[Tensor, " batch"] | None]:
        """The same of actors each of whom sees for itself."""
        views = view_embedding.views(observation)
        asked: dict[str, Slots] = {"actors": view_embedding.actor_slots[views.actors]}
        if self.heads.target_types:
            asked["targets"] = self._slots_of(self.heads.target_types)
        source = view_embedding.source(observation, views)
        answers = answer(self.encoder, self.queries, source, asked, packing=self.packing)
        logits = views.by_actor(self.heads(answers["actors"], answers.get("targets")).squeeze(1))
        if "value" not in answers:
            return logits, None
        values = views.by_actor(self.value_head(answers["value"]).flatten())
        return logits, _mean_over_actors(values, observation, self.schema)

    def _slots_of(self, types: tuple[str, ...]) -> tuple[slice, ...]:
        return tuple(self.schema.entity_slices[name] for name in types)


def _mean_over_actors(
    values: Float[Tensor, "batch actors"], observation: Mapping[str, Tensor], schema: EntitySchema
) -> Float[Tensor, " batch"]:
    """Mean over present actors of what is 0 at absent ones; 0 where none is present."""
    present = torch.cat([observation[mask_key(actor)] for actor in schema.actors], dim=1)
    return values.sum(dim=1) / present.sum(dim=1).clamp(min=1)
