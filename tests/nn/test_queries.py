"""Query arrays: what each part asks, and whose answer is whose."""

from functools import partial

import pytest
import torch

from perceiver_rl.nn import (
    EntityQueries,
    FourierPositions,
    LearnedQueries,
    PerceiverIO,
    PerceiverIOConfig,
    PositionQueries,
    QueryArray,
    TaskQueries,
    TrainablePositions,
    decode_in_chunks,
    grid_positions,
)

BATCH, DIM = 3, 14


def _array() -> QueryArray:
    positions = PositionQueries(grid_positions(2, 5), FourierPositions((2, 5), num_bands=2), dim=11)
    parts = {
        "value": LearnedQueries(1, DIM),
        "units": EntityQueries(7, DIM),
        "tasks": TaskQueries(("win", "loss"), DIM),
        "pixels": positions,
    }
    return QueryArray(DIM, parts)


def test_query_array__reads_answers_back_by_name() -> None:
    queries = _array()(BATCH, units=torch.randn(BATCH, 6, 7), pixels=torch.tensor([0, 9]))
    assert queries.values.shape == (BATCH, 1 + 6 + 2 + 2, DIM)
    answers = queries.split(torch.arange(11.0).view(1, 11, 1).expand(BATCH, -1, -1))
    read = {name: answer[0, :, 0].tolist() for name, answer in answers.items()}
    assert read == {
        "value": [0],
        "units": [1, 2, 3, 4, 5, 6],
        "tasks": [7, 8],
        "tasks.win": [7],
        "tasks.loss": [8],
        "pixels": [9, 10],
    }


def test_query_array__pads_narrow_parts_with_a_learned_vector() -> None:
    array = _array()
    pixels = array.parts["pixels"](BATCH)
    queries = array(BATCH, units=torch.randn(BATCH, 6, 7))
    asked = queries.values[:, queries.spans["pixels"]]
    assert torch.equal(asked[..., :11], pixels)
    assert torch.equal(asked[..., 11:], array.padding["pixels"].expand(BATCH, 10, 3))
    queries.values.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in array.parameters())


def test_entity_queries__are_made_of_tokens() -> None:
    queries, tokens = EntityQueries(7, DIM), torch.randn(BATCH, 6, 7)
    order = torch.randperm(6)
    torch.testing.assert_close(queries(BATCH, tokens[:, order]), queries(BATCH, tokens)[:, order])


@pytest.mark.parametrize("encoding", [FourierPositions((4, 3)), TrainablePositions(12, 9)], ids=["fourier", "trainable"])
def test_position_queries__ask_for_some_as_they_ask_for_all(encoding: FourierPositions | TrainablePositions) -> None:
    queries, some = PositionQueries(grid_positions(4, 3), encoding), torch.tensor([7, 2, 2])
    assert queries.dim == encoding.dim
    everything = queries(BATCH)
    assert everything.shape == (BATCH, 12, encoding.dim)
    assert torch.equal(queries(BATCH, some), everything[:, some])


def test_position_queries__teach_only_the_places_that_were_asked_for() -> None:
    queries = PositionQueries(grid_positions(4, 3), TrainablePositions(12, 9), dim=5)
    asked = queries(BATCH, torch.tensor([7, 2]))
    assert asked.shape == (BATCH, 2, 5)
    asked.square().sum().backward()
    taught = queries.encoding.table.grad.any(dim=1)
    assert taught.nonzero().flatten().tolist() == [2, 7]


def test_learned_queries__are_the_same_for_every_sample() -> None:
    queries = LearnedQueries(64, 32, init_scale=0.5)
    asked = queries(BATCH)
    assert torch.equal(asked, queries.queries.expand(BATCH, 64, 32))
    assert 0.4 < asked.std() < 0.6


def test_query_array__of_one_part_asks_what_the_part_asks() -> None:
    part = LearnedQueries(4, DIM)
    array = QueryArray(DIM, {"value": part})
    assert torch.equal(array(BATCH).values, part(BATCH))
    assert array(BATCH).spans == {"value": slice(0, 4)}
    assert not array.padding


def test_query_array__answers_each_part_as_if_it_had_asked_alone() -> None:
    array, units = _array(), torch.randn(BATCH, 6, 7)
    encoder = PerceiverIO(PerceiverIOConfig(latent_init_scale=1.0), input_dim=5, query_dim=DIM)
    memory = encoder.read(torch.randn(BATCH, 4, 5))
    asked = array(BATCH, units=units)
    answers = asked.split(encoder.decode(memory, asked.values))
    alone = {"value": array.parts["value"](BATCH), "units": array.parts["units"](BATCH, units)}
    for name, queries in alone.items():
        torch.testing.assert_close(answers[name], encoder.decode(memory, queries), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("chunk_size", [1, 4, 100])
def test_decode_in_chunks__equals_one_call(chunk_size: int) -> None:
    queries = PositionQueries(grid_positions(13), TrainablePositions(13, DIM))
    encoder = PerceiverIO(PerceiverIOConfig(latent_init_scale=1.0), input_dim=5, query_dim=DIM)
    memory = encoder.read(torch.randn(BATCH, 4, 5))
    chunks = list(decode_in_chunks(partial(encoder.decode, memory), lambda rows: queries(BATCH, rows), 13, chunk_size))
    assert len(chunks) == -(-13 // chunk_size)
    torch.testing.assert_close(torch.cat(chunks, dim=1), encoder.decode(memory, queries(BATCH)))


def test_queries__say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"^parts: got none, expected at least one$"):
        QueryArray(DIM, {})
    with pytest.raises(ValueError, match=r"^parts: got the name 'items', expected one that is not empty"):
        QueryArray(14, {"items": LearnedQueries(1, 14)})
    with pytest.raises(ValueError, match=r"^parts: got 'value' of width 15, expected at most the array's width 14$"):
        QueryArray(DIM, {"value": LearnedQueries(1, 15)})
    with pytest.raises(ValueError, match=r"^queries: got inputs for 'unit', expected some of value, units, tasks, pixels$"):
        _array()(BATCH, unit=torch.randn(BATCH, 6, 7))
    with pytest.raises(ValueError, match=r"^EntityQueries: got no tokens, expected one for each query$"):
        _array()(BATCH)
    with pytest.raises(ValueError, match=r"^LearnedQueries: got inputs, expected none$"):
        LearnedQueries(1, DIM)(BATCH, torch.zeros(1))
    with pytest.raises(ValueError, match=r"^tasks: got \('win', 'win'\), expected at least one name and none twice$"):
        TaskQueries(("win", "win"), DIM)
    with pytest.raises(ValueError, match=r"^encoding: got a table of 4 positions, expected 5$"):
        PositionQueries(grid_positions(5), TrainablePositions(4, DIM))
    with pytest.raises(ValueError, match=r"^chunk_size: got 0, expected at least 1$"):
        list(decode_in_chunks(torch.nn.Identity(), torch.nn.Identity(), 3, 0))
