"""PPO's loss for squads against naive loops and against RLlib's own; what the learner's pipeline ends with."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from perceiver_rl.entities import EntitySchema
from perceiver_rl.rllib.distribution import to_dist_inputs
from perceiver_rl.rllib.learners.keep_loss_steps import KeepLossSteps
from perceiver_rl.rllib.learners.ppo import CLIP_FRACTION_KEY, SquadPPOLearner
from perceiver_rl.rllib.module import PerceiverRLModule
from tests.environments import COURIERS
from tests.rllib.conftest import MakeConfig
from tests.schemas import observe, to_tensors

BATCH = 13
CLIP = 0.2

MakeLearner = Callable[..., SquadPPOLearner]


@pytest.fixture
def make_learner(make_config: MakeConfig) -> MakeLearner:
    """A learner whose policy has moved away from the one that sampled; `ratio` and settings of PPO."""

    def make(ratio: str = "per_actor", **training: Any) -> SquadPPOLearner:
        config = make_config(clip_param=CLIP, **training).learners(learner_config_dict={"ratio": ratio})
        spaces = {DEFAULT_MODULE_ID: (COURIERS.observation_space, COURIERS.action_space)}
        learner = SquadPPOLearner(config=config, module_spec=config.get_multi_rl_module_spec(spaces=spaces))
        learner.build()
        return learner

    return make


def _module(learner: PPOTorchLearner) -> PerceiverRLModule:
    return learner.module[DEFAULT_MODULE_ID].unwrapped()


def _batch(learner: SquadPPOLearner, schema: EntitySchema = COURIERS, single: bool = False) -> dict[str, Any]:
    """A train batch, sampled by a policy that differs from the learner's.

    Args:
        learner: Whose policy is moved away.
        schema: What is observed.
        single: Whether one courier alone is present in each sample.
    """
    observation = observe(schema, BATCH, seed=0, empty=not single)
    if single:
        observation["entity_mask/courier"][:] = np.arange(4) == 1
        observation["action_mask"] &= observation["entity_mask/courier"][..., None]
        observation["action_mask"][:, 1, 0] = True
        schema.check(observation, (BATCH,))
    tensors = to_tensors(observation)
    module = _module(learner)
    with torch.no_grad():
        output = module.policy(tensors)
        actions = output.distribution.sample()
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return {
        Columns.OBS: tensors,
        Columns.ACTIONS: actions,
        Columns.ACTION_DIST_INPUTS: to_dist_inputs(output),
        Columns.ACTION_LOGP: output.distribution.log_prob(actions),
        Postprocessing.ADVANTAGES: torch.randn(BATCH),
        Postprocessing.VALUE_TARGETS: torch.randn(BATCH),
    }


def _loss(learner: PPOTorchLearner, batch: dict[str, Any], of: type[PPOTorchLearner] = SquadPPOLearner) -> Tensor:
    fwd_out = learner.module[DEFAULT_MODULE_ID].forward_train(batch)
    return of.compute_loss_for_module(
        learner,
        module_id=DEFAULT_MODULE_ID,
        config=learner.config.get_config_for_module(DEFAULT_MODULE_ID),
        batch=batch,
        fwd_out=fwd_out,
    )


def _logged(learner: SquadPPOLearner, key: str) -> float:
    return float(learner.metrics.peek((DEFAULT_MODULE_ID, key)))


def _categorical(logits: Tensor, legal: Tensor) -> Categorical:
    return Categorical(logits=torch.where(legal, logits, -torch.inf))


def _naive_means(learner: SquadPPOLearner, batch: dict[str, Any], ratio: str) -> dict[str, float]:
    """Surrogate, clip fraction, entropy and KL by loops over samples and present actors."""
    module = _module(learner)
    output = module.policy(batch[Columns.OBS])
    old = batch[Columns.ACTION_DIST_INPUTS].unflatten(-1, (4, -1))
    sums = {"surrogate": 0.0, "clipped": 0.0, "entropy": 0.0, "kl": 0.0}
    for b in range(BATCH):
        present = [a for a in range(4) if output.legal[b, a].any()]
        advantage = batch[Postprocessing.ADVANTAGES][b].item()
        ratios, entropies, kls = [], [], []
        for a in present:
            current = _categorical(output.logits[b, a], output.legal[b, a])
            previous = _categorical(old[b, a], output.legal[b, a])
            action = batch[Columns.ACTIONS][b, a]
            ratios.append((current.log_prob(action) - previous.log_prob(action)).exp().item())
            legal = output.legal[b, a]
            entropies.append(-(current.probs * current.logits)[legal].sum().item())
            kls.append(kl_divergence(Categorical(previous.probs[legal]), Categorical(current.probs[legal])).item())
        if ratio == "joint":
            ratios = [float(np.prod(ratios))]
        gains = [min(advantage * r, advantage * min(max(r, 1 - CLIP), 1 + CLIP)) for r in ratios]
        sums["surrogate"] += sum(gains) / max(len(ratios), 1)
        sums["clipped"] += sum(abs(r - 1) > CLIP for r in ratios) / max(len(ratios), 1)
        sums["entropy"] += sum(entropies) / max(len(present), 1)
        sums["kl"] += sum(kls) / max(len(present), 1)
    return {name: total / BATCH for name, total in sums.items()}


@pytest.mark.parametrize("ratio", ["per_actor", "joint"])
def test_loss__equals_a_naive_loop(ratio: str, make_learner: MakeLearner) -> None:
    learner = make_learner(ratio, entropy_coeff=0.03, use_kl_loss=True, kl_coeff=0.7, vf_loss_coeff=0.5, vf_clip_param=2.0)
    batch = _batch(learner)
    loss = _loss(learner, batch).item()
    expected = _naive_means(learner, batch, ratio)
    values = _module(learner).policy.value(batch[Columns.OBS])
    errors = (values - batch[Postprocessing.VALUE_TARGETS]).square().clamp(max=2.0)
    assert errors.max() == 2.0  # so the clipping does something
    assert expected["clipped"] > 0.1
    close = {"abs": 1e-5, "rel": 1e-4}
    assert _logged(learner, POLICY_LOSS_KEY) == pytest.approx(-expected["surrogate"], **close)
    assert _logged(learner, CLIP_FRACTION_KEY) == pytest.approx(expected["clipped"], **close)
    assert _logged(learner, ENTROPY_KEY) == pytest.approx(expected["entropy"], **close)
    assert _logged(learner, "mean_kl_loss") == pytest.approx(expected["kl"], **close)
    assert _logged(learner, VF_LOSS_KEY) == pytest.approx(errors.mean().item(), **close)
    total = -expected["surrogate"] + 0.5 * errors.mean().item() - 0.03 * expected["entropy"] + 0.7 * expected["kl"]
    assert loss == pytest.approx(total, **close)


def test_joint_loss__equals_rllibs_own(make_learner: MakeLearner) -> None:
    """Entropy and KL are left out: ours are means over actors, RLlib's are sums."""
    learner = make_learner("joint", entropy_coeff=0.0, use_kl_loss=False)
    batch = _batch(learner)
    torch.testing.assert_close(_loss(learner, batch), _loss(learner, batch, of=PPOTorchLearner))


@pytest.mark.parametrize("ratio", ["per_actor", "joint"])
def test_loss__of_a_single_actor_equals_rllibs_own(ratio: str, make_learner: MakeLearner) -> None:
    learner = make_learner(ratio, entropy_coeff=0.05, use_kl_loss=True, kl_coeff=0.7)
    batch = _batch(learner, single=True)
    ours, theirs = _loss(learner, batch), _loss(learner, batch, of=PPOTorchLearner)
    torch.testing.assert_close(ours, theirs)
    module = _module(learner)
    gradients = [torch.autograd.grad(loss, list(module.parameters())) for loss in (ours, theirs)]
    for gradient, gradient2 in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, gradient2, atol=1e-6, rtol=1e-4)


def test_losses__differ_when_squads_are_larger(make_learner: MakeLearner) -> None:
    per_actor, joint = make_learner("per_actor"), make_learner("joint")
    batch = _batch(per_actor)
    _module(joint).load_state_dict(_module(per_actor).state_dict())
    assert (_loss(per_actor, batch) - _loss(joint, batch)).abs() > 1e-3


def test_loss__has_a_finite_gradient_when_a_whole_squad_is_absent(make_learner: MakeLearner) -> None:
    learner = make_learner(use_kl_loss=True)
    batch = _batch(learner)
    assert not batch[Columns.OBS]["entity_mask/courier"][-1].any()
    _loss(learner, batch).backward()
    for name, parameter in _module(learner).named_parameters():
        assert parameter.grad.isfinite().all(), name


def test_learner__refuses_an_unknown_ratio(make_learner: MakeLearner) -> None:
    message = "learners.learner_config_dict.ratio: got 'squad', expected one of 'per_actor', 'joint'"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_learner("squad")


# -- the end of the learner's pipeline -------------------------------------------------------------------------


def _columns(count: int) -> dict[str, Any]:
    number = torch.arange(count)
    return {
        Columns.OBS: {"flat": number.clone(), "deep": number[:, None, None].expand(-1, 3, 2).clone()},
        Columns.ACTIONS: torch.stack([number, -number], dim=1),
        Postprocessing.ADVANTAGES: number.float(),
        Columns.LOSS_MASK: number % 3 != 2,
    }


def test_keep_loss_steps__drops_masked_steps_and_shuffles_all_columns_alike() -> None:
    batch = KeepLossSteps(seed=0)(batch={"one": _columns(17), "two": _columns(5)})
    for name, count in (("one", 17), ("two", 5)):
        columns = batch[name]
        assert Columns.LOSS_MASK not in columns
        order = columns[Columns.OBS]["flat"]
        assert sorted(order.tolist()) == [number for number in range(count) if number % 3 != 2]
        assert torch.equal(columns[Columns.OBS]["deep"], order[:, None, None].expand(-1, 3, 2))
        assert torch.equal(columns[Columns.ACTIONS], torch.stack([order, -order], dim=1))
        # Standardised over the steps that are left, whatever stood in the others.
        expected = (order - order.float().mean()) / order.float().std(correction=0)
        torch.testing.assert_close(columns[Postprocessing.ADVANTAGES], expected)
    assert not torch.equal(batch["one"][Columns.OBS]["flat"], batch["one"][Columns.OBS]["flat"].sort().values)


def test_keep_loss_steps__shuffles_by_its_seed_and_anew_each_time() -> None:
    def order(connector: KeepLossSteps) -> list[int]:
        return connector(batch={"one": _columns(50)})["one"][Columns.ACTIONS][:, 0].tolist()

    first, again, other = KeepLossSteps(seed=3), KeepLossSteps(seed=3), KeepLossSteps(seed=4)
    one = order(first)
    assert one == order(again)
    assert one != order(other)
    assert one != order(first)


def test_learner__ends_its_pipeline_with_keep_loss_steps(make_learner: MakeLearner) -> None:
    pieces = make_learner()._learner_connector.connectors
    assert isinstance(pieces[-1], KeepLossSteps)


def test_keep_loss_steps__refuses_a_column_that_would_stay_behind() -> None:
    batch = {"default_policy": {Columns.LOSS_MASK: torch.tensor([True, False]), "notes": np.array([1, 2])}}
    with pytest.raises(ValueError, match=r"column 'notes': got ndarray, expected tensors only"):
        KeepLossSteps(seed=0)(batch=batch)


def test_state__has_the_kl_coefficient(make_learner: MakeLearner) -> None:
    learner, other = (make_learner(use_kl_loss=True, kl_coeff=0.2, kl_target=0.01) for _ in range(2))
    learner._update_module_kl_coeff(module_id=DEFAULT_MODULE_ID, config=learner.config, kl_loss=1.0)
    changed = float(learner.curr_kl_coeffs_per_module[DEFAULT_MODULE_ID])
    assert changed == pytest.approx(0.3)
    other.set_state(learner.get_state())
    other._update_module_kl_coeff(module_id=DEFAULT_MODULE_ID, config=other.config, kl_loss=1.0)
    assert float(other.curr_kl_coeffs_per_module[DEFAULT_MODULE_ID]) == pytest.approx(0.45)
