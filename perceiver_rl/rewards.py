"""Rewards as numbers that can be added up."""

from __future__ import annotations

from typing import Any

import numpy as np


def require_finite(rewards: Any, of: str = "reward") -> None:
    """Raise ValueError if one is NaN or infinite: a return would be, too, and every mean over it.

    Args:
        rewards: A reward, or an array of them.
        of: Whose they are, for the message.
    """
    values = np.asarray(rewards, float).reshape(-1)
    broken = values[~np.isfinite(values)]
    if len(broken):
        raise ValueError(f"{of}: got {broken[0]}, expected finite numbers")
