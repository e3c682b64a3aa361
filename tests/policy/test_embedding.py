"""Typed features become tokens: by the declared range, each type through a layer of its own."""

import pytest
import torch

from perceiver_rl.entities import EntitySchema, EntityType, Feature
from perceiver_rl.policy.embedding import EntityEmbedding, FeatureScaling, module_key
from tests.schemas import SKIRMISH, observe, to_tensors

BATCH, DIM = 3, 13


def test_scaling__takes_the_declared_range_to_minus_one_and_one() -> None:
    scaling = FeatureScaling((Feature("health", 0.0, 45.0), Feature("x"), Feature("t", -3.0, -1.0)))
    values = torch.tensor([[0.0, -1.0, -3.0], [45.0, 1.0, -1.0], [22.5, 0.25, -2.0], [90.0, 7.0, 1.0]])
    expected = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0], [0.0, 0.25, 0.0], [3.0, 7.0, 3.0]])
    torch.testing.assert_close(scaling(values), expected)


def test_scaling__is_not_among_the_weights() -> None:
    assert not any("scaling" in name for name in EntityEmbedding(SKIRMISH, DIM).state_dict())


def test_embedding__gives_a_token_for_each_slot_and_one_for_the_globals() -> None:
    embedding = EntityEmbedding(SKIRMISH, DIM)
    observation = to_tensors(observe(SKIRMISH, BATCH, seed=0))
    tokens, mask = embedding(observation)
    assert tokens.shape == (BATCH, 3 + 2 + 7 + 4 + 1, DIM)
    assert embedding.slots == {
        "marine": slice(0, 3), "medic": slice(3, 5), "zergling": slice(5, 12), "rock": slice(12, 16)
    }  # fmt: skip
    for name, slots in embedding.slots.items():
        assert torch.equal(mask[:, slots], observation[f"entity_mask/{name}"])
    assert mask[:, 16].all()  # the globals are always there


def test_embedding__reads_each_types_features_and_the_globals_into_their_own_tokens() -> None:
    embedding = EntityEmbedding(SKIRMISH, DIM)
    observation = to_tensors(observe(SKIRMISH, BATCH, seed=0, empty=False))
    before, _ = embedding(observation)
    for key, token in (("entities/medic", 3), ("entities/rock", 12), ("globals", 16)):
        changed = dict(observation)
        changed[key] = observation[key].clone()
        changed[key].view(BATCH, -1)[:, 0] += 10.0
        after, _ = embedding(changed)
        differs = (after != before).any(dim=-1)
        assert torch.equal(differs, (torch.arange(17) == token).expand(BATCH, -1)), key


def test_embedding__gives_equal_tokens_to_equal_entities_of_a_type() -> None:
    embedding = EntityEmbedding(SKIRMISH, DIM)
    observation = to_tensors(observe(SKIRMISH, BATCH, seed=0))
    observation["entities/zergling"] = torch.randn(5).expand(BATCH, 7, 5)
    observation["entity_mask/zergling"] = torch.ones(BATCH, 7, dtype=torch.bool)
    tokens, _ = embedding(observation)
    zerglings = tokens[:, embedding.slots["zergling"]]
    torch.testing.assert_close(zerglings, zerglings[:1, :1].expand_as(zerglings))


def test_embedding__is_more_than_linear() -> None:
    embedding = EntityEmbedding(SKIRMISH, DIM)
    observation = to_tensors(observe(SKIRMISH, BATCH, seed=0))
    tokens = []
    for zerglings in (torch.randn(BATCH, 7, 5), torch.zeros(BATCH, 7, 5)):
        for sign in (1, -1):
            tokens.append(embedding({**observation, "entities/zergling": sign * zerglings})[0])
    present = observation["entity_mask/zergling"]
    bend = (tokens[0] + tokens[1] - tokens[2] - tokens[3])[:, embedding.slots["zergling"]]
    assert (bend.abs().amax(dim=-1)[present] > 1e-3).all()


def test_embedding__without_globals_gives_tokens_of_entities_only() -> None:
    schema = EntitySchema((EntityType("a", ("f",), 2), EntityType("b", ("f",), 3)), actors=("a",), verbs=("v",))
    tokens, mask = EntityEmbedding(schema, DIM)(to_tensors(observe(schema, BATCH, seed=0)))
    assert tokens.shape == (BATCH, 5, DIM)
    assert mask.shape == (BATCH, 5)


def test_embedding__takes_any_name_that_the_schema_takes() -> None:
    names = ("items", "type", "training", "v1.0", "_modules", "a b")
    schema = EntitySchema(tuple(EntityType(name, ("f",), 2) for name in names), actors=("items",), verbs=("v",))
    tokens, _ = EntityEmbedding(schema, DIM)(to_tensors(observe(schema, BATCH, seed=0)))
    assert tokens.shape == (BATCH, 2 * len(names), DIM)


@pytest.mark.parametrize(("name", "key"), [("ally", "ally"), ("items", "items'"), ("v1.0", "v1·0")])
def test_module_key__keeps_names_that_torch_takes(name: str, key: str) -> None:
    assert module_key(name) == key
