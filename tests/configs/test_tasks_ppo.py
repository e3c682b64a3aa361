"""Every learning task has a config of its own, which is no longer than the steps in which others learned it."""

import pytest

from envs.tasks import names
from perceiver_rl.rllib.config_file import default_steps, load_factory
from perceiver_rl.rllib.run_folder import RunSettings
from perceiver_rl.rllib.training import build_config

PUBLISHED_STEPS = {
    "count": 2_000,
    "floor_is_lava": 33_000,
    "cherry_pick": 250_000,
    "pick_matching_balls": 500_000,
    "xor": 500_000,
    "move_to_origin": 1_000_000,
    "minefield": 3_000_000,
}


@pytest.mark.parametrize("task", names())
def test_task__has_a_config_within_the_published_steps(task: str) -> None:
    settings = RunSettings(f"configs.tasks_ppo:{task}", None, 0, 1_000, ('environment.env_config={"ablate": True}',))
    config = build_config(settings)
    assert (config.env, config.env_config) == (f"task/{task}", {"ablate": True})
    assert config.lr[-1] == [1_000, 0.0]
    assert default_steps(load_factory(settings.config)) <= PUBLISHED_STEPS[task]
