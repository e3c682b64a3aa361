"""MAgent2's battle engine, read as arrays: each unit keeps its row for a whole battle."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

_OWN_HEALTH = (6, 6, 2)  # row, column and channel of a unit's own health in its 13 by 13 view
_THREADS = "OMP_NUM_THREADS"


class BattleEngine:
    """One battle of `battle_v4`: its rules and start formation, without the dictionaries of its PettingZoo form.

    Units are numbered by army (0 red, which begins in the west, 1 blue) and slot. Both armies have the same size. A step is,
    in the engine's order: attacks in random order, 2 of 10 health each, where a unit that was killed before its turn does
    not strike; recovery of 0.1 health, up to the full 10; then moves, red's first. Cells that the killed leave are free at
    once.

    Args:
        map_size: Side of the square map in cells, the walls at its border included.

    Raises:
        ImportError: If magent2 is not installed; the message says what to install.
    """

    def __init__(self, map_size: int) -> None:
        battle, self._library = _package()
        self._battle = battle.parallel_env(map_size=map_size)
        self._engine = self._battle.env
        self.units = int(self._battle.team_sizes[0])
        self._armies = [_Buffers(self._engine, handle, self.units) for handle in self._battle.handles]

    def start(self, seed: int) -> None:
        """Begin a battle from the formation of `battle_v4`, which is the same for every seed.

        Args:
            seed: 0 to 2³¹ - 1; governs the order of attacks.
        """
        self._engine.set_seed(seed)
        self._engine.reset()
        self._battle.generate_map()

    def step(self, actions: NDArray[np.int32], alive: NDArray[np.bool_], rewards: NDArray[np.float32] | None = None) -> None:
        """Advance by one step.

        Args:
            actions: The engine's action of each unit, 0 to 20, `[2, units]`; those of the dead are not read.
            alive: Who is there, as `read` told last, `[2, units]`.
            rewards: Where to write each unit's reward of `battle_v4`, `[2, units]`, those that die now included.
        """
        game, library = self._engine.game, self._library
        for side, army in enumerate(self._armies):
            orders = actions[side][alive[side]]
            army.actions[: len(orders)] = orders
            library.env_set_action(game, army.handle, army.to_actions)
        library.env_step(game, self._armies[0].to_number)
        if rewards is not None:
            rewards[:] = 0.0
            for side, army in enumerate(self._armies):
                library.env_get_reward(game, army.handle, army.to_rewards)
                rewards[side, alive[side]] = army.rewards[: np.count_nonzero(alive[side])]
        library.gridworld_clear_dead(game)

    def read(self, position: NDArray[np.int32], health: NDArray[np.float32]) -> None:
        """Write how the battle stands into given arrays.

        Args:
            position: Cells, columns x (to the east) and y (to the south), `[2, units, 2]`; the dead keep theirs.
            health: Fraction of the full health, `[2, units]`; 0 for the dead.
        """
        health[:] = 0.0
        game, library = self._engine.game, self._library
        for side, army in enumerate(self._armies):
            slots = self.slots(side)
            if slots.size:
                library.env_get_info(game, army.handle, b"pos", army.to_cells)
                library.env_get_observation(game, army.handle, army.to_views_and_features)
                position[side, slots] = army.cells[: len(slots)]
                health[side, slots] = army.views[: len(slots), *_OWN_HEALTH]

    def slots(self, side: int) -> NDArray[np.int32]:
        """Slots of an army's living units, in the engine's order, which is that of `views`."""
        army = self._armies[side]
        self._library.env_get_info(self._engine.game, army.handle, b"num", army.to_number)
        self._library.env_get_info(self._engine.game, army.handle, b"id", army.to_ids)
        return army.ids[: army.number[0]] - side * self.units

    def views(self, side: int) -> NDArray[np.float32]:
        """What each living unit of an army sees in MAgent2's own form, `[living, 13, 13, 5]`, channels as in `battle_v4`."""
        views: NDArray[np.float32] = self._engine.get_observation(self._armies[side].handle)[0]
        return views.copy()  # the engine hands out its own buffer


class _Buffers:
    """Where the engine reads and writes what it says of one army, with a pointer to each.

    magent2's Python methods allocate and cast anew in every call, which takes longer than the engine's own work for an army
    of six.
    """

    def __init__(self, engine: Any, handle: ctypes.c_int32, units: int) -> None:
        self.handle = handle
        self.number = np.zeros(1, np.int32)
        self.ids = np.zeros(units, np.int32)
        self.cells = np.zeros((units, 2), np.int32)
        self.actions = np.zeros(units, np.int32)
        self.rewards = np.zeros(units, np.float32)
        self.views = np.zeros((units, *engine.get_view_space(handle)), np.float32)
        self.features = np.zeros((units, *engine.get_feature_space(handle)), np.float32)
        self.to_number, self.to_ids, self.to_cells, self.to_actions, self.to_rewards = (
            _pointer(array) for array in (self.number, self.ids, self.cells, self.actions, self.rewards)
        )
        self.to_views_and_features = (ctypes.c_void_p * 2)(self.views.ctypes.data, self.features.ctypes.data)


def _pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


@cache
def army_size(map_size: int) -> int:
    """Units of each army on a map.

    Raises:
        ImportError: If magent2 is not installed; the message says what to install.
    """
    return BattleEngine(map_size).units


def _package() -> tuple[ModuleType, ctypes.CDLL]:
    """The package's battle and its library, imported only now so that naming an environment does not need the extra."""
    threads = os.environ.get(_THREADS)
    try:
        from magent2.c_lib import _LIB
        from magent2.environments.battle import battle
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise ImportError(
            f"MAgent2 environments need the package {package!r}, which is not installed; "
            "run: pip install 'perceiver-rl[magent]'"
        ) from error
    finally:
        # magent2 sets it for the whole process, torch included, though the engine that it ships is single-threaded.
        if threads is None:
            os.environ.pop(_THREADS, None)
    return battle, _LIB
