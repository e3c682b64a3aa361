"""A rollout of a vector environment, kept as arrays and cut into episode chunks once, at its end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_rl.infos import info_of

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Chunk:
    """A stretch of one episode: `length` steps, and one observation more."""

    env_index: int
    observations: Arrays
    """`[length + 1, …]` each; the last one is where the stretch ends, the terminal one if the episode ended."""
    actions: NDArray[Any]
    rewards: NDArray[Any]
    extra: Arrays
    """What the model said of each step, `[length, …]` each."""
    terminated: bool
    truncated: bool
    info: dict[str, Any]
    """The environment's info of the last step if the episode ended in it, else empty."""

    @property
    def length(self) -> int:
        """Number of steps."""
        return len(self.rewards)


class Rollout:
    """Collects vector steps of an environment with NEXT_STEP autoreset.

    ::

        time ─►    0   1   2   3   4   5          one row an environment, its episode ends in step 2;
        env 0    [ s   s   s ] r [ s   s ]        r = the step in which it resets itself: the action
                   episode A      episode B       was ignored, so the step belongs to no episode

    Args:
        observation: What the environments show before the first step, `[num_envs, …]` each.
        resetting: Environments whose episode ended in the step before, bool `[num_envs]`.
    """

    def __init__(self, observation: Arrays, resetting: NDArray[np.bool_]) -> None:
        self.resetting = resetting
        """Environments that reset themselves in the coming step, bool `[num_envs]`."""
        self.num_steps = 0
        """Real steps so far, over all environments."""
        self.num_ended = 0
        """Episodes that ended so far."""
        self._observations = [observation]
        self._steps: list[Arrays] = []
        self._extras: list[Arrays] = []
        self._infos: list[dict[str, Any]] = []

    def add(
        self,
        observation: Arrays,
        actions: NDArray[Any],
        rewards: NDArray[Any],
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
        infos: dict[str, Any],
        extra: Arrays,
    ) -> None:
        """Add what one vector step returned, the actions that led to it, and what the model said of them."""
        if any(array is self._observations[-1][key] for key, array in observation.items()):
            raise ValueError(
                "observation of a vector environment: got the very arrays of the step before, expected new ones in each "
                "step; return copies, since a rollout keeps what was returned"
            )
        self._observations.append(observation)
        self._steps.append(
            {
                "actions": actions,
                "rewards": rewards.astype(np.float32),
                "terminated": terminated,
                "truncated": truncated,
                "resetting": self.resetting,
            }
        )
        self._extras.append(extra)
        self._infos.append(infos)
        self.num_steps += int((~self.resetting).sum())
        self.resetting = terminated | truncated
        self.num_ended += int(self.resetting.sum())

    def chunks(self) -> Iterator[Chunk]:
        """Cut the rollout at the ends of episodes; environments one after the other, each in the order of time."""
        if not self._steps:
            return
        # One environment's steps lie side by side in memory, so that chunks are views which travel between processes
        # without being gathered first.
        observations = _stack(self._observations)
        extras = _stack(self._extras)
        steps = _stack(self._steps)
        ended = steps["terminated"] | steps["truncated"]
        num_envs, horizon = ended.shape
        for env in range(num_envs):
            start = 0
            for stop in [*(np.flatnonzero(ended[env]) + 1).tolist(), horizon]:
                if start < stop and steps["resetting"][env, start]:
                    start += 1
                if start < stop:
                    last = stop - 1
                    yield Chunk(
                        env_index=env,
                        observations={key: array[env, start : stop + 1] for key, array in observations.items()},
                        actions=steps["actions"][env, start:stop],
                        rewards=steps["rewards"][env, start:stop],
                        extra={key: array[env, start:stop] for key, array in extras.items()},
                        terminated=bool(steps["terminated"][env, last]),
                        truncated=bool(steps["truncated"][env, last]),
                        info=info_of(self._infos[last], env) if ended[env, last] else {},
                    )
                start = stop


def _stack(steps: list[Arrays]) -> Arrays:
    """`[num_envs, time, …]` arrays from a list over time of `[num_envs, …]` ones."""
    return {key: np.stack([step[key] for step in steps], axis=1) for key in steps[0]} if steps else {}
