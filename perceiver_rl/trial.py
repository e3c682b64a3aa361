"""A few steps in an environment before anything is spent on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from perceiver_rl.blame import blame
from perceiver_rl.entities import ACTION_MASK, EntitySchema, Observation, schema_of
from perceiver_rl.environments import (
    make_parallel_env,
    make_vector_env,
    require_possible_agents,
    sigint_blocked,
    terminate_workers,
)
from perceiver_rl.mixture import members_of

TRIAL_STEPS = 5
THIS_FILE = Path(__file__).resolve()

VECTOR_RESET, VECTOR_STEP = "(observation, infos)", "(observation, rewards, terminated, truncated, infos)"
PARALLEL_RESET, PARALLEL_STEP = "(observations, infos)", "(observations, rewards, terminations, truncations, infos)"

Result = TypeVar("Result")


def try_environment(env: str, options: Mapping[str, Any], seed: int) -> EntitySchema:
    """Play a few random legal steps in a process of its own and check every observation.

    A broken environment is so found before anything is spent on it, and the calling process stays free of what the
    environment imports: JAX, for one, minds if a process that holds it forks, as Ray does.

    Args:
        env: Name or import string, as for `make_vector_env`.
        options: Its options.
        seed: Seed of the environment and of the steps.

    Returns:
        The environment's schema.

    Raises:
        ValueError: If there is no such environment, it raises something (the message says in which step, and in which line
            of a user's own code), or an observation does not keep the contract.
        ImportError: If the environment needs a package that is not installed.
    """
    return _in_process_of_its_own(_play_trial, env, dict(options), seed)


def try_parallel_environment(env: str, options: Mapping[str, Any], seed: int) -> dict[str, EntitySchema]:
    """The same for a multi-agent environment: play a few steps and check every agent's observation.

    Args:
        env: Name or import string, as for `make_parallel_env`.
        options: Its options.
        seed: Seed of the environment and of the steps.

    Returns:
        The schema of every possible agent.

    Raises:
        ValueError: As of `try_environment`, or if the environment does not know its possible agents.
        ImportError: If the environment needs a package that is not installed.
    """
    return _in_process_of_its_own(_play_parallel_trial, env, dict(options), seed)


def _in_process_of_its_own(play: Callable[..., Result], env: str, options: dict[str, Any], seed: int) -> Result:
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        try:
            with sigint_blocked():
                trial = pool.submit(play, env, options, seed)
            return trial.result()
        except KeyboardInterrupt:
            terminate_workers(pool)
            raise


@contextmanager
def _blaming(env: str, where: str, returns: str | None = None) -> Iterator[None]:
    """Say of an environment's own error where it came from.

    Args:
        env: The environment's name.
        where: What it was asked for.
        returns: What that has to give back.
    """
    try:
        yield
    except Exception as error:
        came_from = blame(error)
        ours = came_from.raised_by is not None and came_from.raised_by != THIS_FILE
        if came_from.users is None and (ours or returns is None):
            raise  # of an environment of ours, or of none; it says what is wrong
        message = f"environment {env!r}, {where}: {error if ours else f'{type(error).__name__}: {error}'}"
        if came_from.users is None and "unpack" in str(error):  # of what was returned, here or in gymnasium
            message += f"; expected {returns}"
        else:
            message += f"\n  {came_from.users or came_from.innermost}"
        raise ValueError(message) from error


def _play_trial(env: str, options: dict[str, Any], seed: int) -> EntitySchema:
    num_envs = 2 * len(members_of(env))
    with _blaming(env, "when it was made"):
        vector_env = make_vector_env(env, num_envs, **options)
    schema = schema_of(vector_env.single_observation_space)
    rng = np.random.default_rng(seed)
    with _blaming(env, "reset", VECTOR_RESET):
        observation, _ = vector_env.reset(seed=seed)
    for step in range(TRIAL_STEPS):
        schema.check(observation, (num_envs,))
        draw = rng.random(observation[ACTION_MASK].shape)
        actions = np.where(observation[ACTION_MASK], draw, 0.0).argmax(axis=-1)
        with _blaming(env, f"step {step + 1}", VECTOR_STEP):
            observation, _, _, _, _ = vector_env.step(actions)
    schema.check(observation, (num_envs,))
    vector_env.close()
    return schema


def _play_parallel_trial(env: str, options: dict[str, Any], seed: int) -> dict[str, EntitySchema]:
    with _blaming(env, "when it was made"):
        parallel_env = make_parallel_env(env, **options)
        schemas = {
            agent: schema_of(parallel_env.observation_space(agent)) for agent in require_possible_agents(parallel_env)
        }
    rng = np.random.default_rng(seed)
    observations = _reset(parallel_env, env, schemas, seed)
    for step in range(TRIAL_STEPS):
        actions = {}
        for agent in parallel_env.agents:
            legal = observations[agent][ACTION_MASK]
            actions[agent] = np.where(legal, rng.random(legal.shape), 0.0).argmax(axis=-1)
        where = f"step {step + 1}"
        with _blaming(env, where, PARALLEL_STEP):
            observations, rewards, terminated, truncated, infos = parallel_env.step(actions)
        _require_of_each(actions, env, where, rewards=rewards, terminations=terminated, truncations=truncated, infos=infos)
        _check(parallel_env, env, where, observations, schemas)
        if not parallel_env.agents:
            observations = _reset(parallel_env, env, schemas, None)
    parallel_env.close()
    return schemas


def _reset(parallel_env: Any, env: str, schemas: Mapping[str, EntitySchema], seed: int | None) -> dict[str, Observation]:
    with _blaming(env, "reset", PARALLEL_RESET):
        observations, infos = parallel_env.reset(seed=seed)
    _require_of_each({}, env, "reset", infos=infos)
    _check(parallel_env, env, "reset", observations, schemas)
    found: dict[str, Observation] = observations
    return found


def _check(parallel_env: Any, env: str, where: str, observations: Any, schemas: Mapping[str, EntitySchema]) -> None:
    """Everybody alive is shown something, and it keeps the contract."""
    _require_of_each(parallel_env.agents, env, where, observations=observations)
    for agent in parallel_env.agents:
        schemas[agent].check(observations[agent])


def _require_of_each(agents: Iterable[str], env: str, where: str, **returned: Any) -> None:
    """Raise if something that was returned is no mapping with an entry for each of these agents."""
    for name, values in returned.items():
        if not isinstance(values, Mapping):
            raise ValueError(
                f"environment {env!r}, {where}: got {name} of type {type(values).__name__}, expected a dict by agent"
            )
        missing = [agent for agent in agents if agent not in values]
        if missing:
            raise ValueError(
                f"environment {env!r}, {where}: got no {name} of {missing[0]!r}, expected an entry for each agent"
            )
