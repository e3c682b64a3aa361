"""MAgent2's battle: two armies of 6 to 81 units, one commanded by the agent and one by a script.

`BattleVectorEnv` is the fast way and what training uses; `BattleEnv` is one battle of the same, for scripts and debugging.
Both say what they show and accept by `battle_schema(name)`. `envs.magent_parallel` has the multi-agent form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from envs.magent_engine import BattleEngine, army_size
from envs.magent_opponents import OPPONENTS
from envs.magent_rules import BLUE, RED, Battlefield, battlefields
from envs.magent_schema import observe, schema_of_army
from perceiver_rl.configuration import unknown_name
from perceiver_rl.entities import EntitySchema, Observation
from perceiver_rl.infos import KIND, UNITS, only_info
from perceiver_rl.scene import SCENE, Scene
from perceiver_rl.vector_arguments import checked_actions, seed_of_each

MAP_SIZES = range(16, 46)
SIDES = ("random", "red", "blue")
MAX_STEPS = 200
SOLDIER = "soldier"
"""What infos call the one kind of unit that there is."""


def battle_names() -> list[str]:
    """Names of all battles: `battle-<map size>` against the hunter, `battle-<map size>-vs-random` against random play."""
    return [f"battle-{size}{suffix}" for suffix in ("", "-vs-random") for size in MAP_SIZES]


def battle_schema(name: str) -> EntitySchema:
    """What an army sees and may do in a battle; schemas of two battles differ in `max_count` alone.

    Raises:
        ValueError: If there is no battle of that name; the message lists the known ones.
        ImportError: If magent2 is not installed; the message says what to install.
    """
    return schema_of_army(army_size(parse_name(name)[0]))


@dataclass(frozen=True)
class Outcome:
    """What a step has brought, arrays `[num_envs]`."""

    observation: Observation
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    infos: dict[str, Any]
    """Arrays by key, and under `"units"` arrays `[num_envs, allies]`."""


class BattleVectorEnv(VectorEnv[Observation, NDArray[np.integer[Any]], NDArray[Any]]):
    """A batch of battles of MAgent2's `battle_v4`, one engine each, everything else in numpy over the batch.

    Observation: all living units of both armies, wherever they are, as `battle_schema` names them; the dead are absent, and
    their slots zeros. Positions are seen from the army's own side: it always begins in the west. The map has walls at its
    border only, which positions and legal moves tell.
    Action: one option for each ally: one of 13 moves of up to two cells, `stay` included, or attack enemy *e*. Moves are
    legal to cells that are free now, attacks at enemies in the eight neighbouring cells. Of two units that move to one cell
    only the first gets there. An attack fails if the attacker is killed before its turn in that step, or if the target is.
    An attack out of reach is `stay`. A dead ally's option is ignored.
    Reward: the fraction of its full health that an enemy has lost in this step, averaged over all enemies of the start, less
    what they have recovered, plus 1 when all enemies are dead.
    Termination: one army is dead. Truncation: the time limit.
    Autoreset: in the next step. The step that ends an episode returns its last observation; the step after that ignores its
    action, returns the first observation of a new episode, reward 0, and neither terminated nor truncated.
    Infos: in a step that ends episodes, for those: `won` (all enemies dead, or strictly more allies than enemies alive at
    the time limit), `annihilated` (all enemies dead), `allies_left`, `enemies_left`, `damage_dealt` and `damage_taken`
    (health that the enemies and the squad lack at the end, in full healths, the dead included). `units` tells of each ally
    `survived`, `kills`, `damage_dealt` and `damage_taken` (what it lacks at the end). What an enemy loses in a step is
    shared equally by the allies that attacked it in that step; what it recovers in later ones is not taken back, so that
    the allies' damage may add up to more than the squad's. Other steps have no infos, because RLlib spends Python time on
    each of them.

    The start formation is always that of `battle_v4`. Episodes differ by the side, the order of attacks and the draws of the
    opponent. Sub-environment `i` of `reset(seed=s)` plays the same battles as `BattleEnv` with `reset(seed=s + i)`.

    >>> env = BattleVectorEnv("battle-16", num_envs=3)
    >>> observation, info = env.reset(seed=7)
    >>> observation["entities/ally"].shape
    (3, 6, 8)
    >>> observation, reward, terminated, truncated, info = env.step(np.full((3, 6), 7))

    Args:
        name: One of `battle_names()`, e.g. `"battle-24"`: size of the map and opponent (`envs.magent_opponents`).
        num_envs: Number of battles.
        side: Which army is commanded: `"red"`, `"blue"`, or `"random"`, drawn anew for each episode.
        max_steps: Time limit.

    Raises:
        ValueError: If an argument is not one of the valid values, which the message lists.
        ImportError: If magent2 is not installed; the message says what to install.
    """

    # a plain class attribute, as gymnasium declares it
    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": [], "control": "centralized"}  # noqa: RUF012

    def __init__(self, name: str, num_envs: int = 1, *, side: str = "random", max_steps: int = MAX_STEPS) -> None:
        self.map_size, opponent = parse_name(name)
        if side not in SIDES:
            raise ValueError(f"side of magent/{name}: got {side!r}, expected one of {', '.join(SIDES)}")
        for what, number in (("num_envs", num_envs), ("max_steps", max_steps)):
            if number < 1:
                raise ValueError(f"{what} of magent/{name}: got {number}, expected at least 1")
        self.name = name
        self.num_envs = num_envs
        self.max_steps = max_steps
        self.schema = battle_schema(name)
        edge = self.map_size / 2  # cells from the centre, which positions are told from
        self.metadata = self.metadata | {SCENE: replace(Scene.of(self.schema), bounds=(-edge, -edge, edge, edge))}
        self.single_observation_space = self.schema.observation_space
        self.single_action_space = self.schema.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._opponent = OPPONENTS[opponent]
        self._side_option = side
        self._engines = [BattleEngine(self.map_size) for _ in range(num_envs)]
        self._random: list[np.random.Generator] = []  # one for each battle; none before the first reset
        units = self.schema.max_actors
        self._side = np.zeros(num_envs, np.int64)
        self._position = np.zeros((num_envs, 2, units, 2), np.int32)
        self._health = np.zeros((num_envs, 2, units), np.float32)
        self._steps = np.zeros(num_envs, np.int64)
        self._damage = np.zeros((num_envs, units), np.float32)  # each ally's in the episode so far
        self._kills = np.zeros((num_envs, units), np.float32)
        self._ended = np.zeros(num_envs, bool)
        self._fields: tuple[Battlefield, Battlefield]  # as the agent's army sees the battles, and as the opponent's does

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a new episode in every sub-environment.

        Args:
            seed: Sub-environment `i` gets `seed + i`, or its own of a sequence of `num_envs` seeds. Without a seed, each
                goes on with its random stream, which begins with fresh entropy if none was ever given.
            options: Not used.

        Returns:
            The first observations, and no infos.
        """
        super().reset(seed=int(seed) if isinstance(seed, (int, np.integer)) else None)
        seeds = seed_of_each(seed, self.num_envs, f"magent/{self.name}")
        before = self._random or [np.random.default_rng() for _ in seeds]
        self._random = [
            random if each is None else np.random.default_rng(each) for random, each in zip(before, seeds, strict=True)
        ]
        for index in range(self.num_envs):
            self._start(index)
        self._ended[:] = False
        return self._look(), {}

    def step(
        self, actions: ArrayLike
    ) -> tuple[Observation, NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Advance every sub-environment by one step, or reset it if its episode has ended in the last one.

        Args:
            actions: One option for each ally, int `[num_envs, allies]`.

        Returns:
            Observations, rewards, terminated, truncated (each with a leading axis `[num_envs]`), and infos.

        Raises:
            ValueError: If actions have another shape or type, or an option does not exist.
            gymnasium.error.ResetNeeded: If `reset` was never called.
        """
        outcome = self.advance(actions)
        infos: dict[str, Any] = {}
        if self._ended.any():
            infos = dict(outcome.infos)
            infos |= {f"_{key}": self._ended.copy() for key in outcome.infos}
        return outcome.observation, outcome.reward, outcome.terminated, outcome.truncated, infos

    def advance(self, actions: ArrayLike) -> Outcome:
        """`step`, with infos in every step; the arguments and errors are the same."""
        if not self._random:
            raise gymnasium.error.ResetNeeded("step: the environment was never reset; call reset() first")
        options = checked_actions(self.schema, actions, self.num_envs, f"magent/{self.name}")
        battle, playing = np.arange(self.num_envs), ~self._ended
        own, others = self._fields
        orders = np.empty(self._health.shape, np.int32)
        orders[battle, self._side] = own.engine_actions(options)
        orders[battle, 1 - self._side] = others.engine_actions(self._opponent(others, self._draw))
        for index, engine in enumerate(self._engines):
            if playing[index]:
                engine.step(orders[index], self._health[index] > 0)
                engine.read(self._position[index], self._health[index])
                self._steps[index] += 1
            else:
                self._start(index)
        observation = self._look()
        now = self._fields[0]
        self._credit(own.shares(options), own.other_health, now.other_health)
        left, enemies_left = np.count_nonzero(now.health, axis=1), np.count_nonzero(now.other_health, axis=1)
        annihilated = enemies_left == 0
        terminated = playing & (annihilated | (left == 0))
        truncated = playing & ~terminated & (self._steps >= self.max_steps)
        self._ended = terminated | truncated
        reward = np.mean(own.other_health - now.other_health, axis=1) + annihilated
        infos = {
            "won": annihilated | (truncated & (left > enemies_left)),
            "annihilated": annihilated,
            "allies_left": left,
            "enemies_left": enemies_left,
            "damage_dealt": np.sum(1 - now.other_health, axis=1),
            "damage_taken": np.sum(1 - now.health, axis=1),
            UNITS: {
                KIND: np.full(now.health.shape, SOLDIER, object),
                "survived": now.health > 0,
                "kills": self._kills.copy(),
                "damage_dealt": self._damage.copy(),
                "damage_taken": 1 - now.health,
            },
        }
        return Outcome(observation, np.where(playing, reward, 0.0).astype(np.float32), terminated, truncated, infos)

    def _start(self, index: int) -> None:
        random = self._random[index]
        self._side[index] = (
            random.integers(2) if self._side_option == "random" else {"red": RED, "blue": BLUE}[self._side_option]
        )
        self._steps[index] = 0
        self._damage[index], self._kills[index] = 0, 0
        self._engines[index].start(int(random.integers(2**31)))
        self._engines[index].read(self._position[index], self._health[index])

    def _credit(self, shares: NDArray[np.float32], before: NDArray[np.float32], after: NDArray[np.float32]) -> None:
        """Add the allies' shares in what their enemies lost in a step; in a battle that has begun anew nobody lost any."""
        lost, died = np.maximum(before - after, 0), (before > 0) & (after == 0)
        self._damage += (shares @ lost[..., None])[..., 0]
        self._kills += (shares @ died[..., None].astype(np.float32))[..., 0]

    def _look(self) -> Observation:
        self._fields = battlefields(self._side, self._position, self._health, self.map_size)
        return observe(self._fields[0])

    def _draw(self, *shape: int) -> NDArray[np.float32]:
        """Numbers for the opponent, from each battle's own stream; a battle that is over draws none."""
        numbers = np.zeros((self.num_envs, *shape), np.float32)
        for index, random in enumerate(self._random):
            if not self._ended[index]:
                random.random(shape, np.float32, out=numbers[index])
        return numbers


class BattleEnv(gymnasium.Env[Observation, NDArray[np.integer[Any]]]):
    """One battle; what it shows, accepts and pays is told at `BattleVectorEnv`, which it wraps.

    There is no autoreset. Infos are there in every step, with the same keys as the vector environment's.

    >>> env = BattleEnv("battle-16")
    >>> observation, info = env.reset(seed=7)
    >>> observation, reward, terminated, truncated, info = env.step(np.full(6, 7))

    Args:
        name: As for `BattleVectorEnv`, like the arguments that follow.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, name: str, *, side: str = "random", max_steps: int = MAX_STEPS) -> None:
        self._vector = BattleVectorEnv(name, 1, side=side, max_steps=max_steps)
        self.schema = self._vector.schema
        self.observation_space = self.schema.observation_space
        self.action_space = self.schema.action_space
        self._over = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Start a new episode; see `BattleVectorEnv.reset`."""
        super().reset(seed=seed)
        observation, _ = self._vector.reset(seed=seed)
        self._over = False
        return _first(observation), {}

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Advance the battle by one step.

        Args:
            action: One option for each ally, int `[allies]`.

        Raises:
            ValueError: If the action has another shape or type, or an option does not exist.
            gymnasium.error.ResetNeeded: If the episode has ended, or never began.
        """
        if self._over:
            raise gymnasium.error.ResetNeeded("step: the episode has ended or never began; call reset() first")
        outcome = self._vector.advance(np.asarray(action)[None])
        terminated, truncated = bool(outcome.terminated[0]), bool(outcome.truncated[0])
        self._over = terminated or truncated
        return _first(outcome.observation), float(outcome.reward[0]), terminated, truncated, only_info(outcome.infos)


def _first(observation: Observation) -> Observation:
    return {key: values[0] for key, values in observation.items()}


def parse_name(name: str) -> tuple[int, str]:
    """Map size and opponent of a battle.

    Raises:
        ValueError: If there is no battle of that name; the message lists the known ones.
    """
    if name not in battle_names():
        raise ValueError(unknown_name("MAgent2 battle: got unknown name", name, battle_names()))
    size = int(name.removesuffix("-vs-random").removeprefix("battle-"))
    return size, "random" if name.endswith("-vs-random") else "hunter"
