"""The code of the README and of docs/rllib.md runs as it stands."""

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.rllib import courier_match

ROOT = Path(__file__).parent.parent


def snippets(page: str) -> list[str]:
    """The Python code of a page that is marked as tested."""
    return re.findall(r"<!-- tested -->\n```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


README = snippets("README.md")
RLLIB = snippets("docs/rllib.md")


def run(snippet: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    exec(compile(snippet, "snippet", "exec"), namespace)
    return namespace


def train(config: Any, batch_size: str = "train_batch_size_per_learner") -> dict[str, Any]:
    """One iteration of 32 steps in this process."""
    config.env_runners(num_env_runners=0, rollout_fragment_length=4)
    config.training(**{batch_size: 32}, minibatch_size=16, num_epochs=1)
    algorithm = config.build_algo()
    try:
        return algorithm.train()
    finally:
        algorithm.stop()


def test_readme__has_both_snippets() -> None:
    assert len(README) == 2
    assert all(len(snippet.splitlines()) <= 16 for snippet in README)


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("snippet", [README[0], RLLIB[0]], ids=["readme", "docs"])
def test_rllib_snippet__trains_with_rllibs_own_env_runner(snippet: str) -> None:
    result = train(run(snippet)["config"])
    assert result["env_runners"]["num_env_steps_sampled_lifetime"] >= 32
    assert result["learners"]["default_policy"]["entropy"] > 0


def test_schema_snippet__packs_an_observation() -> None:
    namespace = run(README[1])
    assert namespace["observation"] in namespace["schema"].observation_space
    assert namespace["observation"]["action_mask"].sum() == 7


@pytest.mark.usefixtures("ray_local")
@pytest.mark.filterwarnings("ignore:.*has been deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:overflow encountered in reduce:RuntimeWarning")
def test_old_stack_snippet__trains() -> None:
    config = run(RLLIB[1])["config"]
    config.env_runners(num_envs_per_env_runner=2)  # each is compiled by itself
    result = train(config, "train_batch_size")
    assert result["num_env_steps_sampled_lifetime"] >= 32
    assert result["info"]["learner"]["default_policy"]["learner_stats"]["entropy"] > 0


@pytest.mark.usefixtures("ray_local")
def test_multi_agent_snippet__trains_our_model_beside_rllibs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("my_game")
    module.make_env = courier_match.make_env  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_game", module)
    assert len(RLLIB) == 3
    result = train(run(RLLIB[2])["config"])
    learners = result["learners"]
    assert all(
        learners[name]["entropy"] > 0 and learners[name]["num_module_steps_trained"] > 0 for name in ("home", "referee")
    )
    assert "entropy" not in learners["away"]
    assert set(result["env_runners"]["module_episode_returns_mean"]) == {"home", "away", "referee"}
