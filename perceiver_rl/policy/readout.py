"""From tokens to answers: an encoder reads the present tokens, queries made from some of them are answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perceiver_rl.nn import EntityEncoder, Memory, Packed, Packing, QueryArray, pick_rows
from perceiver_rl.nn.capture import is_capturing
from perceiver_rl.policy.embedding import EntityEmbedding

MIN_SLOTS = 64
"""Slots of a set from which on packing is considered: at 11 it made learning with two threads slower."""

MIN_ABSENT_SLOTS = 512
"""Absent slots of a batch from which on packing is worth its bookkeeping."""


@dataclass(frozen=True)
class TokenSource:
    """The tokens of a batch of sets, made in the form in which they are wanted."""

    mask: Bool[Tensor, "sets tokens"]
    """True = present."""
    padded: Callable[[], Float[Tensor, "sets tokens dim"]]
    packed: Callable[[Packing], Packed]
    """Of the present ones only; given the packing of `mask`."""


def embedded(
    embedding: EntityEmbedding, observation: Mapping[str, Tensor], readable: Bool[Tensor, " tokens"] | None = None
) -> TokenSource:
    """The tokens that an embedding makes of an observation.

    Args:
        embedding: Makes them.
        observation: Of what.
        readable: Which slots may be read at all; None for all.
    """
    mask = embedding.mask(observation)
    if readable is not None:
        mask = mask & readable
    return TokenSource(
        mask,
        padded=lambda: embedding(observation)[0],
        packed=lambda packing: embedding.forward_packed(observation, packing),
    )


Slots = tuple[slice, ...] | Tensor
"""Whose tokens become queries: the same slots in every set, or one slot of each, int `[sets]`."""


def read(encoder: EntityEncoder, source: TokenSource, *, packing: bool) -> Memory:
    """What the encoder makes of the present tokens.

    Args:
        encoder: Who reads.
        source: What it reads.
        packing: Whether to leave absent tokens out of the computation where that pays; the result is the same.
    """
    if packing and _is_worth_packing(source.mask):
        return encoder.read_packed(source.packed(Packing.from_mask(source.mask)))
    return encoder.read(source.padded(), source.mask)


def answer(
    encoder: EntityEncoder, queries: QueryArray, source: TokenSource, asked: Mapping[str, Slots], *, packing: bool
) -> dict[str, Float[Tensor, "sets some answer_dim"]]:
    """Read the tokens, and answer all queries in one call.

    Args:
        encoder: Who reads and answers.
        queries: Parts made of tokens, named in `asked`, and learned ones.
        source: What is read.
        asked: For each part that is made of tokens, of which.
        packing: Whether to compute on present tokens only where that pays; answers of absent ones are zeros then, and
            mean nothing otherwise.

    Returns:
        Answers by the name of the part.
    """
    if packing and _is_worth_packing(source.mask):
        return _answer_packed(encoder, queries, source, asked)
    tokens = source.padded()
    memory = encoder.read(tokens, source.mask)
    array = queries(len(tokens), **{part: _tokens_at(slots, tokens) for part, slots in asked.items()})
    return array.split(encoder.decode(memory, array.values))


def _is_worth_packing(mask: Bool[Tensor, "sets tokens"]) -> bool:
    """Whether enough slots are absent; never where a graph is made for other data, too, or attention is looked at.

    Nor on a GPU, whose time goes by calls, not by slots, at sizes of squads (docs/performance.md).
    """
    if mask.is_cuda or mask.shape[1] < MIN_SLOTS or not len(mask) or torch.compiler.is_compiling() or is_capturing():
        return False
    return mask.numel() - int(mask.sum()) >= MIN_ABSENT_SLOTS


def _tokens_at(slots: Slots, tokens: Float[Tensor, "sets tokens dim"]) -> Float[Tensor, "sets some dim"]:
    if isinstance(slots, tuple):
        return torch.cat([tokens[:, span] for span in slots], dim=1)
    rows = torch.arange(len(tokens), device=tokens.device) * tokens.shape[1] + slots
    return pick_rows(tokens.flatten(0, 1), rows).unsqueeze(1)


def _answer_packed(
    encoder: EntityEncoder, queries: QueryArray, source: TokenSource, asked: Mapping[str, Slots]
) -> dict[str, Float[Tensor, "sets some answer_dim"]]:
    """`answer` for present tokens only."""
    mask, device = source.mask, source.mask.device
    num_sets, num_slots = mask.shape
    packing = Packing.from_mask(mask)
    tokens = source.packed(packing)
    memory = encoder.read_packed(tokens)

    # Which queries are asked, part after part: learned ones always, those of tokens where the token is present.
    indices = {part: _indices(slots, num_sets, device) for part, slots in asked.items()}
    learned = {name: part(num_sets) for name, part in queries.parts.items() if name not in asked}
    present, spans, start = [], {}, 0
    for name in queries.parts:
        if name in asked:
            there = mask.gather(1, indices[name])
        else:
            there = torch.ones(learned[name].shape[:2], dtype=torch.bool, device=device)
        present.append(there)
        spans[name] = slice(start, start + there.shape[1])
        start += there.shape[1]
    plan = Packing.from_mask(torch.cat(present, dim=1))
    made = []
    for name, part in queries.parts.items():
        rows = plan.rows_of(spans[name])
        if name in asked:
            token = rows.samples * num_slots + indices[name][rows.samples, rows.slots]
            values = part(1, tokens.values[packing.row_at[token]].unsqueeze(0)).squeeze(0)
        else:
            values = learned[name].flatten(0, 1)
        made.append((rows, values))
    answers = encoder.decode_packed(memory, plan.join(made)).padded()
    return {name: answers[:, span] for name, span in spans.items()}


def _indices(slots: Slots, num_sets: int, device: torch.device) -> Int[Tensor, "sets some"]:
    """Slots as numbers, for each set."""
    if isinstance(slots, Tensor):
        return slots.unsqueeze(1)
    numbers = torch.cat([torch.arange(span.start, span.stop, device=device) for span in slots])
    return numbers.expand(num_sets, -1)
