"""The check that every environment must pass: `check_entity_env` plays it and holds it to the contract of `EntitySchema`.

A model, an env runner and an evaluation all rely on what the contract promises and look at little of it while they run. A
broken promise there is not an error but a curve that does not rise. Run this in a test of your own environment:

>>> from perceiver_rl.testing import check_entity_env
>>> check_entity_env(lambda: MyVectorEnv(num_envs=3), steps=300)  # doctest: +SKIP

It needs numpy and gymnasium only; PettingZoo's parallel environments are known by what they have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from perceiver_rl.blame import blame
from perceiver_rl.entities import ACTION_MASK, EntitySchema, Observation, features_key, mask_key
from perceiver_rl.testing_players import BrokenPromise, EntityEnv, Moment, Player, Seat, make_player, name_of

NUM_OTHER_SEEDS = 3
"""Seeds of which at least one must give another play."""


@dataclass(frozen=True)
class EntityEnvReport:
    """What a play that kept every promise has met; what it never met, it could not check."""

    num_episodes: int
    """Episodes that ended; an agent's of a parallel environment counts as one."""
    met_absent_actor: bool
    """Whether some actor was absent in a running episode, so that its action could be seen to be ignored."""
    options_tried: frozenset[str]
    """Names of the options that were chosen."""


def check_entity_env(
    env: EntityEnv | Callable[[], EntityEnv],
    *,
    seed: int = 0,
    steps: int = 200,
    episodes_end: bool = True,
    seed_matters: bool = True,
) -> EntityEnvReport:
    """Play random legal actions and raise at the first promise that is not kept.

    - Spaces are the schema's, and a vector environment resets itself in the step after an end (NEXT_STEP).
    - Every observation keeps `EntitySchema.check`, an episode's last one included.
    - While an episode runs, an actor is present.
    - Legal actions never raise. Rewards are finite numbers.
    - Arrays that were returned do not change afterwards.
    - The same seed and actions give the same play, and another seed another one; absent slots are not compared.
    - The actions of absent actors, and those of the step that resets, change nothing.
    - The step that resets has reward 0 and ends nothing.
    - Some episode ends.

    Args:
        env: A `gymnasium.Env`, a `gymnasium.vector.VectorEnv` or a PettingZoo `ParallelEnv`, whose observation spaces are
            those of an `EntitySchema`; or, better, a function that makes one, which lets two instances be compared. An
            environment that is given stays open, what the function makes is closed.
        seed: Seed of the environment and of the actions.
        steps: Steps of each play; there are up to seven.
        episodes_end: Whether some episode must end within `steps`.
        seed_matters: Whether other seeds must give other plays; False for environments without chance.

    Returns:
        What was met on the way.

    Raises:
        BrokenPromise: Which promise was broken, where (environment or agent, step, key), what was found, what was expected,
            and what to do.
        ValueError: If it is no environment, carries no schema, or resets in another mode than NEXT_STEP.
    """
    with ExitStack() as stack:
        player, other = _two_players(env, stack)
        _require_schema_spaces(player)
        play = _play(player, seed, steps)
        if episodes_end:
            _require_an_end(play)
        _require_same(play, _play(other, seed, steps), "the same seed and actions", _SEED_HELP)
        if seed_matters:
            _require_other(play, lambda another: _play(other, seed + another, steps, action_seed=seed))
        report = _report(play, player.schemas)
        met = {_ABSENT: report.met_absent_actor, _RESETTING: any(moment.resetting for moment in play)}
        for whose in filter(met.get, met):
            disturbed = _play(other, seed, steps, disturb=whose)
            _require_same(play, disturbed, f"other actions of {whose}", _IGNORED[whose])
    return report


_SEED_HELP = "take all randomness from one generator that reset(seed=…) seeds, and keep nothing from before it"
_ABSENT = "absent actors"
_RESETTING = "environments that reset"
_IGNORED = {
    _ABSENT: "ignore the action of actors whose presence mask is False",
    _RESETTING: "in the step after an episode's end ignore the action and return a new episode's first observation",
}


# -- playing ---------------------------------------------------------------------------------------------------


def _two_players(env: EntityEnv | Callable[[], EntityEnv], stack: ExitStack) -> tuple[Player, Player]:
    """Players of two instances, or twice the one that was given."""
    if isinstance(env, (gymnasium.Env, gymnasium.vector.VectorEnv)) or not callable(env):
        player = make_player(env)
        return player, player
    made = [env(), env()]
    for each in made:
        stack.callback(each.close)
    return make_player(made[0]), make_player(made[1])


def _play(
    player: Player, seed: int, steps: int, *, action_seed: int | None = None, disturb: str | None = None
) -> list[Moment]:
    """Reset and step, holding every moment to the promises that it must keep by itself.

    Args:
        player: What is played.
        seed: Seed of the environment.
        steps: Steps after the reset.
        action_seed: Seed of the actions, if it is another.
        disturb: Whose actions are drawn at random though nobody should read them: a key of `_IGNORED`.
    """
    random = np.random.default_rng(seed if action_seed is None else action_seed)
    noise = np.random.default_rng((seed, 1))  # another stream than the actions'
    moment = player.reset(seed)
    _check(moment, player.schemas)
    moments = [_copied(moment)]
    for step in range(1, steps + 1):
        actions = {}
        for seat, schema in player.schemas.items():
            draw = random.random((schema.max_actors, schema.num_options))  # drawn for all, so that all plays draw alike
            noisy = noise.integers(0, schema.num_options, schema.max_actors)
            if seat not in moment.observations:
                continue
            legal = moment.observations[seat][ACTION_MASK]
            action = np.where(legal, draw, -1.0).argmax(axis=1)
            if disturb == _ABSENT and not moment.ended[seat]:
                action = np.where(legal.any(axis=1), action, noisy)
            if disturb == _RESETTING and moment.ended[seat]:
                action = noisy
            actions[seat] = action
        moments[-1] = replace(moments[-1], actions=actions)
        try:
            after = player.step(actions, step)
        except BrokenPromise:
            raise
        except Exception as error:
            raise _raised(error, step, disturb) from error
        _require_unchanged(moment, moments[-1], step)
        _check(after, player.schemas)
        moment = after
        moments.append(_copied(moment))
    return moments


def _raised(error: Exception, step: int, disturb: str | None) -> BrokenPromise:
    if disturb:
        return BrokenPromise(
            f"promise 'ignored actions', step {step}: other actions of {disturb} raised {type(error).__name__}: "
            f"{error}; expected no change at all: {_IGNORED[disturb]}"
        )
    users = blame(error).users
    return BrokenPromise(
        f"promise 'legal actions', step {step}: a legal action raised {type(error).__name__}: {error}; expected "
        "every option that action_mask allows to be carried out: mend the step, or take the option out of the mask"
        + (f"\n  {users}" if users else "")
    )


def _copied(moment: Moment) -> Moment:
    return replace(
        moment,
        observations={
            seat: {key: array.copy() for key, array in each.items()} for seat, each in moment.observations.items()
        },
        returned={key: array.copy() for key, array in moment.returned.items()},
    )


# -- what each moment promises ---------------------------------------------------------------------------------


def _check(moment: Moment, schemas: Mapping[Seat, EntitySchema]) -> None:
    _require_contract(moment, schemas)
    _require_an_actor(moment, schemas)
    _require_finite_rewards(moment)
    _require_quiet_reset(moment)


def _require_contract(moment: Moment, schemas: Mapping[Seat, EntitySchema]) -> None:
    for seat, observation in moment.observations.items():
        try:
            schemas[seat].check(observation)
        except ValueError as error:
            which = "an episode's last observation" if moment.ended[seat] else "observation"
            raise BrokenPromise(f"promise 'contract', {name_of(seat)}, step {moment.step}, {which}: {error}") from error


def _require_an_actor(moment: Moment, schemas: Mapping[Seat, EntitySchema]) -> None:
    for seat, observation in moment.observations.items():
        if not moment.ended[seat] and not schemas[seat].actor_mask(observation).any():
            keys = ", ".join(mask_key(actor) for actor in schemas[seat].actors)
            raise BrokenPromise(
                f"promise 'an actor is present', {name_of(seat)}, step {moment.step}: got {keys} all False while the "
                "episode runs, expected an actor that can choose; end the episode when its last actor is gone"
            )


def _require_finite_rewards(moment: Moment) -> None:
    for seat, reward in moment.rewards.items():
        if not np.isfinite(reward):
            raise BrokenPromise(
                f"promise 'finite rewards', {name_of(seat)}, step {moment.step}: got reward {reward}, expected a "
                "finite number; look for a division by zero in the step"
            )


def _require_quiet_reset(moment: Moment) -> None:
    for seat in moment.resetting:
        got = []
        if moment.rewards[seat] != 0:
            got.append(f"reward {moment.rewards[seat]:g}")
        if moment.ended[seat]:
            got.append("an episode's end")
        if got:
            raise BrokenPromise(
                f"promise 'reset in the next step', {name_of(seat)}, step {moment.step}, the one after an episode's "
                f"end: got {' and '.join(got)}, expected reward 0, neither terminated nor truncated; this step only resets: "
                "ignore the action, and return the new episode's first observation"
            )


def _require_unchanged(before: Moment, copied: Moment, step: int) -> None:
    for key, array in before.returned.items():
        if not _equal(array, copied.returned[key]):
            raise BrokenPromise(
                f"promise 'arrays are yours', {key} returned in step {step - 1}: got other values in it after step "
                f"{step}, expected "
                "arrays that stay as they were returned; return a copy, not the array that the environment works on"
            )


# -- what plays promise ----------------------------------------------------------------------------------------


def _require_schema_spaces(player: Player) -> None:
    for seat, schema in player.schemas.items():
        space = player.action_space(seat)
        if space != schema.action_space:
            raise BrokenPromise(
                f"promise 'spaces', {name_of(seat)}: got action space {space}, expected {schema.action_space}; use "
                "schema.action_space"
            )


def _require_an_end(play: list[Moment]) -> None:
    if not any(any(moment.ended.values()) for moment in play):
        raise BrokenPromise(
            f"promise 'episodes end': got no end in {len(play) - 1} steps of random legal actions, expected one; "
            "raise `steps`, give the environment a time limit, or say episodes_end=False"
        )


def _require_same(play: list[Moment], other: list[Moment], cause: str, help_: str) -> None:
    for moment, again in zip(play, other, strict=True):
        difference = _difference(moment, again)
        if difference:
            name = "ignored actions" if "other actions" in cause else "determinism"
            raise BrokenPromise(f"promise '{name}', {difference} after {cause}; expected the same to the digit: {help_}")


def _require_other(play: list[Moment], play_with: Callable[[int], list[Moment]]) -> None:
    for another in range(1, NUM_OTHER_SEEDS + 1):
        if any(_difference(*pair) for pair in zip(play, play_with(another), strict=True)):
            return
    raise BrokenPromise(
        f"promise 'seeds matter': got the same play of {len(play) - 1} steps with {NUM_OTHER_SEEDS + 1} seeds, "
        "expected other "
        "observations or rewards with another seed; use the seed that reset gets, or say seed_matters=False if "
        "nothing is random"
    )


def _difference(one: Moment, other: Moment) -> str | None:
    """Where and how two moments differ; None if they do not."""
    if one.observations.keys() != other.observations.keys():
        return f"step {one.step}: got agents {list(other.observations)} rather than {list(one.observations)}"
    for seat in one.observations:
        where = f"{name_of(seat)}, step {one.step}"
        for key, array in _visible(one.observations[seat]).items():
            again = _visible(other.observations[seat])[key]
            if not _equal(array, again):
                index = tuple(np.argwhere(~_same_numbers(array, again))[0].tolist())
                return f"{where}, {key}{list(index)}: got {again[index]} rather than {array[index]}"
        if one.rewards[seat] != other.rewards[seat]:
            return f"{where}, reward: got {other.rewards[seat]:g} rather than {one.rewards[seat]:g}"
        if one.ended[seat] != other.ended[seat]:
            return f"{where}, episode's end: got {other.ended[seat]} rather than {one.ended[seat]}"
    return None


def _visible(observation: Observation) -> Observation:
    """The observation with zeros in absent slots, whose content means nothing."""
    shown = dict(observation)
    for key in observation:
        name = key.removeprefix("entities/")
        if key == features_key(name):
            shown[key] = np.where(observation[mask_key(name)][:, None], observation[key], 0.0)
    return shown


def _equal(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.shape == other.shape and bool(_same_numbers(one, other).all())


def _same_numbers(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    """Elementwise equality, NaN equal to NaN: absent slots may hold it."""
    return (one == other) | ((one != one) & (other != other))


def _report(play: list[Moment], schemas: Mapping[Seat, EntitySchema]) -> EntityEnvReport:
    options: set[str] = set()
    met_absent = False
    for moment in play:
        for seat, action in moment.actions.items():
            if moment.ended[seat]:
                continue
            present = moment.observations[seat][ACTION_MASK].any(axis=1)
            met_absent |= not present.all()
            options |= {schemas[seat].option_name(option) for option in action[present].tolist()}
    return EntityEnvReport(sum(sum(moment.ended.values()) for moment in play), met_absent, frozenset(options))
