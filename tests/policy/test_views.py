"""Decentralized control: what an actor does not see changes nothing that it does; what is dead costs nothing."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from perceiver_rl.entities import EntitySchema, EntityType, Feature, Observation, TargetedVerb
from perceiver_rl.nn import EntityTransformerConfig, PerceiverIOConfig
from perceiver_rl.policy import readout
from perceiver_rl.policy.entity_policy import EntityPolicy, EntityPolicyConfig
from tests.schemas import observe, to_tensors

BATCH = 5

PATROL = EntitySchema(
    entity_types=(
        EntityType("scout", ("health", "x", "y"), max_count=3),
        EntityType("tank", ("x", "y", "heading"), max_count=2),
        EntityType("foe", ("health", "x", "y", "range"), max_count=7),
        EntityType("weather", ("wind",), max_count=2),
    ),
    actors=("scout", "tank"),
    verbs=("stop", "north"),
    targeted_verbs=(TargetedVerb("attack", "foe"), TargetedVerb("follow", "scout")),
    globals=(Feature("clock"),),
    control="decentralized",
    relative=(Feature("x", -4.0, 4.0), Feature("y", -2.0, 2.0)),
)


def _config(critic: str = "central", encoder: str = "perceiver") -> EntityPolicyConfig:
    return EntityPolicyConfig(
        encoder=encoder,  # type: ignore[arg-type]
        critic=critic,  # type: ignore[arg-type]
        perceiver=PerceiverIOConfig(num_latents=3, latent_dim=12, latent_init_scale=1.0),
        transformer=EntityTransformerConfig(num_layers=1, model_dim=12, num_heads=3, head_dim=8),
        token_dim=14,
        pointer_dim=5,
        policy_init_scale=1.0,
    )


def _observe(schema: EntitySchema, seed: int = 0, empty: bool = True) -> Observation:
    """Random observations in which every actor sees about half of what is there."""
    observation = observe(replace(schema, control="centralized", relative=(), privileged=()), BATCH, seed, empty=empty)
    sees = np.random.default_rng(seed + 1).random((BATCH, schema.max_actors, schema.max_entities)) < 0.5
    sees[:, np.arange(schema.max_actors), schema.actor_slots] = True
    observation["visibility"] = sees
    for verb, targets in zip(schema.targeted_verbs, schema.target_slices, strict=True):
        observation["action_mask"][..., targets] &= sees[..., schema.entity_slices[verb.target]]
    schema.check(observation, (BATCH,))
    return observation


def _changed(observation: dict[str, Tensor], entity_type: str, slot: int) -> dict[str, Tensor]:
    """The same with other features of one entity of every sample."""
    features = observation[f"entities/{entity_type}"].clone()
    features[:, slot] = torch.randn_like(features[:, slot])
    return {**observation, f"entities/{entity_type}": features}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("encoder", ["perceiver", "transformer"])
def test_actors__choose_by_what_they_see_and_by_nothing_else(
    encoder: str, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readout, "MIN_SLOTS", 0 if packed else 10**9)
    monkeypatch.setattr(readout, "MIN_ABSENT_SLOTS", 0)
    policy = EntityPolicy(PATROL, _config(encoder=encoder))
    observation = to_tensors(_observe(PATROL))
    legal = observation["action_mask"]
    before = policy(observation)
    changed_some = False
    for each in PATROL.entity_types:
        for slot in range(each.max_count):
            after = policy(_changed(observation, each.name, slot)).logits
            there = observation[f"entity_mask/{each.name}"][:, slot, None]
            sees = observation["visibility"][..., PATROL.entity_slices[each.name].start + slot] & there
            same = ((after == before.logits) | ~legal).all(dim=-1)
            assert same[~sees].all()
            present = legal.any(dim=-1)
            changed_some |= bool((~same[sees & present]).any())
            assert not same[sees & present].any() or each.name == "weather"
    assert changed_some


def test_actors__do_not_see_what_is_privileged() -> None:
    schema = replace(PATROL, privileged=("weather", "globals"))
    policy, observation = EntityPolicy(schema, _config()), to_tensors(_observe(schema))
    before = policy(observation)
    after = policy(_changed(observation, "weather", 0) | {"globals": observation["globals"] + 1})
    assert torch.equal(before.logits, after.logits)
    assert before.value is not None
    assert not torch.equal(before.value, after.value)  # type: ignore[arg-type]


def test_centralized_actors__do_not_see_what_is_privileged() -> None:
    schema = replace(PATROL, control="centralized", relative=(), privileged=("weather",))
    policy, observation = EntityPolicy(schema, _config()), to_tensors(observe(schema, BATCH, seed=0))
    before, after = policy(observation), policy(_changed(observation, "weather", 0))
    assert torch.equal(before.logits, after.logits)
    assert not torch.equal(before.value, after.value)  # type: ignore[arg-type]
    local = EntityPolicy(schema, _config("local"))
    assert torch.equal(local(observation).value, local(_changed(observation, "weather", 0)).value)  # type: ignore[arg-type]


@pytest.mark.parametrize(("critic", "changes"), [("central", True), ("local", False)])
def test_critic__reads_what_no_actor_sees_if_it_is_central(critic: str, changes: bool) -> None:
    policy, observation = EntityPolicy(PATROL, _config(critic)), to_tensors(_observe(PATROL))
    observation["visibility"][..., PATROL.entity_slices["foe"].start + 2] = False
    observation["action_mask"][..., PATROL.target_slices[0].start + 2] = False
    observation["entity_mask/foe"][:, 2] = True
    after = _changed(observation, "foe", 2)
    values = [policy.value(each) for each in (observation, after)]
    assert torch.equal(*values) != changes


@pytest.mark.parametrize("critic", ["central", "local"])
def test_value__equals_that_of_the_whole_pass_and_is_left_out_on_request(critic: str) -> None:
    policy, observation = EntityPolicy(PATROL, _config(critic)), to_tensors(_observe(PATROL))
    output = policy(observation)
    torch.testing.assert_close(output.value, policy.value(observation), atol=2e-6, rtol=1e-5)
    without = policy(observation, with_value=False)
    assert without.value is None
    torch.testing.assert_close(without.logits, output.logits, atol=2e-6, rtol=1e-5)


def test_local_value__is_the_mean_over_present_actors_of_what_each_one_sees() -> None:
    policy, observation = EntityPolicy(PATROL, _config("local")), to_tensors(_observe(PATROL, empty=False))
    alone = []
    for actor, (name, slot) in enumerate([("scout", 0), ("scout", 1), ("scout", 2), ("tank", 0), ("tank", 1)]):
        # The other actors leave, but stay to be seen as they were: as entities that do not act.
        sees = observation["visibility"][:, actor : actor + 1].expand(-1, 5, -1)
        rows = [
            policy.value_head(
                policy.encoder.decode(
                    policy.encoder.read(source.padded(), source.mask), policy.queries.parts["value"](len(source.mask))
                )
            ).flatten()
            for views in [policy.views.views({**observation, "visibility": sees})]  # type: ignore[union-attr]
            for source in [policy.views.source(observation, views)]  # type: ignore[union-attr]
        ]
        views = policy.views.views({**observation, "visibility": sees})  # type: ignore[union-attr]
        per_actor = views.by_actor(rows[0])[:, actor]
        alone.append(torch.where(observation[f"entity_mask/{name}"][:, slot], per_actor, 0.0))
    present = torch.cat([observation["entity_mask/scout"], observation["entity_mask/tank"]], dim=1).sum(dim=1)
    torch.testing.assert_close(policy.value(observation), torch.stack(alone).sum(dim=0) / present, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("critic", ["central", "local"])
def test_views__answer_and_learn_the_same_packed_and_padded(critic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readout, "MIN_SLOTS", 0)
    monkeypatch.setattr(readout, "MIN_ABSENT_SLOTS", 0)
    policies = [EntityPolicy(PATROL, replace(_config(critic), packing=packing)) for packing in (True, False)]
    policies[1].load_state_dict(policies[0].state_dict())
    observation = to_tensors(_observe(PATROL))
    outputs = [policy(observation) for policy in policies]
    legal = outputs[0].legal
    torch.testing.assert_close(outputs[0].logits[legal], outputs[1].logits[legal], atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(outputs[0].value, outputs[1].value, atol=2e-6, rtol=1e-5)
    for output in outputs:
        assert output.value is not None
        (output.logits[legal].square().sum() + output.value.square().sum()).backward()
    padded = dict(policies[1].named_parameters())
    for name, parameter in policies[0].named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, padded[name].grad, atol=1e-5, rtol=1e-4, msg=name)


def test_views__are_as_many_as_actors_are_present(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, observation = EntityPolicy(PATROL, _config()), to_tensors(_observe(PATROL))
    read = policy.encoder.read
    sets = []

    def counting(tokens: Tensor, mask: Tensor | None = None) -> object:
        sets.append(len(tokens))
        return read(tokens, mask)

    monkeypatch.setattr(policy.encoder, "read", counting)
    policy(observation, with_value=False)
    present = observation["entity_mask/scout"].sum() + observation["entity_mask/tank"].sum()
    assert 0 < present < BATCH * 5
    assert sets == [present]


@pytest.mark.parametrize("critic", ["central", "local"])
def test_policy__is_finite_where_nobody_is_left(critic: str) -> None:
    policy = EntityPolicy(PATROL, _config(critic))
    observation = {key: tensor[-1:] for key, tensor in to_tensors(_observe(PATROL)).items()}  # the empty one
    assert not observation["entity_mask/scout"].any()
    output = policy(observation)
    assert output.logits.shape == (1, 5, PATROL.num_options)
    assert output.value is not None
    assert output.value.isfinite().all()
    (output.distribution.entropy().sum() + output.value.sum()).backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in policy.parameters())


def test_relative_features__do_not_change_when_all_move_together() -> None:
    policy = EntityPolicy(PATROL, _config())
    assert policy.views is not None
    for layer in policy.views.embedding.projection.values():  # leaves what is relative
        torch.nn.init.zeros_(layer.weight)
    observation = to_tensors(_observe(PATROL))

    def moved(names: tuple[str, ...]) -> dict[str, Tensor]:
        result = dict(observation)
        for each in PATROL.entity_types:
            if each.name in names:
                features = observation[f"entities/{each.name}"].clone()
                features[..., each.feature_names.index("x")] += 0.5
                result[f"entities/{each.name}"] = features
        return result

    before = policy(observation, with_value=False).logits
    together = policy(moved(("scout", "tank", "foe")), with_value=False).logits
    torch.testing.assert_close(together, before, atol=2e-6, rtol=1e-5)
    apart = policy(moved(("foe",)), with_value=False).logits
    assert (apart - before).abs().max() > 1e-3


COMPILE = """
import torch
from perceiver_rl.policy.entity_policy import EntityPolicy, EntityPolicyConfig
from tests.policy.test_views import PATROL, _observe
from tests.schemas import SKIRMISH, observe, to_tensors

for schema, observation in ((PATROL, _observe(PATROL)), (SKIRMISH, observe(SKIRMISH, 5, seed=0))):
    policy, observation = EntityPolicy(schema, EntityPolicyConfig()), to_tensors(observation)
    compiled = torch.compile(policy, fullgraph=True, backend="eager")
    expected, got = policy(observation), compiled(observation)
    torch.testing.assert_close(got.logits[got.legal], expected.logits[got.legal], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got.value, expected.value, atol=1e-5, rtol=1e-5)
"""


def test_policy__compiles_to_one_graph_with_the_same_answers() -> None:
    # In a process of its own, because the shape checks that pytest puts around every function cannot be traced.
    result = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
