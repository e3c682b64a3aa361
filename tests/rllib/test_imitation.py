"""The losses of BC and MARWIL for squads against naive loops and against RLlib's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.marwil.torch.marwil_torch_learner import MARWILTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import POLICY_LOSS_KEY, VF_LOSS_KEY
from torch import Tensor

from perceiver_rl.rllib import SquadBCLearner, SquadMARWILLearner
from perceiver_rl.rllib.learners.imitation import ADVANTAGE_SCALE_KEY, AGREEMENT_KEY, WEIGHT_KEY
from perceiver_rl.rllib.module import PerceiverRLModule
from tests.environments import COURIERS
from tests.rllib.imitation import Learner, make_config
from tests.schemas import observe, to_tensors

STEPS = 13
BETA, RATE, START, MAX_WEIGHT = 0.7, 0.25, 4.0, 1.2
LEARNERS = pytest.mark.parametrize("learner_class", [SquadBCLearner, SquadMARWILLearner])


def make_learner(learner_class: type[Learner], settings: dict[str, Any] | None = None, **training: Any) -> Learner:
    if learner_class is SquadMARWILLearner:
        training = {
            "beta": BETA,
            "vf_coeff": 0.3,
            "moving_average_sqd_adv_norm_start": START,
            "moving_average_sqd_adv_norm_update_rate": RATE,
            **training,
        }
    config = make_config(learner_class, settings=settings, **training)
    spaces = {DEFAULT_MODULE_ID: (COURIERS.observation_space, COURIERS.action_space)}
    learner = learner_class(config=config, module_spec=config.get_multi_rl_module_spec(spaces=spaces))
    learner.build()
    return learner


def _module(learner: MARWILTorchLearner) -> PerceiverRLModule:
    return learner.module[DEFAULT_MODULE_ID].unwrapped()


def _batch(learner: Learner, single: bool = False) -> dict[str, Any]:
    """Choices of another policy; with `single` one courier alone is present in each step."""
    observation = observe(COURIERS, STEPS, seed=0, empty=not single)
    if single:
        observation["entity_mask/courier"][:] = np.arange(4) == 1
        observation["action_mask"] &= observation["entity_mask/courier"][..., None]
        observation["action_mask"][:, 1, 0] = True
    tensors, module = to_tensors(observation), _module(learner)
    torch.manual_seed(0)
    with torch.no_grad():
        actions = module.policy(tensors).distribution.sample()
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return {Columns.OBS: tensors, Columns.ACTIONS: actions, Columns.VALUE_TARGETS: 2 * torch.randn(STEPS)}


def _loss(learner: Learner, batch: dict[str, Any], of: Any = None) -> Tensor:
    fwd_out = learner.module[DEFAULT_MODULE_ID].forward_train(batch)
    return (of or type(learner)).compute_loss_for_module(
        learner,
        module_id=DEFAULT_MODULE_ID,
        config=learner.config.get_config_for_module(DEFAULT_MODULE_ID),
        batch=batch,
        fwd_out=fwd_out,
    )


def _logged(learner: Learner, key: str) -> float:
    return float(learner.metrics.peek((DEFAULT_MODULE_ID, key)))


@pytest.mark.parametrize("ratio", ["per_actor", "joint"])
@LEARNERS
def test_loss__equals_a_naive_loop(learner_class: type[Learner], ratio: str) -> None:
    settings: dict[str, Any] = {"ratio": ratio}
    if learner_class is SquadMARWILLearner:
        settings["max_weight"] = MAX_WEIGHT
    learner = make_learner(learner_class, settings)
    batch = _batch(learner)
    loss = _loss(learner, batch).item()
    with torch.no_grad():
        output = _module(learner).policy(batch[Columns.OBS])
    targets, values = batch[Columns.VALUE_TARGETS].numpy(), output.value.numpy()
    square = START + RATE * (np.square(targets - values).mean() - START)
    likelihoods, weights, agreed = [], [], []
    for b in range(STEPS):
        of_actors, same = [], []
        for a in range(4):
            legal = output.legal[b, a]
            if legal.any():
                logits = torch.where(legal, output.logits[b, a].double(), -torch.inf)
                choice = batch[Columns.ACTIONS][b, a]
                of_actors.append((logits[choice] - logits.logsumexp(0)).item())
                same.append(logits.argmax() == choice)
        total = sum(of_actors) if ratio == "joint" else sum(of_actors) / max(len(of_actors), 1)
        likelihoods.append(total)
        agreed.append(sum(same) / max(len(same), 1))
        weights.append(min(MAX_WEIGHT, np.exp(BETA * (targets[b] - values[b]) / np.sqrt(square))))
    assert _logged(learner, AGREEMENT_KEY) == pytest.approx(np.mean(agreed), abs=1e-6)
    if learner_class is SquadBCLearner:
        assert loss == pytest.approx(-np.mean(likelihoods), rel=1e-5)
        return
    assert max(weights) == MAX_WEIGHT  # some are cut off
    assert min(weights) < 1
    expected = -np.mean(np.array(weights) * likelihoods)
    value_loss = 0.5 * np.square(targets - values).mean()
    assert _logged(learner, POLICY_LOSS_KEY) == pytest.approx(expected, rel=1e-5)
    assert _logged(learner, VF_LOSS_KEY) == pytest.approx(value_loss, rel=1e-5)
    assert _logged(learner, WEIGHT_KEY) == pytest.approx(np.mean(weights), rel=1e-5)
    assert _logged(learner, ADVANTAGE_SCALE_KEY) == pytest.approx(np.sqrt(square), rel=1e-5)
    assert loss == pytest.approx(expected + 0.3 * value_loss, rel=1e-5)


@LEARNERS
@pytest.mark.parametrize("ratio", ["per_actor", "joint"])
def test_loss__of_one_actor_has_the_gradients_of_rllibs(learner_class: type[Learner], ratio: str) -> None:
    settings: dict[str, Any] = {"ratio": ratio}
    if learner_class is SquadMARWILLearner:
        settings["max_weight"] = float("inf")
    gradients = []
    for of in (learner_class, MARWILTorchLearner):
        torch.manual_seed(0)  # the same weights
        learner = make_learner(learner_class, settings)  # anew, since each loss moves the average
        batch = _batch(learner, single=True)
        _loss(learner, batch, of).backward()
        gradients.append({name: each.grad for name, each in _module(learner).policy.named_parameters()})
    assert any(each is not None and each.any() for each in gradients[0].values())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_loss__of_bc_does_not_grow_with_the_squad() -> None:
    learner = make_learner(SquadBCLearner)
    batch = _batch(learner)
    with torch.no_grad():
        output = _module(learner).policy(batch[Columns.OBS])
    uniform = torch.where(output.legal, 0.0, torch.finfo(torch.float32).min).flatten(1)
    distribution = _module(learner).get_train_action_dist_cls().from_logits(uniform).per_actor
    some = output.legal.any(dim=2)
    expected = [
        np.mean([-np.log(output.legal[b, a].sum().item()) for a in range(4) if some[b, a]]) if some[b].any() else 0.0
        for b in range(STEPS)
    ]
    assert learner._log_likelihood(distribution, batch).tolist() == pytest.approx(expected, rel=1e-5)


def test_weight__carries_no_gradient_into_the_value() -> None:
    learner = make_learner(SquadMARWILLearner, vf_coeff=0.0)
    batch = _batch(learner)
    fwd_out = learner.module[DEFAULT_MODULE_ID].forward_train(batch)
    fwd_out[Columns.EMBEDDINGS] = fwd_out[Columns.EMBEDDINGS].detach().requires_grad_()
    config = learner.config.get_config_for_module(DEFAULT_MODULE_ID)
    learner.compute_loss_for_module(module_id=DEFAULT_MODULE_ID, config=config, batch=batch, fwd_out=fwd_out).backward()
    assert not fwd_out[Columns.EMBEDDINGS].grad.any()


def test_state__keeps_the_moving_average(tmp_path: Path) -> None:
    learner, other = make_learner(SquadMARWILLearner), make_learner(SquadMARWILLearner)
    _loss(learner, _batch(learner))
    square = float(learner.moving_avg_sqd_adv_norms_per_module[DEFAULT_MODULE_ID])
    assert square != START
    learner.save_to_path(tmp_path / "learner")
    other.restore_from_path(tmp_path / "learner")
    assert float(other.moving_avg_sqd_adv_norms_per_module[DEFAULT_MODULE_ID]) == pytest.approx(square)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bc_logstd_coeff": 0.1}, r"training\.bc_logstd_coeff: got 0\.1, expected 0"),
        ({"burnin_len": 2}, r"training\.burnin_len: got 2, expected 0"),
    ],
)
@LEARNERS
def test_settings__names_what_is_wrong(learner_class: type[Learner], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        learner_class.settings(make_config(learner_class, **change))


def test_settings__wants_one_batch_an_update_and_a_positive_limit() -> None:
    config = make_config(SquadMARWILLearner).offline_data(dataset_num_iters_per_learner=4)
    with pytest.raises(ValueError, match=r"offline_data\.dataset_num_iters_per_learner: got 4, expected 1"):
        SquadMARWILLearner.settings(config)
    with pytest.raises(ValueError, match=r"max_weight: got 0, expected more than 0"):
        SquadMARWILLearner.settings(make_config(SquadMARWILLearner, settings={"max_weight": 0.0}))
    with pytest.raises(ValueError, match=r"learner_config_dict.*unknown.*'max_weight'"):
        SquadBCLearner.settings(make_config(SquadBCLearner, settings={"max_weight": 2.0}))
