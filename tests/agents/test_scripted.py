"""The scripted and the random agent: what they do in small situations, and how well they play."""

from typing import Any

import numpy as np
import pytest

from agents.random_agent import RandomAgent
from agents.scripted import AttackNearestAgent
from envs.smax import SmaxVectorEnv
from perceiver_rl.entities import EntitySchema, EntityType, Feature, Observation, TargetedVerb

POSITION = (Feature("x", 0.0, 10.0), Feature("y", 0.0, 10.0))
VERBS = ("stop", "north", "east", "south", "west")
STOP, NORTH, EAST, SOUTH, WEST, ATTACK = range(6)
START, GO_ON = np.array([True]), np.array([False])


def _schema(**changes: Any) -> EntitySchema:
    parts: dict[str, Any] = {
        "entity_types": (EntityType("ally", ("health", *POSITION), 3), EntityType("enemy", POSITION, 2)),
        "actors": ("ally",),
        "verbs": VERBS,
        "targeted_verbs": (TargetedVerb("attack", "enemy"),),
    }
    return EntitySchema(**(parts | changes))


def _observe(
    allies: dict[int, tuple[float, float]],
    enemies: dict[int, tuple[float, float]],
    attackable: dict[int, list[int]] | None = None,
) -> Observation:
    """A batch of one: positions by slot, absent slots full of NaN, and whom each ally may attack."""
    ally_features = np.full((1, 3, 3), np.nan, np.float32)
    enemy_features = np.full((1, 2, 2), np.nan, np.float32)
    ally_mask, enemy_mask = np.zeros((1, 3), bool), np.zeros((1, 2), bool)
    action_mask = np.zeros((1, 3, len(VERBS) + 2), bool)
    for slot, position in allies.items():
        ally_features[0, slot], ally_mask[0, slot] = (1.0, *position), True
        action_mask[0, slot, : len(VERBS)] = True
    for slot, position in enemies.items():
        enemy_features[0, slot], enemy_mask[0, slot] = position, True
    for slot, targets in (attackable or {}).items():
        action_mask[0, slot, [ATTACK + target for target in targets]] = True
    return {
        "entities/ally": ally_features,
        "entity_mask/ally": ally_mask,
        "entities/enemy": enemy_features,
        "entity_mask/enemy": enemy_mask,
        "globals": np.zeros((1, 0), np.float32),
        "action_mask": action_mask,
    }


@pytest.fixture
def agent() -> AttackNearestAgent:
    agent = AttackNearestAgent(_schema())
    agent.reset(num_envs=1, seed=0)
    return agent


def test_scripted__attacks_the_nearest_that_it_can(agent: AttackNearestAgent) -> None:
    observation = _observe({0: (1, 1), 2: (8, 8)}, {0: (3, 3), 1: (6, 6)}, {0: [0, 1], 2: [0, 1]})
    assert agent.act(observation, START, greedy=True).tolist() == [[ATTACK + 0, 0, ATTACK + 1]]


def test_scripted__keeps_its_target_while_it_can_attack_it(agent: AttackNearestAgent) -> None:
    agent.act(_observe({0: (1, 1)}, {0: (2, 1), 1: (9, 9)}, {0: [0, 1]}), START, greedy=True)
    farther = _observe({0: (1, 1)}, {0: (5, 5), 1: (2, 1)}, {0: [0, 1]})
    assert agent.act(farther, GO_ON, greedy=True)[0, 0] == ATTACK + 0
    out_of_range = _observe({0: (1, 1)}, {0: (5, 5), 1: (2, 1)}, {0: [1]})
    assert agent.act(out_of_range, GO_ON, greedy=True)[0, 0] == ATTACK + 1
    assert agent.act(farther, GO_ON, greedy=True)[0, 0] == ATTACK + 1  # its target now


def test_scripted__forgets_its_target_when_an_episode_starts(agent: AttackNearestAgent) -> None:
    agent.act(_observe({0: (1, 1)}, {0: (2, 1), 1: (9, 9)}, {0: [0, 1]}), START, greedy=True)
    farther = _observe({0: (1, 1)}, {0: (5, 5), 1: (2, 1)}, {0: [0, 1]})
    assert agent.act(farther, START, greedy=True)[0, 0] == ATTACK + 1


@pytest.mark.parametrize(("enemy", "verb"), [((4, 9), NORTH), ((9, 5), EAST), ((5, 0), SOUTH), ((0, 4), WEST)])
def test_scripted__walks_to_the_nearest_in_view(enemy: tuple[float, float], verb: int, agent: AttackNearestAgent) -> None:
    assert agent.act(_observe({1: (4, 4)}, {1: enemy}), START, greedy=True).tolist() == [[0, verb, 0]]


def test_scripted__with_none_in_view_walks_to_its_mirrored_start(agent: AttackNearestAgent) -> None:
    start = _observe({0: (1, 4), 1: (9, 6)}, {})
    assert agent.act(start, START, greedy=True)[0, :2].tolist() == [EAST, WEST]
    # The destination is still (9, 6), wherever the actor is now; one that appears later has its own start.
    later = _observe({0: (9, 1), 2: (5, 9)}, {})
    assert agent.act(later, GO_ON, greedy=True)[0].tolist() == [NORTH, 0, SOUTH]


def test_scripted__does_what_it_may_where_it_may_not_walk(agent: AttackNearestAgent) -> None:
    observation = _observe({0: (1, 1)}, {0: (9, 1)})
    observation["action_mask"][0, 0, EAST] = False
    assert agent.act(observation, START, greedy=True)[0, 0] in (NORTH, SOUTH)  # neither leads there nor away
    observation["action_mask"][0, 0] = np.arange(7) == STOP
    assert agent.act(observation, GO_ON, greedy=True)[0, 0] == STOP


def test_scripted__says_what_a_schema_lacks() -> None:
    with pytest.raises(ValueError, match="without the verbs north, west, expected north, east, south"):
        AttackNearestAgent(_schema(verbs=("stop", "east", "south")))
    with pytest.raises(ValueError, match="1 actor types and 0 targeted verbs, expected one of each"):
        AttackNearestAgent(_schema(targeted_verbs=()))
    blind = (EntityType("ally", POSITION, 3), EntityType("enemy", ("y",), 2))
    with pytest.raises(ValueError, match="'enemy' without the features x, expected x and y; it has y"):
        AttackNearestAgent(_schema(entity_types=blind))


def test_random__is_uniform_over_legal_options_and_reproducible() -> None:
    schema = _schema()
    observation = _observe({0: (1, 1), 2: (1, 1)}, {0: (1, 1)}, {0: [0]})
    batch = {key: np.repeat(values, 7000, axis=0) for key, values in observation.items()}
    agent = RandomAgent(schema)
    agent.reset(7000, seed=3)
    chosen = agent.act(batch, np.ones(7000, bool), greedy=False)
    counts = np.stack([np.bincount(chosen[:, actor], minlength=7) for actor in range(3)]) / 7000
    np.testing.assert_allclose(counts[0], [1 / 6] * 6 + [0], atol=0.02)
    np.testing.assert_allclose(counts[1], [1, 0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(counts[2], [1 / 5] * 5 + [0, 0], atol=0.02)
    agent.reset(7000, seed=3)
    np.testing.assert_array_equal(agent.act(batch, np.ones(7000, bool), greedy=True), chosen)


def test_on_2s3z__scripted_is_even_with_smaxs_own_and_random_never_wins() -> None:
    num_envs, each = 32, 4
    env = SmaxVectorEnv("2s3z", num_envs)
    win_rates = []
    for agent in (AttackNearestAgent(env.schema), RandomAgent(env.schema)):
        agent.reset(num_envs, seed=0)
        observation, _ = env.reset(seed=0)
        over = np.zeros(num_envs, bool)
        started = ~over
        played, won = np.zeros(num_envs, int), 0
        while (played < each).any():
            actions = agent.act(observation, started, greedy=True)
            observation, _, terminated, truncated, infos = env.step(actions)
            started, over = over, terminated | truncated
            if infos:  # the first few episodes of each, so that short ones do not count for more
                won += int((infos["won"] & over & (played < each)).sum())
            played += over
        win_rates.append(won / (num_envs * each))
    scripted, random = win_rates
    assert 0.35 < scripted < 0.65  # jaxmarl's own enemy, as the ally, wins 0.49 of such battles
    assert random == 0.0


def test_heuristic__goes_by_what_each_actor_sees_under_decentralized_control() -> None:
    agent = AttackNearestAgent(_schema(control="decentralized"))
    agent.reset(num_envs=1, seed=0)
    observation = _observe({0: (2.0, 5.0), 1: (2.0, 4.0)}, {0: (2.0, 9.0)})
    observation["visibility"] = np.zeros((1, 3, 5), bool)
    observation["visibility"][0, 0, 3] = True
    # The first sees the enemy in the north; the second sees nobody, and walks to where it began, mirrored: east.
    assert agent.act(observation, START, greedy=True)[0, :2].tolist() == [NORTH, EAST]
