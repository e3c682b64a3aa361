"""A Perceiver IO entity encoder with per-entity action queries, as an RLlib model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perceiver_rl.bundle import load_policy as load_policy

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`load_policy`, imported when it is asked for: an environment that needs the contract alone needs no torch."""
    if name == "load_policy":
        from perceiver_rl.bundle import load_policy

        return load_policy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
