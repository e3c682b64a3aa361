"""V-trace over chunks of episodes: a naive loop, RLlib's own, and where RLlib's goes another way."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ray.rllib.algorithms.impala.torch.vtrace_torch_v2 import vtrace_torch
from torch import Tensor

from perceiver_rl.rllib.learners.vtrace import VTrace, vtrace

GAMMA = 0.9


def _batch(lengths: list[int], terminated: list[bool], ratios: int = 1) -> dict[str, Tensor]:
    """Chunks of so many steps, and one artificial step each."""
    torch.manual_seed(0)
    steps = sum(lengths) + len(lengths)
    ends = torch.zeros(steps, dtype=torch.bool)
    over = torch.zeros(steps, dtype=torch.bool)
    last = torch.tensor(lengths).add(1).cumsum(0) - 1
    ends[last] = True
    over[last - 1] = torch.tensor(terminated)
    return {
        "ratio": torch.randn(steps, ratios).double().exp(),
        "rewards": torch.randn(steps).double(),
        "values": torch.randn(steps).double(),
        "terminated": over,
        "ends": ends,
    }


def _naive(batch: dict[str, Tensor], max_ratio: float, lambda_: float) -> VTrace:
    """Targets by the recursion of the paper's remark 1, chunk after chunk, step after step."""
    targets, advantages = batch["values"].clone(), torch.zeros_like(batch["values"])
    (ratios,) = batch["ratio"].T
    following = None
    for t in reversed(range(len(targets))):
        value, ratio = batch["values"][t].item(), ratios[t].item()
        if batch["ends"][t]:
            following = value  # the target of the artificial step is its value
            continue
        assert following is not None
        discount = 0.0 if batch["terminated"][t] else GAMMA
        next_value = batch["values"][t + 1].item()
        difference = min(max_ratio, ratio) * (batch["rewards"][t].item() + discount * next_value - value)
        advantages[t] = batch["rewards"][t].item() + discount * following - value
        targets[t] = value + difference + lambda_ * discount * min(1.0, ratio) * (following - next_value)
        following = targets[t].item()
    return VTrace(targets.unsqueeze(1), advantages.unsqueeze(1))


CHUNKS = st.lists(st.tuples(st.integers(1, 7), st.booleans()), min_size=1, max_size=6)


@given(chunks=CHUNKS, max_ratio=st.sampled_from([0.5, 1.0, 3.0]), lambda_=st.sampled_from([0.0, 0.5, 1.0]))
def test_vtrace__equals_a_naive_loop(chunks: list[tuple[int, bool]], max_ratio: float, lambda_: float) -> None:
    batch = _batch([length for length, _ in chunks], [over for _, over in chunks])
    found = vtrace(**batch, discount=GAMMA, max_ratio=max_ratio, lambda_=lambda_)
    expected = _naive(batch, max_ratio, lambda_)
    torch.testing.assert_close(found.targets, expected.targets)
    torch.testing.assert_close(found.advantages, expected.advantages)


def test_vtrace__of_equal_policies_is_the_return_that_the_last_value_continues() -> None:
    batch = _batch([3], [False]) | {"ratio": torch.ones(4, 1).double()}
    rewards = batch["rewards"].tolist()
    expected = sum(GAMMA**t * rewards[t] for t in range(3)) + GAMMA**3 * batch["values"][3].item()
    assert vtrace(**batch, discount=GAMMA).targets[0].item() == pytest.approx(expected)


def test_vtrace__of_an_episode_that_is_over_does_not_read_past_its_end() -> None:
    batch = _batch([3, 2], [True, True])
    before = vtrace(**batch, discount=GAMMA)
    for name in ("rewards", "values", "ratio"):
        batch[name][batch["ends"]] = 1e6
    after = vtrace(**batch, discount=GAMMA)
    counted = ~batch["ends"]
    assert torch.equal(before.targets[counted], after.targets[counted])
    assert torch.equal(before.advantages, after.advantages)


def _rllib(batch: dict[str, Tensor], steps: int) -> tuple[Tensor, Tensor]:
    """RLlib's function for one chunk, called as its learners do, for the first `steps` steps of it."""
    log_ratio = batch["ratio"].log()[:steps]
    counted = (~batch["ends"][:steps]).double()
    targets, advantages = vtrace_torch(
        target_action_log_probs=log_ratio,
        behaviour_action_log_probs=torch.zeros_like(log_ratio),
        discounts=((~batch["terminated"][:steps]).double() * GAMMA * counted)[:, None],
        rewards=batch["rewards"][:steps, None],
        values=batch["values"][:steps, None],
        bootstrap_values=batch["values"][-1:],
    )
    return targets, advantages


def test_vtrace__equals_rllibs_function_for_one_chunk() -> None:
    batch = _batch([6], [False])
    targets, advantages = _rllib(batch, 6)
    found = vtrace(**batch, discount=GAMMA)
    torch.testing.assert_close(found.targets[:6], targets)
    torch.testing.assert_close(found.advantages[:6] * batch["ratio"][:6].clamp(max=1), advantages)


def test_rllibs_learners__let_the_artificial_step_into_the_one_before_it() -> None:
    # What `vtrace` says of RLlib: should a later version mend it, say so there no longer.
    batch = _batch([6], [False]) | {"ratio": torch.ones(7, 1).double()}
    batch["rewards"][6] = 0.0
    targets, _ = _rllib(batch, 7)
    assert targets[5].item() == pytest.approx(batch["rewards"][5].item())  # nothing of what follows
    follows = GAMMA * batch["values"][6].item()
    assert vtrace(**batch, discount=GAMMA).targets[5].item() == pytest.approx(batch["rewards"][5].item() + follows)


def test_vtrace__wants_whole_chunks() -> None:
    batch = {name: column[:-1] for name, column in _batch([3, 2], [False, False]).items()}
    with pytest.raises(ValueError, match=r"last chunk has no end.*chunk_minibatches"):
        vtrace(**batch, discount=GAMMA)
