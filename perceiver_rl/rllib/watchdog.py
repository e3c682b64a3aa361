"""Replaces env runners that hang: RLlib replaces those that die, and waits for the others for ever."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import ray
from ray.exceptions import RayError
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

logger = logging.getLogger(__name__)

PATIENCE = 2.0
"""In units of `sample_timeout_s`: so long an env runner may work on one rollout."""

PATIENCE_AT_START_S = 600.0
"""So long the start of a process and its first rollout may take, in which environments compile themselves."""

LAST_PATIENCE_S = 5.0
"""So long an env runner may take to answer when a run is over."""


def patience_without_samples(config: AlgorithmConfig) -> float:
    """Seconds that a run may go on without a sample: its only env runner may hang, be killed for it, and start anew.

    It may hang in its first rollout, too.
    """
    return max(PATIENCE * float(config.sample_timeout_s or 0.0), PATIENCE_AT_START_S) + PATIENCE_AT_START_S


class Watchdog:
    """Asks each env runner for a sign of life, again and again, and kills one that gives none; Ray starts it anew.

    A sign of life waits until a rollout is done. RLlib drops what takes longer than `sample_timeout_s`, so a runner that
    takes twice that long is of no use, whatever it is doing. The driver's own process cannot be watched from within: an
    environment that hangs there (`num_env_runners=0`) stops the run.

    Args:
        algorithm: Whose env runners are watched while the context is open.
    """

    def __init__(self, algorithm: Algorithm) -> None:
        self.num_killed = 0
        self._group = algorithm.env_runner_group
        self._timeout = float(algorithm.config.sample_timeout_s or 0.0)
        self._asked: dict[int, tuple[Any, float]] = {}
        """What was asked of an env runner that has not answered yet, and when; by its index."""
        self._num_answers: dict[int, int] = {}
        """Since its process began."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="env runner watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        if self._timeout and self._group is not None:  # without a timeout the user wants to wait
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self._timeout / 10)):
            actors = dict(self._group._worker_manager._actors)
            for index, actor in actors.items():
                self._look_after(index, actor)

    def _look_after(self, index: int, actor: Any) -> None:
        now = time.monotonic()
        if index not in self._asked:
            self._asked[index] = (actor.ping.remote(), now)
            return
        answer, asked = self._asked[index]
        if ray.wait([answer], timeout=0)[0]:
            del self._asked[index]
            try:
                ray.get(answer)
            except RayError:  # it died, and RLlib will see to that
                self._num_answers[index] = 0
            else:
                self._num_answers[index] = self._num_answers.get(index, 0) + 1
            return
        # The first answer comes before the first rollout, the second one after it.
        patience = PATIENCE * self._timeout
        if self._num_answers.get(index, 0) < 2:
            patience = max(patience, PATIENCE_AT_START_S)
        if now - asked < patience:
            return
        logger.warning(
            "env runner %d: got no sign of life for %.0f s; it hangs, or its rollouts take more than %g times "
            "env_runners.sample_timeout_s (%g s). Its process is killed and started anew",
            index,
            now - asked,
            PATIENCE,
            self._timeout,
        )
        ray.kill(actor, no_restart=False)
        self.num_killed += 1
        del self._asked[index]
        self._num_answers[index] = 0


def kill_silent_env_runners(algorithm: Algorithm) -> None:
    """Kill those that do not answer any more, before an algorithm is stopped: RLlib would wait for them for ever."""
    for group in (algorithm.env_runner_group, algorithm.eval_env_runner_group):
        actors: Mapping[int, Any] = group._worker_manager._actors if group is not None else {}
        asked = {actor.ping.remote(): actor for actor in actors.values()}
        if asked:
            _, silent = ray.wait(list(asked), num_returns=len(asked), timeout=LAST_PATIENCE_S)
            for answer in silent:
                ray.kill(asked[answer], no_restart=True)
