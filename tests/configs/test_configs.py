"""Every config that ships builds, and its model runs on its environment's observations."""

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch

from perceiver_rl.entities import schema_of
from perceiver_rl.environments import make_parallel_env, make_vector_env
from perceiver_rl.mixture import members_of
from perceiver_rl.rllib.config_file import load_factory
from perceiver_rl.rllib.run_folder import RunSettings
from perceiver_rl.rllib.training import build_config

CONFIGS = sorted(str(path) for path in (Path(__file__).parents[2] / "configs").glob("*.py") if path.name != "__init__.py")


def test_configs__there_are_some() -> None:
    assert CONFIGS


@pytest.mark.parametrize(
    "path",
    # ten maps are compiled for the mixed one
    [pytest.param(path, marks=pytest.mark.slow) if "smax_mixed" in path else path for path in CONFIGS],
    ids=lambda path: Path(path).stem,
)
def test_config__builds_a_model_for_its_environment(path: str) -> None:
    config = build_config(RunSettings(path, env=None, seed=0, total_env_steps=10_000))
    spec = config.rl_module_spec
    if config.is_multi_agent:
        env = make_parallel_env(config.env, **config.env_config)
        agent = env.possible_agents[0]
        assert config.policy_mapping_fn(agent, None) in config.policies
        spec.observation_space, spec.action_space = env.observation_space(agent), env.action_space(agent)
        observations, _ = env.reset(seed=0)
        observation = {key: np.stack([each[key] for each in observations.values()]) for key in observations[agent]}
    else:
        vector_env = make_vector_env(config.env, 2 * len(members_of(config.env)), **config.env_config)
        spec.observation_space = vector_env.single_observation_space
        spec.action_space = vector_env.single_action_space
        observation, _ = vector_env.reset(seed=0)
    module = spec.build()
    output = module.forward_inference({"obs": {key: torch.from_numpy(array) for key, array in observation.items()}})
    actions = module.get_inference_action_dist_cls().from_logits(output["action_dist_inputs"]).sample().numpy()
    schema = schema_of(spec.observation_space)
    for index, action in enumerate(actions.astype(np.int64)):
        schema.check_action({key: array[index] for key, array in observation.items()}, action)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: Path(path).stem)
def test_config__anneals_over_the_run(path: str) -> None:
    config = load_factory(path)(total_env_steps=12_345)
    assert config.lr[-1] == [12_345, 0.0]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: Path(path).stem)
def test_config__first_line_says_what_it_is(path: str) -> None:
    docstring = inspect.getdoc(inspect.getmodule(load_factory(path))) or Path(path).read_text().splitlines()[0]
    assert len(docstring) > 20
