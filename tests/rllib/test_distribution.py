"""The distribution in RLlib's form: one flat tensor holds logits, legal options and who is present."""

import gymnasium
import pytest
import torch
from ray.rllib.core.distribution.distribution import Distribution
from torch import Tensor

from perceiver_rl.policy.distribution import ActorCategorical
from perceiver_rl.policy.entity_policy import PolicyOutput
from perceiver_rl.rllib.distribution import SquadDistribution, squad_distribution_class, to_dist_inputs
from tests.schemas import SKIRMISH

BATCH, ACTORS, OPTIONS = 3, 5, 7


def _output(dtype: torch.dtype = torch.float32) -> PolicyOutput:
    legal = torch.rand(BATCH, ACTORS, OPTIONS) < 0.5
    legal[:, 0, 2] = True
    legal[:, 1] = False
    logits = (3 * torch.randn(BATCH, ACTORS, OPTIONS)).to(dtype)
    return PolicyOutput(logits=logits, legal=legal, value=torch.zeros(BATCH))


def _restored(inputs: Tensor) -> SquadDistribution:
    return squad_distribution_class(OPTIONS).from_logits(inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dist_inputs__go_there_and_back(dtype: torch.dtype) -> None:
    output = _output(dtype)
    inputs = to_dist_inputs(output)
    assert inputs.shape == (BATCH, ACTORS * OPTIONS)
    assert inputs.dtype == torch.float32
    assert inputs.isfinite().all()  # RLlib's checks reject anything else
    restored = _restored(inputs).per_actor
    assert torch.equal(restored.legal, output.legal)
    assert torch.equal(restored.log_probs, output.distribution.log_probs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dist_inputs__keep_illegal_options_illegal_when_they_are_stored_in_another_type(dtype: torch.dtype) -> None:
    output = _output()
    inputs = to_dist_inputs(output).to(dtype)
    restored = _restored(inputs).per_actor
    assert torch.equal(restored.legal, output.legal)
    assert restored.entropy().isfinite().all()


def test_dist_inputs__let_a_logit_that_is_not_a_number_be_seen() -> None:
    output = _output()
    output.logits[0, 0, 2] = torch.nan
    assert _restored(to_dist_inputs(output)).entropy()[0].isnan()


def test_distribution__is_the_joint_one_behind_rllibs_interface() -> None:
    output, other = _output(), _output()
    ours = _restored(to_dist_inputs(output))
    other = _restored(torch.where(output.legal, torch.randn(BATCH, ACTORS, OPTIONS), torch.finfo().min).flatten(1))
    assert isinstance(ours, Distribution)
    per_actor = ActorCategorical(output.logits, output.legal)
    actions = ours.sample()
    assert actions.shape == (BATCH, ACTORS)
    assert torch.equal(ours.logp(actions), per_actor.log_prob(actions))
    assert torch.equal(ours.entropy(), per_actor.entropy())
    assert torch.equal(ours.kl(other), per_actor.kl(other.per_actor))


def test_distribution__samples_at_random_unless_deterministic() -> None:
    inputs = to_dist_inputs(_output()).repeat(50, 1)
    ours = _restored(inputs)
    assert not torch.equal(ours.sample(), ours.sample())
    deterministic = ours.to_deterministic()
    assert torch.equal(deterministic.sample(), ours.per_actor.mode())
    assert torch.equal(deterministic.logp(deterministic.sample()), ours.logp(ours.per_actor.mode()))


def test_distribution__refuses_what_has_no_meaning() -> None:
    ours = _restored(to_dist_inputs(_output()))
    with pytest.raises(ValueError, match=r"^sample_shape: got \(2,\), expected None: draw once for each row"):
        ours.sample(sample_shape=(2,))
    with pytest.raises(NotImplementedError, match="no reparameterised sample"):
        ours.rsample()
    with pytest.raises(ValueError, match=r"^action space: got Discrete\(4\), expected the MultiDiscrete of an"):
        SquadDistribution.required_input_dim(gymnasium.spaces.Discrete(4))


def test_required_input_dim__is_the_length_of_the_flat_tensor() -> None:
    assert SquadDistribution.required_input_dim(SKIRMISH.action_space) == 5 * 19


def test_distribution_classes__know_their_own_number_of_options() -> None:
    three, five = squad_distribution_class(3), squad_distribution_class(5)
    inputs = torch.zeros(BATCH, 15)
    assert three.from_logits(inputs).sample().shape == (BATCH, 5)
    assert five.from_logits(inputs).sample().shape == (BATCH, 3)
