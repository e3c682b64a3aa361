"""Environments by name or import string, so that a user's own package is on equal terms with ours."""

from __future__ import annotations

import inspect
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from perceiver_rl.mixture import MixedVectorEnv, envs_of_each, members_of

DEFAULT_REGISTRY = "envs.registry:make_vec"
"""Where plain names such as `smax/2s3z` are looked up: the checkout's `envs` folder."""

DEFAULT_SINGLE_REGISTRY = "envs.registry:make"
"""The same for single environments."""

DEFAULT_NAMES = "envs.registry:names"
"""What lists the plain names. It ends one with `…` in place of the names that it cannot tell."""

PARALLEL_REGISTRY = "envs.registry:make_parallel"
"""The same for multi-agent environments such as `kaz/default`."""


def make_vector_env(env: str, num_envs: int, **options: Any) -> VectorEnv[Any, Any, Any]:
    """Build a vector environment.

    Args:
        env: Either `"module:callable"`, which is imported and called as `callable(num_envs=…, **options)`, or
            a name that the checkout's `envs.registry` knows, e.g. `"smax/2s3z"`; or several of either, joined by `+`, of
            which each gets an equal share of the batch (`MixedVectorEnv`).
        num_envs: Number of sub-environments.
        options: Passed on.

    Raises:
        ValueError: If there is no such name, module or attribute (the message says which), or a mixture does not mix.
        ImportError: If a package that the environment needs is not installed; the message says which.
    """
    members = members_of(env)
    if len(members) > 1:
        envs = zip(members, envs_of_each(num_envs, len(members)), strict=True)
        return MixedVectorEnv({member: make_vector_env(member, share, **options) for member, share in envs})
    if ":" in env:
        return with_options(load(env), f"environment {env!r}", num_envs=num_envs)(**options)
    return registry(DEFAULT_REGISTRY, f"environment {env!r}")(env, num_envs, **options)


def make_env(env: str, **options: Any) -> gymnasium.Env[Any, Any]:
    """Build a single environment, for whatever makes batches of its own.

    Args:
        env: Either `"module:callable"`, which is imported and called as `callable(**options)` and returns a
            `gymnasium.Env` (RLlib's `MultiAgentEnv` is one), or a name that the checkout's `envs.registry` knows.
        options: Passed on.

    Raises:
        ValueError: If there is no such name, module or attribute, or what it makes is no single environment.
        ImportError: If a package that the environment needs is not installed; the message says which.
    """
    if len(members_of(env)) > 1:
        raise ValueError(
            f"environment {env!r}: a mixture has no single form, which is what was asked for; train with "
            "gym_env_vectorize_mode='vector_entry_point' on the new API stack"
        )
    if ":" not in env:
        return registry(DEFAULT_SINGLE_REGISTRY, f"environment {env!r}")(env, **options)
    factory = load(env)
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        raise ValueError(f"{_no_single(env)}; calling it with options {options} fails: {error}") from error
    made = factory(**options)
    if not isinstance(made, gymnasium.Env):
        raise ValueError(f"{_no_single(env)}; got {type(made).__name__}, expected a gymnasium.Env")
    return made


def _no_single(env: str) -> str:
    return (
        f"environment {env!r} makes no single environment, which is what was asked for: RLlib does, unless the config has "
        "gym_env_vectorize_mode='vector_entry_point' on the new API stack"
    )


def known_names(form: str | None = None) -> list[str]:
    """Every name that the checkout's registry knows; none where there is no checkout.

    Families of environments whose extra is not installed are left out.

    Args:
        form: Only names that have this form: `"vector_env"`, `"env"` or `"parallel_env"`.
    """
    try:
        names = load(DEFAULT_NAMES)
    except ValueError:  # the library alone is installed, and a name has to be an import string
        return []
    return [name for name in names(form) if not name.endswith("…")]


def make_parallel_env(env: str, **options: Any) -> Any:
    """Build a PettingZoo parallel environment whose observation spaces carry a schema for each agent.

    Args:
        env: Either `"module:callable"`, which is imported and called as `callable(**options)`, or a name that the checkout's
            `envs.registry` knows, e.g. `"kaz/default"`.
        options: Passed on.

    Raises:
        ValueError: If there is no such name, module or attribute; the message says which.
        ImportError: If a package that the environment needs is not installed; the message says which.
    """
    if ":" in env:
        return with_options(load(env), f"environment {env!r}")(**options)
    return registry(PARALLEL_REGISTRY, f"environment {env!r}")(env, **options)


def with_options(factory: Callable[..., Any], what: str, *given: Any, **named: Any) -> Callable[..., Any]:
    """What makes something from options, and says so where it does not take them.

    Args:
        factory: Called with the rest and the options.
        what: What it makes, for the message.
        given: What it is given in any case.
        named: The same by name.
    """

    def make(**options: Any) -> Any:
        try:
            inspect.signature(factory).bind(*given, **named, **options)
        except TypeError as error:
            raise ValueError(f"{what}: got options {options}, expected those that it takes: {error}") from error
        return factory(*given, **named, **options)

    return make


def registry(import_string: str, asked: str) -> Callable[..., Any]:
    """What looks plain names up, in a checkout.

    Args:
        import_string: The function.
        asked: What is looked up, for the message.

    Raises:
        ValueError: If there is no checkout in reach: the library alone knows no names.
    """
    package = import_string.partition(".")[0]
    if find_spec(package) is None:
        raise ValueError(
            f"{asked}: names are known in a checkout alone, whose folder {package!r} is not here; expected an import string "
            "'module:attribute' with a colon, found from the folder where the command is given"
        )
    return load(import_string)


def load(import_string: str) -> Callable[..., Any]:
    """What `"module:attribute"` names.

    Raises:
        ValueError: If the module or the attribute does not exist.
    """
    module_name, _, attribute = import_string.partition(":")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise  # the module is there, but one of its own imports is not
        raise ValueError(
            f"{import_string!r}: got no module {error.name!r}, expected an importable 'module:attribute'; "
            "run from the folder that holds it, or install it"
        ) from error
    if not hasattr(module, attribute):
        raise ValueError(f"{import_string!r}: module {module_name!r} has no attribute {attribute!r}")
    return getattr(module, attribute)


def require_possible_agents(env: Any) -> list[str]:
    """The names of all agents that may ever appear in a PettingZoo parallel environment, which it need not tell.

    Raises:
        ValueError: If it does not.
    """
    possible = list(getattr(env, "possible_agents", ()))
    if not possible:
        raise ValueError(
            f"environment {env}: got no possible_agents, expected the names of all agents that may ever appear: spaces and "
            "policies are made before the first reset"
        )
    return possible


def terminate_workers(pool: ProcessPoolExecutor) -> None:
    """End a pool's processes at once."""
    for process in pool._processes.values():  # from Python 3.14 on there is a method for it
        process.terminate()


@contextmanager
def sigint_blocked() -> Iterator[None]:
    """Hold Ctrl-C back while a process is started, and from that process for good.

    A terminal sends it to all of a command's processes. The new one would die of it with a traceback; so it is this process
    alone that gets it, and ends the other.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
