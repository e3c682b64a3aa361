"""Minibatches of whole chunks: which rows they hold, how often, in what order."""

from collections import Counter

import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from torch import Tensor

from perceiver_rl.rllib.learners.chunks import chunk_minibatches

LENGTHS = [4, 2, 3, 5, 2, 6, 3]
"""Of the chunks, their artificial steps included."""


def _batch(**lengths: list[int]) -> MultiAgentBatch:
    """A batch whose rows are numbered, with chunks of these lengths for each module."""
    modules = {}
    for module_id, of_module in lengths.items():
        ends = torch.zeros(sum(of_module), dtype=torch.bool)
        ends[torch.tensor(of_module).cumsum(0) - 1] = True
        rows = torch.arange(len(ends))
        modules[module_id] = SampleBatch({Columns.LOSS_MASK: ~ends, Columns.OBS: {"row": rows}})
    return MultiAgentBatch(modules, env_steps=20)


def _minibatches(
    batch: MultiAgentBatch, num_epochs: int = 1, num_minibatches: int = 3, seed: int = 0
) -> list[MultiAgentBatch]:
    generator = torch.Generator().manual_seed(seed)
    return list(chunk_minibatches(batch, num_epochs=num_epochs, num_minibatches=num_minibatches, generator=generator))


def _chunks(minibatch: MultiAgentBatch, module_id: str = "a") -> list[list[int]]:
    """The rows of each chunk of a minibatch."""
    columns = minibatch[module_id]
    rows: Tensor = columns[Columns.OBS]["row"]
    ends = (~columns[Columns.LOSS_MASK]).nonzero().squeeze(1)
    return [part.tolist() for part in rows.tensor_split(ends[:-1] + 1)]


def test_chunk_minibatches__hold_every_chunk_whole_once_an_epoch() -> None:
    expected = [part.tolist() for part in torch.arange(sum(LENGTHS)).split(LENGTHS)]
    minibatches = _minibatches(_batch(a=LENGTHS), num_epochs=2)
    assert len(minibatches) == 6
    epochs = [[chunk for minibatch in minibatches[k : k + 3] for chunk in _chunks(minibatch)] for k in (0, 3)]
    assert [sorted(epoch) for epoch in epochs] == [expected, expected]
    assert epochs[0] != epochs[1] != expected
    assert {len(_chunks(minibatch)) for minibatch in minibatches} == {2, 3}


def test_chunk_minibatches__count_every_step_of_the_environment_once_an_epoch() -> None:
    counts = [minibatch.env_steps() for minibatch in _minibatches(_batch(a=LENGTHS))]
    assert sum(counts) == 20
    assert max(counts) - min(counts) <= 1


def test_chunk_minibatches__are_as_many_for_a_module_with_few_chunks() -> None:
    minibatches = _minibatches(_batch(a=LENGTHS, b=[3, 2]))
    assert [len(_chunks(minibatch, "b")) for minibatch in minibatches] == [1, 1, 1]
    assert Counter(len(_chunks(minibatch)[0]) for minibatch in _minibatches(_batch(a=[4]), num_minibatches=5)) == {4: 5}


def test_chunk_minibatches__follow_the_generator() -> None:
    def order(seed: int) -> list[list[list[int]]]:
        return [_chunks(minibatch) for minibatch in _minibatches(_batch(a=LENGTHS), seed=seed)]

    assert order(0) == order(0)
    assert order(0) != order(1)


def test_chunk_minibatches__refuse_what_they_cannot_permute() -> None:
    batch = _batch(a=LENGTHS)
    batch["a"]["names"] = ["left behind"] * sum(LENGTHS)
    with pytest.raises(ValueError, match=r"column 'names': got str, expected tensors only"):
        _minibatches(batch)


@pytest.mark.parametrize("rows", [0, 3])
def test_chunk_minibatches__refuse_a_module_without_chunks(rows: int) -> None:
    batch = _batch(a=LENGTHS)
    batch.policy_batches["b"] = SampleBatch({Columns.LOSS_MASK: torch.ones(rows, dtype=torch.bool)})
    with pytest.raises(ValueError, match=rf"batch of module 'b': got no chunk in {rows} rows, expected at least one"):
        _minibatches(batch)
