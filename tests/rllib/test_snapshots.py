"""What is read of a learner while its thread updates it: the state of one moment, which stays as it was."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from agents.presets import preset
from perceiver_rl.rllib.learners import SquadAPPOLearner, SquadIMPALALearner
from perceiver_rl.rllib.module import module_spec
from tests.environments import COURIERS

UPDATES = 25
ROWS = 4


class _Numbered:
    """Of a learner's update: sets weights, then the optimizer's state, to the update's number, one tensor after another."""

    number = 0
    module: Any
    _named_optimizers: dict[str, torch.optim.Optimizer]

    def _update(self, batch: dict[str, Any], **kwargs: Any) -> Any:
        self.number += 1
        module = self.module[DEFAULT_MODULE_ID].unwrapped()
        module.count.fill_(self.number)
        (optimizer,) = self._named_optimizers.values()
        parameters = optimizer.param_groups[0]["params"]
        with torch.no_grad():
            for parameter in parameters:
                parameter.fill_(self.number)
        for parameter in parameters:
            time.sleep(1e-4)  # lets others have a look
            average = torch.full_like(parameter, self.number)
            optimizer.state[parameter] = {"step": torch.tensor(float(self.number)), "exp_avg": average}
        return {}, {}, {}


class _NumberedIMPALA(_Numbered, SquadIMPALALearner):
    pass


class _NumberedAPPO(_Numbered, SquadAPPOLearner):
    pass


Learner = _NumberedIMPALA | _NumberedAPPO
LEARNERS = pytest.mark.parametrize("learner_class", [_NumberedIMPALA, _NumberedAPPO])


@pytest.fixture
def make_updating() -> Iterator[Callable[[type[Learner]], Learner]]:
    """A learner whose thread has many updates before it."""
    made = []

    def make(learner_class: type[Learner]) -> Learner:
        config: IMPALAConfig = APPOConfig() if learner_class is _NumberedAPPO else IMPALAConfig()
        # Aggregated figures would be put into a Ray.
        config.environment(None).training(broadcast_interval=10 * UPDATES, train_batch_size_per_learner=ROWS)
        if isinstance(config, APPOConfig):  # its target network follows after each update
            config.training(use_circular_buffer=False, target_network_update_freq=0, tau=1.0, use_kl_loss=False)
        config.training(**{"simple_queue_size" if isinstance(config, APPOConfig) else "learner_queue_size": UPDATES})
        config.rl_module(rl_module_spec=module_spec(preset("tiny"))).learners(learner_class=learner_class, num_learners=0)
        spaces = {DEFAULT_MODULE_ID: (COURIERS.observation_space, COURIERS.action_space)}
        learner = learner_class(config=config, module_spec=config.get_multi_rl_module_spec(spaces=spaces))
        learner.build()
        made.append(learner)
        # RLlib makes views of such tensors, and copies of others.
        module = learner.module[DEFAULT_MODULE_ID].unwrapped()
        module.register_buffer("count", torch.zeros(3, dtype=torch.int32))
        for _ in range(UPDATES):
            rows = SampleBatch({Columns.LOSS_MASK: torch.arange(ROWS) < ROWS - 1})
            batch = MultiAgentBatch({DEFAULT_MODULE_ID: rows}, env_steps=ROWS - 1)
            learner.update(TrainingData(batch=batch), timesteps={})
        return learner

    yield make
    for learner in made:
        learner.shutdown()


def _numbers(weights: dict[str, Any], optimizers: dict[str, Any]) -> set[int]:
    """Those of all updates that these are of; empty before the first."""
    (optimizer,) = optimizers.values()
    averages = optimizer["state"]["state"]
    if not averages:
        return set()
    trained = {name: each for name, each in weights.items() if each.dtype in (np.float32, np.int32)}
    assert any(name.startswith("policy") for name in trained)
    arrays = [*trained.values(), *(each["exp_avg"] for each in averages.values())]
    return {int(number) for array in arrays for number in np.unique(array)}


def _of_state(state: dict[str, Any]) -> set[int]:
    return _numbers(state["rl_module"][DEFAULT_MODULE_ID], state["optimizer"])


@LEARNERS
def test_state__is_of_one_moment_and_stays_so(
    learner_class: type[Learner], make_updating: Callable[[type[Learner]], Learner]
) -> None:
    learner = make_updating(learner_class)
    states = []
    while learner.number < UPDATES:
        state = learner.get_state()
        states.append((state, pickle.dumps(state)))
    moments = [_of_state(pickle.loads(pickled)) for _, pickled in states]
    assert all(len(numbers) <= 1 for numbers in moments), moments
    assert len(set().union(*moments)) > 5, "not many of them were read in the midst of updates"
    assert [_of_state(state) for state, _ in states] == moments
    assert all(
        state["weights_seq_no"] == max(numbers, default=0) for (state, _), numbers in zip(states, moments, strict=True)
    )


@LEARNERS
def test_checkpoint__is_of_one_moment(
    learner_class: type[Learner], make_updating: Callable[[type[Learner]], Learner], tmp_path: Path
) -> None:
    learner, moments = make_updating(learner_class), []
    while learner.number < UPDATES:
        path = Path(learner.save_to_path(tmp_path / str(len(moments))))
        state = pickle.loads((path / "state.pkl").read_bytes())
        weights = pickle.loads((path / "rl_module" / DEFAULT_MODULE_ID / "module_state.pkl").read_bytes())
        moments.append(_numbers(weights, state["optimizer"]))
    assert all(len(numbers) <= 1 for numbers in moments), moments
    assert len(set().union(*moments)) > 5, "not many of them were read in the midst of updates"


@LEARNERS
def test_state__is_replaced_between_updates(
    learner_class: type[Learner], make_updating: Callable[[type[Learner]], Learner]
) -> None:
    learner, moments = make_updating(learner_class), []
    while not _of_state(state := learner.get_state()):
        time.sleep(0.001)
    while learner.number < UPDATES:
        learner.set_state(state | {"weights_seq_no": 0})  # which RLlib takes for new in any case
        moments.append(_of_state(learner.get_state()))
    assert all(len(numbers) == 1 for numbers in moments), moments
    assert len(moments) > 5, "few of them were replaced in the midst of updates"
