"""A rollout is cut at the ends of episodes, and the steps in which environments reset themselves are in no chunk."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from perceiver_rl.rllib.rollout import Chunk, Rollout

Pattern = list[str]
"""One string an environment, one letter a step: `s` goes on, `t` terminates, `u` truncates, `r` resets itself."""


def _observation(num_envs: int, time: int) -> dict[str, NDArray[Any]]:
    """Tells which environment and which time it is, in two arrays of different shape."""
    number = 100 * np.arange(num_envs) + time
    return {"flat": number, "deep": np.broadcast_to(number[:, None, None], (num_envs, 3, 2)).copy()}


def _rollout(pattern: Pattern, resetting: list[bool] | None = None, start: int = 0) -> Rollout:
    """Play a pattern; action, reward and info of each step tell the time before it."""
    num_envs = len(pattern)
    rollout = Rollout(_observation(num_envs, start), np.array(resetting or [False] * num_envs))
    for time in range(start, start + len(pattern[0])):
        letters = np.array([row[time - start] for row in pattern])
        np.testing.assert_array_equal(rollout.resetting, letters == "r")
        number = 100 * np.arange(num_envs) + time
        rollout.add(
            observation=_observation(num_envs, time + 1),
            actions=np.stack([number, -number], axis=1),
            rewards=number.astype(np.float64),
            terminated=letters == "t",
            truncated=letters == "u",
            infos={"time": number},
            extra={"logp": -number.astype(np.float32)},
        )
    return rollout


def _summary(chunk: Chunk) -> tuple[int, int, int, str]:
    """Environment, first step, number of steps, how it ended."""
    ended = "t" if chunk.terminated else "u" if chunk.truncated else ""
    return chunk.env_index, int(chunk.rewards[0]) % 100, chunk.length, ended


def test_chunks__end_where_episodes_end_and_leave_out_resets() -> None:
    pattern = [
        "ssssss",  # goes on all the time
        "sstrsu",  # ends in the middle, and in the last step
        "rtrurs",  # begins with a reset; two episodes of one step
        "ssstrs",
        "sssstr",  # the last step is a reset: nothing of the next episode is there yet
    ]
    rollout = _rollout(pattern, resetting=[False, False, True, False, False])
    assert [_summary(chunk) for chunk in rollout.chunks()] == [
        (0, 0, 6, ""),
        *((1, 0, 3, "t"), (1, 4, 2, "u")),
        *((2, 1, 1, "t"), (2, 3, 1, "u"), (2, 5, 1, "")),
        *((3, 0, 4, "t"), (3, 5, 1, "")),
        (4, 0, 5, "t"),
    ]
    assert rollout.num_steps == 6 + 5 + 3 + 5 + 5
    assert rollout.num_ended == 6
    assert rollout.resetting.tolist() == [False, True, False, False, False]


def test_chunks__go_on_in_the_next_rollout() -> None:
    first = _rollout(["ssst", "ssss"])
    second = _rollout(["rsss", "stru"], resetting=first.resetting.tolist(), start=4)
    assert [_summary(chunk) for chunk in second.chunks()] == [(0, 5, 3, ""), (1, 4, 2, "t"), (1, 7, 1, "u")]
    first_chunk, second_chunk = list(first.chunks())[1], list(second.chunks())[1]
    np.testing.assert_array_equal(first_chunk.observations["flat"][-1], second_chunk.observations["flat"][0])


def test_chunks__hold_one_observation_more_than_steps() -> None:
    *_, chunk = _rollout(["ssssss", "strsst"]).chunks()
    assert _summary(chunk) == (1, 3, 3, "t")
    np.testing.assert_array_equal(chunk.observations["flat"], [103, 104, 105, 106])  # 106 is the terminal one
    assert chunk.observations["deep"].shape == (4, 3, 2)
    np.testing.assert_array_equal(chunk.observations["deep"][:, 2, 1], [103, 104, 105, 106])
    np.testing.assert_array_equal(chunk.actions, [[103, -103], [104, -104], [105, -105]])
    np.testing.assert_array_equal(chunk.rewards, [103, 104, 105])
    np.testing.assert_array_equal(chunk.extra["logp"], [-103, -104, -105])
    assert chunk.rewards.dtype == np.float32


def test_chunks__carry_the_last_info_of_ended_episodes_only() -> None:
    infos = [(_summary(chunk), chunk.info) for chunk in _rollout(["sstrss", "ssssss"]).chunks()]
    assert infos == [((0, 0, 3, "t"), {"time": 2}), ((0, 4, 2, ""), {}), ((1, 0, 6, ""), {})]


@st.composite
def _patterns(draw: st.DrawFn) -> tuple[Pattern, list[bool]]:
    """Any pattern that an environment can play: a reset after every end, and only there."""
    steps, resetting, pattern = draw(st.integers(1, 9)), [], []
    for _ in range(draw(st.integers(1, 4))):
        resetting.append(draw(st.booleans()))
        row = ""
        for step in range(steps):
            must_reset = row[-1] in "tu" if step else resetting[-1]
            row += "r" if must_reset else draw(st.sampled_from("sstu"))
        pattern.append(row)
    return pattern, resetting


@given(_patterns())
def test_chunks__hold_every_real_step_once_and_in_order(case: tuple[Pattern, list[bool]]) -> None:
    pattern, resetting = case
    rollout = _rollout(pattern, resetting)
    chunks = list(rollout.chunks())
    steps = [int(reward) for chunk in chunks for reward in chunk.rewards]
    real = [100 * env + time for env, row in enumerate(pattern) for time, letter in enumerate(row) if letter != "r"]
    assert steps == real
    assert rollout.num_steps == len(real)
    assert sum(chunk.terminated or chunk.truncated for chunk in chunks) == rollout.num_ended
    for chunk in chunks:
        env, start, length, ended = _summary(chunk)
        letters = pattern[env][start : start + length]
        assert letters == "s" * (length - 1) + (ended or "s")
        expected = 100 * env + np.arange(start, start + length + 1)
        np.testing.assert_array_equal(chunk.observations["flat"], expected)


def test_chunks__of_a_rollout_without_steps_are_none() -> None:
    rollout = Rollout(_observation(2, 0), np.zeros(2, bool))
    assert list(rollout.chunks()) == []
    assert (rollout.num_steps, rollout.num_ended) == (0, 0)
