"""Environments by name."""

import sys
from types import ModuleType

import pytest

from envs import registry
from envs.registry import Family, make, make_vec, names
from envs.smax import SmaxEnv, SmaxVectorEnv


def test_names__list_every_member_of_every_family() -> None:
    assert {"smax/3m", "smax/2s3z", "smax/27m_vs_30m", "smax/smacv2_10_units"} <= set(names())


def test_make__passes_name_and_options_on() -> None:
    # nothing is compiled before the first reset, so building is cheap
    env = make("smax/5m_vs_6m", walls_cause_death=False)
    assert isinstance(env, SmaxEnv)
    vector = make_vec("smax/5m_vs_6m", 7, enemy_attack_mode="random")
    assert isinstance(vector, SmaxVectorEnv)
    assert (vector.num_envs, vector.map_name) == (7, "5m_vs_6m")
    with pytest.raises(TypeError, match="gravity"):
        make_vec("smax/5m_vs_6m", 7, gravity=3)


def test_unknown_name__lists_the_known_ones_and_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown name 'smax/2s3y' \(did you mean 'smax/2s3z'\?\); known are smax/3m, "):
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
