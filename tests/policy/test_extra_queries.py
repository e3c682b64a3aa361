"""Queries of a user's own: asked in the pass of the actors' choices, which they do not change."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch

from perceiver_rl.nn import PerceiverIOConfig, PositionQueries, TrainablePositions, grid_positions
from perceiver_rl.policy import readout
from perceiver_rl.policy.entity_policy import EntityPolicy, EntityPolicyConfig
from tests.schemas import SKIRMISH, observe, to_tensors

BATCH = 4
CONFIG = EntityPolicyConfig(
    perceiver=PerceiverIOConfig(num_latents=3, latent_dim=12, latent_init_scale=1.0), token_dim=14, pointer_dim=5
)
QUERIES = {"fate": ("zergling", "rock"), "outlook": ()}


@pytest.fixture(params=["padded", "packed"], autouse=True)
def packing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readout, "MIN_SLOTS", 0 if request.param == "packed" else 10**9)
    monkeypatch.setattr(readout, "MIN_ABSENT_SLOTS", 0)


def test_extra_queries__are_answered_slot_by_slot_or_once() -> None:
    policy = EntityPolicy(SKIRMISH, CONFIG, extra_queries=QUERIES)
    output = policy(to_tensors(observe(SKIRMISH, BATCH, seed=0)))
    dim = policy.encoder.output_dim
    assert {name: answers.shape for name, answers in output.extra.items()} == {
        "fate": (BATCH, 7 + 4, dim),
        "outlook": (BATCH, 1, dim),
    }


def test_extra_queries__are_about_their_own_entity() -> None:
    policy = EntityPolicy(SKIRMISH, CONFIG, extra_queries=QUERIES)
    observation = to_tensors(observe(SKIRMISH, BATCH, seed=0, empty=False))
    observation["entity_mask/rock"][:] = True
    answers = policy(observation).extra["fate"]
    order = torch.tensor([2, 0, 3, 1])
    observation["entities/rock"] = observation["entities/rock"][:, order]
    permuted = policy(observation).extra["fate"]
    torch.testing.assert_close(permuted[:, 7:], answers[:, 7:][:, order], atol=2e-6, rtol=1e-5)
    there = observation["entity_mask/zergling"]
    torch.testing.assert_close(permuted[:, :7][there], answers[:, :7][there], atol=2e-6, rtol=1e-5)


def test_extra_queries__change_no_choice_and_no_value() -> None:
    plain = EntityPolicy(SKIRMISH, CONFIG)
    asking = EntityPolicy(SKIRMISH, CONFIG, extra_queries=QUERIES)
    loaded = asking.load_state_dict(plain.state_dict(), strict=False)
    assert not loaded.unexpected_keys
    assert all(key.startswith(("queries.parts.fate", "queries.parts.outlook")) for key in loaded.missing_keys)
    observation = to_tensors(observe(SKIRMISH, BATCH, seed=0))
    one, other = plain(observation), asking(observation)
    present = one.legal.any(dim=-1)
    torch.testing.assert_close(one.logits[present][one.legal[present]], other.logits[present][one.legal[present]])
    torch.testing.assert_close(one.value, other.value)
    assert one.extra == {}


def test_extra_queries__teach_the_encoder() -> None:
    policy = EntityPolicy(SKIRMISH, CONFIG, extra_queries=QUERIES)
    output = policy(to_tensors(observe(SKIRMISH, BATCH, seed=0)))
    sum(answers.square().sum() for answers in output.extra.values()).backward()  # type: ignore[union-attr]
    for part in (policy.encoder, policy.embedding, policy.queries.parts["fate"], policy.queries.parts["outlook"]):
        assert any(parameter.grad is not None and parameter.grad.any() for parameter in part.parameters())


@pytest.mark.parametrize(
    ("queries", "changes", "message"),
    [
        ({"fate": ("zerg",)}, {}, "unknown name 'zerg', known are marine, medic, zergling, rock"),
        ({"value": ("rock",)}, {}, "extra_queries: got the name 'value', expected another than value, actors, targets"),
        (
            {"fate": ("rock",)},
            {"privileged": ("rock",)},
            "'fate': got entity type 'rock', which is privileged",
        ),
        ({"fate": ()}, {"control": "decentralized"}, "extra_queries: got some under decentralized control"),
    ],
)
def test_extra_queries__that_cannot_be_asked_are_refused(
    queries: Mapping[str, Sequence[str]], changes: Mapping[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        EntityPolicy(replace(SKIRMISH, **changes), CONFIG, extra_queries=queries)  # type: ignore[arg-type]


def test_extra_queries__may_be_of_any_kind_of_query() -> None:
    policy = EntityPolicy(SKIRMISH, CONFIG, extra_queries={"places": ()})
    policy.queries.parts["places"] = PositionQueries(grid_positions(2, 3), TrainablePositions(6, 14))
    assert policy(to_tensors(observe(SKIRMISH, BATCH, seed=0))).extra["places"].shape == (
        BATCH,
        6,
        policy.encoder.output_dim,
    )
