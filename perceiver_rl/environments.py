"""Environments by name or import string, so that a user's own package is on equal terms with ours."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from gymnasium.vector import VectorEnv

DEFAULT_REGISTRY = "envs.registry:make_vec"
"""Where plain names such as `smax/2s3z` are looked up: the checkout's `envs` folder."""


def make_vector_env(env: str, num_envs: int, **options: Any) -> VectorEnv[Any, Any, Any]:
    """Build a vector environment.

    Args:
        env: Either `"module:callable"`, which is imported and called as `callable(num_envs=…, **options)`, or
            a name that the checkout's `envs.registry` knows, e.g. `"smax/2s3z"`.
        num_envs: Number of sub-environments.
        options: Passed on.

    Raises:
        ValueError: If there is no such name, module or attribute; the message says which.
        ImportError: If a package that the environment needs is not installed; the message says which.
    """
    if ":" in env:
        return load(env)(num_envs=num_envs, **options)
    return load(DEFAULT_REGISTRY)(env, num_envs, **options)


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
