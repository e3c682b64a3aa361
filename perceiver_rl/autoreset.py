"""When an environment begins a new episode."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode, VectorEnv


def require_next_step_autoreset(env: VectorEnv[Any, Any, Any], name: str) -> None:
    """Raise if an environment does not reset itself in the step after an episode's end.

    Args:
        env: The environment.
        name: What the message calls it.

    Raises:
        ValueError: If its metadata tell another autoreset mode, or none.
    """
    mode = env.metadata.get("autoreset_mode")
    if mode != AutoresetMode.NEXT_STEP:
        raise ValueError(
            f"environment {name}: got metadata['autoreset_mode'] = {mode}, expected AutoresetMode.NEXT_STEP, in which the "
            "observation after an episode's last step is its terminal one, and the step after that resets the environment"
        )
