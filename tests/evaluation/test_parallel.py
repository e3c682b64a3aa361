"""Evaluation in multi-agent environments."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.random_agent import RandomAgent
from perceiver_rl.entities import ACTION_MASK, EntitySchema, Observation
from perceiver_rl.evaluation.arena import ParallelArena
from perceiver_rl.evaluation.parallel import RETURN_PER_AGENT, evaluate_parallel
from perceiver_rl.evaluation.statistics import summarize
from tests.parallel_environments import COURIER, SCHEMAS, TIME_LIMIT, Deliveries, make_deliveries

COURIERS = {f"courier_{number}": "courier" for number in range(4)}
BOTH = COURIERS | {f"porter_{number}": "porter" for number in range(4)}


class _Knows:
    """Delivers right, and notes what it is shown."""

    def __init__(self, schema: EntitySchema) -> None:
        self._kind = schema.actors[0]
        self.calls: list[tuple[Observation, NDArray[np.bool_], bool]] = []

    def reset(self, num_envs: int, seed: int) -> None:
        self.calls = []

    def act(self, observation: Observation, started: NDArray[np.bool_], greedy: bool) -> NDArray[np.int64]:
        self.calls.append((observation, started, greedy))
        wanted = observation[f"entities/{self._kind}"][:, :1, 0] * (1 if self._kind == "courier" else -1)
        right = (observation["entities/post"][:, :, 0] == wanted) & observation["entity_mask/post"]
        return 1 + right.argmax(axis=1, keepdims=True)


def _lives(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many act in each step of each environment, from here on."""
    acting: list[int] = []
    step = Deliveries.step

    def counting(env: Deliveries, actions: Any) -> Any:
        acting.append(len(actions))
        return step(env, actions)

    monkeypatch.setattr(Deliveries, "step", counting)
    return acting


def test_evaluation__stacks_everybody_alive_into_one_call_for_each_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    acting = _lives(monkeypatch)
    knowing = {kind: _Knows(schema) for kind, schema in SCHEMAS.items()}
    envs = [make_deliveries(("courier", "porter")) for _ in range(3)]
    records = evaluate_parallel(knowing, BOTH, envs, episodes_per_env=2, seed=0, greedy=True)
    assert [record.length for record in records] == [TIME_LIMIT] * 6
    rows = {kind: [len(started) for _, started, _ in agent.calls] for kind, agent in knowing.items()}
    # All environments' episodes are of one length here, so each step of all is one call: none has no courier in it.
    assert len(rows["courier"]) == 2 * TIME_LIMIT
    assert sum(rows["courier"]) + sum(rows["porter"]) == sum(acting)
    assert len(set(rows["courier"])) > 1
    # Whoever delivers right in every step gets one for each step lived.
    assert sum(record.total_reward for record in records) == sum(acting)
    # Each agent has one first observation in each episode that it lives in.
    started = sum(int(first.sum()) for agent in knowing.values() for _, first, _ in agent.calls)
    mean = np.mean([record.info[RETURN_PER_AGENT] for record in records])
    assert 1 < mean < TIME_LIMIT
    assert started <= 6 * len(BOTH)
    assert all(greedy for agent in knowing.values() for _, _, greedy in agent.calls)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda seen: seen["entities/post"].__setitem__((0, 1), np.nan),
            "feature 'brightness', entity 0: got nan",
        ),
        (lambda seen: seen["entity_mask/post"].__setitem__(0, False), "legal option 'deliver post 0', but post 0 is absent"),
        (lambda seen: seen.update({"globals": np.zeros(2, np.float32)}), r"observation\['globals'\]: got float32 array of"),
        (lambda seen: seen.pop("globals"), r"observation keys: missing \['globals'\]"),
    ],
)
def test_evaluation__tells_whose_observation_does_not_keep_the_contract(
    spoil: Callable[[dict[str, Any]], Any], message: str
) -> None:
    envs = [make_deliveries() for _ in range(2)]
    step = envs[1].step

    def spoilt(actions: Any) -> Any:
        observations, *rest = step(actions)
        spoil(observations["courier_0"])
        return observations, *rest

    envs[1].step = spoilt  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=message) as caught:
        evaluate_parallel({"courier": _Knows(COURIER)}, COURIERS, envs, episodes_per_env=1, seed=0, greedy=True)
    assert "of agent 'courier_0' in step 1 of an evaluation's episode in environment 1" in caught.value.__notes__


def test_evaluation__repeats_itself_by_seed() -> None:
    def play(seed: int) -> list[float]:
        random = {"courier": RandomAgent(COURIER)}
        records = evaluate_parallel(
            random, COURIERS, [make_deliveries(), make_deliveries()], episodes_per_env=3, seed=seed, greedy=False
        )
        return [record.total_reward for record in records]

    assert play(0) == play(0)
    assert play(0) != play(1)


def test_evaluation__seeds_each_policy_and_the_environments_by_streams_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def seeds(seed: int) -> list[int]:
        given: list[int] = []
        reset = Deliveries.reset

        def resetting(env: Deliveries, seed: int | None = None, options: Any = None) -> Any:
            given.extend([] if seed is None else [seed])
            return reset(env, seed, options)

        class Seeded(_Knows):
            def reset(self, num_envs: int, seed: int) -> None:
                super().reset(num_envs, seed)
                given.append(seed)

        with monkeypatch.context() as patch:
            patch.setattr(Deliveries, "reset", resetting)
            policies = {kind: Seeded(schema) for kind, schema in SCHEMAS.items()}
            envs = [make_deliveries(("courier", "porter")) for _ in range(2)]
            evaluate_parallel(policies, BOTH, envs, episodes_per_env=2, seed=seed, greedy=False)
        return given

    first, again, other = seeds(0), seeds(0), seeds(1)
    assert len(first) == len(SCHEMAS) + 2  # each environment's first episode alone is seeded
    assert first == again
    assert len(set(first + other)) == 2 * len(first)


def test_evaluation__tells_a_policy_whose_first_observation_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    acting: list[list[str]] = []
    step = Deliveries.step

    def noting(env: Deliveries, actions: Any) -> Any:
        acting.append(list(actions))
        return step(env, actions)

    monkeypatch.setattr(Deliveries, "step", noting)
    agent, envs = _Knows(COURIER), [make_deliveries() for _ in range(2)]
    evaluate_parallel({"courier": agent}, COURIERS, envs, episodes_per_env=2, seed=0, greedy=True)
    expected: list[bool] = []
    seen: list[set[str]] = []
    for number, names in enumerate(acting):  # both environments in turns, and all episodes are of one length
        if number % (2 * TIME_LIMIT) == 0:
            seen = [set(), set()]
        expected += [name not in seen[number % 2] for name in names]
        seen[number % 2] |= set(names)
    assert [first for _, started, _ in agent.calls for first in started.tolist()] == expected
    assert 4 < sum(expected) < len(expected)  # not those alone with whom an episode begins


def test_evaluation__plays_as_many_episodes_in_each_environment_and_tells() -> None:
    told: list[tuple[int, int]] = []
    records = evaluate_parallel(
        {"courier": RandomAgent(COURIER)},
        COURIERS,
        [make_deliveries(number=1), make_deliveries(number=1)],
        episodes_per_env=2,
        seed=0,
        greedy=False,
        on_episode=lambda done, total: told.append((done, total)),
    )
    assert len(records) == 4
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_evaluation__averages_the_numbers_of_each_agents_last_info(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Deliveries.step

    def telling(env: Deliveries, actions: Any) -> Any:
        *others, infos = step(env, actions)
        # courier_1 tells something of its own; all tell how far the episode is, the dead until they died
        return *others, {
            agent: {"age": env._time, "name": agent} | ({"own": 7} if agent == "courier_1" else {}) for agent in infos
        }

    monkeypatch.setattr(Deliveries, "step", telling)
    lived = _lives(monkeypatch)
    (record,) = evaluate_parallel(
        {"courier": RandomAgent(COURIER)}, COURIERS, [make_deliveries()], episodes_per_env=1, seed=0, greedy=False
    )
    assert set(record.info) == {"age", "own", RETURN_PER_AGENT}
    assert record.info["own"] == 7.0
    assert len(set(lived)) > 1  # some died early
    assert 1 < record.info["age"] < TIME_LIMIT


@pytest.mark.parametrize(
    ("told", "won"),
    [((True, True), True), ((False, False), False), ((True, False), None), ((None, True), True), ((None, None), None)],
)
def test_evaluation__was_won_if_all_who_tell_agree(
    told: tuple[bool | None, bool | None], won: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Deliveries.step

    def telling(env: Deliveries, actions: Any) -> Any:
        *others, infos = step(env, actions)
        of = dict(zip(("courier_0", "courier_1"), told, strict=True))
        return *others, {
            agent: {"kills": np.nan if agent == "courier_0" else 3.0} | ({} if of.get(agent) is None else {"won": of[agent]})
            for agent in infos
        }

    monkeypatch.setattr(Deliveries, "step", telling)
    (record,) = evaluate_parallel(
        {"courier": RandomAgent(COURIER)}, COURIERS, [make_deliveries()], episodes_per_env=1, seed=0, greedy=False
    )
    assert record.won is won
    assert "won" not in record.info
    assert record.info["kills"] == 3.0  # of those who tell a number


def test_evaluation__wants_finite_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Deliveries.step

    def broken(env: Deliveries, actions: Any) -> Any:
        observations, rewards, *others = step(env, actions)
        return observations, dict.fromkeys(rewards, np.nan), *others

    monkeypatch.setattr(Deliveries, "step", broken)
    with pytest.raises(ValueError, match="reward of 'courier_0': got nan, expected finite numbers") as caught:
        evaluate_parallel(
            {"courier": RandomAgent(COURIER)}, COURIERS, [make_deliveries()], episodes_per_env=1, seed=0, greedy=False
        )
    assert "in step 1" in "".join(caught.value.__notes__)


def test_evaluation__tells_of_mistakes() -> None:
    random = {"courier": RandomAgent(COURIER)}
    with pytest.raises(ValueError, match="episodes_per_env: got 0, expected at least 1"):
        evaluate_parallel(random, COURIERS, [make_deliveries()], episodes_per_env=0, seed=0, greedy=False)
    with pytest.raises(ValueError, match="agent 'courier_0': got no policy, expected one of courier_9"):
        evaluate_parallel(random, {"courier_9": "courier"}, [make_deliveries()], episodes_per_env=1, seed=0, greedy=False)

    class Broken(_Knows):
        def act(self, observation: Observation, started: NDArray[np.bool_], greedy: bool) -> NDArray[np.int64]:
            return np.full((len(started), 1), 9)

    with pytest.raises(ValueError, match=r"got \[9\], expected one option") as caught:
        evaluate_parallel(
            {"courier": Broken(COURIER)}, COURIERS, [make_deliveries()], episodes_per_env=1, seed=0, greedy=False
        )
    assert "in step 1 of an evaluation's episode in environment 0" in (str(caught.value) + "".join(caught.value.__notes__))


def test_arena__finds_the_schemas_of_policies() -> None:
    options = {"kinds": ("courier", "porter")}
    arena = ParallelArena("tests.parallel_environments:make_deliveries", 2, options, BOTH)
    assert arena.schemas == SCHEMAS
    assert arena.control == "per agent"
    records = arena.play(
        {kind: RandomAgent(schema) for kind, schema in SCHEMAS.items()},
        episodes_per_env=1,
        seed=0,
        greedy=False,
        on_episode=lambda done, total: None,
    )
    arena.close()
    summary = summarize(records, env="deliveries", policy="random", mode="sampled", seed=0, control=arena.control)
    assert summary.win_rate is None
    assert summary.return_per_agent_mean is not None
    assert summary.return_per_agent_mean < summary.return_mean
    with pytest.raises(ValueError, match="got agent 'porter_0', which the checkpoint has no policy for"):
        ParallelArena("tests.parallel_environments:make_deliveries", 1, options, COURIERS)


def test_random_agent__keeps_to_what_is_legal_where_numbers_change() -> None:
    observations, _ = make_deliveries().reset(seed=0)
    batch = {key: np.stack([each[key] for each in observations.values()]) for key in observations["courier_0"]}
    agent = RandomAgent(COURIER)
    agent.reset(1, 0)
    chosen = agent.act(batch, np.ones(len(observations), bool), False)
    assert np.take_along_axis(batch[ACTION_MASK], chosen[..., None], axis=-1).all()
