"""SMAX keeps every promise of `check_entity_env`; the learning tasks do in test_tasks.py."""

from collections.abc import Callable

from envs.smax import SmaxEnv, SmaxVectorEnv
from perceiver_rl.testing import check_entity_env


def test_smax__keeps_the_contract_as_a_batch(smax: Callable[[str], SmaxVectorEnv]) -> None:
    report = check_entity_env(smax("2s3z"), steps=110)
    assert report.num_episodes >= 3
    assert report.met_absent_actor
    assert {"north", "stop", "attack enemy 0"} <= report.options_tried


def test_smax__keeps_the_contract_as_a_single_environment(smax_single: SmaxEnv) -> None:
    assert check_entity_env(smax_single, steps=110).num_episodes >= 1
