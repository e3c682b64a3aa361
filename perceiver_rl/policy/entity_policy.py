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
    EntityQueries,
    EntityTransformerConfig,
    LearnedQueries,
    Memory,
    Packing,
    PerceiverIOConfig,
    QueryArray,
    QueryPart,
    build_encoder,
)
from perceiver_rl.nn.capture import is_capturing
from perceiver_rl.policy.distribution import ActorCategorical
from perceiver_rl.policy.embedding import EntityEmbedding, module_key

MIN_SLOTS = 64
"""Slots of a set from which on packing is considered: at 11 it made learning with two threads slower."""

MIN_ABSENT_SLOTS = 512
"""Absent slots of a batch from which on packing is worth its bookkeeping."""


@dataclass(frozen=True, kw_only=True)
class EntityPolicyConfig:
    """Size and kind of an `EntityPolicy`.

    Args:
        encoder: Which of the two following configurations is used.
        perceiver: The Perceiver IO entity encoder.
        transformer: The entity transformer that it replaces, AlphaStar's shape.
        token_dim: Width of entity tokens and of queries.
        pointer_dim: Width of the keys by which actors point at targets.
        policy_init_scale: Factor on the initial weights of the action heads. Small, so that the first policy
            is near uniform over legal options (Andrychowicz et al. 2021, section 3.2).
        packing: Whether to compute on present entities only where sets are large and many slots absent; results
            are the same up to rounding. Compiled and exported graphs are always padded.
    """

    encoder: Literal["perceiver", "transformer"] = "perceiver"
    perceiver: PerceiverIOConfig = field(default_factory=PerceiverIOConfig)
    transformer: EntityTransformerConfig = field(default_factory=EntityTransformerConfig)
    token_dim: int = 64
    pointer_dim: int = 32
    policy_init_scale: float = 0.1
    packing: bool = True

    def __post_init__(self) -> None:
        for name in ("token_dim", "pointer_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")


@dataclass(frozen=True)
class PolicyOutput:
    """What one forward pass decodes."""

    logits: Float[Tensor, "batch actors options"]
    """Unnormalised; those of illegal options mean nothing."""
    legal: Bool[Tensor, "batch actors options"]
    """Legal options of present actors."""
    value_readout: Float[Tensor, "batch dim"]
    """The value query's answer; `EntityPolicy.value_from_readout` makes a number of it."""

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
    get no query. An option aimed at an entity is scored by the scaled dot product of the actor's and the
    target's answer, so no weight depends on the number of slots.

    Args:
        schema: What the environment shows and what may be done.
        config: Sizes.

    Source: queries from entity features as in Perceiver IO's StarCraft II agent (Jaegle et al. 2022, appendix
        B), pointer over entities as in AlphaStar's target-unit head (Vinyals et al. 2019).
    """

    asked_slots: Tensor

    def __init__(self, schema: EntitySchema, config: EntityPolicyConfig) -> None:
        super().__init__()
        self.schema = schema
        self.packing = config.packing
        dim = config.token_dim
        self.embedding = EntityEmbedding(schema, dim)
        encoder_config = config.perceiver if config.encoder == "perceiver" else config.transformer
        self.encoder = build_encoder(encoder_config, input_dim=dim, query_dim=dim)
        self.target_types = tuple(dict.fromkeys(verb.target for verb in schema.targeted_verbs))
        parts: dict[str, QueryPart] = {"value": LearnedQueries(1, dim), "actors": EntityQueries(dim, dim)}
        if self.target_types:
            parts["targets"] = EntityQueries(dim, dim)
        self.queries = QueryArray(dim, parts)
        types = {"actors": schema.actors, "targets": self.target_types}
        slots = [slot for part in parts if part != "value" for name in types[part] for slot in self.embedding.slots_of(name)]
        self.register_buffer("asked_slots", torch.tensor(slots), persistent=False)
        """For each query but the value's, the slot of the token that it is made of."""
        self.query_spans = {"value": slice(0, 1), "actors": slice(1, 1 + schema.max_actors)}
        if self.target_types:
            self.query_spans["targets"] = slice(1 + schema.max_actors, 1 + len(slots))
        dim = self.encoder.output_dim
        if self.target_types:
            self.target_norm = nn.LayerNorm(dim)
        self.actor_norm = nn.LayerNorm(dim)
        if schema.verbs:
            self.verb_head = _scaled(nn.Linear(dim, schema.num_verbs), config.policy_init_scale)
        self.pointer_queries = nn.ModuleDict(
            {
                module_key(verb.name): _scaled(nn.Linear(dim, config.pointer_dim), config.policy_init_scale)
                for verb in schema.targeted_verbs
            }
        )
        self.pointer_keys = nn.ModuleDict(
            {module_key(verb.name): nn.Linear(dim, config.pointer_dim) for verb in schema.targeted_verbs}
        )
        self.value_head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 1))

    def forward(self, observation: Mapping[str, Tensor]) -> PolicyOutput:
        """Decode every actor's options and the value.

        Args:
            observation: Tensors by key as `EntitySchema` tells, each with one leading batch axis.
        """
        mask = self.embedding.mask(observation)
        if self._is_worth_packing(mask):
            answers = self._answers_packed(observation, mask)
        else:
            tokens, memory = self._read(observation)
            asked = {"actors": self._tokens_of(self.schema.actors, tokens)}
            if self.target_types:
                asked["targets"] = self._tokens_of(self.target_types, tokens)
            queries = self.queries(len(tokens), **asked)
            answers = queries.split(self.encoder.decode(memory, queries.values))
        present = torch.cat([observation[mask_key(actor)] for actor in self.schema.actors], dim=1)
        return PolicyOutput(
            logits=self._logits(answers["actors"], answers.get("targets")),
            legal=observation[ACTION_MASK] & present.unsqueeze(-1),
            value_readout=answers["value"].squeeze(1),
        )

    def value(self, observation: Mapping[str, Tensor]) -> Float[Tensor, " batch"]:
        """The value alone: reads the observation and decodes one query."""
        mask = self.embedding.mask(observation)
        if self._is_worth_packing(mask):
            memory = self.encoder.read_packed(self.embedding.forward_packed(observation, Packing.from_mask(mask)))
        else:
            _, memory = self._read(observation)
        return self.value_from_readout(self.encoder.decode(memory, self.queries.parts["value"](1)).squeeze(1))

    def value_from_readout(self, readout: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """The value from the answer to the value query, so that training shares one pass with the policy."""
        return self.value_head(readout).squeeze(-1)

    def _read(self, observation: Mapping[str, Tensor]) -> tuple[Float[Tensor, "batch tokens dim"], Memory]:
        tokens, mask = self.embedding(observation)
        return tokens, self.encoder.read(tokens, mask)

    def _is_worth_packing(self, mask: Bool[Tensor, "batch tokens"]) -> bool:
        """Whether enough slots are absent; never where a graph is made for other data, too, or attention is looked at."""
        if not self.packing or mask.shape[1] < MIN_SLOTS or torch.compiler.is_compiling() or is_capturing():
            return False
        return mask.numel() - int(mask.sum()) >= MIN_ABSENT_SLOTS

    def _answers_packed(
        self, observation: Mapping[str, Tensor], mask: Bool[Tensor, "batch tokens"]
    ) -> dict[str, Float[Tensor, "batch some dim"]]:
        """Answers to all queries, zeros to those of absent entities, computed for present entities only."""
        packing = Packing.from_mask(mask)
        tokens = self.embedding.forward_packed(observation, packing)
        memory = self.encoder.read_packed(tokens)

        asked = Packing.from_mask(torch.cat([torch.ones_like(mask[:, :1]), mask[:, self.asked_slots]], dim=1))
        row_of_token = torch.empty(mask.numel(), dtype=torch.long, device=mask.device)
        row_of_token[packing.positions] = torch.arange(packing.num_rows, device=mask.device)
        value_rows = asked.rows_of(self.query_spans["value"])
        queries = [(value_rows, self.queries.parts["value"](len(mask)).flatten(0, 1))]
        for part, span in self.query_spans.items():
            if part == "value":
                continue
            rows = asked.rows_of(span)
            token = rows.samples * mask.shape[1] + self.asked_slots[span.start - 1 + rows.slots]
            made = self.queries.parts[part](1, tokens.values[row_of_token[token]].unsqueeze(0))
            queries.append((rows, made.squeeze(0)))
        answers = self.encoder.decode_packed(memory, asked.join(queries)).padded()
        return {part: answers[:, span] for part, span in self.query_spans.items()}

    def _tokens_of(
        self, types: tuple[str, ...], tokens: Float[Tensor, "batch tokens dim"]
    ) -> Float[Tensor, "batch some dim"]:
        return torch.cat([tokens[:, self.embedding.slots[name]] for name in types], dim=1)

    def _logits(
        self, actors: Float[Tensor, "batch actors dim"], targets: Float[Tensor, "batch targets dim"] | None
    ) -> Float[Tensor, "batch actors options"]:
        actors = self.actor_norm(actors)
        logits = [self.verb_head(actors)] if self.schema.verbs else []
        if targets is not None:
            counts = [self.schema.entity_type(name).max_count for name in self.target_types]
            by_type = dict(zip(self.target_types, self.target_norm(targets).split(counts, dim=1), strict=True))
            for verb in self.schema.targeted_verbs:
                query = self.pointer_queries[module_key(verb.name)](actors)
                key = self.pointer_keys[module_key(verb.name)](by_type[verb.target])
                logits.append(query @ key.transpose(1, 2) * query.shape[-1] ** -0.5)
        return torch.cat(logits, dim=-1)


def _scaled(layer: nn.Linear, scale: float) -> nn.Linear:
    """Shrink a layer's initial weights and zero its bias."""
    with torch.no_grad():
        layer.weight.mul_(scale)
        layer.bias.zero_()
    return layer
