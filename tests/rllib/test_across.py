"""Figures over all learners' batches: of one learner they are those of its own batch."""

from collections.abc import Iterator

import pytest
import torch
from torch import distributed

from perceiver_rl.rllib.learners.across import standardized


@pytest.fixture
def _one_learner() -> Iterator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("_one_learner")
@pytest.mark.parametrize("together", [False, True])
def test_standardized__has_mean_and_deviation_of_some(together: bool) -> None:
    values = torch.tensor([[1.0, 7.0], [3.0, 9.0]])
    got = standardized(values, values[:, 0], together=together)
    torch.testing.assert_close(got, torch.tensor([[-1.0, 5.0], [1.0, 7.0]]))


@pytest.mark.usefixtures("_one_learner")
@pytest.mark.parametrize("together", [False, True])
def test_standardized__is_zero_where_there_are_none(together: bool) -> None:
    values = torch.tensor([[1.0, 7.0], [3.0, 9.0]])
    assert torch.equal(standardized(values, values[0, :0], together=together), torch.zeros(2, 2))
