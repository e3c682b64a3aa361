"""Environments by name."""

import sys
from types import ModuleType

import pytest

from envs import registry
from envs.registry import Family, make, make_parallel, make_vec, names
from envs.smax import SmaxEnv, SmaxVectorEnv
from perceiver_rl import environments
from perceiver_rl.environments import make_env, make_parallel_env, make_vector_env
from perceiver_rl.evaluation.agent import make_agent
from tests.schemas import SKIRMISH


def test_names__list_every_member_of_every_family() -> None:
    assert {"smax/3m", "smax/2s3z", "smax/27m_vs_30m", "smax/smacv2_10_units"} <= set(names())
    assert {"kaz/default", "mpe/simple_tag", "mpe/simple_spread"} <= set(names())
    assert {"magent/battle-16"} <= set(names())


def test_make__passes_name_and_options_on() -> None:
    # nothing is compiled before the first reset, so building is cheap
    env = make("smax/5m_vs_6m", walls_cause_death=False)
    assert isinstance(env, SmaxEnv)
    vector = make_vec("smax/5m_vs_6m", 7, enemy_attack_mode="random")
    assert isinstance(vector, SmaxVectorEnv)
    assert (vector.num_envs, vector.map_name) == (7, "5m_vs_6m")
    with pytest.raises(ValueError, match=r"'smax/5m_vs_6m': got options .*, expected those that it takes: .*'gravity'"):
        make_vec("smax/5m_vs_6m", 7, gravity=3)


def test_unknown_name__lists_the_known_ones_and_suggests_the_nearest() -> None:
    with pytest.raises(
        ValueError, match=r"'smax/2s3y': unknown smax environment '2s3y' \(did you mean '2s3z'\?\); known are 3m, "
    ):
        make_vec("smax/2s3y", 1)
    with pytest.raises(ValueError, match=r"unknown name 'smacs/2s3z' \(did you mean 'smax/2s3z'\?\); "):
        make("smacs/2s3z")
    with pytest.raises(ValueError, match=r"unknown name 'chess'; known are .*smax/3m, "):
        make("chess")


def test_family_without_its_extra__is_still_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    def members() -> list[str]:
        raise ImportError("run: pip install 'perceiver-rl[chess]'")

    module = ModuleType("chess_family")
    module.members = members  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "chess_family", module)
    monkeypatch.setitem(registry.FAMILIES, "chess", Family("chess_family:A", "chess_family:B", "chess_family:members"))
    assert "chess/…" in names()
    with pytest.raises(ImportError, match=r"pip install 'perceiver-rl\[chess\]'"):
        make("chess/anything")


def test_make__says_which_forms_an_environment_has() -> None:
    squad, separate = r"one whose observation is a whole squad's .*register_env\)", "one of separate agents .*multi_agent\\)"
    with pytest.raises(ValueError, match=rf"'kaz/default': got {separate}, expected {squad}"):
        make_vec("kaz/default", 2)
    with pytest.raises(ValueError, match=rf"'mpe/simple_tag': got {separate}, expected {squad}"):
        make("mpe/simple_tag")
    with pytest.raises(ValueError, match=rf"'smax/3m': got {squad}, expected {separate}"):
        make_parallel("smax/3m")


def test_names__are_told_to_need_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "find_spec", lambda package: None)
    expected = (
        r"'smax/2s3z': names are known in a checkout alone, whose folder 'envs' is not here; expected an import string"
    )
    for asked in (
        lambda: make_vector_env("smax/2s3z", 1),
        lambda: make_env("smax/2s3z"),
        lambda: make_parallel_env("smax/2s3z"),
    ):
        with pytest.raises(ValueError, match=expected):
            asked()
    with pytest.raises(ValueError, match=r"^agent 'heuristic': names are known in a checkout alone, whose folder 'agents'"):
        make_agent("heuristic", SKIRMISH)


def test_make_parallel__passes_name_and_options_on() -> None:
    assert make_parallel("kaz/default", num_archers=1, num_knights=2).possible_agents == ["archer_0", "knight_0", "knight_1"]
    assert make_parallel("mpe/simple_spread", N=2).possible_agents == ["agent_0", "agent_1"]
    with pytest.raises(ValueError, match=r"unknown kaz environment 'defualt' \(did you mean 'default'\?\)"):
        make_parallel("kaz/defualt")
