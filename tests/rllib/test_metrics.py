"""RLlib's result as a table: figures of a learner of one's own, shares of verbs."""

import math
from typing import Any

import numpy as np
import pytest

from perceiver_rl.rllib.callbacks import VerbCounts
from perceiver_rl.rllib.metrics import env_steps, flatten, verb_shares
from tests.environments import COURIERS
from tests.rllib.conftest import MakeConfig


def test_flatten__lists_auxiliary_figures_by_name_and_of_several_policies_by_policy() -> None:
    one = {"learners": {"default_policy": {"auxiliary": {"forecast_error": 0.25}}, "__all_modules__": {}}}
    assert flatten(one) == {"auxiliary/forecast_error": 0.25}
    two = {"learners": {name: {"auxiliary": {"forecast_error": error}} for name, error in (("home", 0.25), ("away", 0.5))}}
    assert flatten(two) == {"auxiliary/forecast_error/home": 0.25, "auxiliary/forecast_error/away": 0.5}


def test_flatten__leaves_out_the_figures_of_a_policy_that_was_not_updated() -> None:
    def of(steps: float) -> dict[str, float]:
        figures = {"policy_loss": math.nan, "num_module_steps_trained": steps}
        return flatten({"learners": {"default_policy": figures, "__all_modules__": {}}})

    assert of(0) == of(math.nan) == {}
    assert math.isnan(of(512)["policy/loss"])  # that is a training that diverged
    assert flatten({"learners": {"__all_modules__": {"update_s": math.nan}}}) == {}


def test_flatten__tells_verbs_as_shares_and_of_several_policies_by_policy() -> None:
    counts = {"wait": 3, "deliver": 1}
    squad = flatten({"env_runners": {"verbs": counts}, "learners": {"default_policy": {}}})
    assert squad == {"actions/wait": 0.75, "actions/deliver": 0.25}
    assert verb_shares(squad, COURIERS, "default_policy") == {"wait": 0.75, "deliver": 0.25}
    two = {"verbs": {"home": counts, "away": {"wait": 0, "deliver": 2}}}
    several = flatten({"env_runners": two, "learners": {"home": {}, "away": {}}})
    assert several["actions/wait/home"] == 0.75
    assert several["actions/deliver/away"] == 1.0
    assert verb_shares(several, COURIERS, "away") == {"wait": 0.0, "deliver": 1.0}
    assert verb_shares({}, COURIERS, "home") == {}


def test_flatten__leaves_out_the_verbs_of_a_policy_that_nobody_played_by() -> None:
    nobody = {"wait": float("nan"), "deliver": float("nan")}  # RLlib's sum of nothing, once there was something
    result = {"env_runners": {"verbs": {"home": {"wait": 1, "deliver": 1}, "away": nobody}}, "learners": {"home": {}}}
    assert all(math.isfinite(value) for value in flatten(result).values())


@pytest.mark.parametrize("bulk", [True, False], ids=["our runner", "RLlib's runner"])
def test_verb_counts__count_what_was_sampled(make_config: MakeConfig, bulk: bool) -> None:
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

    config = make_config(num_envs=4).callbacks(VerbCounts)
    if not bulk:
        config.env_runners(env_runner_cls=SingleAgentEnvRunner)
    runner: Any = config.env_runner_cls(config=config)
    episodes = runner.sample(num_timesteps=24, explore=True)
    counted = runner.get_metrics()["verbs"]
    waits = deliveries = 0
    for episode in episodes:
        for step, action in enumerate(episode.get_actions()):
            present = episode.get_observations(step)["entity_mask/courier"]
            waits += int((np.asarray(action)[present] == 0).sum())
            deliveries += int((np.asarray(action)[present] > 0).sum())
    assert waits > 0
    assert deliveries > 0
    assert {verb: float(count.peek()) for verb, count in counted.items()} == {"wait": waits, "deliver": deliveries}


def test_env_steps__are_those_sampled_or_where_nothing_is_those_drawn() -> None:
    assert env_steps({}) == 0
    assert env_steps({"num_env_steps_sampled_lifetime": 7}) == 7
    assert env_steps({"env_runners": {}, "num_env_steps_sampled_lifetime": 7}) == 7
    assert env_steps({"env_runners": {"num_env_steps_sampled_lifetime": 5}, "num_env_steps_sampled_lifetime": 7}) == 5
