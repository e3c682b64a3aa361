"""The rivals of `perceiver-rl bench encoder` are what their descriptions say."""

import pytest
import torch

from benchmarks import encoder
from benchmarks.rivals import HEADS, WIDTH, Rival, build_rivals

pytest.importorskip("transformers", reason="pip install 'perceiver-rl[bench]'")


@pytest.fixture(scope="module")
def rivals() -> dict[str, Rival]:
    torch.manual_seed(0)
    return {rival.name: rival for rival in build_rivals(5, "cpu")[0]}


def test_perceiver_pytorch__has_no_mlp_wider_than_the_model(rivals: dict[str, Rival]) -> None:
    module = rivals["perceiver-pytorch"].module
    mlps = [each for each in module.modules() if type(each).__name__ == "FeedForward"]
    assert len(mlps) == 5  # encoder, three layers, decoder
    for mlp in mlps:
        assert {parameter.shape[-1] for parameter in mlp.parameters() if parameter.ndim == 2} == {WIDTH}
    assert all(each.heads == HEADS for each in module.modules() if type(each).__name__ == "Attention")


def test_torch_transformer__skips_padding_in_inference_and_answers_as_without_that(
    rivals: dict[str, Rival], monkeypatch: pytest.MonkeyPatch
) -> None:
    rival = rivals["torch-transformer"]
    tokens, mask, queries = encoder.make_batch(encoder.Case(11, 0.5, 11, 3), seed=0, device="cpu")
    calls = []
    nested = torch._nested_tensor_from_mask
    monkeypatch.setattr(torch, "_nested_tensor_from_mask", lambda *a, **k: calls.append(1) or nested(*a, **k))
    with torch.no_grad():
        fast = rival.run(tokens, mask, queries)
    assert calls == [1]
    torch.testing.assert_close(fast[mask], rival.run(tokens, mask, queries)[mask].detach(), atol=1e-5, rtol=1e-5)
    assert calls == [1]


def test_same_weights__give_the_same_gradients(rivals: dict[str, Rival]) -> None:
    tokens, mask, queries = encoder.make_batch(encoder.Case(11, 0.5, 7, 3), seed=0, device="cpu")
    gradients = []
    for name in ("perceiver-rl", "perceiver-rl-packed", "huggingface"):
        inputs = tokens.clone().requires_grad_()
        rivals[name].run(inputs, mask, queries).square().sum().backward()
        gradients.append(inputs.grad[mask])
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], atol=1e-4, rtol=1e-4)


def test_peak_megabytes__of_training_holds_the_gradients_of_the_weights(rivals: dict[str, Rival]) -> None:
    rival, case = rivals["huggingface"], encoder.Case(3, 1.0, 3, 1)
    records, _ = encoder.measure([rival], [case], latents=4, repeats=1, seed=0, device="cpu", on_case=lambda done: None)
    assert records[-1].peak_mb > 4e-6 * sum(each.numel() for each in rival.module.parameters())
