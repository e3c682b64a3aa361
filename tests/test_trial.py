"""The trial of an environment says whose mistake it found, and where."""

import re

import pytest

from perceiver_rl.blame import blame
from perceiver_rl.trial import _play_parallel_trial, _play_trial, try_environment

BROKEN = "tests.broken_environments"


def _refused(name: str) -> str:
    with pytest.raises(ValueError, match=f"environment .{BROKEN}") as caught:
        _play_trial(f"{BROKEN}:{name}", {}, 0)
    return str(caught.value)


def test_trial__names_the_users_line_below_a_librarys_error() -> None:
    message = _refused("make_arithmetic")
    assert message.startswith(f"environment '{BROKEN}:make_arithmetic', step 1: ValueError: operands could not be broadcast")
    assert re.search(r"\n  \S*broken_environments\.py, line \d+, in step: np\.zeros\(\(4, 2\)\) \+ np\.zeros\(5\)$", message)


def test_trial__says_what_reset_and_step_have_to_return() -> None:
    assert _refused("make_bare").endswith("expected (observation, infos)")
    assert re.search(
        r"step 1: ValueError: not enough values.*; expected \(observation, rewards, terminated, truncated, infos\)$",
        _refused("make_forgetful"),
    )
    with pytest.raises(ValueError, match=r"step 1: .*expected \(observations, rewards, terminations, truncations, infos\)$"):
        _play_parallel_trial(f"{BROKEN}:make_parallel_forgetful", {}, 0)


def test_trial__adds_the_users_line_to_what_the_contract_says() -> None:
    message = _refused("make_too_many")
    assert message.startswith(f"environment '{BROKEN}:make_too_many', step 1: ")
    assert "ValueError" not in message  # the contract's own words are for reading
    assert "in step: observation: Observation = COURIERS.pack(" in message


def test_trial__says_so_in_the_process_that_asked() -> None:
    with pytest.raises(ValueError, match=r"made: NameError: name 'undefined' is not defined\n .*in make_unfinished"):
        try_environment(f"{BROKEN}:make_unfinished", {}, 0)


def test_trial__leaves_our_own_messages_alone() -> None:
    with pytest.raises(ValueError, match=r"^environment: got unknown name 'smax/2s3y'"):
        _play_trial("smax/2s3y", {}, 0)


def test_blame__is_nobodys_for_an_error_of_ours() -> None:
    try:
        _play_trial("smax/2s3y", {}, 0)
    except ValueError as error:
        found = blame(error)
    assert found.raised_by is not None
    assert found.raised_by.name == "registry.py"
    assert found.users is not None  # this test's own line, which called
    assert "test_trial.py" in found.users
