"""The README's code runs as it stands."""

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parent.parent / "README.md"
SNIPPETS = re.findall(r"<!-- tested -->\n```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


def run(snippet: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    exec(compile(snippet, str(README), "exec"), namespace)
    return namespace


def test_readme__has_both_snippets() -> None:
    assert len(SNIPPETS) == 2
    assert all(len(snippet.splitlines()) <= 16 for snippet in SNIPPETS)


@pytest.mark.usefixtures("ray_local")
def test_rllib_snippet__trains_with_rllibs_own_env_runner() -> None:
    config = run(SNIPPETS[0])["config"]
    config.env_runners(num_env_runners=0, rollout_fragment_length=4)
    config.training(train_batch_size_per_learner=32, minibatch_size=16, num_epochs=1)
    algorithm = config.build_algo()
    result = algorithm.train()
    algorithm.stop()
    assert result["env_runners"]["num_env_steps_sampled_lifetime"] >= 32
    assert result["learners"]["default_policy"]["entropy"] > 0


def test_schema_snippet__packs_an_observation() -> None:
    namespace = run(SNIPPETS[1])
    assert namespace["observation"] in namespace["schema"].observation_space
    assert namespace["observation"]["action_mask"].sum() == 7
