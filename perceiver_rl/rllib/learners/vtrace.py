"""V-trace over the chunks of episodes that a train batch consists of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class VTrace:
    """What V-trace makes of a batch; carries no gradient."""

    targets: Float[Tensor, "steps ratios"]
    """Of the value function."""
    advantages: Float[Tensor, "steps ratios"]
    """`reward + discount · target of the next step - value`; 0 in the step that ends a chunk. Importance weights of the
    policy's gradient are not in it."""


@torch.no_grad()
def vtrace(
    *,
    ratio: Float[Tensor, "steps ratios"],
    rewards: Float[Tensor, " steps"],
    values: Float[Tensor, " steps"],
    terminated: Bool[Tensor, " steps"],
    ends: Bool[Tensor, " steps"],
    discount: float,
    max_ratio: float = 1.0,
    lambda_: float = 1.0,
) -> VTrace:
    """Value targets and advantages of a policy, from steps that another policy made.

    The batch is chunks of episodes one after another, of any lengths. Each ends with an artificial step: its value
    continues the chunk where the episode goes on, and nothing else of it is read. RLlib's own learners cut the batch into
    pieces of equal length instead, whatever begins and ends there, and let the artificial step's temporal difference flow
    into the step before it.

    Args:
        ratio: Probability of what was done under the target policy over that under the policy that acted: of the joint
            action, or of each actor's choice, for a result of its own.
        rewards: Rewards.
        values: Values under the target policy.
        terminated: Whether the episode was over after the step.
        ends: Whether it is the artificial step at the end of a chunk.
        discount: Of one step.
        max_ratio: Where ratios of temporal differences are cut off: ρ̄. The traces' are cut off at 1.
        lambda_: How much of a temporal difference reaches the step before, beside its ratio; 1 trusts what happened, 0 the
            value of the next step. As the λ of returns and of generalised advantage estimation.

    Raises:
        ValueError: If the batch does not end where a chunk does.

    Source: Espeholt et al. 2018, section 4.1, equation 1 and remarks 1 and 2.
    """
    last = ends.nonzero().squeeze(1)
    if not len(last) or int(last[-1]) != len(ends) - 1:
        raise ValueError("V-trace: got a batch whose last chunk has no end, expected whole chunks; see `chunk_minibatches`")
    discounts = discount * (~terminated).float().unsqueeze(1)
    values, rewards = values.unsqueeze(1), rewards.unsqueeze(1)
    difference = ratio.clamp(max=max_ratio) * (rewards + discounts * values.roll(-1, dims=0) - values)
    trace = lambda_ * discounts * ratio.clamp(max=1.0)

    first = torch.cat([last.new_zeros(1), last[:-1] + 1])
    lengths = last - first
    correction = torch.zeros_like(difference)
    running = torch.zeros_like(difference[last])
    for back in range(1, int(lengths.max()) + 1):  # all chunks at once, from their ends to their beginnings
        step = (last - back).clamp(min=0)
        inside = back <= lengths
        running = torch.where(inside.unsqueeze(1), difference[step] + trace[step] * running, running)
        correction[step[inside]] = running[inside]
    targets = values + correction
    advantages = torch.where(ends.unsqueeze(1), 0.0, rewards + discounts * targets.roll(-1, dims=0) - values)
    return VTrace(targets, advantages)
