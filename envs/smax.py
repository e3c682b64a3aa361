"""SMAX: StarCraft-style battles of a squad against a scripted enemy, from the `jaxmarl` package.

`SmaxVectorEnv` is the fast way and what training uses; `SmaxEnv` is one battle of the same, for scripts and
debugging. Both say what they show and accept by `smax_schema(map_name)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, get_args

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from envs.smax_schema import MAP_SIDE, UNIT_KINDS, MapSize, schema_of_size
from perceiver_rl.entities import (
    ACTION_MASK,
    GLOBALS,
    VISIBILITY,
    Control,
    EntitySchema,
    Observation,
    features_key,
    mask_key,
)
from perceiver_rl.infos import KIND, UNITS, only_info
from perceiver_rl.scene import SCENE, Scene
from perceiver_rl.vector_arguments import checked_actions, seed_of_each

if TYPE_CHECKING:
    from envs.smax_dynamics import Battles, Outcome, SmaxDynamics

CONTROLS = get_args(Control)
ENEMY_ATTACK_MODES = ("closest", "random")


MAP_NAMES = (
    "3m",
    "2s3z",
    "25m",
    "3s5z",
    "8m",
    "5m_vs_6m",
    "10m_vs_11m",
    "27m_vs_30m",
    "3s5z_vs_3s6z",
    "3s_vs_5z",
    "6h_vs_8z",
    "smacv2_5_units",
    "smacv2_10_units",
    "smacv2_20_units",
)
"""Those of jaxmarl 0.2.0, in its order."""


def map_names() -> list[str]:
    """Names of all maps. Tells them without importing JAX, which would take seconds and start its threads.

    Raises:
        ImportError: If jaxmarl is not installed; the message says what to install.
    """
    if find_spec("jaxmarl") is None:
        raise _not_installed("jaxmarl")
    return list(MAP_NAMES)


def smax_schema(map_name: str, control: Control = "centralized") -> EntitySchema:
    """What a squad sees and may do on a map.

    Raises:
        ValueError: If there is no map of that name; the message lists the known ones.
        ImportError: If jaxmarl is not installed; the message says what to install.
    """
    return schema_of_size(_map_size(map_name), control)


class SmaxVectorEnv(VectorEnv[Observation, NDArray[np.integer[Any]], NDArray[Any]]):
    """A batch of SMAX battles, stepped by one compiled function.

    Observation: what the squad's living allies see together, as `smax_schema` names it. Enemies that no
    living ally has in sight are absent; so are the dead. Absent slots are zeros.
    Action: one option for each ally: north, east, south, west, stop, or attack enemy *e*. Attacks are legal
    within attack range; an illegal attack does nothing. A dead ally's option is ignored.
    Reward: the fraction of its full health that an enemy has lost in this step, averaged over all enemies,
    plus 1 for a won battle (all enemies dead, an ally alive).
    Termination: one side is dead. Truncation: SMAX's time limit, which takes effect in the 101st step.
    Autoreset: in the next step. The step that ends an episode returns its last observation; the step after
    that ignores its action, returns the first observation of a new episode, reward 0, and neither terminated
    nor truncated.
    Infos: in a step that ends episodes, for those: `won`, `allies_left`, `enemies_left`, `damage_dealt`,
    `damage_taken` (health lost by the enemies and by the squad, in units), and under `units` arrays `[num_envs, allies]` of
    the same for each ally: `kind`, `survived`, `kills`, `damage_dealt`, `damage_taken`. An enemy's loss and death are shared
    among the allies that shot at it in that step. Other steps have no infos, because RLlib spends Python time on each of
    them.

    Sub-environment `i` of `reset(seed=s)` plays the same battle as `SmaxEnv` with `reset(seed=s + i)`.

    >>> env = SmaxVectorEnv("2s3z", num_envs=3)
    >>> observation, info = env.reset(seed=7)
    >>> observation["entities/ally"].shape
    (3, 5, 15)
    >>> observation, reward, terminated, truncated, info = env.step(np.full((3, 5), 4))

    Args:
        map_name: One of `map_names()`, e.g. `"2s3z"`.
        num_envs: Number of battles.
        control: `"centralized"`: every ally's decision sees all that any living ally sees. `"decentralized"`: it sees what
            this ally sees alone, as SMAX's own `unit_list` observation has it, by the observation's `visibility`. The
            observation then holds all living units, for a central value.
        walls_cause_death: Units that touch the map's edge die. SMAX's default; keep it for comparisons.
        see_enemy_actions: Enemies' last move and attack are visible.
        enemy_attack_mode: How the scripted enemy chooses its target, `"closest"` or `"random"`.

    Raises:
        ValueError: If an argument is not one of the valid values, which the message lists.
        ImportError: If jaxmarl is not installed; the message says what to install.
    """

    # a plain class attribute, as gymnasium declares it
    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        map_name: str,
        num_envs: int = 1,
        *,
        control: Control = "centralized",
        walls_cause_death: bool = True,
        see_enemy_actions: bool = True,
        enemy_attack_mode: str = "closest",
    ) -> None:
        _require_one_of("control", control, CONTROLS)
        _require_one_of("enemy_attack_mode", enemy_attack_mode, ENEMY_ATTACK_MODES)
        if num_envs < 1:
            raise ValueError(f"num_envs: got {num_envs}, expected at least 1")
        self.map_name = map_name
        self.num_envs = num_envs
        self.schema = smax_schema(map_name, control)
        scene = replace(Scene.of(self.schema), bounds=(0.0, 0.0, MAP_SIDE, MAP_SIDE))
        self.metadata = self.metadata | {"control": control, SCENE: scene}
        self.single_observation_space = self.schema.observation_space
        self.single_action_space = self.schema.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.dynamics: SmaxDynamics = _dynamics().SmaxDynamics(
            map_name,
            num_envs,
            control=control,
            walls_cause_death=walls_cause_death,
            see_enemy_actions=see_enemy_actions,
            enemy_attack_mode=enemy_attack_mode,
        )
        # The battles as the last step left them; None until the first reset.
        self.battles: Battles | None = None

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a new episode in every sub-environment.

        Args:
            seed: Sub-environment `i` gets `seed + i`, or its own of a sequence of `num_envs` seeds. Without a
                seed, each goes on with its random stream, which begins with fresh entropy if none was ever
                given.
            options: Not used.

        Returns:
            The first observations, and no infos.
        """
        super().reset(seed=int(seed) if isinstance(seed, (int, np.integer)) else None)
        seeds = seed_of_each(seed, self.num_envs, f"smax/{self.map_name}")
        keys = np.stack([_key(each) for each in seeds])
        if self.battles is not None:
            keep = np.array([each is None for each in seeds])
            keys[keep] = np.asarray(self.battles.key)[keep]
        self.battles, outcome = self.dynamics.step(self.dynamics.start(keys), self._no_action())
        return observation_of(outcome, self.schema.control), {}

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
        ended = outcome.terminated | outcome.truncated
        infos: dict[str, Any] = {}
        if ended.any():
            infos = battle_infos(outcome)
            infos |= {f"_{key}": ended for key in infos}
        return observation_of(outcome, self.schema.control), outcome.reward, outcome.terminated, outcome.truncated, infos

    def advance(self, actions: ArrayLike) -> Outcome:
        """`step`, told as the dynamics tell it; the arguments and errors are the same."""
        if self.battles is None:
            raise gymnasium.error.ResetNeeded("step: the environment was never reset; call reset() first")
        options = checked_actions(self.schema, actions, self.num_envs, f"smax/{self.map_name}")
        self.battles, outcome = self.dynamics.step(self.battles, options.astype(np.int32))
        return outcome

    def _no_action(self) -> NDArray[np.int32]:
        return np.zeros((self.num_envs, self.schema.max_actors), np.int32)


class SmaxEnv(gymnasium.Env[Observation, NDArray[np.integer[Any]]]):
    """One SMAX battle; what it shows, accepts and pays is told at `SmaxVectorEnv`, which it wraps.

    There is no autoreset. Infos are there in every step, with the same keys as the vector environment's.

    >>> env = SmaxEnv("2s3z")
    >>> observation, info = env.reset(seed=7)
    >>> observation, reward, terminated, truncated, info = env.step(np.full(5, 4))

    Args:
        map_name: One of `map_names()`, e.g. `"2s3z"`.
        control: As for `SmaxVectorEnv`, like the arguments that follow.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        map_name: str,
        *,
        control: Control = "centralized",
        walls_cause_death: bool = True,
        see_enemy_actions: bool = True,
        enemy_attack_mode: str = "closest",
    ) -> None:
        self._vector = SmaxVectorEnv(
            map_name,
            num_envs=1,
            control=control,
            walls_cause_death=walls_cause_death,
            see_enemy_actions=see_enemy_actions,
            enemy_attack_mode=enemy_attack_mode,
        )
        self.schema = self._vector.schema
        self.observation_space = self.schema.observation_space
        self.action_space = self.schema.action_space
        self._over = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Start a new episode; see `SmaxVectorEnv.reset`."""
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
        info = only_info(battle_infos(outcome))
        return _first(observation_of(outcome, self.schema.control)), float(outcome.reward[0]), terminated, truncated, info


def observation_of(outcome: Outcome, control: Control) -> Observation:
    """The observation in a step's outcome, by the keys of `smax_schema`."""
    observation = {
        features_key("ally"): outcome.ally_features,
        mask_key("ally"): outcome.ally_mask,
        features_key("enemy"): outcome.enemy_features,
        mask_key("enemy"): outcome.enemy_mask,
        GLOBALS: outcome.globals,
        ACTION_MASK: outcome.action_mask,
    }
    return observation | ({VISIBILITY: outcome.visibility} if control == "decentralized" else {})


def battle_infos(outcome: Outcome) -> dict[str, Any]:
    """How each battle stands: arrays `[num_envs]` by info key, and under `"units"` arrays `[num_envs, allies]`."""
    return {
        "won": outcome.won,
        "allies_left": outcome.ally_mask.sum(axis=-1),
        "enemies_left": outcome.enemy_alive.sum(axis=-1),
        "damage_dealt": outcome.damage_dealt,
        "damage_taken": outcome.damage_taken,
        UNITS: {
            KIND: np.array(UNIT_KINDS, object)[outcome.unit_kind.astype(int)],
            "survived": outcome.ally_mask,
            "kills": outcome.unit_kills,
            "damage_dealt": outcome.unit_damage,
            "damage_taken": outcome.unit_damage_taken,
        },
    }


def _dynamics() -> ModuleType:
    """The jax half, imported only now so that naming an environment does not need the extra."""
    try:
        from envs import smax_dynamics
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("jax", "jaxmarl"):
            raise
        raise _not_installed(package) from error
    return smax_dynamics


def _not_installed(package: str) -> ImportError:
    return ImportError(
        f"SMAX environments need the package {package!r}, which is not installed; run: pip install 'perceiver-rl[smax]'"
    )


def _map_size(map_name: str) -> MapSize:
    sizes: dict[str, MapSize] = _dynamics().map_sizes()
    _require_one_of("SMAX map", map_name, tuple(sizes))
    return sizes[map_name]


def _require_one_of(what: str, value: str, valid: Sequence[str]) -> None:
    if value not in valid:
        raise ValueError(f"{what}: got {value!r}, expected one of {', '.join(valid)}")


def _key(seed: int | None) -> NDArray[np.uint32]:
    """A jax key from a seed of any size, spread by numpy; without a seed, from the machine's entropy."""
    return np.random.SeedSequence(seed).generate_state(2, np.uint32).astype(np.uint32)


def _first(observation: Observation) -> Observation:
    return {key: values[0] for key, values in observation.items()}
