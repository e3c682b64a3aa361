"""The trial of an environment says whose mistake it found, and where."""

import re
from pathlib import Path

import pytest

from perceiver_rl.blame import LIBRARIES, blame
from perceiver_rl.environments import make_parallel_env, make_vector_env
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
    with pytest.raises(ValueError, match=r"^environment 'smax/2s3y': unknown smax environment '2s3y'"):
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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bare", "reset: got infos of type str, expected a dict by agent"),
        ("blind", "step 1: got no observations of 'courier_0', expected an entry for each agent"),
        ("silent", "step 1: got infos of type NoneType, expected a dict by agent"),
    ],
)
def test_parallel_trial__says_what_each_agent_needs(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _play_parallel_trial(f"{BROKEN}:make_parallel_{name}", {}, 0)


def test_trial__names_the_line_of_an_installed_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perceiver_rl.blame.LIBRARIES", (*LIBRARIES, Path(__file__).resolve().parent))
    message = _refused("make_arithmetic")
    assert "expected (observation" not in message  # which is not what is wrong
    assert "broken_environments.py, line" in message


def test_make__says_which_options_an_environment_does_not_take() -> None:
    for name in ("task/xor", "magent/battle-16", f"{BROKEN}:make_bare"):
        with pytest.raises(
            ValueError, match=rf"environment '{name}': got options .*, expected those that it takes: .*'foo'"
        ):
            make_vector_env(name, 2, foo=3)
    with pytest.raises(ValueError, match=r"environment 'kaz/default': got options .*'foo'|got an unexpected keyword"):
        make_parallel_env(f"{BROKEN}:make_parallel_bare", foo=3)
