"""Which code made a result: versions and commit."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from perceiver_rl import __version__

PACKAGES = ("torch", "ray", "gymnasium", "numpy", "jax", "jaxmarl", "magent2", "pettingzoo", "mpe2")
"""What matters for results, where it is installed; jaxmarl's version, for one, changes win rates."""


def provenance() -> dict[str, Any]:
    """Versions of what matters for results, and the commit of the checkout that runs, if it is one and git is there.

    The commit is asked for once in a process, so call this early in a long one: a checkout may move on while old code runs.
    """
    versions = {"perceiver-rl": __version__}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {"versions": versions, "commit": _commit()}


@cache
def _commit() -> str | None:
    if shutil.which("git") is None:
        return None
    root = Path(__file__).resolve().parents[1]
    if _git(root, "rev-parse", "--show-toplevel") != str(root):
        return None  # no checkout, or installed inside somebody else's
    return _git(root, "describe", "--always", "--dirty", "--abbrev=12")


def _git(root: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
