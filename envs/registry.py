"""Environments by name, such as `smax/2s3z`: family, slash, member.

Nothing is imported before it is asked for.
A family's environments come with extras of their own (`pip install 'perceiver-rl[smax]'`), so that the
families that are not used need not be installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gymnasium import Env
from gymnasium.vector import VectorEnv

from perceiver_rl.configuration import unknown_name
from perceiver_rl.environments import load


@dataclass(frozen=True)
class Family:
    """Where to find the environments of a family, each as `"module:attribute"`.

    Args:
        vector_env: Class with the signature `(member, num_envs, **options)`.
        env: Class with the signature `(member, **options)`.
        members: Function that lists the members' names.
    """

    vector_env: str
    env: str
    members: str


FAMILIES: dict[str, Family] = {
    "magent": Family("envs.magent:BattleVectorEnv", "envs.magent:BattleEnv", "envs.magent:battle_names"),
    "smax": Family("envs.smax:SmaxVectorEnv", "envs.smax:SmaxEnv", "envs.smax:map_names"),
}


def make_vec(name: str, num_envs: int, **options: Any) -> VectorEnv[Any, Any, Any]:
    """Build a vector environment.

    Args:
        name: One of `names()`.
        num_envs: Number of sub-environments.
        options: The environment's own options, e.g. `walls_cause_death` for SMAX.

    Raises:
        ValueError: If there is no such name; the message lists the known ones.
        ImportError: If the family's extra is not installed; the message says what to install.
    """
    family, member = _find(name)
    vector_env: VectorEnv[Any, Any, Any] = load(family.vector_env)(member, num_envs, **options)
    return vector_env


def make(name: str, **options: Any) -> Env[Any, Any]:
    """Build a single environment; arguments and errors as for `make_vec`."""
    family, member = _find(name)
    env: Env[Any, Any] = load(family.env)(member, **options)
    return env


def names() -> list[str]:
    """Every name of every family. A family whose extra is not installed is listed as `family/…`."""
    found = []
    for family_name, family in FAMILIES.items():
        try:
            found += [f"{family_name}/{member}" for member in load(family.members)()]
        except ImportError:  # not a fault: extras are optional, and making one says what to install
            found.append(f"{family_name}/…")
    return found


def _find(name: str) -> tuple[Family, str]:
    family_name, _, member = name.partition("/")
    if family_name not in FAMILIES:
        raise _unknown(name, names())
    family = FAMILIES[family_name]
    members = load(family.members)()
    if member not in members:
        raise _unknown(name, [f"{family_name}/{each}" for each in members])
    return family, member


def _unknown(name: str, known: list[str]) -> ValueError:
    return ValueError(unknown_name("environment: got unknown name", name, known))
