"""The policy: entities in, one masked choice for each actor and a value out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
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
from perceiver_rl.nn.perceiver_io import require_one_of, require_positive
from perceiver_rl.policy.action_heads import ActionHeads, target_types
from perceiver_rl.policy.critic import CentralCritic, value_head
from perceiver_rl.policy.distribution import ActorCategorical
from perceiver_rl.policy.embedding import EntityEmbedding
from perceiver_rl.policy.readout import Slots, TokenSource, answer, embedded, read
from perceiver_rl.policy.sequential import SequentialChoice, Turn
from perceiver_rl.policy.views import ViewEmbedding, Views, readable_tokens

Encoder = Literal["perceiver", "transformer"]
Critic = Literal["central", "local"]
Joint = Literal["independent", "sequential"]


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
        joint: How the choices of one squad hang together. `"independent"`: given what is seen, each is drawn for itself.
            `"sequential"`: in the order of slots, each given those before it (`SequentialChoice`); under centralized
            control only.
        packing: Whether to compute on present entities only where sets are large and many slots absent; results
            are the same up to rounding. Compiled and exported graphs are always padded.
    """

    encoder: Encoder = "perceiver"
    perceiver: PerceiverIOConfig = field(default_factory=PerceiverIOConfig)
    transformer: EntityTransformerConfig = field(default_factory=EntityTransformerConfig)
    token_dim: int = 64
    pointer_dim: int = 32
    policy_init_scale: float = 0.1
    critic: Critic = "central"
    joint: Joint = "independent"
    packing: bool = True

    def __post_init__(self) -> None:
        require_positive(self, "token_dim", "pointer_dim")
        require_one_of(self, "encoder", Encoder)
        require_one_of(self, "critic", Critic)
        require_one_of(self, "joint", Joint)
        if not (math.isfinite(self.policy_init_scale) and self.policy_init_scale >= 0):
            raise ValueError(f"policy_init_scale: got {self.policy_init_scale}, expected a finite number of at least 0")

    @property
    def encoder_config(self) -> EncoderConfig:
        """The configuration that `encoder` names."""
        return self.perceiver if self.encoder == "perceiver" else self.transformer


@dataclass(frozen=True)
class PolicyOutput:
    """What one forward pass decodes."""

    logits: Float[Tensor, "batch actors options"]
    """Unnormalised; those of illegal options mean nothing. Of sequential choices, given the choices before."""
    legal: Bool[Tensor, "batch actors options"]
    """Legal options of present actors."""
    value: Float[Tensor, " batch"] | None
    """None if it was not asked for."""
    extra: Mapping[str, Float[Tensor, "batch _ dim"]] = field(default_factory=dict)
    """Answers to the policy's extra queries, by name; those of absent entities mean nothing."""

    @cached_property
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
        extra_queries: What else is asked in the same pass, for heads of your own: by name, the entity types of which each
            slot gets a query, in the order of slots; no types for one learned query. `PolicyOutput.extra` has the answers,
            each `[batch, queries, encoder.output_dim]`. Under centralized control only.

    Raises:
        ValueError: If a type is unknown or privileged, a name is taken, or the control forbids what is asked.

    Source: queries from entity features as in Perceiver IO's StarCraft II agent (Jaegle et al. 2022, appendix
        B).
    """

    readable: Tensor

    def __init__(
        self, schema: EntitySchema, config: EntityPolicyConfig, extra_queries: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        super().__init__()
        self.schema = schema
        self.extra_queries = {name: tuple(types) for name, types in (extra_queries or {}).items()}
        self._check_extra_queries()
        self.config = config
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
        for name, types in self.extra_queries.items():
            parts[name] = EntityQueries(dim, dim) if types else LearnedQueries(1, dim)
        self.queries = QueryArray(dim, parts)
        self.heads = ActionHeads(schema, self.encoder.output_dim, config.pointer_dim, config.policy_init_scale)
        if not has_critic:
            self.value_head = value_head(self.encoder.output_dim)

        if config.joint == "sequential" and self.views is not None:
            raise ValueError(
                "joint: got 'sequential' under decentralized control, expected 'independent': an actor would know what "
                "others chose, and so what they saw"
            )
        self.sequence = SequentialChoice(schema, self.encoder.output_dim) if config.joint == "sequential" else None

    def forward(
        self,
        observation: Mapping[str, Tensor],
        actions: Int[Tensor, "batch actors"] | None = None,
        *,
        with_value: bool = True,
    ) -> PolicyOutput:
        """Decode every actor's options, and the value.

        Args:
            observation: Tensors by key as `EntitySchema` tells, each with one leading batch axis.
            actions: The options that were chosen. Sequential choices are told those before them, so they need them here;
                independent ones do not, and ignore them. `act` chooses without knowing.
            with_value: Whether the value is wanted.

        Raises:
            ValueError: If sequential choices are asked for without actions.
        """
        answers = self._answers(observation)
        if self.sequence is None:
            logits = self.heads(answers.actors, answers.targets)
        elif actions is None:
            raise ValueError(
                "actions: got None, expected the options chosen, which sequential choices depend on; or use act()"
            )
        else:
            logits = self.sequence(self._turn(answers, observation), self.heads, actions)
        return self._output(logits, answers, observation, with_value)

    def act(
        self, observation: Mapping[str, Tensor], *, greedy: bool, generator: torch.Generator | None = None
    ) -> tuple[Int[Tensor, "batch actors"], PolicyOutput]:
        """Choose for every actor.

        Args:
            observation: As of `forward`.
            greedy: Each actor's most probable option rather than a draw.
            generator: Source of randomness; torch's global one if None.

        Returns:
            Options, 0 for absent actors, and what they were chosen by, without a value.
        """
        answers = self._answers(observation)
        if self.sequence is None:
            output = self._output(self.heads(answers.actors, answers.targets), answers, observation, with_value=False)
            distribution = output.distribution
            return (distribution.mode() if greedy else distribution.sample(generator)), output
        turn = self._turn(answers, observation)
        actions, logits = self.sequence.choose(turn, self.heads, greedy=greedy, generator=generator)
        return actions, self._output(logits, answers, observation, with_value=False)

    def value(self, observation: Mapping[str, Tensor]) -> Float[Tensor, " batch"]:
        """The value alone: decodes one query, for each view where views have values."""
        if self.critic is not None:
            return self.critic(observation)
        source, views = self._source(observation)
        memory = read(self.encoder, source, packing=self.packing)
        answers = self.encoder.decode(memory, self.queries.parts["value"](len(memory.values)))
        return self._squad_value(self.value_head(answers).flatten(), views, observation)

    def with_slots(self, schema: EntitySchema) -> EntityPolicy:
        """A policy with the same weights for a schema that differs in numbers of slots (`max_count`) alone."""
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and thrown away
            other = EntityPolicy(schema, self.config, self.extra_queries).to(next(self.parameters()).device)
        other.load_state_dict(self.state_dict())
        return other.train(self.training)

    def _source(self, observation: Mapping[str, Tensor]) -> tuple[TokenSource, Views | None]:
        """What actors see: all of a squad the same, or each one its own view."""
        if self.views is None:
            return embedded(self.embedding, observation, self.readable if self.schema.privileged else None), None
        views = self.views.views(observation)
        return self.views.source(observation, views), views

    def _answers(self, observation: Mapping[str, Tensor]) -> _Answers:
        """Decode actors, targets and, where it is read here, the value: of squads, or of views."""
        source, views = self._source(observation)
        asked: dict[str, Slots] = {"actors": self._slots_of(self.schema.actors) if views is None else views.own_slots}
        if self.heads.target_types:
            asked["targets"] = self._slots_of(self.heads.target_types)
        asked |= {name: self._slots_of(types) for name, types in self.extra_queries.items() if types}
        answers = answer(self.encoder, self.queries, source, asked, packing=self.packing)
        extra = {name: answers[name] for name in self.extra_queries}
        return _Answers(answers["actors"], answers.get("targets"), answers.get("value"), extra, views)

    def _turn(self, answers: _Answers, observation: Mapping[str, Tensor]) -> Turn:
        return Turn(answers.actors, answers.targets, self._legal(observation))

    def _legal(self, observation: Mapping[str, Tensor]) -> Bool[Tensor, "batch actors options"]:
        return observation[ACTION_MASK] & self._present(observation).unsqueeze(-1)

    def _present(self, observation: Mapping[str, Tensor]) -> Bool[Tensor, "batch actors"]:
        return torch.cat([observation[mask_key(actor)] for actor in self.schema.actors], dim=1)

    def _output(
        self, logits: Tensor, answers: _Answers, observation: Mapping[str, Tensor], with_value: bool
    ) -> PolicyOutput:
        value = None
        if with_value and self.critic is not None:
            value = self.critic(observation)
        elif with_value:
            value = self._squad_value(self.value_head(answers.value).flatten(), answers.views, observation)
        if answers.views is not None:
            logits = answers.views.by_actor(logits.squeeze(1))
        return PolicyOutput(logits=logits, legal=self._legal(observation), value=value, extra=answers.extra)

    def _squad_value(
        self, values: Float[Tensor, " sets"], views: Views | None, observation: Mapping[str, Tensor]
    ) -> Float[Tensor, " batch"]:
        """A squad's value is the mean over its present actors of those of their views; 0 where none is present."""
        if views is None:
            return values
        return views.by_actor(values).sum(dim=1) / self._present(observation).sum(dim=1).clamp(min=1)

    def _slots_of(self, types: tuple[str, ...]) -> tuple[slice, ...]:
        return tuple(self.schema.entity_slices[name] for name in types)

    def _check_extra_queries(self) -> None:
        if self.extra_queries and self.schema.control == "decentralized":
            raise ValueError(
                "extra_queries: got some under decentralized control, expected none: each actor reads a view of its own, so "
                "there is no answer of the squad"
            )
        for name, types in self.extra_queries.items():
            if name in _OWN_QUERIES:
                raise ValueError(f"extra_queries: got the name {name!r}, expected another than {', '.join(_OWN_QUERIES)}")
            for each in types:
                self.schema.entity_type(each)
                if each in self.schema.privileged:
                    raise ValueError(
                        f"extra_queries {name!r}: got entity type {each!r}, which is privileged, expected types that the "
                        "policy may read"
                    )


_OWN_QUERIES = ("value", "actors", "targets")


@dataclass(frozen=True)
class _Answers:
    """What was read out of the memory: for each squad, or, under decentralized control, for each view."""

    actors: Float[Tensor, "sets actors dim"]
    targets: Float[Tensor, "sets targets dim"] | None
    value: Float[Tensor, "sets 1 dim"] | None
    extra: dict[str, Float[Tensor, "sets _ dim"]]
    views: Views | None
