"""Actors that choose one after the other: what is sampled step by step has the probabilities that training computes."""

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from perceiver_rl.entities import EntitySchema, EntityType
from perceiver_rl.nn import PerceiverIOConfig
from perceiver_rl.policy.entity_policy import EntityPolicy, EntityPolicyConfig
from tests.policy.test_views import PATROL
from tests.schemas import SKIRMISH, observe, to_tensors

CONFIG = EntityPolicyConfig(
    joint="sequential",
    perceiver=PerceiverIOConfig(num_latents=3, latent_dim=12, latent_init_scale=1.0),
    token_dim=12,
    pointer_dim=5,
    policy_init_scale=1.0,
)
BATCH = 11

WITHOUT_TARGETS = EntitySchema((EntityType("unit", ("x",), 5),), actors=("unit",), verbs=("a", "b", "c"))


@pytest.fixture(params=[SKIRMISH, WITHOUT_TARGETS], ids=["targets", "verbs alone"])
def schema(request: pytest.FixtureRequest) -> EntitySchema:
    return request.param


@pytest.mark.parametrize("greedy", [False, True])
def test_choices__have_the_probabilities_that_the_parallel_pass_gives_them(schema: EntitySchema, greedy: bool) -> None:
    policy, observation = EntityPolicy(schema, CONFIG), to_tensors(observe(schema, BATCH, seed=0))
    with torch.no_grad():
        actions, chosen = policy.act(observation, greedy=greedy)
        known = policy(observation, actions)
    assert actions.shape == (BATCH, 5)
    log_probs = [output.distribution.log_prob_per_actor(actions) for output in (chosen, known)]
    torch.testing.assert_close(*log_probs, atol=1e-5, rtol=0.0)
    legal = known.legal
    torch.testing.assert_close(chosen.logits[legal], known.logits[legal], atol=1e-5, rtol=1e-5)
    for sample in range(BATCH):
        schema.check_action({key: array[sample].numpy() for key, array in observation.items()}, actions[sample].numpy())


def test_choices__depend_on_those_before_and_on_no_others() -> None:
    policy, observation = EntityPolicy(SKIRMISH, CONFIG), to_tensors(observe(SKIRMISH, BATCH, seed=0, empty=False))
    present = torch.cat([observation["entity_mask/marine"], observation["entity_mask/medic"]], dim=1)
    actions, _ = policy.act(observation, greedy=False)
    logits = policy(observation, actions).logits
    for actor in range(5):
        others = actions.clone()
        others[:, actor] = (others[:, actor] + 1) % SKIRMISH.num_options
        changed = (policy(observation, others).logits != logits).any(dim=-1)
        assert not changed[:, : actor + 1].any()
        assert not changed[~present[:, actor]].any()  # nobody is told what an absent actor is said to have chosen
        assert changed[present[:, actor], actor + 1 :].all()


@pytest.mark.parametrize(("joint", "expected"), [("sequential", 1.0), ("independent", 2.0)])
def test_choices__can_imitate_units_that_agree_where_independent_ones_cannot(
    joint: Literal["sequential", "independent"], expected: float
) -> None:
    # Two units that see the same always choose the same one of three options, each a third of the time: log 3 nats, which
    # independent choices cannot tell from 2 log 3.
    torch.manual_seed(0)
    schema = EntitySchema((EntityType("unit", ("x",), 2),), actors=("unit",), verbs=("a", "b", "c"))
    observation = {
        "entities/unit": torch.zeros(96, 2, 1),
        "entity_mask/unit": torch.ones(96, 2, dtype=torch.bool),
        "globals": torch.zeros(96, 0),
        "action_mask": torch.ones(96, 2, 3, dtype=torch.bool),
    }
    actions = torch.arange(96).unsqueeze(1).expand(-1, 2) % 3
    policy = EntityPolicy(schema, replace(CONFIG, joint=joint))
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    for _ in range(100):
        loss = -policy(observation, actions).distribution.log_prob(actions).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() == pytest.approx(expected * math.log(3), abs=0.05)


def test_gradient__reaches_every_parameter_and_is_finite_with_nobody_there() -> None:
    policy, observation = EntityPolicy(SKIRMISH, CONFIG), to_tensors(observe(SKIRMISH, BATCH, seed=0))
    assert not observation["entity_mask/marine"][-1].any()
    actions, _ = policy.act(observation, greedy=False)
    output = policy(observation, actions)
    assert output.value is not None
    (output.distribution.log_prob(actions).sum() + output.value.sum()).backward()
    gradients: dict[str, Tensor | None] = {name: parameter.grad for name, parameter in policy.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()] == []
    assert all(
        gradient.abs().sum() > 0 for name, gradient in gradients.items() if "sequence" in name and gradient is not None
    )


def test_forward__wants_the_choices() -> None:
    policy = EntityPolicy(SKIRMISH, CONFIG)
    with pytest.raises(ValueError, match=r"^actions: got None, expected the options chosen"):
        policy(to_tensors(observe(SKIRMISH, 2, seed=0)))


def test_sequential_choices__are_refused_under_decentralized_control() -> None:
    with pytest.raises(ValueError, match="under decentralized control, expected 'independent'"):
        EntityPolicy(PATROL, CONFIG)


def test_sequential_choices__want_a_width_that_heads_can_share() -> None:
    with pytest.raises(ValueError, match="got width 14, expected a multiple of their 4 heads"):
        EntityPolicy(SKIRMISH, replace(CONFIG, token_dim=14))
