"""The worked examples of Perceiver IO: each learns, and the threshold that it documents means something."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from typer.testing import CliRunner

FOLDER = Path(__file__).parents[2] / "examples" / "perceiver_io"
EXAMPLES = {
    "masked_language_model": "MaskedLanguageModel",
    "optical_flow": "OpticalFlow",
    "multimodal_autoencoding": "MultimodalAutoencoding",
    "classification": "Classification",
    "multitask": "MultiTask",
}


@pytest.fixture(params=EXAMPLES)
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An example's file, loaded as Python loads a script: with the files next to it in reach."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "training", raising=False)
    spec = importlib.util.spec_from_file_location(request.param, FOLDER / f"{request.param}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_folder__holds_no_example_that_is_not_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == {*EXAMPLES, "training"}


def test_readme__has_a_row_for_each_example() -> None:
    readme = (FOLDER / "README.md").read_text()
    assert all(f"[`{name}.py`]({name}.py)" in readme for name in EXAMPLES)


def test_example__takes_a_training_step_that_reaches_every_parameter(module: ModuleType) -> None:
    training = sys.modules["training"]
    example = training.build(getattr(module, EXAMPLES[module.__name__]), seed=0)
    before = {name: parameter.detach().clone() for name, parameter in example.named_parameters()}
    training.train(example, steps=1, seed=0)
    for name, parameter in example.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
        assert not torch.equal(parameter, before[name]), name
    assert example.loss(torch.Generator().manual_seed(1)).isfinite()


def test_example__is_repeatable(module: ModuleType) -> None:
    training = sys.modules["training"]
    examples = [training.build(getattr(module, EXAMPLES[module.__name__]), seed=seed) for seed in (0, 0, 1)]
    losses = [example.loss(torch.Generator().manual_seed(0)).item() for example in examples]
    assert losses[0] == losses[1] != losses[2]


def test_example__fails_its_threshold_untrained(module: ModuleType) -> None:
    outcome = CliRunner().invoke(module.app, ["--steps", "1"])
    assert outcome.exit_code == 1
    assert "NO" in outcome.stdout


@pytest.mark.slow
def test_example__meets_its_threshold(module: ModuleType) -> None:
    outcome = CliRunner().invoke(module.app, ["--seed", "0"])
    assert outcome.exit_code == 0, outcome.stdout
    assert "NO" not in outcome.stdout
