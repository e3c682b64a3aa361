"""Which code made a result: versions and commit."""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from perceiver_rl import __version__

PACKAGES = ("torch", "ray", "gymnasium", "numpy")


def provenance() -> dict[str, Any]:
    """Versions of what matters for results, and the commit of the checkout that runs, if it is one and git is there."""
    return {
        "versions": {"perceiver-rl": __version__} | {package: version(package) for package in PACKAGES},
        "commit": _commit(),
    }


def _commit() -> str | None:
    if shutil.which("git") is None:
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    git = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return git.stdout.strip() if git.returncode == 0 else None
