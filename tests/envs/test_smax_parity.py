"""The squad environment against jaxmarl's own observations, masks and rewards, on the same states, keys and
actions."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import torch
from jaxmarl.environments.smax import HeuristicEnemySMAX, map_name_to_scenario
from numpy.typing import NDArray

from agents.presets import preset
from agents.random_agent import RandomAgent
from agents.scripted import AttackNearestAgent
from envs.smax import SmaxVectorEnv
from perceiver_rl.policy.entity_policy import EntityPolicy

# Unequal sides, and random types and places; the others are compiled for the slow tests only.
FAST_MAPS = ("5m_vs_6m", "smacv2_5_units")
SLOW_MAPS = ("2s3z", "10m_vs_11m", "3s5z_vs_3s6z")
MAPS = (*FAST_MAPS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_MAPS))
NUM_ENVS = 3
NUM_STEPS = 70
STOP = 4
NUM_MOVES = 5
TYPE_NAMES = ("marine", "marauder", "stalker", "zealot", "zergling", "hydralisk")
SIGHT = np.array([9.0, 10.0, 10.0, 9.0, 8.0, 9.0])  # of each unit type, as jaxmarl's defaults are


class Step(NamedTuple):
    """One environment's step: ours, and what jaxmarl says of the same state and key."""

    began: bool
    observation: dict[str, NDArray[Any]]
    reward: float
    over: bool
    unit_lists: NDArray[np.float32]  # [allies, jaxmarl's features]
    unit_types: NDArray[np.int64]  # [allies]
    available: NDArray[np.bool_]  # [allies, options]
    expected_reward: float
    expected_over: bool


@pytest.fixture(scope="module")
def rollout(smax: Callable[[str], SmaxVectorEnv]) -> Callable[[str], list[Step]]:
    return cache(lambda map_name: _roll_out(smax(map_name), map_name))


def _roll_out(env: SmaxVectorEnv, map_name: str) -> list[Step]:
    reference = HeuristicEnemySMAX(scenario=map_name_to_scenario(map_name), attack_mode="closest")

    @jax.jit  # one function for both, because compiling takes most of this test's time
    def reference_step(key: Any, state: Any, actions: Any, over: Any) -> Any:
        _, step_key, reset_key = jax.random.split(key, 3)
        by_agent = {agent: actions[index] for index, agent in enumerate(reference.agents)}
        stepped, stepped_state, rewards, dones, _ = reference.step_env(step_key, state, by_agent)
        reset, reset_state = reference.reset(reset_key)
        unit_lists, state, reward, done = jax.tree.map(
            lambda new, old: jax.numpy.where(over, new, old),
            (reset, reset_state, 0.0, False),
            (stepped, stepped_state, rewards[reference.agents[0]], dones["__all__"]),
        )
        return unit_lists, state, reward, done, reference.get_avail_actions(state)

    def stacked(by_agent: dict[str, Any]) -> NDArray[Any]:
        return np.stack([np.asarray(by_agent[agent]) for agent in reference.agents])

    # Mostly an agent that fights, so that both sides lose units; sometimes anything legal.
    fights, wanders = AttackNearestAgent(env.schema), RandomAgent(env.schema)
    fights.reset(env.num_envs, seed=0)
    wanders.reset(env.num_envs, seed=5)
    generator = np.random.default_rng(5)
    observation, _ = env.reset(seed=11)
    over = np.zeros(env.num_envs, bool)
    started = ~over
    steps = []
    for _ in range(NUM_STEPS):
        wander = generator.random((env.num_envs, 1)) < 0.2
        actions = np.where(wander, wanders.act(observation, started, False), fights.act(observation, started, False))
        before = env.battles
        assert before is not None
        observation, reward, terminated, truncated, _ = env.step(actions)
        for index in range(env.num_envs):
            state = jax.tree.map(lambda leaf: leaf[index], before.state)  # noqa: B023
            unit_lists, state, expected_reward, expected_over, available = reference_step(
                before.key[index], state, actions[index], over[index]
            )
            steps.append(
                Step(
                    began=bool(over[index]),
                    observation={key: values[index] for key, values in observation.items()},
                    reward=float(reward[index]),
                    over=bool(terminated[index] | truncated[index]),
                    unit_lists=stacked(unit_lists),
                    unit_types=np.asarray(state.state.unit_types[: env.schema.max_actors], np.int64),
                    available=stacked(available).astype(bool),
                    expected_reward=float(expected_reward),
                    expected_over=bool(expected_over),
                )
            )
        started, over = over, terminated | truncated
    return steps


def _rows(step: Step, ally: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """jaxmarl's list of one ally: the other allies `[A - 1, 13]`, the enemies `[E, 13]`, itself `[10]`."""
    num_allies = len(step.unit_lists)
    others, own = step.unit_lists[ally][:-10].reshape(-1, 13), step.unit_lists[ally][-10:]
    return others[: num_allies - 1], others[num_allies - 1 :], own


def _column(env: SmaxVectorEnv, step: Step, entity_type: str, name: str) -> NDArray[np.float32]:
    names = env.schema.entity_type(entity_type).feature_names
    return step.observation[f"entities/{entity_type}"][:, names.index(name)]


@pytest.mark.parametrize("map_name", MAPS)
def test_rollout__contains_deaths_damage_and_new_episodes(map_name: str, rollout: Callable[[str], list[Step]]) -> None:
    # Without them, most of what the tests below compare would go untested.
    steps = rollout(map_name)
    assert any(step.began for step in steps)
    assert any(0 < step.observation["entity_mask/ally"].sum() < len(step.unit_lists) for step in steps)
    assert any(step.reward > 0 for step in steps)


@pytest.mark.parametrize("map_name", MAPS)
def test_observation__own_features_equal_jaxmarls(
    map_name: str, smax: Callable[[str], SmaxVectorEnv], rollout: Callable[[str], list[Step]]
) -> None:
    env = smax(map_name)
    names = ("health", "x", "y", "cooldown", *(f"is_{name}" for name in TYPE_NAMES))
    scale = np.array([1, 32, 32, 1, *[1] * 6])
    for step in rollout(map_name):
        own = np.stack([_rows(step, ally)[2] for ally in range(env.schema.max_actors)]) * scale
        ours = np.stack([_column(env, step, "ally", name) for name in names], axis=-1)
        np.testing.assert_allclose(ours, own, atol=1e-4)
        np.testing.assert_array_equal(step.observation["entity_mask/ally"], own[:, 0] > 0)


@pytest.mark.parametrize("map_name", MAPS)
def test_observation__is_the_union_of_what_living_allies_see(
    map_name: str, smax: Callable[[str], SmaxVectorEnv], rollout: Callable[[str], list[Step]]
) -> None:
    env = smax(map_name)
    some_hidden = False
    for step in rollout(map_name):
        seen = np.stack([_rows(step, ally)[1][:, 0] > 0 for ally in range(env.schema.max_actors)]).any(axis=0)
        np.testing.assert_array_equal(step.observation["entity_mask/enemy"], seen)
        assert (step.observation["entities/enemy"][~seen] == 0).all()
        assert (step.observation["entities/ally"][~step.observation["entity_mask/ally"]] == 0).all()
        some_hidden |= step.began and not seen.all()
    assert some_hidden


@pytest.mark.parametrize("map_name", MAPS)
def test_observation__features_of_others_equal_what_each_ally_sees_in_jaxmarl(
    map_name: str, smax: Callable[[str], SmaxVectorEnv], rollout: Callable[[str], list[Step]]
) -> None:
    env = smax(map_name)
    compared = 0
    same = {"health": 0, "last_move_x": 3, "last_move_y": 4, "cooldown": 6}
    same |= {f"is_{name}": 7 + index for index, name in enumerate(TYPE_NAMES)}
    for step in rollout(map_name):
        for ally in np.flatnonzero(step.observation["entity_mask/ally"]):
            allies, enemies, _ = _rows(step, ally)
            other_allies = np.delete(np.arange(env.schema.max_actors), ally)
            here = np.array([_column(env, step, "ally", axis)[ally] for axis in "xy"])
            for entity_type, rows, slots in (
                ("ally", allies, other_allies),
                ("enemy", enemies, np.arange(len(enemies))),
            ):
                visible = rows[:, 0] > 0
                rows, slots = rows[visible], slots[visible]
                for name, column in same.items():
                    ours = _column(env, step, entity_type, name)[slots]
                    np.testing.assert_allclose(ours, rows[:, column], atol=1e-4, err_msg=name)
                there = np.stack([_column(env, step, entity_type, axis)[slots] for axis in "xy"], axis=-1)
                relative = rows[:, 1:3] * SIGHT[step.unit_types[ally]]
                np.testing.assert_allclose(there - here, relative, atol=1e-3)
                compared += len(slots)
    assert compared > 1000


@pytest.mark.parametrize("map_name", MAPS)
def test_observation__attacks_point_at_the_unit_that_jaxmarls_action_index_means(
    map_name: str, smax: Callable[[str], SmaxVectorEnv], rollout: Callable[[str], list[Step]]
) -> None:
    env = smax(map_name)
    num_allies = env.schema.max_actors
    num_enemies = env.schema.entity_type("enemy").max_count
    pointed = {"ally": 0, "enemy": 0}
    for step in rollout(map_name):
        for ally in np.flatnonzero(step.observation["entity_mask/ally"]):
            allies, enemies, _ = _rows(step, ally)
            other_allies = np.delete(np.arange(num_allies), ally)
            for entity_type, target_type, rows, slots, last_action in (
                ("ally", "enemy", allies, other_allies, NUM_MOVES + num_enemies - 1),
                ("enemy", "ally", enemies, np.arange(num_enemies), NUM_MOVES + num_allies - 1),
            ):
                for row, slot in zip(rows, slots, strict=True):
                    if row[0] == 0:
                        continue
                    action = round(float(row[5] * last_action))
                    attacking = action >= NUM_MOVES
                    assert bool(_column(env, step, entity_type, "attacking")[slot]) == attacking
                    offset = [_column(env, step, entity_type, f"target_d{axis}")[slot] for axis in "xy"]
                    target = action - NUM_MOVES if entity_type == "ally" else num_allies - 1 - (action - NUM_MOVES)
                    if attacking and step.observation[f"entity_mask/{target_type}"][target]:
                        expected = [
                            _column(env, step, target_type, axis)[target] - _column(env, step, entity_type, axis)[slot]
                            for axis in "xy"
                        ]
                        np.testing.assert_allclose(offset, expected, atol=1e-4)
                        pointed[entity_type] += 1
                    else:  # nothing to point at, or a target that nobody sees any more
                        assert offset == [0.0, 0.0]
    assert min(pointed.values()) > 20


@pytest.mark.parametrize("map_name", MAPS)
def test_action_mask__equals_jaxmarls_for_the_living_and_is_empty_for_the_dead(
    map_name: str, rollout: Callable[[str], list[Step]]
) -> None:
    for step in rollout(map_name):
        alive = step.observation["entity_mask/ally"]
        np.testing.assert_array_equal(step.observation["action_mask"][alive], step.available[alive])
        assert not step.observation["action_mask"][~alive].any()


@pytest.mark.parametrize("map_name", MAPS)
def test_reward_and_end__equal_jaxmarls(map_name: str, rollout: Callable[[str], list[Step]]) -> None:
    for step in rollout(map_name):
        assert step.reward == pytest.approx(step.expected_reward, abs=1e-5)
        assert step.over == step.expected_over


# -- decentralized control -----------------------------------------------------------------------------------

DECENTRALIZED_MAP = "5m_vs_6m"


@pytest.fixture(scope="module")
def decentralized() -> SmaxVectorEnv:
    return SmaxVectorEnv(DECENTRALIZED_MAP, NUM_ENVS, control="decentralized")


@pytest.fixture(scope="module")
def decentralized_steps(decentralized: SmaxVectorEnv) -> list[Step]:
    return _roll_out(decentralized, DECENTRALIZED_MAP)


def test_decentralized__visibility_is_jaxmarls(decentralized_steps: list[Step]) -> None:
    some_hidden_from_one_only = False
    for step in decentralized_steps:
        num_allies = len(step.unit_lists)
        visibility, alive = step.observation["visibility"], step.observation["entity_mask/ally"]
        for ally in range(num_allies):
            allies, enemies, _ = _rows(step, ally)
            expected = np.insert(allies[:, 0] > 0, ally, alive[ally])
            np.testing.assert_array_equal(visibility[ally], [*expected, *(enemies[:, 0] > 0)])
        seen = visibility[alive][:, num_allies:]
        some_hidden_from_one_only |= bool((seen.any(axis=0) & ~seen.all(axis=0)).any())
    assert some_hidden_from_one_only


def test_decentralized__features_tell_what_jaxmarls_unit_list_tells(
    decentralized: SmaxVectorEnv, decentralized_steps: list[Step]
) -> None:
    env, compared, attacks = decentralized, 0, 0
    num_allies, num_enemies = env.schema.max_actors, env.schema.entity_type("enemy").max_count
    for step in decentralized_steps:
        for ally in np.flatnonzero(step.observation["entity_mask/ally"]):
            allies, enemies, _ = _rows(step, ally)
            here = np.array([_column(env, step, "ally", axis)[ally] for axis in "xy"])
            for entity_type, rows, slots, num_targets in (
                ("ally", allies, np.delete(np.arange(num_allies), ally), num_enemies),
                ("enemy", enemies, np.arange(num_enemies), num_allies),
            ):
                visible = rows[:, 0] > 0
                rows, slots = rows[visible], slots[visible]

                def column(name: str, entity_type: str = entity_type, slots: Any = slots, step: Step = step) -> Any:
                    return _column(env, step, entity_type, name)[slots]

                there = np.stack([column("x"), column("y")], axis=-1)
                np.testing.assert_allclose(there - here, rows[:, 1:3] * SIGHT[step.unit_types[ally]], atol=1e-3)
                target = np.round(column("target_slot") * (num_targets - 1))
                if entity_type == "enemy":  # whose options count allies from the last to the first
                    target = num_targets - 1 - target
                last_action = np.round(rows[:, 5] * (NUM_MOVES + num_targets - 1))
                attacked = last_action >= NUM_MOVES
                np.testing.assert_array_equal(column("attacking") > 0, attacked)
                np.testing.assert_array_equal(target[attacked], last_action[attacked] - NUM_MOVES)
                np.testing.assert_array_equal(
                    np.round(column("slot") * (env.schema.entity_type(entity_type).max_count - 1)), slots
                )
                for name, number in {"health": 0, "last_move_x": 3, "last_move_y": 4, "cooldown": 6, "is_marine": 7}.items():
                    np.testing.assert_allclose(column(name), rows[:, number], atol=1e-4, err_msg=name)
                compared += len(slots)
                attacks += int(attacked.sum())
    assert compared > 1000
    assert attacks > 100


def test_decentralized__a_unit_that_an_ally_does_not_see_changes_none_of_its_logits(
    decentralized: SmaxVectorEnv, decentralized_steps: list[Step]
) -> None:
    torch.manual_seed(0)
    policy = EntityPolicy(decentralized.schema, replace(preset("tiny"), policy_init_scale=1.0))
    num_allies = decentralized.schema.max_actors
    unseen_pairs = seen_pairs = 0
    for step in decentralized_steps[::7]:
        before = {key: torch.from_numpy(array[None].copy()) for key, array in step.observation.items()}
        with torch.no_grad():
            logits = policy(before).logits[0]
        for number, entity_type in enumerate(
            ["ally"] * num_allies + ["enemy"] * (len(before["visibility"][0, 0]) - num_allies)
        ):
            slot = number if entity_type == "ally" else number - num_allies
            if not before[f"entity_mask/{entity_type}"][0, slot]:
                continue
            after = {key: tensor.clone() for key, tensor in before.items()}
            after[f"entities/{entity_type}"][0, slot] += torch.randn(
                decentralized.schema.entity_type(entity_type).num_features
            )
            with torch.no_grad():
                changed = policy(after).logits[0]
            for ally in torch.nonzero(before["entity_mask/ally"][0]).flatten().tolist():
                if before["visibility"][0, ally, number]:
                    seen_pairs += 1
                    assert not torch.equal(changed[ally], logits[ally])
                else:
                    unseen_pairs += 1
                    assert torch.equal(changed[ally], logits[ally])
    assert unseen_pairs > 50
    assert seen_pairs > 50
