"""MAgent2's battle with one agent for each unit, as a PettingZoo parallel environment of entities.

Each unit sees what `battle_v4` shows it, the circle of six cells around it, as lists of units rather than as an image.
Agents leave when they die.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envs.magent import MAX_STEPS, parse_name
from envs.magent_engine import BattleEngine, army_size
from envs.magent_opponents import OPPONENTS
from envs.magent_rules import BLUE, MOVES, RED, Battlefield, battlefields
from perceiver_rl.entities import (
    ACTION_MASK,
    GLOBALS,
    EntityObservationSpace,
    EntitySchema,
    EntityType,
    Feature,
    Observation,
    TargetedVerb,
    features_key,
    mask_key,
)

try:
    from pettingzoo import ParallelEnv
except ModuleNotFoundError as error:
    if error.name != "pettingzoo":
        raise
    raise ImportError(
        "MAgent2 environments need the package 'pettingzoo', which is not installed; run: pip install 'perceiver-rl[magent]'"
    ) from error

VIEW = 6
"""Cells that a unit sees in every direction, in a circle, as in `battle_v4`."""

ARMIES = {"both": (RED, BLUE), "red": (RED,), "blue": (BLUE,)}
NAMES = ("red", "blue")

_OTHER_FEATURES = (
    Feature("dx", -VIEW, VIEW),  # cells, towards where the other army begins
    Feature("dy", -VIEW, VIEW),  # cells, to the north
    Feature("health", 0.0, 1.0),
)
_SELF_FEATURES = (
    Feature("health", 0.0, 1.0),
    # Free cells up to the wall in each direction, at most as many as the unit sees.
    *(Feature(f"wall_{direction}", 0.0, VIEW) for direction in ("east", "west", "north", "south")),
)


def unit_schema(name: str) -> EntitySchema:
    """What one unit sees and may do in a battle: itself, and slots for all other units of both armies.

    Raises:
        ValueError: If there is no battle of that name; the message lists the known ones.
        ImportError: If magent2 is not installed; the message says what to install.
    """
    units = army_size(parse_name(name)[0])
    return EntitySchema(
        entity_types=(
            EntityType("self", _SELF_FEATURES, 1),
            EntityType("ally", _OTHER_FEATURES, units - 1),
            EntityType("enemy", _OTHER_FEATURES, units),
        ),
        actors=("self",),
        verbs=tuple(MOVES),
        targeted_verbs=(TargetedVerb("attack", "enemy"),),
    )


class BattleParallelEnv(ParallelEnv[str, Observation, Any]):
    """A battle of `red_0`, `red_1`, … against `blue_0`, ….

    Observation: for each agent itself, and the living units within six cells, with offsets and health. Every army sees
    itself begin in the west. A slot is the same unit for a whole battle. An agent that has just died sees nothing, not even
    itself.
    Action: `MultiDiscrete` of one, or a plain integer: one of 13 moves or an attack at an enemy; what is legal, and what
    becomes of it, is told at `envs.magent.BattleVectorEnv`.
    Reward: `battle_v4`'s own, with its default settings: 5 for a kill, 0.2 for an attack at an opponent, -0.1 for any
    attack, -0.005 a step, -0.1 for dying.
    Termination: the agent is dead, or one army is. Truncation: the time limit. Who terminates leaves `agents`.
    Infos: empty, but at the end of a battle for everybody who is there: `won`, `annihilated`, `allies_left`,
    `enemies_left`, as the agent's army sees it.

    >>> env = BattleParallelEnv("battle-16")
    >>> observations, infos = env.reset(seed=7)
    >>> observations["red_0"]["entities/enemy"].shape
    (6, 3)
    >>> observations, rewards, terminations, truncations, infos = env.step({agent: 6 for agent in env.agents})

    Args:
        name: One of `envs.magent.battle_names()`. The opponent in the name plays the army that has no agents.
        armies: Who are agents: `"both"`, `"red"` or `"blue"`.
        max_steps: Time limit.

    Raises:
        ValueError: If an argument is not one of the valid values, which the message lists.
        ImportError: If magent2 is not installed; the message says what to install.
    """

    metadata = {"name": "magent_battle", "render_modes": [], "is_parallelizable": True}  # noqa: RUF012

    def __init__(self, name: str, *, armies: str = "both", max_steps: int = MAX_STEPS) -> None:
        self.map_size, opponent = parse_name(name)
        if armies not in ARMIES:
            raise ValueError(f"armies of magent/{name}: got {armies!r}, expected one of {', '.join(ARMIES)}")
        if max_steps < 1:
            raise ValueError(f"max_steps of magent/{name}: got {max_steps}, expected at least 1")
        self.name = name
        self.max_steps = max_steps
        self.render_mode = None
        self.schema = unit_schema(name)
        self._opponent = OPPONENTS[opponent]
        self._sides = ARMIES[armies]
        self._engine = BattleEngine(self.map_size)
        units = self._engine.units
        self.possible_agents = [f"{NAMES[side]}_{unit}" for side in self._sides for unit in range(units)]
        self.agents: list[str] = []
        self._place = {agent: (NAMES.index(agent.split("_")[0]), int(agent.split("_")[1])) for agent in self.possible_agents}
        # Slots of a unit's allies: all of its army but itself.
        self._others = np.array([np.delete(np.arange(units), unit) for unit in range(units)])
        self._random = np.random.default_rng()
        self._position = np.zeros((1, 2, units, 2), np.int32)
        self._health = np.zeros((1, 2, units), np.float32)
        self._fields: tuple[Battlefield, Battlefield]  # as red sees the battle, and as blue does
        self._steps = 0
        # PettingZoo asks for the same space object for an agent, each time.
        self._observation_spaces = {agent: EntityObservationSpace(self.schema) for agent in self.possible_agents}
        self._action_spaces = {
            agent: gymnasium.spaces.MultiDiscrete([self.schema.num_options]) for agent in self.possible_agents
        }

    def observation_space(self, agent: str) -> EntityObservationSpace:
        """The observation space of an agent; it carries the schema."""
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> gymnasium.spaces.MultiDiscrete:
        """The action space of an agent: one option."""
        return self._action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Observation], dict[str, dict[str, Any]]]:
        """Start a battle.

        Args:
            seed: Of the order of attacks and of the opponent's draws; without one, the random stream goes on.
            options: Not used.
        """
        if seed is not None:
            self._random = np.random.default_rng(seed)
        self._engine.start(int(self._random.integers(2**31)))
        self._steps = 0
        self.agents = self.possible_agents[:]
        return self._look(), {agent: {} for agent in self.agents}

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[
        dict[str, Observation], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]
    ]:  # PettingZoo's own tuple
        """Let every living agent act; see `pettingzoo.ParallelEnv.step`. Who is given no action stays where it is.

        Raises:
            ValueError: If an action is no option.
        """
        options = np.full(self._health.shape[1:], list(MOVES).index("stay"))
        for agent in self.agents:
            if agent in actions:
                options[self._place[agent]] = self._option(agent, actions[agent])
        for side in {RED, BLUE} - set(self._sides):
            options[side] = self._opponent(self._fields[side], lambda *shape: self._random.random((1, *shape), np.float32))[
                0
            ]
        orders = np.concatenate([field.engine_actions(options[None, side]) for side, field in enumerate(self._fields)])
        rewards = np.zeros(options.shape, np.float32)
        self._engine.step(orders, self._health[0] > 0, rewards)
        self._steps += 1
        observations = self._look()
        alive = self._health[0] > 0
        left = alive.sum(axis=1)
        decided, late = bool((left == 0).any()), self._steps >= self.max_steps
        before, self.agents = self.agents, []
        terminations, truncations, infos = {}, {}, {}
        for agent in before:
            side, unit = self._place[agent]
            terminations[agent] = decided or not alive[side, unit]
            truncations[agent] = late and not terminations[agent]
            infos[agent] = self._result(left[side], left[1 - side]) if decided or late else {}
            if not (terminations[agent] or truncations[agent]):
                self.agents.append(agent)
        return (
            {agent: observations[agent] for agent in before},
            {agent: float(rewards[self._place[agent]]) for agent in before},
            terminations,
            truncations,
            infos,
        )

    def _result(self, allies_left: int, enemies_left: int) -> dict[str, Any]:
        return {
            "won": bool(allies_left > enemies_left),
            "annihilated": bool(enemies_left == 0),
            "allies_left": int(allies_left),
            "enemies_left": int(enemies_left),
        }

    def _option(self, agent: str, action: Any) -> int:
        options = np.asarray(action).reshape(-1)
        if options.shape != (1,) or not 0 <= (option := int(options[0])) < self.schema.num_options:
            raise ValueError(
                f"action of {agent} in magent/{self.name}: got {action}, expected one option, "
                f"0 to {self.schema.num_options - 1}"
            )
        return option

    def _look(self) -> dict[str, Observation]:
        self._engine.read(self._position[0], self._health[0])
        self._fields = battlefields(np.array([RED]), self._position, self._health, self.map_size)
        seen = {side: self._observe(self._fields[side]) for side in self._sides}
        return {
            agent: {key: values[unit] for key, values in seen[side].items()} for agent, (side, unit) in self._place.items()
        }

    def _observe(self, field: Battlefield) -> Observation:
        """What each unit of an army sees, arrays `[units, …]`."""
        xy, health, alive = field.xy[0], field.health[0], field.health[0] > 0
        self_features = np.zeros((len(xy), 1, len(_SELF_FEATURES)), np.float32)
        self_features[alive, 0, 0] = health[alive]
        half = (self.map_size - 1) / 2 - 1  # from the map's centre to the last free cell
        walls = np.concatenate([half - xy[:, :1], half + xy[:, :1], half - xy[:, 1:], half + xy[:, 1:]], axis=1)
        self_features[alive, 0, 1:] = walls[alive].clip(0, VIEW)
        ally_features, ally_mask = _in_view(xy, alive, xy[self._others], health[self._others])
        units = np.broadcast_to(np.arange(len(xy)), (len(xy), len(xy)))
        enemy_features, enemy_mask = _in_view(xy, alive, field.other_xy[0][units], field.other_health[0][units])
        action_mask = np.concatenate([field.can_move[0], field.can_attack[0]], axis=1)[:, None]
        return {
            features_key("self"): self_features,
            mask_key("self"): alive[:, None],
            features_key("ally"): ally_features,
            mask_key("ally"): ally_mask,
            features_key("enemy"): enemy_features,
            mask_key("enemy"): enemy_mask,
            GLOBALS: np.zeros((len(xy), 0), np.float32),
            ACTION_MASK: action_mask,
        }


def _in_view(
    xy: NDArray[np.float32], alive: NDArray[np.bool_], other_xy: NDArray[np.float32], other_health: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Features `[units, others, 3]` and mask of what each unit sees; zeros for what it does not.

    Args:
        xy: Own positions, `[units, 2]`.
        alive: Who sees at all, `[units]`.
        other_xy: `[units, others, 2]`.
        other_health: `[units, others]`.
    """
    offset = other_xy - xy[:, None]
    mask = alive[:, None] & (other_health > 0) & (np.square(offset).sum(axis=2) <= VIEW**2)
    features = np.concatenate([offset, other_health[..., None]], axis=2)
    return np.where(mask[..., None], features, np.float32(0)), mask
