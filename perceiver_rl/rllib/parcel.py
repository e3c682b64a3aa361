"""What travels to the nodes of a cluster: the folder where the command is given, and this library."""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

import perceiver_rl

_SILENT = logging.getLogger(f"{__name__}.silent")
_SILENT.disabled = True

EXCLUDES = (
    ".git",
    ".hg",
    "/.venv",
    "/venv",
    "/runs",
    "/tuning",
    "/site",
    "/build",
    "/dist",
    "node_modules",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    "*.egg-info",
    "*.py[cod]",
    "*.whl",
    "events.out.tfevents.*",
)
"""Patterns as in .gitignore. What .gitignore and .rayignore name stays here, too."""

MAX_BYTES = 200_000_000
"""What may travel, before compression. Ray keeps it in the memory of the head node and copies it to every other."""

CHECKOUT = ("perceiver_rl", "envs", "agents", "configs")
"""The importable folders of a checkout."""


def travels_already() -> bool:
    """Whether this process is a submitted job (`ray job submit`), whose runtime environment is that of all its processes."""
    return RAY_JOB_CONFIG_JSON_ENV_VAR in os.environ


def runtime_env(folder: Path, leave_out: Path | None = None) -> dict[str, Any]:
    """Ray's `runtime_env` for a run that is started in `folder`.

    `folder` becomes the working directory of every process of the run, first on its path: what the driver imports from
    there, they do, too. Where this library lies elsewhere it travels beside it, in preference to one that a node has
    installed; of a checkout all importable folders do. So nodes need what pyproject.toml names, and their processes run no
    other version of our code than the driver.

    Args:
        folder: The folder where the command is given.
        leave_out: A folder that stays, such as the run's own; None for no other than `EXCLUDES`.

    Raises:
        ValueError: If that is too much.
    """
    folder = folder.resolve()
    excludes = list(EXCLUDES)
    if leave_out is not None and folder in leave_out.resolve().parents:
        excludes.append(f"/{leave_out.resolve().relative_to(folder).as_posix()}")
    modules = [module for module in _library() if folder not in module.parents]
    for each in (folder, *modules):
        size_of(each, excludes)
    env: dict[str, Any] = {"working_dir": str(folder), "excludes": excludes}
    if modules:  # a node fails at an empty list
        env["py_modules"] = [str(module) for module in modules]
    return env


def size_of(folder: Path, excludes: list[str]) -> int:
    """Bytes that travel of a folder.

    Raises:
        ValueError: If they are more than `MAX_BYTES`; the message names the largest entries seen until then.
    """
    sizes: Counter[str] = Counter()

    def count(path: Path) -> None:
        if path.is_file():
            sizes["/".join(path.relative_to(folder).parts[:2])] += path.stat().st_size
        if sizes.total() > MAX_BYTES:  # told at once: what is left to count may be a whole disk
            largest = ", ".join(f"{name} ({size / 1e6:,.0f} MB)" for name, size in sizes.most_common(3))
            raise ValueError(
                f"{folder}, which travels to the cluster: got more than {MAX_BYTES / 1e6:,.0f} MB, {largest} among it; "
                "expected code. Name what the nodes do not need in a .rayignore there, with patterns as in .gitignore, or "
                "give the command from a folder that holds less"
            )

    # Ray's own walk, so that the size is that of what Ray packs.
    _dir_travel(folder, [_get_excludes(folder, excludes)], count, include_gitignore=True, logger=_SILENT)
    return sizes.total()


def _library() -> list[Path]:
    """Where this library lies, and, if that is a checkout, the other importable folders of it."""
    library = Path(perceiver_rl.__file__).resolve().parent
    if not (library.parent / "pyproject.toml").is_file():
        return [library]
    return [library.parent / name for name in CHECKOUT if (library.parent / name).is_dir()]
