from functools import partial
from typing import Any

import numpy as np
import pytest

from envs.registry import make, make_vec
from perceiver_rl.entities import ACTION_MASK, Control, EntitySchema, EntityType, Feature, TargetedVerb
from perceiver_rl.environments import make_env, make_vector_env
from perceiver_rl.infos import UNITS
from perceiver_rl.mixture import MixedVectorEnv, _Slots, envs_of_each, members_of, widest_schema
from perceiver_rl.testing import check_entity_env
from tests.environments import CourierVectorEnv

SMALL, LARGE = "magent/battle-16", "magent/battle-24"


def mixed(num_envs: int = 3, **options: Any) -> MixedVectorEnv:
    env = make_vector_env(f"{SMALL}+{LARGE}", num_envs, **options)
    assert isinstance(env, MixedVectorEnv)
    return env


def schema(healers: int, guards: int, foes: int, control: Control = "centralized") -> EntitySchema:
    return EntitySchema(
        entity_types=(
            EntityType("foe", ("x", "strength"), foes),
            EntityType("guard", ("x",), guards),
            EntityType("healer", ("x", "mana"), healers),
        ),
        actors=("healer", "guard"),
        verbs=("stop", "go"),
        targeted_verbs=(TargetedVerb("hit", "foe"), TargetedVerb("heal", "guard")),
        globals=(Feature("time"),),
        control=control,
    )


@pytest.mark.parametrize("control", ["centralized", "decentralized"])
def test_slots__lay_out_what_the_wide_schema_packs(control: Control) -> None:
    own, other = schema(1, 3, 2, control), schema(2, 2, 4, control)
    wide = widest_schema({"own": own, "other": other})
    random = np.random.default_rng(0)
    slots = _Slots.of(own, wide)
    for _ in range(20):
        healers, guards, foes = random.integers(0, 2), random.integers(0, 4), random.integers(0, 3)
        entities = {
            "healer": random.normal(size=(healers, 2)),
            "guard": random.normal(size=(guards, 1)),
            "foe": random.normal(size=(foes, 2)),
        }
        actors, present = healers + guards, healers + guards + foes
        sees = np.ones((actors, present), bool) if control == "decentralized" else None
        # stop is always legal, aims at what is there are so at random
        legal = np.zeros((actors, own.num_options), bool)
        legal[:, 0] = True
        legal[:, 2 : 2 + foes] = random.random((actors, foes)) < 0.5
        legal[:, 4 : 4 + guards] = random.random((actors, guards)) < 0.5
        for_all = np.zeros((actors, wide.num_options), bool)
        for_all[:, slots.options] = legal
        packed = own.pack(entities, legal, [0.5], sees)
        laid_out = {key: np.zeros((1, *shape), dtype) for key, (shape, dtype) in wide.arrays.items()}
        slots.lay_out({key: array[None] for key, array in packed.items()}, laid_out)
        expected = wide.pack(entities, for_all, [0.5], sees)
        for key, array in expected.items():
            np.testing.assert_array_equal(laid_out[key][0], array, err_msg=key)


def test_slots__give_each_option_back_by_name() -> None:
    own, wide = schema(1, 3, 2), widest_schema({"own": schema(1, 3, 2), "other": schema(2, 2, 4)})
    slots = _Slots.of(own, wide)
    for option in range(own.num_options):
        of_all = int(slots.options[option])
        assert wide.option_name(of_all) == own.option_name(option)
        actions = np.full((1, wide.max_actors), of_all)
        np.testing.assert_array_equal(slots.actions(actions), np.full((1, own.max_actors), option))
    names = [wide.actor_name(int(actor)) for actor in slots.actors]
    assert names == ["healer 0", "guard 0", "guard 1", "guard 2"]


def test_mixture__plays_what_its_members_play_alone() -> None:
    together = mixed(3, max_steps=12)
    alone = {SMALL: make_vec(SMALL, 2, max_steps=12), LARGE: make_vec(LARGE, 1, max_steps=12)}
    rows = {SMALL: slice(0, 2), LARGE: slice(2, 3)}
    observation, _ = together.reset(seed=5)
    own = {name: env.reset(seed=5 + rows[name].start)[0] for name, env in alone.items()}
    random, ends = np.random.default_rng(0), 0
    for _ in range(30):
        for name, expected in own.items():
            there = observation["entity_mask/ally"][rows[name]].sum()
            assert there == expected["entity_mask/ally"].sum()
            assert observation[ACTION_MASK][rows[name]].sum() == expected[ACTION_MASK].sum()
        actions = np.where(observation[ACTION_MASK], random.random(observation[ACTION_MASK].shape), 0.0).argmax(axis=-1)
        observation, reward, terminated, truncated, infos = together.step(actions)
        for name, env in alone.items():
            slots = together._slots[name]
            own[name], *expected, told = env.step(slots.actions(actions[rows[name]]))
            for got, want in zip((reward, terminated, truncated), expected, strict=True):
                np.testing.assert_array_equal(got[rows[name]], want)
            assert UNITS not in infos
            for key in (each for each in told if not each.startswith("_") and each != UNITS):
                np.testing.assert_array_equal(infos[key][rows[name]], told[key])
                np.testing.assert_array_equal(infos[f"_{key}"][rows[name]], told[f"_{key}"])
            if "won" in told:
                np.testing.assert_array_equal(infos[f"_{name}/won"][rows[name]], told["_won"])
                others = np.delete(infos[f"_{name}/won"], np.r_[rows[name]])
                assert not others.any()
                ends += int(told["_won"].sum())
    assert ends >= 4


def test_mixture__keeps_the_contract() -> None:
    report = check_entity_env(partial(mixed, 3, max_steps=40), steps=90)
    assert report.num_episodes >= 3
    assert report.met_absent_actor


def test_mixture__shares_a_batch_equally() -> None:
    env = mixed(5)
    assert [each.num_envs for each in env.envs.values()] == [3, 2]
    assert envs_of_each(4, 4) == [1, 1, 1, 1]
    with pytest.raises(ValueError, match=r"num_envs: got 1, expected at least one for each of the mixture's 2"):
        mixed(1)


def test_mixture__refuses_environments_that_one_policy_cannot_play() -> None:
    envs = {"a": make_vec("task/xor", 1), "couriers": CourierVectorEnv(1)}
    with pytest.raises(ValueError, match=r"mixture of a and couriers.*entity types: got courier, post, trained with"):
        MixedVectorEnv(envs)
    other = EntitySchema(
        entity_types=(
            EntityType("foe", (Feature("x", 0, 9), "strength"), 2),
            *schema(1, 1, 2).entity_types[1:],
        ),
        actors=("healer", "guard"),
        verbs=("stop", "go"),
        targeted_verbs=(TargetedVerb("hit", "foe"), TargetedVerb("heal", "guard")),
        globals=(Feature("time"),),
    )
    with pytest.raises(ValueError, match=r"entity type 'foe', range of a feature: got x \[0, 9\], trained with x \[-1, 1\]"):
        widest_schema({"a": schema(1, 1, 2), "b": other})


def test_mixture__refuses_actions_that_do_not_exist() -> None:
    env = mixed(2)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"actions of a mixture: got .* of shape \[2, 1\], expected"):
        env.step(np.zeros((2, 1), int))
    with pytest.raises(ValueError, match=r"actions of a mixture, environment 1, ally 0: got option \d+, expected 0 to"):
        env.step(np.full((2, env.schema.max_actors), env.schema.num_options) * np.array([[0], [1]]))


def test_mixture__has_different_members_and_a_batched_form_alone() -> None:
    assert members_of("smax/3m") == ["smax/3m"]
    for name in ("smax/3m+smax/3m", "smax/3m+", "+"):
        with pytest.raises(ValueError, match="different names joined by"):
            members_of(name)
    with pytest.raises(ValueError, match="a mixture has no single form"):
        make_env(f"{SMALL}+{LARGE}")
    assert make(SMALL) is not None
