"""Knights-Archers-Zombies as entities."""

import builtins
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pettingzoo.butterfly.knights_archers_zombies.knights_archers_zombies import raw_env
from pettingzoo.utils.conversions import aec_to_parallel

from envs.kaz import kaz_schema, make_parallel, observe
from perceiver_rl.pettingzoo import EntityParallelEnv
from tests.parallel_environments import parallel_api_test

TYPES = {"archer": 1, "knight": 2, "sword": 3, "arrow": 4, "zombie": 0}
"""Column of each type's bit in a row of PettingZoo's, as its documentation tells."""


def _play(env: Any, seed: int, steps: int) -> Iterator[tuple[dict[str, Any], Any]]:
    """Observations of random play over ends of episodes, and all else that a step returns; None after a reset."""
    rng = np.random.default_rng(seed)
    observations, _ = env.reset(seed=seed)
    yield observations, None
    for _ in range(steps):
        # Attacks are half of all actions, so that there are arrows and swords to see.
        actions = {agent: int(rng.choice([4, rng.integers(6)])) for agent in env.agents}
        observations, *rest = env.step(actions)
        yield observations, rest
        if not env.agents:
            observations, _ = env.reset()
            yield observations, None


@pytest.mark.filterwarnings("ignore:Agent was given:UserWarning")
@pytest.mark.filterwarnings("ignore:Live agent was not given:UserWarning")
def test_environment__passes_pettingzoos_own_test() -> None:
    parallel_api_test(make_parallel("default", max_cycles=60), num_cycles=200)


def test_play__is_pettingzoos_own_to_the_bit() -> None:
    """What is saved, reading the state once a cycle, changes nothing."""
    # Its clock of zombies goes on over resets, which ours does not: one episode.
    ours, theirs = make_parallel("default").env, aec_to_parallel(raw_env(obs_method="vector-masked"))
    rng = np.random.default_rng(0)
    mine, _ = ours.reset(seed=5)
    others, _ = theirs.reset(seed=5)
    steps = 0
    while ours.agents:
        assert mine.keys() == others.keys()
        for agent, rows in mine.items():
            np.testing.assert_array_equal(rows, others[agent])
        actions = {agent: int(rng.integers(6)) for agent in ours.agents}
        mine, *rest = ours.step(dict(actions))
        others, *other_rest = theirs.step(dict(actions))
        assert [dict(each) for each in rest] == [dict(each) for each in other_rest]
        steps += 1
    assert steps > 100


def test_entities__are_the_raw_rows_by_type() -> None:
    env = make_parallel("default")
    seen: dict[str, int] = dict.fromkeys(TYPES, 0)
    raw_step = env.env.step
    raw: dict[str, NDArray[Any]] = {}

    def keeping(actions: Any) -> Any:
        result = raw_step(actions)
        raw.clear()
        raw.update(result[0])
        return result

    env.env.step = keeping
    for observations, rest in _play(env, seed=1, steps=300):
        for agent, observation in observations.items():
            if rest is None:  # of a reset nothing was kept
                continue
            own, others = raw[agent][0], raw[agent][1:]
            entities = env.schema_of_agent(agent).unpack(observation)
            is_archer = agent.startswith("archer")
            np.testing.assert_allclose(entities["self"], [[is_archer, not is_archer, *own[7:]]], rtol=1e-6)
            kind, number = agent.split("_")
            again = int(number) + (0 if is_archer else 2)  # its own row among its comrades: archers come first
            alive = bool(others[again].any())
            for name, column in TYPES.items():
                expected = others[others[:, column] == 1]
                if name == kind and alive:
                    expected = np.delete(others, again, axis=0)
                    expected = expected[expected[:, column] == 1]
                np.testing.assert_allclose(entities[name][:, :5], expected[:, 6:], rtol=1e-6, atol=1e-7)
                seen[name] += len(expected)
    assert min(seen.values()) > 0, seen


def test_rows_without_empty_ones__give_the_same_entities() -> None:
    masked, sequence = (aec_to_parallel(raw_env(obs_method=f"vector-{form}")) for form in ("masked", "sequence"))
    for (of_masked, _), (of_sequence, _) in zip(_play(masked, 2, 150), _play(sequence, 2, 150), strict=True):
        for agent, rows in of_masked.items():
            assert len(of_sequence[agent]) < len(rows)
            one, other = observe(rows, agent, {}), observe(of_sequence[agent], agent, {})
            for name, entities in one.entities.items():
                # A product's last bit may depend on how many rows are multiplied at once.
                np.testing.assert_allclose(entities, other.entities[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("heading", "offset", "ahead", "aside"),
    [
        ((0.0, -1.0), (0.0, -0.5), 0.5, 0.0),  # looks up, and there it is
        ((0.0, -1.0), (0.45, 0.0), 0.0, 0.8),  # to the right; a screen is 16 / 9 of its height wide
        ((0.0, -1.0), (-0.45, 0.0), 0.0, -0.8),
        ((1.0, 0.0), (0.45, 0.5), 0.8, 0.5),  # looks right: what is below is on the right hand
        ((0.6, 0.8), (0.27, 0.64), 0.8, 0.0),  # 0.27 widths are 0.48 heights: right ahead
    ],
)
def test_offsets__are_told_along_the_agents_own_heading(
    heading: tuple[float, float], offset: tuple[float, float], ahead: float, aside: float
) -> None:
    own = [0, 0, 0, 0, 0, 1, 0.0, 0.5, 0.5, *heading]
    zombie = [1, 0, 0, 0, 0, 0, 0.3, *offset, 0.0, 1.0]
    view = observe(np.array([own, zombie]), "archer_0", {})
    np.testing.assert_allclose(np.asarray(view.entities["zombie"])[0, 5:], [ahead, aside], atol=1e-9)


def test_agent_on_a_comrades_spot__loses_its_own_row_only() -> None:
    own = [0, 0, 0, 0, 0, 1, 0.0, 0.5, 0.5, 0.0, -1.0]
    myself = [0, 1, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, -1.0]
    comrade = [0, 1, 0, 0, 0, 0, 0.0, 0.0, 0.0, 1.0, 0.0]
    knight = [0, 0, 1, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, -1.0]
    view = observe(np.array([own, comrade, myself, knight]), "archer_0", {})
    assert np.asarray(view.entities["archer"])[:, 3:5].tolist() == [[1.0, 0.0]]
    assert len(view.entities["knight"]) == 1  # a knight there is somebody else


def test_death__takes_an_agent_out() -> None:
    env = make_parallel("default", spawn_delay=1, max_zombies=40)
    numbers = set()
    gone: set[str] = set()
    for observations, rest in _play(env, seed=0, steps=400):
        if rest is None:
            gone.clear()
            continue
        _, terminations, truncations, _ = rest
        assert not gone & set(observations)
        gone |= {agent for agent in terminations if terminations[agent] or truncations[agent]}
        assert not gone & set(env.agents)
        numbers.add(len(env.agents))
    assert len(numbers) > 2


def test_episode__depends_on_its_seed_alone() -> None:
    env = make_parallel("default", max_cycles=100)
    first = [observations for observations, _ in _play(env, 7, 60)]
    again = [observations for observations, _ in _play(env, 7, 60)]  # in the middle of an episode
    for one, other in zip(first, again, strict=True):
        for agent, observation in one.items():
            for key, array in observation.items():
                np.testing.assert_array_equal(array, other[agent][key])


def test_numbers__are_settings() -> None:
    env = make_parallel("default", num_archers=1, num_knights=3, max_zombies=4, max_arrows=2)
    assert env.possible_agents == ["archer_0", "knight_0", "knight_1", "knight_2"]
    schema = env.schema_of_agent("knight_1")
    assert schema == kaz_schema(1, 3, 2, 4)
    assert {each.name: each.max_count for each in schema.entity_types} == {
        "self": 1,
        "archer": 1,
        "knight": 3,
        "sword": 3,
        "arrow": 2,
        "zombie": 4,
    }
    for _ in _play(env, seed=0, steps=120):
        pass
    with pytest.raises(ValueError, match="kaz: got obs_method='image', expected none"):
        make_parallel("default", obs_method="image")
    with pytest.raises(ValueError, match=r"unknown environment 'defaults' \(did you mean 'default'\?\)"):
        make_parallel("defaults")
    assert isinstance(env, EntityParallelEnv)


@pytest.mark.parametrize("module", ["envs.kaz", "envs.mpe"])
def test_missing_extra__says_what_to_install(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] in ("pettingzoo", "mpe2"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'perceiver-rl\[pettingzoo\]'"):
        __import__(module)
