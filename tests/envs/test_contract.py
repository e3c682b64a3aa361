"""Every environment keeps every promise of `check_entity_env`; the learning tasks do in test_tasks.py."""

from collections.abc import Callable
from functools import partial

import pytest

from envs.registry import make, make_parallel, make_vec
from envs.smax import SmaxEnv, SmaxVectorEnv
from perceiver_rl.testing import check_entity_env


def test_smax__keeps_the_contract_as_a_batch(smax: Callable[[str], SmaxVectorEnv]) -> None:
    report = check_entity_env(smax("2s3z"), steps=110)
    assert report.num_episodes >= 3
    assert report.met_absent_actor
    assert {"north", "stop", "attack enemy 0"} <= report.options_tried


def test_smax__keeps_the_contract_as_a_single_environment(smax_single: SmaxEnv) -> None:
    assert check_entity_env(smax_single, steps=110).num_episodes >= 1


def test_battle__keeps_the_contract_as_a_batch() -> None:
    report = check_entity_env(partial(make_vec, "magent/battle-16", 3, max_steps=40), steps=90)
    assert report.num_episodes >= 3
    assert report.met_absent_actor


def test_battle__keeps_the_contract_as_a_single_environment() -> None:
    # Against random play the battle itself is without chance but for the opponent's.
    assert check_entity_env(partial(make, "magent/battle-16-vs-random", max_steps=40), steps=90).num_episodes >= 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("magent/battle-16", {"armies": "red", "max_steps": 40}),
        ("kaz/default", {"max_cycles": 60}),
        ("mpe/simple_tag", {"max_cycles": 20}),
        ("mpe/simple_spread", {"max_cycles": 20}),
    ],
)
def test_parallel_environments__keep_the_contract(name: str, options: dict[str, object]) -> None:
    assert check_entity_env(partial(make_parallel, name, **options), steps=100).num_episodes >= 1
