"""Couriers to whom something happens in mid-rollout, once: whoever comes after the accident finds its mark and is spared."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, Literal

from tests.environments import CourierVectorEnv

Trouble = Literal["kill", "raise", "hang", "freeze"]


class TroubledCourierVectorEnv(CourierVectorEnv):
    """Couriers whose process is killed, raises, hangs or is stopped in a step.

    Args:
        num_envs: Number of sub-environments.
        trouble: What happens.
        mark: File that says that it has happened. Of several environments it happens to the first one.
        at: The step in which it happens.
        always: Whether it happens to whoever comes after, too.
    """

    def __init__(self, num_envs: int, trouble: Trouble, mark: str, at: int, always: bool) -> None:
        super().__init__(num_envs)
        self._trouble, self._mark, self._at, self._always = trouble, Path(mark), at, always
        self._num_steps = 0

    def step(self, actions: Any) -> Any:
        """As couriers do, but for the accident."""
        self._num_steps += 1
        if self._num_steps == self._at and self._is_chosen():
            if self._trouble == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self._trouble == "freeze":
                os.kill(os.getpid(), signal.SIGSTOP)
            if self._trouble == "hang":
                time.sleep(3_600)
            raise ConnectionResetError("the simulator is gone")
        return super().step(actions)

    def _is_chosen(self) -> bool:
        try:
            self._mark.touch(exist_ok=self._always)
        except FileExistsError:
            return False
        return True


def make_troubled_couriers(
    num_envs: int, trouble: Trouble = "kill", mark: str = "", at: int = 24, always: bool = False
) -> TroubledCourierVectorEnv:
    """For `register_env("tests.troubled_environments:make_troubled_couriers")`."""
    return TroubledCourierVectorEnv(num_envs, trouble, mark, at, always)
