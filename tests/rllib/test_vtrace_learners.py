"""The losses of IMPALA and APPO for squads against naive loops and against RLlib's own."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.appo.torch.appo_torch_learner import APPOTorchLearner
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.impala.torch.impala_torch_learner import IMPALATorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from torch import Tensor

from agents.presets import preset
from perceiver_rl.rllib.distribution import ILLEGAL, to_dist_inputs
from perceiver_rl.rllib.learners import SquadAPPOLearner, SquadIMPALALearner
from perceiver_rl.rllib.learners.vtrace import vtrace
from perceiver_rl.rllib.learners.vtrace_learners import LAG_KEY
from perceiver_rl.rllib.module import PerceiverRLModule, module_spec
from tests.environments import COURIERS
from tests.schemas import observe, to_tensors

LENGTHS = (4, 3, 5)  # of the chunks, their artificial steps included
STEPS = sum(LENGTHS)
GAMMA, CLIP = 0.9, 0.2
CONFIGS = {SquadIMPALALearner: IMPALAConfig, SquadAPPOLearner: APPOConfig}
LEARNERS = pytest.mark.parametrize("learner_class", CONFIGS)

Learner = SquadIMPALALearner | SquadAPPOLearner
MakeLearner = Callable[..., Learner]


def _config(learner_class: type[Learner], settings: dict[str, Any], **training: Any) -> IMPALAConfig:
    config = CONFIGS[learner_class]().environment(None)
    config.training(**{"gamma": GAMMA, "entropy_coeff": 0.03, "vf_loss_coeff": 0.7} | training)
    if learner_class is SquadAPPOLearner:
        config.training(clip_param=CLIP)
    config.rl_module(rl_module_spec=module_spec(preset("tiny")))
    return config.learners(learner_class=learner_class, learner_config_dict=settings, num_learners=0)


@pytest.fixture
def make_learner() -> Any:
    """A learner of a class with settings of its own and of training; its thread is stopped in the end."""
    made = []

    def make(learner_class: type[Learner], settings: dict[str, Any] | None = None, **training: Any) -> Learner:
        config = _config(learner_class, settings or {}, **training)
        spaces = {DEFAULT_MODULE_ID: (COURIERS.observation_space, COURIERS.action_space)}
        learner = learner_class(config=config, module_spec=config.get_multi_rl_module_spec(spaces=spaces))
        learner.build()
        made.append(learner)
        return learner

    yield make
    for learner in made:
        learner.shutdown()


def _module(learner: Learner) -> PerceiverRLModule:
    return learner.module[DEFAULT_MODULE_ID].unwrapped()


def _batch(learner: Learner, single: bool = False) -> dict[str, Any]:
    """A train batch of chunks, sampled by a policy that differs from the learner's and from its target network."""
    observation = observe(COURIERS, STEPS, seed=0, empty=not single)
    if single:
        observation["entity_mask/courier"][:] = np.arange(4) == 1
        observation["action_mask"] &= observation["entity_mask/courier"][..., None]
        observation["action_mask"][:, 1, 0] = True
    tensors, module = to_tensors(observation), _module(learner)
    torch.manual_seed(0)
    with torch.no_grad():
        output = module.policy(tensors)
        actions = output.distribution.sample()
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    ends = torch.zeros(STEPS, dtype=torch.bool)
    ends[torch.tensor(LENGTHS).cumsum(0) - 1] = True
    terminated = torch.zeros(STEPS, dtype=torch.bool)
    terminated[LENGTHS[0] - 2] = True
    return {
        Columns.OBS: tensors,
        Columns.ACTIONS: actions,
        Columns.ACTION_DIST_INPUTS: to_dist_inputs(output),
        Columns.ACTION_LOGP: output.distribution.log_prob(actions),
        Columns.REWARDS: torch.where(ends, 0.0, torch.randn(STEPS)),
        Columns.TERMINATEDS: terminated,
        Columns.LOSS_MASK: ~ends,
    }


def _loss(learner: Learner, batch: dict[str, Any], of: Any = None) -> Tensor:
    fwd_out = learner.module[DEFAULT_MODULE_ID].forward_train(batch)
    return (of or type(learner)).compute_loss_for_module(
        learner,
        module_id=DEFAULT_MODULE_ID,
        config=learner.config.get_config_for_module(DEFAULT_MODULE_ID),
        batch=batch,
        fwd_out=fwd_out,
    )


def _require_finite_gradients(learner: Learner) -> None:
    assert all(torch.isfinite(each.grad).all() for each in _module(learner).policy.parameters() if each.grad is not None)


def _logged(learner: Learner, key: str) -> float:
    return float(learner.metrics.peek((DEFAULT_MODULE_ID, key)))


def _per_actor(learner: Learner, batch: dict[str, Any], inputs: Tensor) -> list[list[float]]:
    """Log-probabilities of the choices, of each present actor of each step."""
    legal = _module(learner).policy(batch[Columns.OBS]).legal
    logits = inputs.unflatten(-1, (4, -1)).double()
    return [
        [
            (logits[b, a, batch[Columns.ACTIONS][b, a]] - logits[b, a][legal[b, a]].logsumexp(0)).item()
            for a in range(4)
            if legal[b, a].any()
        ]
        for b in range(STEPS)
    ]


@pytest.mark.parametrize("ratio", ["per_actor", "joint"])
@pytest.mark.parametrize("standardize", [True, False])
@LEARNERS
def test_loss__equals_a_naive_loop(
    learner_class: type[Learner], ratio: str, standardize: bool, make_learner: MakeLearner
) -> None:
    learner = make_learner(learner_class, {"ratio": ratio, "standardize_advantages": standardize})
    batch = _batch(learner)
    loss = _loss(learner, batch).item()
    module, ends = _module(learner), ~batch[Columns.LOSS_MASK]
    with torch.no_grad():
        output = module.policy(batch[Columns.OBS])
        current = _per_actor(learner, batch, to_dist_inputs(output))
        behaviour = _per_actor(learner, batch, batch[Columns.ACTION_DIST_INPUTS])
        if learner_class is SquadAPPOLearner:
            old = _per_actor(learner, batch, to_dist_inputs(module.target_policy(batch[Columns.OBS])))
        else:
            old = current
    if ratio == "joint":
        current, behaviour, old = ([[sum(each)] for each in of] for of in (current, behaviour, old))
    # Who is absent has no ratio, and the traces run past him: 1.
    slots = len(current[0]) if ratio == "joint" else 4
    present = torch.ones(STEPS, 1, dtype=torch.bool) if ratio == "joint" else output.legal.any(dim=2)
    ratios = torch.ones(STEPS, slots)
    ratios[present] = (
        torch.tensor([a - b for mine, theirs in zip(old, behaviour, strict=True) for a, b in zip(mine, theirs, strict=True)])
        .exp()
        .float()
    )
    traced = vtrace(
        ratio=ratios,
        rewards=batch[Columns.REWARDS],
        values=output.value,
        terminated=batch[Columns.TERMINATEDS],
        ends=ends,
        discount=GAMMA,
    )
    advantages = traced.advantages
    if standardize:
        of_loss = advantages[~ends.unsqueeze(1) & present]
        advantages = (advantages - of_loss.mean()) / of_loss.std(correction=0)
    gains, targets = [], []
    for b in np.flatnonzero(~ends.numpy()):
        of_actors = []
        here = present[b] if present[b].any() else ~present[b]  # nobody: all targets are one
        targets.append(traced.targets[b][here].mean().item())
        for now, then, target, advantage in zip(
            current[b], behaviour[b], old[b], advantages[b][present[b]].tolist(), strict=True
        ):
            if learner_class is SquadIMPALALearner:
                of_actors.append(min(1.0, np.exp(now - then)) * advantage * now)
            else:
                weighted = min(1.0, np.exp(target - then)) * advantage
                change = min(2.0, np.exp(then - target)) * np.exp(now - then)
                of_actors.append(min(weighted * change, weighted * min(max(change, 1 - CLIP), 1 + CLIP)))
        gains.append(sum(of_actors) / max(len(of_actors), 1))
    close = {"rel": 1e-4, "abs": 1e-5}
    assert _logged(learner, POLICY_LOSS_KEY) == pytest.approx(-np.mean(gains), **close)
    value_loss = 0.5 * (output.value[~ends] - torch.tensor(targets)).square().mean().item()
    assert _logged(learner, VF_LOSS_KEY) == pytest.approx(value_loss, **close)
    entropy = _logged(learner, ENTROPY_KEY)
    assert entropy > 0.1
    assert loss == pytest.approx(-np.mean(gains) + 0.7 * value_loss - 0.03 * entropy, **close)


@LEARNERS
def test_loss__tells_how_far_the_policy_has_moved(learner_class: type[Learner], make_learner: MakeLearner) -> None:
    learner = make_learner(learner_class)
    batch = _batch(learner)
    _loss(learner, batch)
    current = _per_actor(learner, batch, to_dist_inputs(_module(learner).policy(batch[Columns.OBS])))
    behaviour = _per_actor(learner, batch, batch[Columns.ACTION_DIST_INPUTS])
    of_steps = []
    for b in np.flatnonzero(batch[Columns.LOSS_MASK].numpy()):
        log_ratios = np.subtract(current[b], behaviour[b])
        of_steps.append(np.mean(np.exp(log_ratios) - 1 - log_ratios) if len(log_ratios) else 0.0)
    assert _logged(learner, LAG_KEY) == pytest.approx(np.mean(of_steps), rel=1e-4)
    assert np.mean(of_steps) > 0.01


@LEARNERS
def test_loss__takes_no_notice_of_artificial_steps(learner_class: type[Learner], make_learner: MakeLearner) -> None:
    losses, lags = [], []
    for impossible in (False, True):
        torch.manual_seed(0)  # the same weights
        learner = make_learner(learner_class)
        batch = _batch(learner)
        if impossible:  # what is done in them, and so of infinite ratio
            ends = ~batch[Columns.LOSS_MASK]
            legal = _module(learner).policy(batch[Columns.OBS]).legal[ends]
            assert legal.any()
            chosen = legal.float().argmax(dim=2)
            inputs = torch.zeros(legal.shape).scatter(2, chosen.unsqueeze(2), ILLEGAL)
            batch[Columns.ACTION_DIST_INPUTS][ends], batch[Columns.ACTIONS][ends] = inputs.flatten(1), chosen
        losses.append(_loss(learner, batch))
        lags.append(_logged(learner, LAG_KEY))
    assert losses[0].item() == losses[1].item()
    assert lags[0] == lags[1]
    losses[1].backward()
    _require_finite_gradients(learner)


@LEARNERS
def test_loss__is_finite_where_nobody_is_present(learner_class: type[Learner], make_learner: MakeLearner) -> None:
    learner = make_learner(learner_class)
    batch = _batch(learner)
    for mask in ("entity_mask/courier", "action_mask"):
        batch[Columns.OBS][mask][:] = False
    loss = _loss(learner, batch)
    assert torch.isfinite(loss)
    assert _logged(learner, POLICY_LOSS_KEY) == 0.0
    loss.backward()
    _require_finite_gradients(learner)


@pytest.mark.parametrize("ratio", ["per_actor", "joint"])
@LEARNERS
def test_loss__of_one_actor_has_the_gradients_of_rllibs(
    learner_class: type[Learner], ratio: str, make_learner: MakeLearner
) -> None:
    # Where a squad is one unit and the batch one chunk of the length that RLlib cuts, nothing is left that differs.
    settings = {"ratio": ratio, "standardize_advantages": False}
    learner = make_learner(learner_class, settings)
    learner.config.rollout_fragment_length = STEPS
    batch = _batch(learner, single=True)
    batch[Columns.LOSS_MASK] = torch.arange(STEPS) < STEPS - 1
    batch[Columns.TERMINATEDS] = torch.arange(STEPS) == STEPS - 2
    theirs = APPOTorchLearner if learner_class is SquadAPPOLearner else IMPALATorchLearner
    gradients = []
    for of in (learner_class, theirs):
        learner.module[DEFAULT_MODULE_ID].zero_grad()
        _loss(learner, batch, of).backward()
        gradients.append({name: each.grad for name, each in _module(learner).policy.named_parameters()})
    assert any(each.any() for each in gradients[0].values())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_loss__reads_no_gradient_into_the_target_network(make_learner: MakeLearner) -> None:
    learner = make_learner(SquadAPPOLearner)
    batch = _batch(learner)
    _loss(learner, batch).backward()
    assert all(each.grad is None for each in _module(learner).target_policy.parameters())
    assert all(not each.requires_grad for each in _module(learner).target_policy.parameters())
    # Env runners are sent the policy alone.
    assert not any(key.startswith("target_policy") for key in _module(learner).get_state(inference_only=True))
    assert any(key.startswith("target_policy") for key in _module(learner).get_state())


def test_loss__penalises_divergence_from_the_target_network(make_learner: MakeLearner) -> None:
    losses = {}
    for coefficient in (0.0, 2.0):
        torch.manual_seed(0)  # the same weights
        learner = make_learner(SquadAPPOLearner, use_kl_loss=True, kl_coeff=coefficient)
        losses[coefficient] = _loss(learner, _batch(learner)).item()
        kl = _logged(learner, "mean_kl_loss")
    assert kl > 0
    assert losses[2.0] - losses[0.0] == pytest.approx(2.0 * kl, rel=1e-3)


@LEARNERS
def test_update__takes_minibatches_of_whole_chunks(learner_class: type[Learner], make_learner: MakeLearner) -> None:
    learner = make_learner(learner_class, train_batch_size_per_learner=STEPS, minibatch_size=STEPS // 3, num_epochs=2)
    batch = MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(_batch(learner))}, env_steps=STEPS)
    minibatches = learner._create_iterator_if_necessary(
        training_data=TrainingData(batch=batch), num_epochs=2, minibatch_size=STEPS // 3
    )
    lengths = [len(minibatch[DEFAULT_MODULE_ID][Columns.REWARDS]) for minibatch in minibatches]
    assert sorted(lengths[:3]) == sorted(lengths[3:]) == sorted(LENGTHS)


@LEARNERS
def test_settings__names_what_is_wrong(learner_class: type[Learner]) -> None:
    with pytest.raises(ValueError, match=r"training\.vtrace: got False, expected True"):
        learner_class.settings(_config(learner_class, {}, vtrace=False))
    with pytest.raises(ValueError, match=r"learner_config_dict.*unknown.*'ratios'"):
        learner_class.settings(_config(learner_class, {"ratios": "joint"}))
    with pytest.raises(ValueError, match=r"lambda_: got 1\.5, expected 0 to 1"):
        learner_class.settings(_config(learner_class, {"lambda_": 1.5}))


@LEARNERS
def test_settings__lambda_reaches_the_targets(learner_class: type[Learner], make_learner: MakeLearner) -> None:
    losses = {}
    for lambda_ in (0.0, 1.0):
        torch.manual_seed(0)  # the same weights
        learner = make_learner(learner_class, {"lambda_": lambda_})
        _loss(learner, _batch(learner))
        losses[lambda_] = _logged(learner, VF_LOSS_KEY)
    assert losses[0.0] != pytest.approx(losses[1.0], rel=1e-3)


def test_state__has_the_kl_coefficient(make_learner: MakeLearner) -> None:
    learner, other = (make_learner(SquadAPPOLearner, use_kl_loss=True, kl_coeff=0.2) for _ in range(2))
    learner.curr_kl_coeffs_per_module[DEFAULT_MODULE_ID].data *= 1.5
    other.set_state(learner.get_state())
    assert float(other.curr_kl_coeffs_per_module[DEFAULT_MODULE_ID]) == pytest.approx(0.3)


def test_state__has_when_the_target_network_last_followed(make_learner: MakeLearner) -> None:
    learner, other = (make_learner(SquadAPPOLearner) for _ in range(2))
    learner._last_update_ts_by_mid[DEFAULT_MODULE_ID] = 8464
    other.set_state(learner.get_state())
    assert int(other._last_update_ts_by_mid[DEFAULT_MODULE_ID]) == 8464
