"""The contract check: sound environments pass, and for each promise there is one that breaks it and is told so."""

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from envs.registry import make
from perceiver_rl.entities import EntitySchema, EntityType, Observation, TargetedVerb
from perceiver_rl.testing import check_entity_env
from tests.environments import CourierVectorEnv, FaultyCourierVectorEnv

STEPS = 30


# -- environments of many agents -------------------------------------------------------------------------------


class Ferry:
    """A parallel environment as PettingZoo has them: passengers leave one by one, each when it points at the quay."""

    schema = EntitySchema(
        entity_types=(EntityType("passenger", ("age",), 1), EntityType("quay", ("distance",), 3)),
        actors=("passenger",),
        verbs=("wait",),
        targeted_verbs=(TargetedVerb("leave_at", "quay"),),
    )
    possible_agents = ["ann", "bob"]  # noqa: RUF012

    def __init__(self) -> None:
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> Any:
        return self.schema.observation_space

    def action_space(self, agent: str) -> Any:
        return self.schema.action_space

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Observation], dict[str, Any]]:
        if seed is not None:
            self._random = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        return {agent: self._observe() for agent in self.agents}, {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        acting = self.agents
        left = {agent: bool(actions[agent][0]) for agent in acting}
        self.agents = [agent for agent in acting if not left[agent]]
        rewards = {agent: float(left[agent]) for agent in acting}
        return {agent: self._observe() for agent in acting}, rewards, left, dict.fromkeys(acting, False), {}

    def close(self) -> None:
        pass

    def _observe(self) -> Observation:
        quays = self._random.random((int(self._random.integers(1, 4)), 1))
        return self.schema.pack(
            {"passenger": [[1.0]], "quay": quays}, [[True] * (1 + len(quays)) + [False] * (3 - len(quays))]
        )


# -- what keeps every promise ----------------------------------------------------------------------------------


def test_check__passes_a_sound_vector_environment_and_tells_what_it_met() -> None:
    report = check_entity_env(lambda: CourierVectorEnv(3), steps=STEPS)
    assert report.num_episodes > 9
    assert report.met_absent_actor
    assert {"wait", "deliver post 4"} <= report.options_tried


def test_check__takes_an_environment_as_well_as_a_function_that_makes_one() -> None:
    assert check_entity_env(CourierVectorEnv(3), steps=STEPS) == check_entity_env(lambda: CourierVectorEnv(3), steps=STEPS)


def test_check__passes_a_sound_single_environment() -> None:
    assert check_entity_env(lambda: make("task/minefield"), steps=60).num_episodes > 0


def test_check__passes_a_sound_environment_of_many_agents() -> None:
    report = check_entity_env(Ferry, steps=STEPS)
    assert report.num_episodes > 3
    assert report.options_tried == {"wait", "leave_at quay 0", "leave_at quay 1", "leave_at quay 2"}


def test_check__does_not_read_absent_slots() -> None:
    class NaNs(CourierVectorEnv):
        def _observe(self) -> Observation:
            observation = super()._observe()
            noise = np.random.default_rng().random((self.num_envs, 5, 2)).astype(np.float32)
            noise[..., 0] = np.nan
            observation["entities/post"] = np.where(
                observation["entity_mask/post"][..., None], observation["entities/post"], noise
            )
            return observation

    check_entity_env(lambda: NaNs(3), steps=STEPS)


def test_check__needs_neither_torch_nor_ray_nor_pettingzoo() -> None:
    code = "import sys, perceiver_rl.testing; assert not {'torch', 'ray', 'pettingzoo', 'jax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# -- what breaks one each --------------------------------------------------------------------------------------


class OtherActions(CourierVectorEnv):
    def __init__(self) -> None:
        super().__init__(3)
        self.single_action_space = gymnasium.spaces.MultiDiscrete([7] * 4)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, 3)


class OtherBatch(CourierVectorEnv):
    def __init__(self) -> None:
        super().__init__(3)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, 4)


class NoSchema(CourierVectorEnv):
    def __init__(self) -> None:
        super().__init__(3)
        self.single_observation_space = gymnasium.spaces.Dict(self.single_observation_space.spaces)


class LastObservationIsNaN(CourierVectorEnv):
    def _observe(self) -> Observation:
        observation = super()._observe()
        observation["entities/courier"][self._resetting] = np.nan
        return observation


class NobodyThere(CourierVectorEnv):
    def _observe(self) -> Observation:
        observation = super()._observe()
        gone = self._step_number == 1
        observation["entity_mask/courier"][gone] = False
        observation["action_mask"][gone] = False
        return observation


class Steps(CourierVectorEnv):
    """Changes what `step` returns."""

    def __init__(self) -> None:
        super().__init__(3)

    def step(self, actions: Any) -> Any:
        return self.changed(actions, self._resetting.copy(), *super().step(actions))

    def changed(self, actions: Any, resetting: Any, observation: Any, reward: Any, terminated: Any, *rest: Any) -> Any:
        raise NotImplementedError


class NaNReward(Steps):
    def changed(self, actions: Any, resetting: Any, observation: Any, reward: Any, *rest: Any) -> Any:
        return observation, np.where(self._step_number == 2, np.nan, reward), *rest


class TextReward(Steps):
    def changed(self, actions: Any, resetting: Any, observation: Any, reward: Any, *rest: Any) -> Any:
        return observation, np.array(["one"] * 3), *rest


class OneReward(Steps):
    def changed(self, actions: Any, resetting: Any, observation: Any, reward: Any, *rest: Any) -> Any:
        return observation, float(reward.mean()), *rest


class FourValues(Steps):
    def changed(self, actions: Any, resetting: Any, *values: Any) -> Any:
        return values[:4]


class FewerEnvironments(Steps):
    def changed(self, actions: Any, resetting: Any, observation: Any, *rest: Any) -> Any:
        return {key: array[:2] for key, array in observation.items()}, *rest


class NotArrays(Steps):
    def changed(self, actions: Any, resetting: Any, observation: Any, *rest: Any) -> Any:
        return observation | {"action_mask": observation["action_mask"].tolist()}, *rest


class RefusesOption(Steps):
    def changed(self, actions: Any, resetting: Any, *values: Any) -> Any:
        present = values[0]["entity_mask/courier"]
        if (actions[present] == 3).any():
            raise KeyError("post 2")
        return values


class PaysForResets(Steps):
    def changed(self, actions: Any, resetting: Any, observation: Any, reward: Any, *rest: Any) -> Any:
        return observation, np.where(resetting, 0.5, reward), *rest


class EndsInResets(Steps):
    def changed(self, actions: Any, resetting: Any, observation: Any, reward: Any, terminated: Any, *rest: Any) -> Any:
        return observation, reward, terminated | resetting, *rest


class NeverEnds(Steps):
    def changed(self, actions: Any, resetting: Any, observation: Any, reward: Any, *rest: Any) -> Any:
        never = np.zeros(3, bool)
        return observation, reward, never, never, {}


class ReadsResettingActions(Steps):
    def changed(self, actions: Any, resetting: Any, observation: Any, *rest: Any) -> Any:
        observation["entities/courier"][resetting, :, 0] = actions[resetting, :]
        return observation, *rest


class ReadsAbsentActions(CourierVectorEnv):
    def step(self, actions: Any) -> Any:
        absent = ~self._observation["entity_mask/courier"]
        observation, reward, *rest = super().step(actions)
        return observation, reward + np.where(self._step_number == 0, 0, (actions * absent).sum(axis=1)), *rest


class RaisesAtAbsentActions(CourierVectorEnv):
    def step(self, actions: Any) -> Any:
        if (actions * ~self._observation["entity_mask/courier"]).any():
            raise IndexError("no such courier")
        return super().step(actions)


class SharesArrays(CourierVectorEnv):
    def _observe(self) -> Observation:
        observation = super()._observe()
        if not hasattr(self, "_shared"):
            self._shared = observation["action_mask"]
        self._shared[:] = observation["action_mask"]
        return observation | {"action_mask": self._shared}


class SharesRewards(Steps):
    _rewards = np.zeros(3)

    def changed(self, actions: Any, resetting: Any, observation: Any, reward: Any, *rest: Any) -> Any:
        self._rewards[:] = reward
        return observation, self._rewards, *rest


class IgnoresSeeds(CourierVectorEnv):
    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return super().reset(seed=None if hasattr(self, "_random") else 5)


class HasOneSeed(CourierVectorEnv):
    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return super().reset(seed=5)


class ForgetsTheLeaving(Ferry):
    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        observations, *rest = super().step(actions)
        return {agent: observations[agent] for agent in self.agents}, *rest


class ForgetsTruncations(Ferry):
    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        observations, rewards, terminated, _, infos = super().step(actions)
        return observations, rewards, terminated, {}, infos


class ForgetsTheStaying(Ferry):
    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        observations, infos = super().reset(seed)
        return {"ann": observations["ann"]}, infos


class Untyped(gymnasium.Env[Any, Any]):
    """Returns numbers where it should return a dict of arrays."""

    observation_space = Ferry.schema.observation_space
    action_space = Ferry.schema.action_space

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return np.zeros(3), {}


BROKEN: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: OtherActions(),
        "promise 'spaces', environment 0: got action space MultiDiscrete([7 7 7 7]), expected MultiDiscrete([6 6",
    ),
    (
        lambda: OtherBatch(),
        "promise 'spaces': got action_space Box(0, 5, (4, 4), int64), expected single_action_space for 3 environments",
    ),
    (lambda: NoSchema(), "observation space: got Dict, expected the EntityObservationSpace of an EntitySchema"),
    (lambda: CourierVectorEnv(3, AutoresetMode.SAME_STEP), "expected AutoresetMode.NEXT_STEP"),
    (lambda: Untyped(), "promise 'contract', step 0, observation: got a ndarray, expected a dict of arrays"),
    (lambda: NotArrays(), "promise 'contract', step 1, observation['action_mask']: got a list, expected a numpy array"),
    (lambda: FewerEnvironments(), "expected a leading axis of 3 environments"),
    (
        lambda: FaultyCourierVectorEnv(3),
        "promise 'contract', environment 0, step 19, observation: entity type 'post', feature 'brightness'",
    ),
    (
        lambda: LastObservationIsNaN(3),
        "promise 'contract', environment 1, step 2, an episode's last observation: entity type 'courier'",
    ),
    (lambda: NobodyThere(3), "promise 'an actor is present', environment 0, step 1: got entity_mask/courier all False"),
    (lambda: NaNReward(), "promise 'finite rewards', environment 0, step 2: got reward nan, expected a finite number"),
    (lambda: TextReward(), "promise 'finite rewards', environment 0, step 1: got reward "),
    (lambda: OneReward(), "promise 'spaces', step 1: got reward of shape [], expected one for each environment, shape [3]"),
    (
        lambda: FourValues(),
        "step 1: step returned a tuple of 4, expected (observation, reward, terminated, truncated, info)",
    ),
    (lambda: RefusesOption(), "a legal action raised KeyError: 'post 2'; expected every option that action_mask allows"),
    (lambda: PaysForResets(), "step 3, the one after an episode's end: got reward 0.5, expected reward 0"),
    (
        lambda: EndsInResets(),
        "promise 'reset in the next step', environment 1, step 3, the one after an episode's end: got an episode's end",
    ),
    (
        lambda: NeverEnds(),
        "promise 'episodes end': got no end in 30 steps of random legal actions, expected one; raise `steps`",
    ),
    (lambda: ReadsResettingActions(), "entities/courier[0, 0]: got "),
    (
        lambda: ReadsAbsentActions(3),
        "after other actions of absent actors; expected the same to the digit: ignore the action of actors",
    ),
    (lambda: RaisesAtAbsentActions(3), "promise 'ignored actions', step "),
    (
        lambda: SharesArrays(3),
        "promise 'arrays are yours', observation['action_mask'] returned in step 0: got other values in it after",
    ),
    (lambda: SharesRewards(), "promise 'arrays are yours', reward returned in step "),
    (lambda: IgnoresSeeds(3), "promise 'determinism', environment 0, step 0, "),
    (lambda: HasOneSeed(3), "promise 'seeds matter': got the same play of 30 steps with 4 seeds"),
    (
        lambda: ForgetsTheLeaving(),
        "observations: got none of bob, expected one for each agent that acted, in its last step too",
    ),
    (lambda: ForgetsTruncations(), "promise 'spaces', step 1, truncations: got none of "),
    (lambda: ForgetsTheStaying(), "promise 'spaces', step 0: got no observation of agent 'bob', who is among env.agents"),
]


@pytest.mark.parametrize(("make_env", "message"), BROKEN, ids=[re.sub(r"\W+", "_", message)[:50] for _, message in BROKEN])
def test_check__tells_which_promise_is_broken(make_env: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_entity_env(make_env(), steps=STEPS)  # one instance: state that a reset leaves behind is seen


def test_check__lets_environments_without_end_or_chance_say_so() -> None:
    check_entity_env(lambda: NeverEnds(), steps=STEPS, episodes_end=False)
    check_entity_env(lambda: HasOneSeed(3), steps=STEPS, seed_matters=False)


def test_check__closes_what_it_made_and_nothing_else() -> None:
    closed: list[Any] = []

    class Closing(Ferry):
        def close(self) -> None:
            closed.append(self)

    check_entity_env(Closing(), steps=STEPS)
    assert closed == []
    check_entity_env(Closing, steps=STEPS)
    assert len(closed) == 2
