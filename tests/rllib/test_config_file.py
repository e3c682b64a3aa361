"""Config files and overrides: what is right is applied, what is wrong is told before Ray starts."""

from pathlib import Path

import pytest

from perceiver_rl.rllib.config_file import apply_overrides, default_steps, load_factory
from perceiver_rl.rllib.module import MODEL_CONFIG_KEY
from tests.courier_config import make_config


def test_load_factory__takes_a_path_and_an_import_string() -> None:
    for config in (str(Path(__file__).parents[1] / "courier_config.py"), "tests.courier_config:make_config"):
        factory = load_factory(config)
        assert default_steps(factory) == 100_000
        assert factory(total_env_steps=7).lr[-1] == [7, 0.0]


def test_load_factory__lists_the_configs_beside_a_missing_one() -> None:
    with pytest.raises(ValueError, match=r"got 'configs/nope\.py', which is no file.*configs/smax_2s3z_ppo\.py"):
        load_factory("configs/nope.py")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\n", r"got no function make_config\(\)"),
        ("def make_config(): ...\n", r"takes no argument 'total_env_steps' with an integer default"),
        ("def make_config(total_env_steps): ...\n", r"takes no argument 'total_env_steps' with an integer default"),
    ],
)
def test_load_factory__says_what_a_file_lacks(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(ValueError, match=message):
        load_factory(str(tmp_path / "mine.py"))


def test_apply_overrides__sets_rllibs_settings_and_the_models() -> None:
    config = make_config()
    apply_overrides(
        config,
        ["training.lr=3e-4", "env_runners.num_env_runners=0", "model.encoder=transformer", "model.perceiver.num_latents=5"],
    )
    model = config.rl_module_spec.model_config[MODEL_CONFIG_KEY]
    assert (config.lr, config.num_env_runners) == (3e-4, 0)
    assert (model["encoder"], model["perceiver"]["num_latents"]) == ("transformer", 5)
    assert model["token_dim"] == 32, "what was not named stays as it was"


def test_apply_overrides__sets_a_place_in_a_schedule() -> None:
    config, other = make_config(), make_config()
    before = config.lr
    apply_overrides(config, ["training.lr.0.1=3e-4"])
    assert config.lr == [[0, 3e-4], [100_000, 0.0]]
    assert before == other.lr == [[0, 1e-3], [100_000, 0.0]], "what another may hold stays as it was"


def test_apply_overrides__reads_json_as_well_as_python() -> None:
    for text in ('{"ratio": "joint", "fast": true}', "{'ratio': 'joint', 'fast': True}"):
        config = make_config()
        apply_overrides(config, [f"learners.learner_config_dict={text}"])
        assert config.learner_config_dict == {"ratio": "joint", "fast": True}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "learners.learner_config_dict={'x': flase}",
            r"got \"\{'x': flase\}\" \(str\), expected a mapping as Python or JSON, e\.g\. '\{\"name\": 1\}'",
        ),
        ("environment.env_config=3", r"--set environment\.env_config: got 3 \(int\), expected a mapping"),
        ("training.lr.2=1", r"--set training\.lr\.2: got '2', expected a place in \[\[0, 0\.001\], .*\], from 0 to 1"),
        ("training.lr.0.x=1", r"--set training\.lr\.0\.x: got 'x', expected a place in \[0, 0\.001\], from 0 to 1"),
        ("training.lr.0.1=high", r"--set training\.lr\.0\.1: got 'high' \(str\), expected float such as 0\.001"),
        ("training.gamma.0=1", r"--set training\.gamma\.0: got '0' behind 0\.99, expected nothing: only lists"),
        ("training.lrr=1", r"--set training\.lrr: unknown key 'lrr' \(did you mean 'lr'\?\); known are .*\bgamma\b"),
        ("trainin.lr=1", r"unknown section 'trainin' \(did you mean 'training'\?\); known are .*\bmodel\b"),
        ("training.gamma=abc", r"--set training\.gamma: got 'abc' \(str\), expected float such as 0\.99"),
        ("training.num_epochs=true", r"--set training\.num_epochs: got True \(bool\), expected int such as 1"),
        ("training.use_kl_loss=3", r"--set training\.use_kl_loss: got 3 \(int\), expected bool such as False"),
        ("model.perceiver.latents=3", r"model\.perceiver: unknown key 'latents' \(did you mean 'num_latents'\?\)"),
        ("model.encoder=lstm", r"model\.encoder: got 'lstm', expected one of 'perceiver', 'transformer'"),
        ("model.token_dim=wide", r"model\.token_dim: got 'wide' \(str\), expected int"),
        ("lr=3", r"expected section\.key=value, e\.g\. training\.lr=3e-4"),
        ("training.lr", r"expected section\.key=value"),
    ],
)
def test_apply_overrides__says_what_is_wrong(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        apply_overrides(make_config(), [override])
