"""The squad environment as gymnasium sees it: seeds, autoreset, ends of episodes, infos, errors."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import DictInfoToList

import envs
from agents.random_agent import RandomAgent
from envs.smax import SmaxEnv, SmaxVectorEnv, map_names, smax_schema
from envs.smax_dynamics import map_sizes
from envs.smax_schema import TIME_LIMIT
from perceiver_rl.entities import schema_of
from perceiver_rl.infos import info_of

Smax = Callable[[str], SmaxVectorEnv]
NORTH, EAST, SOUTH, WEST, STOP = range(5)
INFO_KEYS = {"won", "allies_left", "enemies_left", "damage_dealt", "damage_taken", "units"}


def _all(env: SmaxVectorEnv, option: int) -> Any:
    return np.full((env.num_envs, env.schema.max_actors), option)


def _edit_world(env: SmaxVectorEnv, **changes: Any) -> None:
    """Put every battle in a situation that play would take long to reach."""
    assert env.battles is not None
    battle = env.battles.state
    world = battle.state.replace(**{name: jnp.asarray(value) for name, value in changes.items()})
    env.battles = env.battles._replace(state=battle.replace(state=world))


def _steps(env: SmaxVectorEnv, step: int) -> Any:
    return np.full(env.num_envs, step, np.int32)


def _health(env: SmaxVectorEnv, ally: float, enemy: float) -> Any:
    num_allies, num_enemies = env.schema.max_actors, env.schema.entity_type("enemy").max_count
    return np.tile(np.float32([ally] * num_allies + [enemy] * num_enemies), (env.num_envs, 1))


# -- the contract --------------------------------------------------------------------------------------------


def test_schema__names_options_in_the_order_of_smaxs_actions(smax: Smax) -> None:
    env = smax("5m_vs_6m")
    assert (env.schema.max_actors, env.schema.num_options) == (5, 11)
    assert [env.schema.option_name(option) for option in (0, 1, 2, 3, 4, 5, 10)] == [
        *("north", "east", "south", "west", "stop"),
        *("attack enemy 0", "attack enemy 5"),
    ]


def test_spaces__carry_the_schema_and_contain_the_observations(smax: Smax) -> None:
    env = smax("2s3z")
    observation, _ = env.reset(seed=3)
    assert schema_of(env.single_observation_space) == env.schema == smax_schema("2s3z")
    assert env.observation_space.contains(observation)
    assert env.action_space.shape == (3, 5)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP


@pytest.mark.parametrize("map_name", ["2s3z", "5m_vs_6m", "smacv2_5_units"])  # those compiled anyway
def test_observations__keep_the_contract_through_episodes(map_name: str, smax: Smax) -> None:
    env = smax(map_name)
    agent = RandomAgent(env.schema)
    agent.reset(env.num_envs, seed=1)
    observation, _ = env.reset(seed=7)
    started = np.ones(env.num_envs, bool)
    ends = 0
    for _ in range(120):
        env.schema.check(observation, batch_shape=(env.num_envs,))
        assert all(array.flags.writeable for array in observation.values())  # torch warns about read-only ones
        observation, _, terminated, truncated, _ = env.step(agent.act(observation, started, greedy=False))
        ends += int((terminated | truncated).sum())
    assert ends >= 3


# The schema's boxes are unbounded on purpose: feature ranges are declared for scaling, not enforced.
@pytest.mark.filterwarnings("ignore:.*A Box observation space (minimum|maximum) value is:UserWarning")
def test_single_env__passes_gymnasiums_checker(smax_single: SmaxEnv) -> None:
    check_env(smax_single, skip_render_check=True)


# -- moving --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "direction"),
    [(NORTH, (0, 1)), (EAST, (1, 0)), (SOUTH, (0, -1)), (WEST, (-1, 0)), (STOP, (0, 0))],
)
def test_verbs__move_units_in_their_direction(option: int, direction: tuple[int, int], smax: Smax) -> None:
    env = smax("2s3z")
    names = env.schema.entity_type("ally").feature_names
    xy, last_move = (
        [names.index("x"), names.index("y")],
        [names.index("last_move_x"), names.index("last_move_y")],
    )
    before, _ = env.reset(seed=0)
    after, *_ = env.step(_all(env, option))
    moved = (after["entities/ally"] - before["entities/ally"])[..., xy].mean(axis=(0, 1))
    np.testing.assert_allclose(moved / max(np.linalg.norm(moved), 1.0), direction, atol=0.05)
    np.testing.assert_allclose(after["entities/ally"][..., last_move], np.broadcast_to(direction, (3, 5, 2)), atol=1e-6)


# -- ends of episodes ----------------------------------------------------------------------------------------


def test_time_limit__is_truncation_and_keeps_the_last_observation(smax: Smax) -> None:
    env = smax("2s3z")
    env.reset(seed=0)
    _edit_world(env, step=_steps(env, TIME_LIMIT - 2))
    _, _, terminated, truncated, infos = env.step(_all(env, STOP))
    assert not terminated.any()
    assert not truncated.any()
    assert infos == {}
    last, _, terminated, truncated, infos = env.step(_all(env, STOP))
    assert truncated.all()
    assert not terminated.any()
    assert (last["globals"] == 1.0).all()
    assert not infos["won"].any()


def test_battle_decided_in_the_last_step__is_termination(smax: Smax) -> None:
    env = smax("2s3z")
    env.reset(seed=0)
    _edit_world(env, step=_steps(env, TIME_LIMIT - 1), unit_health=_health(env, ally=35.0, enemy=0.0))
    _, reward, terminated, truncated, infos = env.step(_all(env, STOP))
    assert terminated.all()
    assert not truncated.any()
    np.testing.assert_array_equal(reward, 1.0)  # the bonus; the enemies' health was taken outside of a step
    assert infos["won"].all()
    np.testing.assert_array_equal(infos["allies_left"], 5)
    np.testing.assert_array_equal(infos["enemies_left"], 0)
    np.testing.assert_allclose(infos["damage_dealt"], 5.0)


def test_battle_that_nobody_survives__is_not_won(smax: Smax) -> None:
    env = smax("2s3z")
    env.reset(seed=0)
    _edit_world(env, unit_health=_health(env, ally=0.0, enemy=0.0))
    observation, reward, terminated, _, infos = env.step(_all(env, STOP))
    assert terminated.all()
    assert not infos["won"].any()
    np.testing.assert_array_equal(reward, 0.0)
    assert not observation["action_mask"].any()  # nobody is left to act, and the last observation says so
    env.schema.check(observation, batch_shape=(3,))


def test_autoreset__starts_the_next_episode_one_step_later_and_in_ended_environments_only(smax: Smax) -> None:
    env = smax("2s3z")
    first, _ = env.reset(seed=0)
    _edit_world(env, step=np.array([TIME_LIMIT - 1, 5, TIME_LIMIT - 1], np.int32))
    _, _, terminated, truncated, infos = env.step(_all(env, EAST))
    np.testing.assert_array_equal(truncated, [True, False, True])
    for key in INFO_KEYS:
        np.testing.assert_array_equal(infos[f"_{key}"], [True, False, True])
    new, reward, terminated, truncated, infos = env.step(_all(env, EAST))
    assert not (terminated | truncated).any()
    assert infos == {}
    np.testing.assert_array_equal(reward[[0, 2]], 0.0)
    np.testing.assert_allclose(new["globals"][:, 0], [0.0, 7 / TIME_LIMIT, 0.0], atol=1e-6)
    last_move_x = env.schema.entity_type("ally").feature_names.index("last_move_x")
    np.testing.assert_allclose(new["entities/ally"][:, 0, last_move_x], [0.0, 1.0, 0.0], atol=1e-6)
    assert not np.array_equal(new["entities/ally"][0], first["entities/ally"][0])  # another start, not the same one


def test_walls__kill_unless_told_otherwise(smax: Smax) -> None:
    deadly, harmless = smax("2s3z"), SmaxVectorEnv("2s3z", 1, walls_cause_death=False)
    for env, survivors in ((deadly, 0), (harmless, 5)):
        observation, _ = env.reset(seed=0)
        for _ in range(12):
            observation, _, terminated, *_ = env.step(_all(env, SOUTH))
            if terminated.any():
                break
        assert observation["entity_mask/ally"][0].sum() == survivors


# -- infos ---------------------------------------------------------------------------------------------------


def test_single_env__tells_the_same_infos_in_every_step_and_adds_up_the_rewards(smax_single: SmaxEnv) -> None:
    env = smax_single
    agent = RandomAgent(env.schema)
    agent.reset(1, seed=3)
    observation, info = env.reset(seed=2)
    assert info == {}
    over, total = False, 0.0
    while not over:
        batch = {key: values[None] for key, values in observation.items()}
        observation, reward, terminated, truncated, info = env.step(agent.act(batch, np.zeros(1, bool), False)[0])
        assert info.keys() == INFO_KEYS
        assert info["allies_left"] == observation["entity_mask/ally"].sum()
        total, over = total + reward, terminated or truncated
    # SMAX pays lost health averaged over enemies, and damage is its sum; random play does not win the bonus
    assert not info["won"]
    assert total * 5 == pytest.approx(info["damage_dealt"], abs=1e-4)
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\) first"):
        env.step(np.full(5, STOP))


def _attack_the_first(observation: dict[str, Any], idle: int) -> Any:
    """Everybody attacks the first enemy in range, else walks east; one ally stops."""
    legal = observation["action_mask"][:, :, 5:]
    actions = np.where(legal.any(axis=-1), 5 + legal.argmax(axis=-1), EAST)
    actions[:, idle] = STOP
    return actions


def test_units__share_damage_and_kills_by_who_shot(smax: Smax) -> None:
    env = smax("2s3z")
    observation, _ = env.reset(seed=3)
    ended, found = np.zeros(3, bool), []
    for _ in range(101):
        observation, _, terminated, truncated, infos = env.step(_attack_the_first(observation, idle=1))
        for index in np.flatnonzero((terminated | truncated) & ~ended):
            info = info_of(infos, int(index))
            units = info["units"]
            assert units["kind"].tolist() == ["stalker"] * 2 + ["zealot"] * 3
            assert units["survived"].sum() == info["allies_left"]
            assert units["damage_taken"].sum() == pytest.approx(info["damage_taken"], abs=1e-4)
            # nobody walked into a wall, so that every loss has its shots
            assert units["damage_dealt"].sum() == pytest.approx(info["damage_dealt"], abs=1e-3)
            assert units["kills"].sum() == pytest.approx(5 - info["enemies_left"], abs=1e-3)
            assert units["damage_dealt"][1] == units["kills"][1] == 0.0  # it never attacked
            found.append(units)
        ended |= terminated | truncated
    assert ended.all()
    assert sum(units["kills"].sum() for units in found) > 2.0
    assert any((units["damage_dealt"] > 0.0).sum() > 1 for units in found)


def test_units__share_a_death_by_the_strength_of_their_shots(smax: Smax) -> None:
    env = smax("2s3z")
    env.reset(seed=0)
    around = [[0.0, 1.0], [0.0, -1.0], [1.0, 0.0], [-1.0, 0.0], [5.0, 12.0]]
    positions = [*([16.0 + x, 16.0 + y] for x, y in around), [16.0, 16.0], *([28.0, 4.0 + y] for y in range(4))]
    health = _health(env, ally=1.0, enemy=0.0)
    health[:, 5] = 1e-3
    _edit_world(
        env,
        unit_positions=np.tile(np.array(positions, np.float32), (3, 1, 1)),
        unit_health=health,
        # Cooldowns go on falling while a unit walks; who has been idle for long still shoots but once.
        unit_weapon_cooldowns=np.tile(np.float32([0.0, -5.0, -0.3, -9.0, -5.0, *[0.0] * 5]), (3, 1)),
    )
    *_, terminated, _, infos = env.step(_all(env, 5))  # two stalkers and two zealots reach it, the third is too far away
    assert terminated.all()
    stalker, zealot = 13.0 / (2 * 13.0 + 2 * 8.0), 8.0 / (2 * 13.0 + 2 * 8.0)
    expected = [[stalker, stalker, zealot, zealot, 0.0]] * 3
    np.testing.assert_allclose(infos["units"]["kills"], expected, rtol=1e-5)


def test_units__have_no_part_in_deaths_at_walls(smax: Smax) -> None:
    env = smax("2s3z")
    env.reset(seed=0)
    _edit_world(env, unit_health=_health(env, ally=1.0, enemy=0.0))
    *_, infos = env.step(_all(env, STOP))
    assert infos["won"].all()
    assert not infos["units"]["kills"].any()
    assert not infos["units"]["damage_dealt"].any()


# -- seeds ---------------------------------------------------------------------------------------------------


def test_seed__reproduces_episodes_across_autoresets(smax: Smax) -> None:
    env = smax("2s3z")
    rollouts = []
    for _ in range(2):
        observation, _ = env.reset(seed=21)
        arrays = [observation]
        for step in range(60):
            observation, *_ = env.step(_all(env, EAST if step % 2 else STOP))
            arrays.append(observation)
        rollouts.append(arrays)
    for left, right in zip(*rollouts, strict=True):
        for key in left:
            np.testing.assert_array_equal(left[key], right[key])


def test_seed__tells_environments_and_resets_apart(smax: Smax) -> None:
    env = smax("2s3z")
    starts = [env.reset(seed=seed)[0]["entities/ally"] for seed in (4, 5, None, None)]
    assert len({start.tobytes() for batch in starts for start in batch}) == 3 * 4 - 2  # seed 4 + 1 is seed 5 + 0, …
    np.testing.assert_array_equal(starts[0][1:], starts[1][:2])


def test_seed__may_be_given_for_each_environment(smax: Smax) -> None:
    env = smax("2s3z")
    starts = env.reset(seed=[9, 2**40, 9])[0]["entities/ally"]
    np.testing.assert_array_equal(starts[0], starts[2])
    assert not np.array_equal(starts[0], starts[1])
    np.testing.assert_array_equal(env.reset(seed=9)[0]["entities/ally"][0], starts[0])
    with pytest.raises(ValueError, match="got 2 seeds, expected one integer, or one seed for each of 3"):
        env.reset(seed=[1, 2])


def test_vector_env__plays_the_same_battles_as_single_ones(smax: Smax, smax_single: SmaxEnv) -> None:
    vector, single = smax("2s3z"), smax_single
    for index in range(vector.num_envs):
        batch, _ = vector.reset(seed=30)
        alone, _ = single.reset(seed=30 + index)
        for step in range(30):
            for key in alone:
                np.testing.assert_allclose(batch[key][index], alone[key], atol=1e-3)
            batch, rewards, *_ = vector.step(_all(vector, EAST if step < 12 else 5 + step % 5))
            alone, reward, *_ = single.step(np.full(5, EAST if step < 12 else 5 + step % 5))
            assert rewards[index] == pytest.approx(reward, abs=1e-4)


# -- as RLlib uses it ----------------------------------------------------------------------------------------


def test_vector_entry_point__takes_the_native_vector_env_and_lists_its_infos(smax: Smax) -> None:
    name = "test-smax-v0"
    gymnasium.register(name, vector_entry_point=lambda num_envs: smax("2s3z"))
    try:
        made = gymnasium.make_vec(name, num_envs=3, vectorization_mode="vector_entry_point")
    finally:
        del gymnasium.registry[name]
    env = made.unwrapped
    assert isinstance(env, SmaxVectorEnv)
    listed = DictInfoToList(made)
    _, infos = listed.reset(seed=0)
    assert infos == [{}, {}, {}]
    _edit_world(env, step=np.array([0, TIME_LIMIT - 1, 0], np.int32))
    *_, infos = listed.step(_all(env, STOP))
    assert [set(info) for info in infos] == [set(), INFO_KEYS, set()]


# -- errors --------------------------------------------------------------------------------------------------


def test_unknown_arguments__list_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"SMAX map: got '2s4z', expected one of 3m, 2s3z, .*27m_vs_30m"):
        SmaxVectorEnv("2s4z")
    with pytest.raises(ValueError, match="control: got 'telepathic', expected one of centralized"):
        SmaxVectorEnv("2s3z", control="telepathic")
    with pytest.raises(ValueError, match="enemy_attack_mode: got 'weakest', expected one of closest, random"):
        SmaxEnv("2s3z", enemy_attack_mode="weakest")
    with pytest.raises(ValueError, match="num_envs: got 0, expected at least 1"):
        SmaxVectorEnv("2s3z", num_envs=0)


def test_step__rejects_actions_that_do_not_exist(smax: Smax) -> None:
    env = smax("2s3z")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"actions of smax/2s3z: got int64 of shape \[3, 4\], .* = \[3, 5\]"):
        env.step(np.zeros((3, 4), int))
    with pytest.raises(ValueError, match=r"got float64 of shape \[3, 5\], expected one integer option"):
        env.step(np.zeros((3, 5)))
    for option in (10, -1):
        actions = _all(env, STOP)
        actions[2, 4] = option
        with pytest.raises(ValueError, match=f"environment 2, ally 4: got option {option}, expected 0 to 9"):
            env.step(actions)


def test_step__before_the_first_reset_says_so() -> None:
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"never reset; call reset\(\) first"):
        SmaxVectorEnv("2s3z").step(np.full((1, 5), STOP))


def test_without_jaxmarl__says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "envs.smax_dynamics", raising=False)
    monkeypatch.delattr(envs, "smax_dynamics", raising=False)
    monkeypatch.setitem(sys.modules, "jaxmarl.environments.smax", None)
    with pytest.raises(ImportError, match=r"need the package 'jaxmarl'.*pip install 'perceiver-rl\[smax\]'"):
        SmaxVectorEnv("2s3z")

    monkeypatch.setitem(sys.modules, "jaxmarl", None)
    with pytest.raises(ImportError, match=r"need the package 'jaxmarl'.*pip install 'perceiver-rl\[smax\]'"):
        map_names()


def test_map_names__are_jaxmarls_and_told_without_it() -> None:
    assert map_names() == list(map_sizes())
    program = "import sys, envs.smax; assert envs.smax.map_names(); sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_import__prints_nothing_and_leaves_the_streams_alone() -> None:
    program = """
import io, sys
out = sys.stdout = io.StringIO()
err = sys.stderr = io.StringIO()
import envs.smax_dynamics
sys.exit(sys.stdout is not out or sys.stderr is not err or out.getvalue() + err.getvalue() != "")
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
