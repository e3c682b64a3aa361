"""Knights-Archers-Zombies (PettingZoo, v11): each agent sees itself, its comrades, weapons and zombies as typed entities.

Observation: the environment's `vector-masked` rows, sorted by type; who is not there has no row. The agent itself is the
    actor, and is taken out of the archers or knights among which the environment repeats it.
Action: forward, backward, turn counterclockwise, turn clockwise, attack, wait; all of them always legal.
Reward: 1 for each zombie that the agent kills. The environment pays so: who moves first is paid at once, others a step
    later, and not at all if they die or the episode ends before.
Termination: all agents die, or a zombie reaches the lower border. An agent that a zombie touches dies and leaves.
Truncation: after `max_cycles` steps.

>>> from envs.registry import make_parallel
>>> env = make_parallel("kaz/default", num_archers=3, num_knights=1)
>>> observations, _ = env.reset(seed=0)
>>> env.schema_of_agent("archer_0").option_name(4)
'attack'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_rl.configuration import unknown_name
from perceiver_rl.entities import EntitySchema, EntityType, Feature

try:
    from pettingzoo.butterfly.knights_archers_zombies.knights_archers_zombies import raw_env
    from pettingzoo.utils.conversions import aec_to_parallel
except ModuleNotFoundError as error:
    if error.name not in ("pettingzoo", "pygame"):
        raise
    raise ImportError(
        f"Knights-Archers-Zombies: got no package {error.name!r}, expected it; pip install 'perceiver-rl[pettingzoo]'"
    ) from error

from perceiver_rl.pettingzoo import AgentView, EntityParallelEnv
from perceiver_rl.scene import ORIGIN, Look, Scene

MEMBERS = ("default",)
VERBS = ("forward", "backward", "turn_counterclockwise", "turn_clockwise", "attack", "wait")

# Columns of a row: type, distance / √2, offset in screen widths and heights (own position in the first row), heading.
ZOMBIE, ARCHER, KNIGHT, SWORD, ARROW, SELF = range(6)
DISTANCE, X, Y, HEADING_X, HEADING_Y = range(6, 11)
ASPECT = 1280 / 720
"""Screen width in screen heights: what makes lengths on both axes comparable."""

_OTHER = (
    Feature("distance", 0.0, 1.0),
    Feature("dx"),  # in screen widths, to the right
    Feature("dy"),  # in screen heights, downward
    Feature("heading_x"),
    Feature("heading_y"),
    Feature("ahead"),  # the offset once more, in screen heights, as the agent sees it: along its own heading …
    Feature("aside"),  # … and to the right of it. Aiming is turning until this is 0.
)
_OTHERS = {"archer": ARCHER, "knight": KNIGHT, "sword": SWORD, "arrow": ARROW, "zombie": ZOMBIE}


def members() -> list[str]:
    """Names of the environments."""
    return list(MEMBERS)


def kaz_schema(num_archers: int = 2, num_knights: int = 2, max_arrows: int = 10, max_zombies: int = 10) -> EntitySchema:
    """What an agent sees and does; archers and knights share it, and are told apart by two features of their own."""
    counts = {"archer": num_archers, "knight": num_knights, "sword": num_knights, "arrow": max_arrows, "zombie": max_zombies}
    return EntitySchema(
        entity_types=(
            EntityType(
                "self",
                (
                    Feature("is_archer", 0.0, 1.0),
                    Feature("is_knight", 0.0, 1.0),
                    Feature("x", 0.0, 1.0),  # 0 left, 1 right
                    Feature("y", 0.0, 1.0),  # 0 top, where zombies come from, 1 bottom
                    "heading_x",
                    "heading_y",
                ),
                max_count=1,
            ),
            *(EntityType(name, _OTHER, max(1, count)) for name, count in counts.items()),
        ),
        actors=("self",),
        verbs=VERBS,
    )


def make_parallel(
    member: str,
    *,
    num_archers: int = 2,
    num_knights: int = 2,
    max_arrows: int = 10,
    max_zombies: int = 10,
    **options: Any,
) -> EntityParallelEnv:
    """Build the environment.

    Args:
        member: `"default"`.
        num_archers: Archers at the beginning.
        num_knights: Knights at the beginning.
        max_arrows: Arrows in flight at most.
        max_zombies: Zombies at most.
        options: PettingZoo's other settings: `spawn_delay`, `max_cycles`, `killable_archers`, `killable_knights`,
            `line_death`, `render_mode`.

    Raises:
        ValueError: If there is no such member, or `obs_method` is given: entities are made from one only.
    """
    if member not in MEMBERS:
        raise ValueError(unknown_name("kaz: got unknown environment", member, MEMBERS))
    if "obs_method" in options:
        raise ValueError(
            f"kaz: got obs_method={options['obs_method']!r}, expected none: entities are made from 'vector-masked'"
        )
    sizes = {"num_archers": num_archers, "num_knights": num_knights, "max_arrows": max_arrows, "max_zombies": max_zombies}
    core = _Kaz(**sizes, **options, obs_method="vector-masked")
    return EntityParallelEnv(aec_to_parallel(core), kaz_schema(**sizes), observe, scene=kaz_scene())


def kaz_scene() -> Scene:
    """An agent's view, which turns with it: its heading is up, lengths are in screen heights."""
    here = Look(position=("aside", "ahead"))
    comrade = replace(here, side="own")
    return Scene(
        {
            "self": Look(side="own", position=ORIGIN, kinds=("is_archer", "is_knight")),
            "archer": comrade,
            "knight": comrade,
            "zombie": replace(here, side="other"),
            "arrow": here,
            "sword": here,
        },
        sorted_anew=True,
    )


def observe(rows: NDArray[np.float64], agent: str, info: Mapping[str, Any]) -> AgentView:
    """Sort an agent's rows by type.

    Args:
        rows: `[1 + slots, 11]`, the agent's own first; absent slots are zeros, or left out as `vector-sequence` does.
        agent: `archer_…` or `knight_…`.
        info: Not used.
    """
    own, others = rows[0], rows[1:]
    own_type = ARCHER if agent.startswith("archer") else KNIGHT
    heading = own[HEADING_X:]
    # The agent's own row among its comrades: no distance, the same heading. A comrade of its kind that stands on the same
    # spot and looks the same way has the same row, so whichever goes, the same remain.
    own_place = np.array([0.0, 0.0, 0.0, *heading])
    again = np.flatnonzero((others[:, own_type] == 1) & (others[:, DISTANCE:] == own_place).all(axis=1))[:1]
    others = np.delete(others, again, axis=0)

    offset = others[:, [X, Y]] * (ASPECT, 1.0)
    ahead = offset @ heading
    aside = offset @ (-heading[1], heading[0])
    features = np.column_stack([others[:, DISTANCE:], ahead, aside])
    myself = [own_type == ARCHER, own_type == KNIGHT, *own[X:]]
    return AgentView({"self": [myself]} | {name: features[others[:, column] == 1] for name, column in _OTHERS.items()})


class _Kaz(raw_env):
    """PettingZoo's environment without work that nobody sees.

    Its parallel form observes each agent twice, and each observation is made from the state of everything, anew. Here the
    state is read once a cycle, when all have moved; observations are the same to the bit.

    PettingZoo's `reset` also leaves the clock of spawning zombies where the last episode stopped it, so that the same seed
    gives other episodes. Here an episode depends on its seed alone.
    """

    _state: NDArray[np.float64] | None = None

    def last(self, observe: bool = True) -> Any:
        """As PettingZoo has it; the observation, which the parallel form throws away, is None."""
        return super().last(observe=False)

    def step(self, action: int) -> None:
        """One agent moves."""
        self._state = None
        super().step(action)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Begin an episode."""
        self._state = None
        self.zombie_spawn_interval.reset()
        super().reset(seed=seed, options=options)

    def get_vector_state(self) -> NDArray[np.float64]:
        """Rows of everything."""
        if self._state is None:
            self._state = super().get_vector_state()
        return self._state.copy()
