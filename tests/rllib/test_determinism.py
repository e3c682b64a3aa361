"""A seeded run fills no memory that nobody reads."""

from collections.abc import Callable, Iterator

import pytest
import torch

from perceiver_rl.rllib import SquadPPOLearner, VectorEnvRunner
from tests.environments import COURIERS
from tests.rllib.conftest import MakeConfig


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    deterministic, filled = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = filled


def _learner(make_config: MakeConfig) -> None:
    config = make_config().debugging(seed=0)
    spaces = {"default_policy": (COURIERS.observation_space, COURIERS.action_space)}
    SquadPPOLearner(config=config, module_spec=config.get_multi_rl_module_spec(spaces=spaces)).build()


def _env_runner(make_config: MakeConfig) -> None:
    VectorEnvRunner(config=make_config().debugging(seed=0), worker_index=0).stop()


@pytest.mark.parametrize("build", [_learner, _env_runner])
def test_seeded_run__is_deterministic_and_leaves_memory_unfilled(
    build: Callable[[MakeConfig], None], make_config: MakeConfig
) -> None:
    build(make_config)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory
