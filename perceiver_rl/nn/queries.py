"""Output query arrays: what is asked of an encoded set.

An array is composed of named parts, and its answers are read back by the same names::

    queries = QueryArray(64, {"value": LearnedQueries(1, 64), "actors": EntityQueries(64, 64)})
    asked = queries(batch_size, actors=actor_tokens)
    answers = asked.split(encoder.decode(memory, asked.values))
    answers["value"], answers["actors"]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from perceiver_rl.nn.positions import FourierPositions, TrainablePositions


class QueryPart(nn.Module, ABC):
    """One part of a query array."""

    dim: int
    """Width of its queries."""

    @abstractmethod
    def forward(self, batch_size: int, inputs: Tensor | None = None) -> Float[Tensor, "batch queries dim"]:
        """The part's queries for each sample.

        Args:
            batch_size: Samples.
            inputs: What the queries are made of, for parts that are made of something.
        """


class LearnedQueries(QueryPart):
    """The same learned queries for every sample: one for a value or a class, many for a learned array.

    Args:
        num_queries: How many.
        dim: Their width.
        init_scale: Standard deviation of their initial normal distribution.
    """

    def __init__(self, num_queries: int, dim: int, init_scale: float = 0.02) -> None:
        super().__init__()
        self.dim = dim
        self.queries = nn.Parameter(torch.randn(num_queries, dim) * init_scale)

    def forward(self, batch_size: int, inputs: Tensor | None = None) -> Float[Tensor, "batch queries dim"]:
        """The queries, repeated for each sample; they are made of nothing, so `inputs` must be None."""
        if inputs is not None:
            raise ValueError("LearnedQueries: got inputs, expected none")
        return self.queries.expand(batch_size, -1, -1)


class TaskQueries(LearnedQueries):
    """One learned query for each of several tasks.

    Args:
        tasks: Their names; `QueryArray` reads each answer back as `<part>.<task>`.
        dim: Width of the queries.
        init_scale: As of `LearnedQueries`.

    Source: Jaegle et al. 2022, section 4.1: multitask queries on GLUE.
    """

    def __init__(self, tasks: Sequence[str], dim: int, init_scale: float = 0.02) -> None:
        if not tasks or len(set(tasks)) < len(tasks):
            raise ValueError(f"tasks: got {tuple(tasks)}, expected at least one name and none twice")
        super().__init__(len(tasks), dim, init_scale)
        self.tasks = tuple(tasks)


class PositionQueries(QueryPart):
    """One query for each place of a dense output: a byte of a text, a pixel of an image, a voxel of a video.

    Args:
        positions: Coordinates of the places, e.g. `grid_positions(height, width)`.
        encoding: Fourier features of them, or a table with a vector for each.
        dim: Width of the queries; None for the encoding's own. Another width is reached by a learned layer.

    Raises:
        ValueError: If a table has another number of vectors than there are places.

    Source: Jaegle et al. 2022, section 3.2: outputs with spatial or sequence structure.
    """

    positions: Tensor

    def __init__(
        self,
        positions: Float[Tensor, "positions axes"],
        encoding: FourierPositions | TrainablePositions,
        dim: int | None = None,
    ) -> None:
        super().__init__()
        if isinstance(encoding, TrainablePositions) and len(encoding.table) != len(positions):
            raise ValueError(f"encoding: got a table of {len(encoding.table)} positions, expected {len(positions)}")
        self.register_buffer("positions", positions, persistent=False)
        self.encoding = encoding
        self.dim = dim or encoding.dim
        self.projection = nn.Linear(encoding.dim, dim) if dim else nn.Identity()

    def forward(self, batch_size: int, inputs: Int[Tensor, " some"] | None = None) -> Float[Tensor, "batch queries dim"]:
        """The queries, repeated for each sample.

        Args:
            batch_size: Samples.
            inputs: Numbers of the places that are asked for; None for all. Training on a few places of a huge
                output and decoding it in parts (`decode_in_chunks`) both ask for some.
        """
        if isinstance(self.encoding, FourierPositions):
            encoded = self.encoding(self.positions if inputs is None else self.positions[inputs])
        else:
            encoded = self.encoding() if inputs is None else self.encoding()[inputs]
        return self.projection(encoded).expand(batch_size, -1, -1)


class EntityQueries(QueryPart):
    """One query for each entity, made from its token, e.g. one for each unit that must act.

    Args:
        input_dim: Width of the tokens.
        dim: Width of the queries.

    Source: Jaegle et al. 2022, appendix B: StarCraft II queries are the entities' own features.
    """

    def __init__(self, input_dim: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.projection = nn.Linear(input_dim, dim)

    def forward(
        self, batch_size: int, inputs: Float[Tensor, "batch entities input_dim"] | None = None
    ) -> Float[Tensor, "batch entities dim"]:
        """One query for each token.

        Args:
            batch_size: Samples.
            inputs: The tokens.
        """
        if inputs is None:
            raise ValueError("EntityQueries: got no tokens, expected one for each query")
        return self.projection(inputs)


@dataclass(frozen=True)
class Queries:
    """The queries of one batch, and which of them are whose."""

    values: Float[Tensor, "batch queries dim"]
    spans: Mapping[str, slice]
    """Where the queries of each part stand."""

    def split(self, answers: Float[Tensor, "batch queries answer_dim"]) -> dict[str, Float[Tensor, "batch some answer_dim"]]:
        """Answers by the name of the part that asked."""
        return {name: answers[:, span] for name, span in self.spans.items()}


class QueryArray(nn.Module):
    """Several kinds of queries in one array, so that one call of the decoder answers all.

    Parts that are narrower than the array, as those of different modalities are, are padded to its width by a
    learned vector of their own.

    Args:
        dim: Width of the array.
        parts: The parts by name, in order.

    Raises:
        ValueError: If there is no part, or one is wider than the array.

    Source: Jaegle et al. 2022, section 4.3: multimodal queries padded with learned vectors.
    """

    def __init__(self, dim: int, parts: Mapping[str, QueryPart]) -> None:
        super().__init__()
        if not parts:
            raise ValueError("parts: got none, expected at least one")
        for name, part in parts.items():
            if not name or "." in name or hasattr(nn.ModuleDict, name) or hasattr(nn.ParameterDict, name):
                raise ValueError(
                    f"parts: got the name {name!r}, expected one that is not empty, has no dot and that torch's "
                    "ModuleDict has no use for"
                )
            if part.dim > dim:
                raise ValueError(f"parts: got {name!r} of width {part.dim}, expected at most the array's width {dim}")
        self.dim = dim
        self.parts = nn.ModuleDict(parts)
        self.padding = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(dim - part.dim) * 0.02) for name, part in parts.items() if part.dim < dim}
        )

    def forward(self, batch_size: int, **inputs: Tensor) -> Queries:
        """Ask.

        Args:
            batch_size: Samples.
            inputs: By name of the part, what its queries are made of: entities' tokens, numbers of places.

        Raises:
            ValueError: If there is no part of an input's name.
        """
        for name in inputs:
            if name not in self.parts:
                raise ValueError(f"queries: got inputs for {name!r}, expected some of {', '.join(self.parts)}")
        values, spans, start = [], {}, 0
        for name, part in self.parts.items():
            queries = part(batch_size, inputs.get(name))
            if name in self.padding:
                padding = self.padding[name].expand(*queries.shape[:2], -1)
                queries = torch.cat([queries, padding], dim=-1)
            values.append(queries)
            spans[name] = slice(start, start + queries.shape[1])
            if isinstance(part, TaskQueries):
                spans |= {f"{name}.{task}": slice(start + i, start + i + 1) for i, task in enumerate(part.tasks)}
            start += queries.shape[1]
        return Queries(values[0] if len(values) == 1 else torch.cat(values, dim=1), spans)


def decode_in_chunks(
    decode: Callable[[Tensor], Tensor],
    queries: Callable[[Int[Tensor, " some"]], Float[Tensor, "batch some dim"]],
    num_queries: int,
    chunk_size: int,
) -> Iterator[Float[Tensor, "batch some answer_dim"]]:
    """Decode an output too large for one call, a chunk of queries at a time.

    Answers do not depend on what else is asked, so the chunks joined together equal one call's answers.

    Args:
        decode: From queries to answers, e.g. `partial(encoder.decode, memory)`.
        queries: From numbers of queries to the queries, e.g. `lambda rows: position_queries(batch, rows)`.
        num_queries: How many there are in all.
        chunk_size: How many are decoded at a time.

    Yields:
        The answers, chunk after chunk.

    Source: Jaegle et al. 2022, section 3.2: outputs are subsampled in training and decoded in batches.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size: got {chunk_size}, expected at least 1")
    for rows in torch.arange(num_queries).split(chunk_size):
        yield decode(queries(rows))
