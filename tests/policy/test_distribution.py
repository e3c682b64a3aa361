"""The squad's distribution against torch's categoricals on the same problem, flat; masks; gradients."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from perceiver_rl.policy.distribution import ActorCategorical

BATCH, ACTORS, OPTIONS = 3, 5, 7


def _legal(seed: int = 0) -> Tensor:
    """At random; the second actor of each sample is absent, and the last sample is all absent but for one."""
    legal = torch.rand(BATCH, ACTORS, OPTIONS, generator=torch.Generator().manual_seed(seed)) < 0.5
    legal[:, 0, 2] = True
    legal[:, 1] = False
    legal[-1, 1:] = False
    return legal


def _logits() -> Tensor:
    return 3 * torch.randn(BATCH, ACTORS, OPTIONS)


def _flat(logits: Tensor, legal: Tensor, sample: int) -> list[Categorical | None]:
    """One torch categorical over the legal options alone for each actor of a sample; None for absent ones."""
    return [
        Categorical(logits=logits[sample, actor][legal[sample, actor]].double()) if legal[sample, actor].any() else None
        for actor in range(ACTORS)
    ]


# -- against torch.distributions -----------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_log_prob__equals_torchs_on_the_flat_problem(seed: int) -> None:
    torch.manual_seed(seed)
    logits, legal = _logits(), _legal(seed)
    ours = ActorCategorical(logits, legal)
    actions = ours.sample()
    expected = torch.zeros(BATCH, ACTORS, dtype=torch.float64)
    for sample in range(BATCH):
        for actor, theirs in enumerate(_flat(logits, legal, sample)):
            if theirs is not None:
                index = legal[sample, actor, : actions[sample, actor]].sum()  # among the legal options
                expected[sample, actor] = theirs.log_prob(index)
    torch.testing.assert_close(ours.log_prob_per_actor(actions), expected.float())
    torch.testing.assert_close(ours.log_prob(actions), expected.sum(dim=1).float())


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_entropy_and_kl__equal_torchs_on_the_flat_problem(seed: int) -> None:
    torch.manual_seed(seed)
    logits, other_logits, legal = _logits(), _logits(), _legal(seed)
    entropy, kl = torch.zeros(BATCH, ACTORS, dtype=torch.float64), torch.zeros(BATCH, ACTORS).double()
    for sample in range(BATCH):
        pairs = zip(_flat(logits, legal, sample), _flat(other_logits, legal, sample), strict=True)
        for actor, (theirs, other) in enumerate(pairs):
            if theirs is not None and other is not None:
                entropy[sample, actor] = theirs.entropy()
                kl[sample, actor] = kl_divergence(theirs, other)
    ours, others = ActorCategorical(logits, legal), ActorCategorical(other_logits, legal)
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(ours.entropy_per_actor(), entropy.float(), **close)
    torch.testing.assert_close(ours.entropy(), entropy.sum(dim=1).float(), **close)
    torch.testing.assert_close(ours.kl_per_actor(others), kl.float(), **close)
    torch.testing.assert_close(ours.kl(others), kl.sum(dim=1).float(), **close)
    assert torch.equal(ours.kl(ours), torch.zeros(BATCH))


def test_log_prob__sums_to_one_over_all_joint_actions() -> None:
    logits, legal = torch.randn(1, 3, 4), torch.ones(1, 3, 4, dtype=torch.bool)
    legal[0, 0, 1] = legal[0, 2, 3] = legal[0, 2, 0] = False
    joint = torch.tensor(list(product(range(4), repeat=3)))
    ours = ActorCategorical(logits.expand(len(joint), -1, -1), legal.expand(len(joint), -1, -1))
    probs, entropy = ours.log_prob(joint).double().exp(), ours.entropy()[0]
    assert probs.sum().item() == pytest.approx(1.0, abs=1e-6)
    possible = probs[probs > 0]
    assert len(possible) == 3 * 4 * 2
    assert -(possible * possible.log()).sum().item() == pytest.approx(entropy.item(), abs=1e-5)


def test_log_prob__takes_any_number_of_batch_axes() -> None:
    logits, legal = torch.randn(2, 3, ACTORS, OPTIONS), torch.rand(2, 3, ACTORS, OPTIONS) < 0.5
    ours, flat = ActorCategorical(logits, legal), ActorCategorical(logits.flatten(0, 1), legal.flatten(0, 1))
    actions = ours.sample()
    assert actions.shape == (2, 3, ACTORS)
    assert torch.equal(ours.log_prob(actions).flatten(), flat.log_prob(actions.flatten(0, 1)))
    assert torch.equal(ours.entropy().flatten(), flat.entropy())


# -- sampling and mode ---------------------------------------------------------------------------------------


def test_sample__draws_by_the_probabilities() -> None:
    legal = torch.tensor([[True, True, False, True, True], [False, True, True, False, False]])
    probs = torch.tensor([[0.05, 0.5, 0.0, 0.15, 0.3], [0.0, 0.7, 0.3, 0.0, 0.0]], dtype=torch.float64)
    draws = 20_000
    logits = torch.where(legal, probs.log(), 50.0)  # illegal options would win if they counted
    actions = ActorCategorical(logits.expand(draws, -1, -1), legal.expand(draws, -1, -1)).sample()
    for actor in range(2):
        counts = actions[:, actor].bincount(minlength=5)
        assert not counts[~legal[actor]].any()
        expected = draws * probs[actor][legal[actor]]
        assert chisquare(counts[legal[actor]].double(), expected).pvalue > 0.01
    # Actors draw independently: the joint frequencies are the products.
    joint = (5 * actions[:, 0] + actions[:, 1]).bincount(minlength=25)
    expected = draws * (probs[0][:, None] * probs[1]).flatten()
    assert chisquare(joint[expected > 0].double(), expected[expected > 0]).pvalue > 0.01


def test_sample__follows_its_generator() -> None:
    ours = ActorCategorical(torch.zeros(64, ACTORS, OPTIONS), torch.ones(64, ACTORS, OPTIONS, dtype=torch.bool))
    first, again, other = (ours.sample(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("choose", ["sample", "mode"])
def test_choices__are_legal_and_0_for_absent_actors(choose: str) -> None:
    legal = _legal().repeat(200, 1, 1)
    logits = torch.where(legal, 0.0, 1e30) + torch.randn(legal.shape)
    actions = getattr(ActorCategorical(logits, legal), choose)()
    chosen_is_legal = legal.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    present = legal.any(dim=-1)
    assert torch.equal(chosen_is_legal, present)
    assert not actions[~present].any()


def test_mode__is_the_most_probable_legal_option() -> None:
    logits = torch.tensor([[[0.0, 9.0, 1.0, 2.0], [3.0, 0.0, 0.0, 0.0]]])
    legal = torch.tensor([[[True, False, True, True], [True, True, False, False]]])
    assert ActorCategorical(logits, legal).mode().tolist() == [[3, 0]]


# -- what does not count -------------------------------------------------------------------------------------


def test_absent_actors__contribute_exactly_nothing() -> None:
    logits, legal = _logits(), _legal()
    present = legal.any(dim=-1)
    ours, other = ActorCategorical(logits, legal), ActorCategorical(_logits(), legal)
    assert torch.equal(ours.present, present)
    for values in (
        ours.log_prob_per_actor(ours.sample()),
        ours.entropy_per_actor(),
        ours.kl_per_actor(other),
    ):
        assert not values[~present].any()
        assert torch.equal(values.isfinite(), torch.ones_like(present))


@pytest.mark.parametrize("garbage", [torch.nan, torch.inf, -torch.inf, 1e38, -1e38])
def test_illegal_options__get_exactly_no_gradient_and_give_exactly_no_value(garbage: float) -> None:
    legal, clean, others = _legal(), _logits(), _logits()
    results = []
    for illegal in (0.0, garbage):
        logits = torch.where(legal, clean, illegal).requires_grad_()
        ours, other = ActorCategorical(logits, legal), ActorCategorical(others, legal)
        torch.manual_seed(1)
        actions = ours.sample()
        loss = ours.log_prob(actions) + ours.entropy() + ours.kl(other) + other.kl(ours)
        loss.sum().backward()
        results.append((actions, loss.detach(), logits.grad))
    (actions, loss, gradient), (actions2, loss2, gradient2) = results
    assert torch.equal(actions, actions2)
    assert torch.equal(loss, loss2)
    assert torch.equal(gradient, gradient2)
    assert not gradient[~legal].any()
    assert gradient.isfinite().all()
    assert gradient[legal & (legal.sum(dim=-1, keepdim=True) > 1)].all()


@pytest.mark.parametrize("size", [1e3, 1e32, 3e38])
def test_distribution__stays_finite_for_logits_of_any_size(size: float) -> None:
    legal = torch.tensor([[[True, True, False], [True, False, False]]])
    logits = torch.tensor([[[size, 0.0, 7.0], [size, -size, size]]], requires_grad=True)
    ours, uniform = ActorCategorical(logits, legal), ActorCategorical(torch.zeros(1, 2, 3), legal)
    assert torch.equal(ours.mode(), torch.zeros(1, 2, dtype=torch.int64))
    for values, expected in ((ours.entropy(), 0.0), (ours.kl(uniform), math.log(2)), (ours.log_prob(ours.mode()), 0.0)):
        assert values.item() == pytest.approx(expected, abs=1e-6)
        (gradient,) = torch.autograd.grad(values, logits, retain_graph=True)
        assert gradient.isfinite().all()


def test_entropy__of_one_legal_option_is_zero() -> None:
    legal = torch.nn.functional.one_hot(torch.arange(ACTORS), OPTIONS).bool().unsqueeze(0)
    ours = ActorCategorical(torch.randn(1, ACTORS, OPTIONS), legal)
    assert torch.equal(ours.entropy(), torch.zeros(1))
    assert torch.equal(ours.log_prob(ours.sample()), torch.zeros(1))


def test_log_prob__of_an_illegal_option_is_finite_and_has_probability_zero() -> None:
    legal = torch.tensor([[[True, True, False]]])
    log_prob = ActorCategorical(torch.zeros(1, 1, 3), legal).log_prob(torch.tensor([[2]]))
    assert log_prob.isfinite().all()
    assert log_prob.exp().item() == 0.0


def test_distribution__computes_in_float32_whatever_the_logits_are() -> None:
    logits, legal = _logits().bfloat16(), _legal()
    ours = ActorCategorical(logits, legal)
    assert ours.entropy().dtype == torch.float32
    assert torch.equal(ours.entropy(), ActorCategorical(logits.float(), legal).entropy())
