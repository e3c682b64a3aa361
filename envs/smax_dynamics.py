"""The pure JAX half of the SMAX environment: a batch of battles in, one step later a batch of battles out.

Everything that happens in a step (resets, the battle itself, what the squad sees, what it may do, who won) is
one compiled function, `SmaxDynamics.step`, because a step of a batch is short on a CPU (docs/performance.md) and
every further call or transfer adds to it. For the same reason its results leave as one flat float32 array and
one flat bool array; `unpack` turns them into named views without copying.

This module imports jax and jaxmarl, so it is imported only when an environment is built; see `envs.smax`.
"""

from __future__ import annotations

import contextlib
import io
import math
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from envs.smax_schema import MAX_STEPS, TIME_LIMIT, MapSize, unit_features
from perceiver_rl.entities import Control


@contextlib.contextmanager
def _quiet_import() -> Iterator[None]:
    """Import jaxmarl without what it prints, and with stdout and stderr left as they were.

    It prints which optional environments it lacks, once for each env runner. It also points `sys.stdout` and
    `sys.stderr` at the process's original streams while it looks for brax, and leaves them there: that would
    undo pytest's capture or a progress display's, and is why the original stream is replaced here too.
    """
    sink, original = io.StringIO(), sys.__stdout__
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sys.stderr):
        sys.__stdout__ = sink  # type: ignore[misc, assignment]
        try:
            yield
        finally:
            sys.__stdout__ = original  # type: ignore[misc]


with _quiet_import():
    from jaxmarl.environments.smax import HeuristicEnemySMAX, map_name_to_scenario
    from jaxmarl.environments.smax.heuristic_enemy_smax_env import State as BattleState
    from jaxmarl.environments.smax.smax_env import MAP_NAME_TO_SCENARIO
    from jaxmarl.environments.smax.smax_env import State as WorldState


def map_sizes() -> dict[str, MapSize]:
    """Squad sizes of every map that jaxmarl knows, by name."""
    return {name: MapSize(each.num_allies, each.num_enemies) for name, each in MAP_NAME_TO_SCENARIO.items()}


class Battles(NamedTuple):
    """A batch of battles between two steps.

    Args:
        state: jaxmarl's state of each battle, a tree of arrays `[battles, …]`.
        key: Each battle's own random stream, uint32 `[battles, 2]`; no battle's depends on
            another's.
        over: Episode has ended, bool `[battles]`: the next step starts a new one and ignores the action.
        tally: Damage dealt and kills of each ally in this episode so far, float32 `[battles, 2, allies]`.
    """

    state: BattleState
    key: Array
    over: Array
    tally: Array


class Outcome(NamedTuple):
    """What a step tells, as arrays with a leading axis of battles; made by jax, read as numpy views.

    Health sums are in units: an enemy at half health adds 0.5 to `damage_dealt`. Nobody heals in SMAX, so the
    damage of an episode is what its survivors lack; units that died at a wall count, as they do in SMAX's
    reward. `unit_damage` and `unit_kills` are each ally's part of it: what an enemy lost in a step is shared by the
    allies that shot at it, by the strength of their shots, and so is its death; what nobody shot at died of a wall.
    """

    ally_features: Any  # float32 [battles, allies, features]
    enemy_features: Any  # float32 [battles, enemies, features]
    globals: Any  # float32 [battles, 1]
    reward: Any  # float32 [battles]
    damage_dealt: Any  # float32 [battles]
    damage_taken: Any  # float32 [battles]
    unit_kind: Any  # float32 [battles, allies], number of the unit's type
    unit_damage: Any  # float32 [battles, allies]
    unit_kills: Any  # float32 [battles, allies]
    unit_damage_taken: Any  # float32 [battles, allies]
    ally_mask: Any  # bool [battles, allies]
    enemy_mask: Any  # bool [battles, enemies]
    action_mask: Any  # bool [battles, allies, options]
    visibility: Any  # bool [battles, allies, units], allies before enemies
    terminated: Any  # bool [battles]
    truncated: Any  # bool [battles]
    won: Any  # bool [battles]
    enemy_alive: Any  # bool [battles, enemies]


class SmaxDynamics:
    """Reset, step and observe a batch of SMAX battles as one compiled function.

    Args:
        map_name: One of jaxmarl's maps.
        num_envs: Number of battles in the batch.
        control: `"centralized"`: enemies that no living ally sees are absent. `"decentralized"`: all living units are
            there, and `visibility` tells who sees whom.
        walls_cause_death: Units that touch the map's edge die (SMAX's default).
        see_enemy_actions: Enemies' last move and attack are visible.
        enemy_attack_mode: How the scripted enemy chooses whom to attack, `"closest"` or `"random"`.
    """

    def __init__(
        self,
        map_name: str,
        num_envs: int,
        *,
        control: Control,
        walls_cause_death: bool,
        see_enemy_actions: bool,
        enemy_attack_mode: str,
    ) -> None:
        self.num_envs = num_envs
        self.env = HeuristicEnemySMAX(
            scenario=map_name_to_scenario(map_name),
            walls_cause_death=walls_cause_death,
            see_enemy_actions=see_enemy_actions,
            attack_mode=enemy_attack_mode,
            max_steps=MAX_STEPS,
        )
        self._centralized = control == "centralized"
        self._feature_names = [feature.name for feature in unit_features(control)]
        self._see_enemy_actions = see_enemy_actions
        self._num_allies, self._num_enemies = self.env.num_allies, self.env.num_enemies
        self._fields = self._layout()
        self._step = jax.jit(self._step_and_pack)

    # -- called from numpy -----------------------------------------------------------------------------------

    def start(self, keys: NDArray[np.uint32]) -> Battles:
        """Battles that are over before they began: the first `step` resets them all.

        A reset is thereby a step like any other, and only one function has to be compiled.

        Args:
            keys: A random key for each battle, uint32 `[num_envs, 2]`.
        """
        shapes = jax.eval_shape(jax.vmap(self.env.reset), jax.ShapeDtypeStruct(keys.shape, jnp.uint32))[1]
        state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        tally = jnp.zeros((len(keys), 2, self._num_allies), jnp.float32)
        return Battles(state, jnp.asarray(keys), jnp.ones(len(keys), bool), tally)

    def step(self, battles: Battles, actions: NDArray[np.int32]) -> tuple[Battles, Outcome]:
        """Advance every battle by one step, or start a new one where the last was over.

        Args:
            battles: Battles as the last step left them.
            actions: One option for each ally, int32 `[num_envs, allies]`.

        Returns:
            The battles one step later, and what there is to tell as numpy arrays.
        """
        battles, floats, bools = self._step(battles, actions)
        # Copied once here, because arrays that view jax's memory are read-only and torch warns about those.
        return battles, self.unpack(np.array(floats), np.array(bools))

    def unpack(self, floats: NDArray[np.float32], bools: NDArray[np.bool_]) -> Outcome:
        """Named views of a step's two flat arrays: the inverse of how the compiled function packed them."""
        offsets = {"f": 0, "b": 0}
        views = []
        for kind, shape in self._fields:
            start, stop = offsets[kind], offsets[kind] + math.prod(shape)
            views.append((floats if kind == "f" else bools)[start:stop].reshape(shape))
            offsets[kind] = stop
        return Outcome(*views)

    # -- compiled --------------------------------------------------------------------------------------------

    def _step_and_pack(self, battles: Battles, actions: Array) -> tuple[Battles, Array, Array]:
        keys = jax.vmap(lambda each: jax.random.split(each, 3))(battles.key)
        key, step_key, reset_key = keys[:, 0], keys[:, 1], keys[:, 2]
        stepped, reward, gained = jax.vmap(self._advance)(step_key, battles.state, actions)
        # Most steps of a small batch reset nothing, and then need not pay for a reset.
        fresh = jax.lax.cond(
            battles.over.any(),
            lambda keys: _strong(jax.vmap(lambda each: self.env.reset(each)[1])(keys)),
            lambda _: battles.state,
            reset_key,
        )
        state = jax.vmap(_choose)(battles.over, fresh, stepped)
        tally = jnp.where(battles.over[:, None, None], 0.0, battles.tally + gained)
        outcome = jax.vmap(self._observe)(state, jnp.where(battles.over, 0.0, reward), tally)
        over = outcome.terminated | outcome.truncated
        floats: list[Array] = []
        bools: list[Array] = []
        for (kind, _), values in zip(self._fields, outcome, strict=True):
            (floats if kind == "f" else bools).append(values.reshape(-1))
        return Battles(state, key, over, tally), jnp.concatenate(floats), jnp.concatenate(bools)

    def _advance(self, key: Array, state: BattleState, actions: Array) -> tuple[BattleState, Array, Array]:
        """One battle, one step. jaxmarl's own observation is dropped, and XLA drops the work of making it."""
        by_agent = {agent: actions[index] for index, agent in enumerate(self.env.agents)}
        _, after, reward, _, _ = self.env.step_env(key, state, by_agent)
        gained = self._shares(state.state, after.state, actions)
        return _strong(after), reward[self.env.agents[0]], gained  # every ally gets the same reward

    def _shares(self, before: WorldState, after: WorldState, actions: Array) -> Array:
        """Each ally's part of what the enemies lost in this step: damage and kills, float32 `[2, allies]`."""
        env, allies, enemies = self.env, slice(None, self._num_allies), slice(self._num_allies, None)
        kind = before.unit_types[allies]
        # A cooldown falls by the time of the step, below 0 too, unless the unit shoots: then it is set to the weapon's. No
        # weapon is ready twice within a step (the shortest needs 0.5 s, as long as a step takes).
        elapsed = env.time_per_step * env.world_steps_per_env_step
        rise = after.unit_weapon_cooldowns[allies] - before.unit_weapon_cooldowns[allies] + elapsed
        shot = rise > env.time_per_step / 2
        aimed = jax.nn.one_hot(actions - env.num_movement_actions, self._num_enemies)  # of moves: zeros
        strength = aimed * (shot * env.unit_type_attacks[kind])[:, None]
        share = strength / jnp.maximum(strength.sum(axis=0), 1e-6)
        full = env.unit_type_health[before.unit_types[enemies]]
        lost = (before.unit_health[enemies] - after.unit_health[enemies]) / full
        died = before.unit_alive[enemies] & ~after.unit_alive[enemies]
        return jnp.stack([share @ lost, share @ died.astype(jnp.float32)])

    def _observe(self, battle: BattleState, reward: Array, tally: Array) -> Outcome:
        """What the squad of one battle sees and may do, and how the battle stands."""
        world: WorldState = battle.state
        allies, enemies = slice(None, self._num_allies), slice(self._num_allies, None)
        ally_alive, enemy_alive = world.unit_alive[allies], world.unit_alive[enemies]
        # [allies, units]: the same strict comparison with the observer's range as jaxmarl's unit list makes
        offset = world.unit_positions[None] - world.unit_positions[allies][:, None]
        distance = jnp.linalg.norm(offset, axis=-1)
        sight = self.env.unit_type_sight_ranges[world.unit_types[allies]]
        seen = (distance < sight[:, None]) & ally_alive[:, None] & world.unit_alive[None]
        enemy_mask = seen[:, enemies].any(axis=0) if self._centralized else enemy_alive
        visible = jnp.concatenate([ally_alive, enemy_mask])
        features = jnp.where(visible[:, None], self._unit_features(world, visible), 0.0)

        available = self.env.get_avail_actions(battle)
        legal = jnp.stack([available[agent] for agent in self.env.agents]).astype(bool)

        missing = 1.0 - world.unit_health / self.env.unit_type_health[world.unit_types]
        won = ally_alive.any() & ~enemy_alive.any()
        decided = ~ally_alive.any() | ~enemy_alive.any()
        return Outcome(
            ally_features=features[allies],
            enemy_features=features[enemies],
            globals=(world.step / TIME_LIMIT).astype(jnp.float32)[None],
            reward=reward,
            damage_dealt=missing[enemies].sum(),
            damage_taken=missing[allies].sum(),
            unit_kind=world.unit_types[allies].astype(jnp.float32),
            unit_damage=tally[0],
            unit_kills=tally[1],
            unit_damage_taken=missing[allies],
            ally_mask=ally_alive,
            enemy_mask=enemy_mask,
            # jaxmarl lets the dead stop; here absent actors have no option
            action_mask=legal & ally_alive[:, None],
            visibility=seen,
            terminated=decided,
            truncated=world.done & ~decided,
            won=won,
            enemy_alive=enemy_alive,
        )

    def _unit_features(self, world: WorldState, visible: Array) -> Array:
        """Features of every unit, float32 `[units, features]`, in the order of the schema.

        SMAX tells a unit's last attack as its action's index, which means another unit for each team and on
        each map. Under centralized control it is told as an offset to the unit that it was aimed at, where that unit is in
        view: the same information for a reader that sees the target, in terms that carry over between maps. Under
        decentralized control it is told as the target's number, since not everybody who sees the attacker sees the target.
        """
        env, index = self.env, jnp.arange(self._num_allies + self._num_enemies)
        is_ally = index < self._num_allies
        slot = world.prev_attack_actions - env.num_movement_actions
        attacking = slot >= 0
        # an enemy's attack options count allies from the last to the first
        target = jnp.where(is_ally, self._num_allies + slot, self._num_allies - 1 - slot)
        target = jnp.where(attacking, target, index)
        offset = world.unit_positions[target] - world.unit_positions
        told = is_ally | self._see_enemy_actions
        aimed = (attacking & told & visible[target])[:, None]
        slots = jnp.where(is_ally, index, index - self._num_allies) / jnp.maximum(
            jnp.where(is_ally, self._num_allies, self._num_enemies) - 1, 1
        )
        columns = {
            "health": world.unit_health / env.unit_type_health[world.unit_types],
            "x": world.unit_positions[:, 0],
            "y": world.unit_positions[:, 1],
            "last_move_x": world.prev_movement_actions[:, 0] * told,
            "last_move_y": world.prev_movement_actions[:, 1] * told,
            "attacking": attacking & told,
            "slot": slots,
            "target_slot": jnp.where(attacking & told, slots[target], 0.0),
            "target_dx": jnp.where(aimed, offset, 0.0)[:, 0],
            "target_dy": jnp.where(aimed, offset, 0.0)[:, 1],
            "cooldown": jnp.clip(world.unit_weapon_cooldowns / env.unit_type_weapon_cooldowns[world.unit_types], 0.0, 1.0),
        }
        for unit_type, name in enumerate(env.unit_type_names):
            columns[f"is_{name}"] = world.unit_types == unit_type
        return jnp.stack([columns[name].astype(jnp.float32) for name in self._feature_names], axis=-1)

    def _layout(self) -> list[tuple[str, tuple[int, ...]]]:
        """Kind (`f` float32, `b` bool) and shape of each field of `Outcome`, found by tracing `_observe`."""
        key = jax.ShapeDtypeStruct((2,), jnp.uint32)
        state = jax.eval_shape(self.env.reset, key)[1]
        reward, tally = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((), (2, self._num_allies)))
        outcome = jax.eval_shape(self._observe, state, reward, tally)
        return [("b" if each.dtype == jnp.bool_ else "f", (self.num_envs, *each.shape)) for each in outcome]


def _choose(condition: Array, yes: BattleState, no: BattleState) -> BattleState:
    """One of two battles."""
    return jax.tree.map(lambda left, right: jnp.where(condition, left, right), yes, no)


def _strong(state: BattleState) -> BattleState:
    """The same arrays, none of them weakly typed.

    jaxmarl's states are partly weakly typed at first and not later, which would compile a step twice.
    """
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), state)
