"""Passes over a train batch in minibatches of whole chunks of episodes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from torch import Tensor

from perceiver_rl.rllib.learners.rows import take_rows


def chunk_minibatches(
    batch: MultiAgentBatch, *, num_epochs: int, num_minibatches: int, generator: torch.Generator
) -> Iterator[MultiAgentBatch]:
    """Yield `num_epochs * num_minibatches` minibatches, each of randomly chosen whole chunks.

    RLlib's own iterator cuts a batch every so many rows. What runs backwards through an episode, as V-trace does, would
    then begin in the middle of a chunk, at a step whose successor is in another minibatch.

    Each epoch deals all chunks out to its minibatches, so that they differ by at most one chunk. A module with fewer chunks
    than minibatches gets some of them more than once: the number of minibatches is the same for each of several learners,
    which wait for each other's gradients.

    Args:
        batch: The steps of each module: chunks one after another, each ended by the artificial step that the loss mask
            leaves out.
        num_epochs: Passes over all chunks.
        num_minibatches: Minibatches of one pass.
        generator: Where the order of the chunks comes from.

    Raises:
        ValueError: If a module has no chunk: the batch that RLlib makes leaves out modules without steps, and the artificial
            step ends each chunk.
    """
    chunks = {module_id: _chunks(columns) for module_id, columns in batch.policy_batches.items()}
    for module_id, of_module in chunks.items():
        if not of_module:
            raise ValueError(
                f"batch of module {module_id!r}: got no chunk in {len(batch[module_id][Columns.LOSS_MASK])} rows, expected "
                "at least one, ended by a step that the loss mask leaves out; keep RLlib's AddOneTsToEpisodesAndTruncate "
                "among the learner's connectors, and leave out modules without steps"
            )
    for _ in range(num_epochs):
        orders = {
            module_id: torch.randperm(len(of_module), generator=generator).tolist()
            for module_id, of_module in chunks.items()
        }
        for k in range(num_minibatches):
            modules = {}
            for module_id, order in orders.items():
                dealt = order[k::num_minibatches] or [order[k % len(order)]]
                rows = torch.cat([chunks[module_id][chunk] for chunk in dealt])
                modules[module_id] = SampleBatch(take_rows(batch.policy_batches[module_id], rows))
            share = (k + 1) * batch.env_steps() // num_minibatches - k * batch.env_steps() // num_minibatches
            yield MultiAgentBatch(modules, env_steps=share)


def _chunks(columns: SampleBatch) -> list[Tensor]:
    """The rows of each chunk, its artificial step included."""
    ends = ~columns[Columns.LOSS_MASK].bool()
    last = ends.nonzero().squeeze(1)
    lengths = torch.diff(last, prepend=last.new_full((1,), -1))
    return list(torch.arange(int(lengths.sum()), device=ends.device).split(lengths.tolist()))
