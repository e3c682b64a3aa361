"""The policy: what a permutation of slots does, what absent slots do (nothing), and schemas of every kind."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from perceiver_rl.entities import EntitySchema, EntityType, Feature, TargetedVerb
from perceiver_rl.nn import EntityTransformerConfig, Packing, PerceiverIOConfig, capture_attention
from perceiver_rl.policy import readout
from perceiver_rl.policy.entity_policy import EntityPolicy, EntityPolicyConfig, PolicyOutput
from tests.schemas import SKIRMISH, observe, to_tensors

BATCH = 4

Encoder = Literal["perceiver", "transformer"]


def _config(encoder: Encoder) -> EntityPolicyConfig:
    return EntityPolicyConfig(
        encoder=encoder,
        perceiver=PerceiverIOConfig(num_latents=3, latent_dim=12, latent_init_scale=1.0),
        transformer=EntityTransformerConfig(num_layers=1, model_dim=12, num_heads=3, head_dim=8),
        token_dim=14,
        pointer_dim=5,
        policy_init_scale=1.0,
    )


@pytest.fixture(params=["perceiver", "perceiver packed", "transformer", "transformer packed"])
def make_policy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[EntitySchema], EntityPolicy]:
    encoder, _, packed = request.param.partition(" ")
    monkeypatch.setattr(readout, "MIN_SLOTS", 0 if packed else 10**9)
    monkeypatch.setattr(readout, "MIN_ABSENT_SLOTS", 0)
    return lambda schema: EntityPolicy(schema, _config(encoder))


MakePolicy = Callable[[EntitySchema], EntityPolicy]


def _close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=2e-6, rtol=1e-5)


def _value(policy: EntityPolicy, output: PolicyOutput) -> Tensor:
    assert output.value is not None
    return output.value


def _permuted(observation: dict[str, Tensor], entity_type: str, order: Tensor) -> dict[str, Tensor]:
    """The same observation with the slots of one type in another order; the action mask follows."""
    changed = dict(observation)
    for key in (f"entities/{entity_type}", f"entity_mask/{entity_type}"):
        changed[key] = observation[key][:, order]
    rows, columns = _rows_and_columns(entity_type, order)
    changed["action_mask"] = observation["action_mask"][:, rows][:, :, columns]
    return changed


def _rows_and_columns(entity_type: str, order: Tensor) -> tuple[Tensor, Tensor]:
    """Where actors and options of SKIRMISH go when the slots of a type change their order."""
    rows = torch.cat(
        [
            start + (order if name == entity_type else torch.arange(count))
            for name, start, count in (("marine", 0, 3), ("medic", 3, 2))
        ]
    )
    columns = torch.arange(SKIRMISH.num_options)
    for verb, targets in zip(SKIRMISH.targeted_verbs, SKIRMISH.target_slices, strict=True):
        if verb.target == entity_type:
            columns[targets] = targets.start + order
    return rows, columns


# -- one forward pass ----------------------------------------------------------------------------------------


def test_policy__gives_logits_for_each_actor_and_option_and_one_value(make_policy: MakePolicy) -> None:
    policy = make_policy(SKIRMISH)
    observation = to_tensors(observe(SKIRMISH, BATCH, seed=0))
    output = policy(observation)
    assert output.logits.shape == (BATCH, 5, 19)
    assert torch.equal(output.legal, observation["action_mask"])
    assert _value(policy, output).shape == (BATCH,)
    assert torch.equal(output.distribution.legal, output.legal)
    torch.testing.assert_close(output.distribution.log_probs.exp().sum(dim=-1), torch.ones(BATCH, 5), atol=1e-5, rtol=0.0)


def test_value__equals_the_value_of_the_whole_forward_pass(make_policy: MakePolicy) -> None:
    policy = make_policy(SKIRMISH)
    observation = to_tensors(observe(SKIRMISH, BATCH, seed=0))
    _close(policy.value(observation), _value(policy, policy(observation)))


def test_policy__hides_options_of_absent_actors(make_policy: MakePolicy) -> None:
    observation = to_tensors(observe(SKIRMISH, BATCH, seed=0))
    observation["action_mask"][:] = True  # against the contract: absent actors must come out absent all the same
    legal = make_policy(SKIRMISH)(observation).legal
    present = torch.cat([observation["entity_mask/marine"], observation["entity_mask/medic"]], dim=1)
    assert not present.all()
    assert torch.equal(legal, present.unsqueeze(-1).expand_as(legal))


def test_policy__gives_a_batch_what_it_gives_one_by_one(make_policy: MakePolicy) -> None:
    policy = make_policy(SKIRMISH)
    observation = to_tensors(observe(SKIRMISH, BATCH, seed=0))
    together = policy(observation)
    for sample in range(BATCH):
        alone = policy({key: array[sample : sample + 1] for key, array in observation.items()})
        _close(alone.logits[0], together.logits[sample])
        _close(_value(policy, alone)[0], _value(policy, together)[sample])


def test_policy__is_finite_when_nothing_is_present(make_policy: MakePolicy) -> None:
    policy = make_policy(SKIRMISH)
    observation = to_tensors(observe(SKIRMISH, 1, seed=0))  # the last one of a batch is empty
    assert not observation["entity_mask/marine"].any()
    output = policy(observation)
    distribution = output.distribution
    assert torch.equal(distribution.log_prob(distribution.sample()), torch.zeros(1))
    loss = (distribution.entropy() + _value(policy, output)).sum()
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in policy.parameters())


# -- packing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["perceiver", "transformer"])
def test_policy__answers_and_learns_the_same_packed_and_padded(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readout, "MIN_SLOTS", 0)
    policies = [EntityPolicy(SKIRMISH, replace(_config(encoder), packing=packing)) for packing in (True, False)]
    policies[1].load_state_dict(policies[0].state_dict())
    observation = to_tensors(observe(SKIRMISH, 128, seed=0))  # 128 × 17 slots, 40 percent of them absent
    outputs = [policy(observation) for policy in policies]
    legal = outputs[0].legal
    assert torch.equal(legal, outputs[1].legal)
    _close(outputs[0].logits[legal], outputs[1].logits[legal])
    _close(outputs[0].value, outputs[1].value)
    _close(policies[0].value(observation), policies[1].value(observation))
    for output in outputs:
        (output.logits[legal].square().sum() + output.value.square().sum()).backward()
    padded = dict(policies[1].named_parameters())
    for name, parameter in policies[0].named_parameters():
        expected = padded[name].grad
        if expected is None:
            assert parameter.grad is None, name
        else:
            torch.testing.assert_close(
                parameter.grad, expected, atol=2e-3, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
            )


@pytest.mark.parametrize(
    ("batch", "min_slots", "packing", "packs"),
    [(128, 17, True, True), (128, 17, False, False), (8, 17, True, False), (128, 18, True, False)],
)
def test_policy__packs_where_sets_are_large_and_many_slots_absent(
    batch: int, min_slots: int, packing: bool, packs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readout, "MIN_SLOTS", min_slots)  # of 17, the globals' among them
    made = []
    plan = Packing.from_mask
    monkeypatch.setattr(Packing, "from_mask", lambda mask: made.append(mask) or plan(mask))
    policy = EntityPolicy(SKIRMISH, replace(_config("perceiver"), packing=packing))
    policy(to_tensors(observe(SKIRMISH, batch, seed=0)))
    assert bool(made) == packs
    made.clear()
    with capture_attention(policy) as weights:
        policy(to_tensors(observe(SKIRMISH, batch, seed=0)))
    assert not made
    assert "encoder.cross_attends.0" in weights


# -- slots have no order -------------------------------------------------------------------------------------


@pytest.mark.parametrize("entity_type", ["marine", "medic", "zergling", "rock"])
def test_policy__permutes_with_the_slots_of_a_type(entity_type: str, make_policy: MakePolicy) -> None:
    policy = make_policy(SKIRMISH)
    observation = to_tensors(observe(SKIRMISH, BATCH, seed=0))
    order = torch.randperm(SKIRMISH.entity_type(entity_type).max_count).roll(1)
    before, after = policy(observation), policy(_permuted(observation, entity_type, order))
    rows, columns = _rows_and_columns(entity_type, order)
    _close(after.logits, before.logits[:, rows][:, :, columns])
    assert torch.equal(after.legal, before.legal[:, rows][:, :, columns])
    _close(_value(policy, after), _value(policy, before))


def test_policy__tells_actors_and_targets_apart(make_policy: MakePolicy) -> None:
    output = make_policy(SKIRMISH)(to_tensors(observe(SKIRMISH, BATCH, seed=0, empty=False)))
    rows, columns = output.logits.std(dim=1), output.logits[..., 2:9].std(dim=2)
    assert (rows > 1e-4).all()
    present = output.legal.any(dim=-1)  # where nobody is, no answer is promised
    assert (columns[present] > 1e-4).all()
    attack, stun = output.logits[..., 2:9], output.logits[..., 12:19]  # two verbs at the same targets
    assert (attack - stun)[present].abs().min() > 1e-6


@pytest.mark.parametrize("key", ["entities/zergling", "entities/rock", "entities/medic", "globals"])
def test_policy__decides_by_everything_that_is_present(key: str, make_policy: MakePolicy) -> None:
    policy = make_policy(SKIRMISH)
    observation = to_tensors(observe(SKIRMISH, BATCH, seed=0, empty=False))
    changed = {**observation, key: observation[key] + torch.randn(observation[key].shape)}
    before, after = policy(observation), policy(changed)
    marines = slice(0, 3)
    assert ((after.logits - before.logits)[:, marines].abs().amax(dim=(1, 2)) > 1e-5).all()
    assert ((_value(policy, after) - _value(policy, before)).abs() > 1e-6).all()


# -- absent slots do not exist -------------------------------------------------------------------------------


@pytest.mark.parametrize("garbage", [torch.nan, torch.inf, 1e30])
def test_policy__ignores_garbage_in_absent_slots_bitwise(garbage: float, make_policy: MakePolicy) -> None:
    policy = make_policy(SKIRMISH)
    observation = to_tensors(observe(SKIRMISH, BATCH, seed=0))
    results = []
    for absent in (0.0, garbage):
        for each in SKIRMISH.entity_types:
            observation[f"entities/{each.name}"][~observation[f"entity_mask/{each.name}"]] = absent
        output = policy(observation)
        distribution, value = output.distribution, _value(policy, output)
        actions = distribution.mode()
        loss = distribution.log_prob(actions) + distribution.entropy() + value
        policy.zero_grad()
        loss.sum().backward()
        gradients = {name: parameter.grad.clone() for name, parameter in policy.named_parameters()}
        results.append((distribution.log_probs, actions, value, policy.value(observation), gradients))
    (*outputs, gradients), (*outputs2, gradients2) = results
    for ours, theirs in zip(outputs, outputs2, strict=True):
        assert torch.equal(ours, theirs)
    for name, gradient in gradients.items():
        assert gradient.isfinite().all(), name
        assert torch.equal(gradient, gradients2[name]), name


def test_policy__has_gradient_in_every_parameter(make_policy: MakePolicy) -> None:
    policy = make_policy(SKIRMISH)
    output = policy(to_tensors(observe(SKIRMISH, BATCH, seed=0)))
    (output.distribution.entropy().sum() + _value(policy, output).sum()).backward()
    for name, parameter in policy.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_policy__gives_the_same_with_more_slots(make_policy: MakePolicy) -> None:
    larger = replace(
        SKIRMISH,
        entity_types=tuple(EntityType(each.name, each.features, each.max_count + 2) for each in SKIRMISH.entity_types),
    )
    policies = {schema: make_policy(schema) for schema in (SKIRMISH, larger)}
    policies[larger].load_state_dict(policies[SKIRMISH].state_dict())  # no weight depends on the number of slots
    entities = {
        "marine": np.ones((1, 3)),
        "medic": np.ones((1, 2)),
        "zergling": np.ones((2, 5)),
        "rock": [[0.5]],
    }
    shown = ("stop", "north", "attack zergling 0", "attack zergling 1", "heal marine 0", "stun zergling 1")
    logits, values = [], []
    for schema, policy in policies.items():
        names = [schema.option_name(option) for option in range(schema.num_options)]
        legal = [[name in shown for name in names]] * 2
        observation = schema.pack(entities, legal, globals=[0.5])
        output = policy({key: torch.from_numpy(array[None]) for key, array in observation.items()})
        present = torch.from_numpy(schema.actor_mask(observation))
        logits.append(output.logits[0, present][:, [names.index(name) for name in shown]])
        values.append(output.value)
    _close(*logits)
    _close(*values)


# -- schemas of every kind -----------------------------------------------------------------------------------

UNIT = EntityType("unit", ("health", "x"), 3)
FOE = EntityType("foe", ("x",), 5)

SCHEMAS = {
    "without targeted verbs": EntitySchema((UNIT, FOE), actors=("unit",), verbs=("a", "b"), globals=(Feature("t"),)),
    "without verbs": EntitySchema((UNIT, FOE), actors=("unit",), targeted_verbs=(TargetedVerb("hit", "foe"),)),
    "without globals": EntitySchema(
        (UNIT, FOE), actors=("unit",), verbs=("a",), targeted_verbs=(TargetedVerb("hit", "foe"),)
    ),
    "with a single type that aims at itself": EntitySchema(
        (UNIT,), actors=("unit",), verbs=("a",), targeted_verbs=(TargetedVerb("help", "unit"),)
    ),
    "with two actor types": EntitySchema(
        (UNIT, FOE), actors=("foe", "unit"), verbs=("a",), targeted_verbs=(TargetedVerb("hit", "foe"),)
    ),
    "with two verbs at one type": EntitySchema(
        (UNIT, FOE),
        actors=("unit",),
        targeted_verbs=(
            TargetedVerb("hit", "foe"),
            TargetedVerb("help", "unit"),
            TargetedVerb("stun", "foe"),
        ),
    ),
    "with names that torch keeps for itself": EntitySchema(
        (EntityType("items", ("x",), 2), EntityType("type", ("x",), 3)),
        actors=("items",),
        targeted_verbs=(TargetedVerb("pop", "type"), TargetedVerb("v1.0", "type")),
    ),
}


@pytest.mark.parametrize("kind", SCHEMAS)
def test_policy__serves_schemas(kind: str, make_policy: MakePolicy) -> None:
    schema = SCHEMAS[kind]
    policy = make_policy(schema)
    observation = to_tensors(observe(schema, BATCH, seed=0))
    output = policy(observation)
    assert output.logits.shape == (BATCH, schema.max_actors, schema.num_options)
    assert output.logits.isfinite().all()
    _close(policy.value(observation), _value(policy, output))
    actions = output.distribution.sample()
    for sample in range(BATCH):
        schema.check_action({key: array[sample].numpy() for key, array in observation.items()}, actions[sample].numpy())
    (output.distribution.entropy().sum() + _value(policy, output).sum()).backward()
    without = [name for name, parameter in policy.named_parameters() if parameter.grad is None]
    assert not without


def test_policy__puts_two_actor_types_in_the_order_of_the_action(make_policy: MakePolicy) -> None:
    foes_first = SCHEMAS["with two actor types"]
    units_first = replace(foes_first, actors=("unit", "foe"))
    policy, other = make_policy(foes_first), make_policy(units_first)
    other.load_state_dict(policy.state_dict())
    observation = to_tensors(observe(foes_first, BATCH, seed=0))
    rows = torch.tensor([5, 6, 7, 0, 1, 2, 3, 4])
    before, after = (
        policy(observation),
        other({**observation, "action_mask": observation["action_mask"][:, rows]}),
    )
    _close(after.logits, before.logits[:, rows])
    assert torch.equal(after.legal, before.legal[:, rows])


# -- configuration -------------------------------------------------------------------------------------------


def test_policy__starts_near_uniform() -> None:
    policy = EntityPolicy(SKIRMISH, EntityPolicyConfig())
    output = policy(to_tensors(observe(SKIRMISH, BATCH, seed=0, empty=False)))
    uniform = output.legal.sum(dim=-1).clamp(min=1).log()
    torch.testing.assert_close(output.distribution.entropy_per_actor(), uniform, atol=0.02, rtol=0.0)


@pytest.mark.parametrize("field", ["token_dim", "pointer_dim"])
def test_config__wants_sizes_of_at_least_one(field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: got 0, expected at least 1$"):
        EntityPolicyConfig(**{field: 0})


@pytest.mark.parametrize(
    ("field", "value"),
    [("encoder", "percever"), ("critic", "centrall"), ("joint", "sequental")],
)
def test_config__refuses_a_misspelt_choice(field: str, value: str) -> None:
    config = EntityPolicyConfig()
    object.__setattr__(config, field, value)  # past the tests' type checks, which a user does not have
    with pytest.raises(ValueError, match=f"^{field}: got '{value}', expected one of '"):
        config.__post_init__()


@pytest.mark.parametrize("scale", [math.nan, math.inf, -0.1])
def test_config__wants_a_finite_scale(scale: float) -> None:
    with pytest.raises(ValueError, match=r"^policy_init_scale: got .*, expected a finite number of at least 0$"):
        EntityPolicyConfig(policy_init_scale=scale)


def test_with_slots__leaves_torchs_random_stream_alone() -> None:
    policy = EntityPolicy(SKIRMISH, EntityPolicyConfig())
    before = torch.get_rng_state()
    policy.with_slots(SKIRMISH)
    assert torch.equal(torch.get_rng_state(), before)
