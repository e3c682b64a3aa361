"""Environments by name, such as `smax/2s3z`: family, slash, member.

Nothing is imported before it is asked for.
A family's environments come with extras of their own (`pip install 'perceiver-rl[smax]'`), so that the
families that are not used need not be installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gymnasium import Env
from gymnasium.vector import VectorEnv

from perceiver_rl.configuration import unknown_name
from perceiver_rl.environments import load, with_options


@dataclass(frozen=True)
class Family:
    """Where to find the environments of a family, each as `"module:attribute"`.

    Args:
        vector_env: Class or function with the signature `(member, num_envs, **options)`; None if there is no such form.
        env: Class or function with the signature `(member, **options)`; None if there is no such form.
        members: Function that lists the members' names.
        parallel_env: Function with the signature `(member, **options)` that makes a PettingZoo parallel environment; None if
            there is no such form.
    """

    vector_env: str | None
    env: str | None
    members: str
    parallel_env: str | None = None


FAMILIES: dict[str, Family] = {
    "magent": Family(
        "envs.magent:BattleVectorEnv",
        "envs.magent:BattleEnv",
        "envs.magent:battle_names",
        "envs.magent_parallel:BattleParallelEnv",
    ),
    "smax": Family("envs.smax:SmaxVectorEnv", "envs.smax:SmaxEnv", "envs.smax:map_names"),
    "task": Family("envs.tasks:make_vec", "envs.tasks:make", "envs.tasks:names"),
    "kaz": Family(None, None, "envs.kaz:members", "envs.kaz:make_parallel"),
    "mpe": Family(None, None, "envs.mpe:members", "envs.mpe:make_parallel"),
}


def make_vec(name: str, num_envs: int, **options: Any) -> VectorEnv[Any, Any, Any]:
    """Build a vector environment.

    Args:
        name: One of `names()`.
        num_envs: Number of sub-environments.
        options: The environment's own options, e.g. `walls_cause_death` for SMAX.

    Raises:
        ValueError: If there is no such name (the message lists the known ones), or the environment has another form only.
        ImportError: If the family's extra is not installed; the message says what to install.
    """
    family, member = _find(name)
    vector_env: VectorEnv[Any, Any, Any] = _maker(name, family, "vector_env", member, num_envs)(**options)
    return vector_env


def make(name: str, **options: Any) -> Env[Any, Any]:
    """Build a single environment; arguments and errors as for `make_vec`."""
    family, member = _find(name)
    env: Env[Any, Any] = _maker(name, family, "env", member)(**options)
    return env


def make_parallel(name: str, **options: Any) -> Any:
    """Build a PettingZoo parallel environment; arguments and errors as for `make_vec`."""
    family, member = _find(name)
    return _maker(name, family, "parallel_env", member)(**options)


def names(form: str | None = None) -> list[str]:
    """Every name of every family. A family whose extra is not installed is listed as `family/…`.

    Args:
        form: `"vector_env"`, `"env"` or `"parallel_env"`: only families that have it.
    """
    found = []
    for family_name, family in FAMILIES.items():
        if form is not None and getattr(family, form) is None:
            continue
        try:
            found += [f"{family_name}/{member}" for member in load(family.members)()]
        except ImportError:  # not a fault: extras are optional, and making one says what to install
            found.append(f"{family_name}/…")
    return found


def _find(name: str) -> tuple[Family, str]:
    family_name, _, member = name.partition("/")
    if family_name not in FAMILIES:
        raise ValueError(unknown_name("environment: got unknown name", name, names()))
    family = FAMILIES[family_name]
    members = load(family.members)()
    if member not in members:
        raise ValueError(unknown_name(f"environment {name!r}: unknown {family_name} environment", member, members))
    return family, member


def _maker(name: str, family: Family, form: str, *given: Any) -> Callable[..., Any]:
    return with_options(load(_form(name, family, form)), f"environment {name!r}", *given)


def _form(name: str, family: Family, form: str) -> str:
    place: str | None = getattr(family, form)
    if place is None:
        is_squad = family.parallel_env is None
        squad = "one whose observation is a whole squad's (training configs name it with register_env)"
        separate = (
            "one of separate agents with a policy each (training configs name it with register_multi_agent_env, and their "
            "policies in config.multi_agent)"
        )
        got, expected = (squad, separate) if is_squad else (separate, squad)
        raise ValueError(f"environment {name!r}: got {got}, expected {expected}")
    return place
