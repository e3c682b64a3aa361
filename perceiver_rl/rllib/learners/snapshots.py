"""Snapshots of a learner that updates in a thread of its own."""

from __future__ import annotations

import copy
from typing import Any

from ray.rllib.core.learner.learner import Learner

from perceiver_rl.rllib.learners.fair_lock import FairLock
from perceiver_rl.rllib.learners.squad_learner import SquadLearner


class SnapshotLearner(SquadLearner):
    """What is saved of it, or told to env runners, is of one moment: between two updates.

    The threads of RLlib's IMPALA and APPO learners do not wait for whoever reads them: tensors of one snapshot could be of
    different updates. An update is that of a whole batch with what follows it, as APPO's target network does. Checkpoints
    are made of `get_state`, too.
    """

    def build(self) -> None:
        """As RLlib does."""
        self._between_updates = FairLock()  # first: the learner's thread begins in `build`
        super().build()
        # The thread has no batch yet. It calls `Learner.update` itself, past what a subclass makes of `update`.
        self._learner_thread._update_method = SnapshotLearner._update_undisturbed

    def _update_undisturbed(self, **kwargs: Any) -> None:
        """One batch, from its first minibatch to what is done after the last."""
        with self._between_updates:
            Learner.update(self, **kwargs)

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As RLlib does, and nothing in it changes with the updates that follow.

        RLlib copies most tensors, but hands out views of those of bool and int32, and the series of metrics themselves.
        """
        with self._between_updates:
            state: dict[str, Any] = copy.deepcopy(super().get_state(*args, **kwargs))
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """As RLlib does."""
        with self._between_updates:
            super().set_state(state)

    def save_to_path(self, path: Any = None, *, state: dict[str, Any] | None = None, **kwargs: Any) -> str:
        """As RLlib does, but of one moment: by itself it reads the optimizer first, and the weights later."""
        saved: str = super().save_to_path(path, state=self.get_state() if state is None else state, **kwargs)
        return saved
