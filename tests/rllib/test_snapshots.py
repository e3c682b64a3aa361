"""What is saved of a learner while its thread updates is of one moment, and stays as it was saved."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner

from perceiver_rl.rllib.learners import SquadAPPOLearner, SquadIMPALALearner
from perceiver_rl.rllib.learners.squad_learner import SquadLearner
from tests.rllib.test_vtrace_learners import Learner, MakeLearner, make_learner

__all__ = ["make_learner"]


def numbers_in(state: Any) -> set[float]:
    """All that stands in arrays."""
    if isinstance(state, dict):
        return set().union(*map(numbers_in, state.values()))
    return set(np.unique(state).tolist())


def number_everything(learner: Learner, number: float) -> None:
    """One update: weights and averages become its number, one tensor after the other."""
    (optimizer,) = learner._named_optimizers.values()
    for parameter in learner.module[DEFAULT_MODULE_ID].parameters():
        parameter.data.fill_(number)
        time.sleep(0)  # lets another thread run
    for parameter in optimizer.param_groups[0]["params"]:
        optimizer.state[parameter].setdefault("exp_avg", torch.zeros_like(parameter)).fill_(number)


@contextmanager
def updating(learner: Learner, monkeypatch: pytest.MonkeyPatch, method: str) -> Iterator[None]:
    """A thread that updates as RLlib's does, as fast as it can; by one of a learner's methods."""
    over = threading.Event()
    number = 0.0

    def update(*arguments: Any, **settings: Any) -> None:
        nonlocal number
        number += 1
        number_everything(learner, number)

    owner = TorchLearner if method == "_update" else SquadLearner
    monkeypatch.setattr(owner, method, update)

    def go_on() -> None:
        while not over.is_set():
            getattr(learner, method)(**({"batch": {}} if method == "_update" else {"timesteps": {}}))

    thread = threading.Thread(target=go_on)
    number_everything(learner, 0.0)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("learner_class", [SquadIMPALALearner, SquadAPPOLearner])
@pytest.mark.parametrize("method", ["_update", "after_gradient_based_update"])
def test_state__is_of_one_moment_and_stays_so(
    learner_class: type[Learner], method: str, make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner(learner_class)
    with updating(learner, monkeypatch, method):
        states = []
        for _ in range(10):
            states.append(learner.get_state())
            time.sleep(0.005)
    found = []
    for state in states:
        (optimizer,) = state["optimizer"].values()
        found.append(numbers_in(state["rl_module"]) | numbers_in(optimizer["state"]["state"]))
    assert all(len(each) == 1 for each in found), found
    assert len({min(each) for each in found}) > 5, "updates went on between them"
