"""What a vector environment is given: actions and seeds, checked in one way, with messages that say what was expected."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perceiver_rl.entities import EntitySchema


def checked_actions(schema: EntitySchema, actions: ArrayLike, num_envs: int, env: str) -> NDArray[np.int64]:
    """A batch of actions as an array, of which every option exists; whether it is legal now is the environment's affair.

    Args:
        schema: The environment's.
        actions: One option for each actor slot, int `[num_envs, max_actors]`.
        num_envs: Number of sub-environments.
        env: What messages call the environment.

    Raises:
        ValueError: If actions have another shape or type, or an option does not exist; the message says whose.
    """
    options = np.asarray(actions)
    expected = (num_envs, schema.max_actors)
    if options.shape != expected or not np.issubdtype(options.dtype, np.integer):
        raise ValueError(
            f"actions of {env}: got {options.dtype} of shape {list(options.shape)}, expected one integer option for each "
            f"actor, shape [num_envs, max_actors] = {list(expected)}"
        )
    if options.min() < 0 or options.max() >= schema.num_options:
        index, actor = (int(i) for i in np.argwhere((options < 0) | (options >= schema.num_options))[0])
        raise ValueError(
            f"actions of {env}, environment {index}, {schema.actor_name(actor)}: got option {options[index, actor]}, "
            f"expected 0 to {schema.num_options - 1}"
        )
    return options.astype(np.int64)


def seed_of_each(seed: int | Sequence[int | None] | None, num_envs: int, env: str) -> list[int | None]:
    """Each sub-environment's seed, as gymnasium has it: `seed + i`, or its own of a sequence; None goes on as it is.

    Raises:
        ValueError: If it is a sequence of another length.
    """
    if seed is None:
        return [None] * num_envs
    if isinstance(seed, (int, np.integer)):
        return [int(seed) + index for index in range(num_envs)]
    seeds = list(seed)
    if len(seeds) != num_envs:
        raise ValueError(
            f"seed of {env}: got {len(seeds)} seeds, expected one integer, or one seed for each of {num_envs} environments"
        )
    return seeds
