"""What is evaluated: the policies of a checkpoint, or the policy of a bundle, behind one face."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perceiver_rl.bundle import is_bundle, load_policy
from perceiver_rl.entities import EntitySchema
from perceiver_rl.mixture import members_of
from perceiver_rl.policy.entity_policy import EntityPolicy

NOT_OPTIONS = ("env", "name", "num_envs", "render_mode")
"""What a bundle has no say in."""

MAX_OPTION = 1_000
"""The largest number that a bundle may give its environment as an option, such as how many units there are."""

MAX_OPTIONS = 2_000
"""All such numbers together."""


@dataclass(frozen=True)
class Trained:
    """A trained policy, or several that play together."""

    title: str
    """Which one, for a reader."""
    name: str
    """In a table."""
    checkpoint: str
    """In a record: which one, by names that mean something on other machines, too."""
    envs: tuple[str, ...]
    """Environments to play in, one after the other."""
    env_config: dict[str, Any]
    env_steps: int
    """Environment steps that it was trained for."""
    agents: dict[str, str]
    """Module id of each agent of a multi-agent environment; empty for a squad."""
    module: str | None
    """Module id of a squad's policy; None for many agents."""
    policy: Callable[[EntitySchema, str, int], EntityPolicy]
    """The policy of a module id, for an environment's schema and how many observations it decides about at once; raises
    ValueError if the schema differs in more than slots, or a bundle asks for more than a machine can be expected to do."""
    curves: Path | None
    """Folder of the training's curves; None if there are none."""


def find_trained(path: Path, env: str | None = None) -> Trained:
    """What is meant by a path.

    Args:
        path: A bundle, a run folder, or one checkpoint.
        env: Environments to play in, separated by commas; None for the one trained in, or for each member of the mixture
            trained in. Where that is an import string, a bundle does not get it imported by itself: it must be given here.

    Raises:
        ValueError: If there is nothing whole, or environments must be given, or one is given twice.
    """
    return _of_bundle(path, env) if is_bundle(path) else _of_checkpoint(path, env)


def _of_checkpoint(path: Path, env: str | None) -> Trained:
    from perceiver_rl.rllib import checkpoint as checkpoints  # Ray takes seconds to import, and bundles do without
    from perceiver_rl.rllib.run_folder import run_of

    found = checkpoints.find_checkpoint(path)
    info = checkpoints.load_info(found)
    run = run_of(found)
    return Trained(
        title=f"{found.name} of {path}",
        name=run.name,
        checkpoint=f"{run.name}/{found.name}",
        envs=_environments(env, info.env),
        env_config=info.env_config,
        env_steps=info.env_steps,
        agents=info.agents,
        module=None if info.agents else info.module_or_only_one(None),
        policy=lambda schema, module, rows: checkpoints.load_policy(found, schema, module),
        curves=run,
    )


def _of_bundle(path: Path, env: str | None) -> Trained:
    bundle = load_policy(path)
    origin = bundle.provenance
    if env is None and ":" in origin.env:
        raise ValueError(
            f"bundle {path}: was trained in {origin.env!r}, an import string, and a bundle does not decide which code is "
            f"run; if you trust that code, give it yourself: --env {origin.env}"
        )
    env_config = _modest(path, origin.env_config)
    others = sorted(set(origin.agents.values()) - {origin.policy})
    if others:
        raise ValueError(
            f"bundle {path}: holds the policy {origin.policy!r} alone, but its environment needs {', '.join(others)}, too; "
            "evaluate the checkpoint that it was exported from"
        )
    return Trained(
        title=f"bundle {path}",
        name=path.resolve().name,
        checkpoint=path.resolve().name,
        envs=_environments(env, origin.env),
        env_config=env_config,
        env_steps=origin.env_steps,
        agents=origin.agents,
        module=None if origin.agents else origin.policy,
        policy=lambda schema, module, rows: bundle.for_schema(schema, rows),
        curves=None,
    )


def _modest(path: Path, env_config: dict[str, Any]) -> dict[str, Any]:
    """A bundle's options for its environment, if they are plain and small: it comes from somebody else.

    Raises:
        ValueError: If they are not.
    """
    for key, value in env_config.items():
        small = isinstance(value, bool | str | None) or (isinstance(value, int | float) and abs(value) <= MAX_OPTION)
        if not small or key in NOT_OPTIONS:
            raise ValueError(
                f"bundle {path}: got the environment's option {key}={str(value)[:40]!r}, expected a plain value, no "
                f"number beyond {MAX_OPTION:,}, and none of {', '.join(NOT_OPTIONS)}"
            )
    together = sum(abs(value) for value in env_config.values() if isinstance(value, int | float))
    if together > MAX_OPTIONS:
        raise ValueError(
            f"bundle {path}: got options of the environment that add up to {together:,}, expected at most {MAX_OPTIONS:,}"
        )
    return env_config


def _environments(given: str | None, trained: str) -> tuple[str, ...]:
    if given is None:
        return tuple(members_of(trained))
    names = tuple(given.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(f"--env: got {given!r}, expected different environments separated by commas")
    return names
