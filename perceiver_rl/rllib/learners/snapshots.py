"""Snapshots of a learner that updates in a thread of its own."""

from __future__ import annotations

from typing import Any

from perceiver_rl.rllib.learners.fair_lock import FairLock
from perceiver_rl.rllib.learners.squad_learner import SquadLearner


class SnapshotLearner(SquadLearner):
    """What is saved of it, or told to env runners, is of one moment: between two updates.

    The threads of RLlib's IMPALA and APPO learners do not wait for whoever reads them: tensors of one snapshot could be of
    different updates. Checkpoints are made of `get_state`, too.
    """

    def build(self) -> None:
        """As RLlib does."""
        self._between_updates = FairLock()  # first: the learner's thread begins in `build`
        super().build()

    def _update(self, batch: dict[str, Any], **kwargs: Any) -> Any:
        """As RLlib does, of one minibatch."""
        with self._between_updates:
            return super()._update(batch, **kwargs)

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """As RLlib does; APPO's target network follows here."""
        with self._between_updates:
            super().after_gradient_based_update(timesteps=timesteps)

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As RLlib does, which copies."""
        with self._between_updates:
            state: dict[str, Any] = super().get_state(*args, **kwargs)
            return state

    def set_state(self, state: dict[str, Any]) -> None:
        """As RLlib does."""
        with self._between_updates:
            super().set_state(state)
