"""What must hold for other kernels, dtypes and compilers than the ones at hand, and for weights that travel."""

import io
import subprocess
import sys
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from perceiver_rl.nn import MLP, attend, masked_attention
from tests.nn.conftest import INPUT_DIM, QUERY_DIM, MakeEncoder

BATCH, ENTITIES, QUERIES = 3, 11, 7


def _inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, a mask whose last sample is empty, and queries."""
    mask = torch.rand(BATCH, ENTITIES) < 0.5
    mask[:, 0], mask[-1] = True, False
    return torch.randn(BATCH, ENTITIES, INPUT_DIM), mask, torch.randn(BATCH, QUERIES, QUERY_DIM)


def _textbook(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor, dropout_p: float) -> Tensor:
    """A kernel without torch's care for empty rows: NaN there, forward and backward."""
    logits = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    return logits.masked_fill(~attn_mask, -torch.inf).softmax(dim=-1) @ value


def test_attend__has_finite_gradients_whatever_the_kernel_makes_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = [torch.randn(2, 3, count, 4, requires_grad=True) for count in (5, 7, 7)]
    entity_mask = torch.tensor([[False] * 7, [True] * 7])
    monkeypatch.setattr(masked_attention, "SHORT", 0)
    kernel = Mock(side_effect=_textbook)
    monkeypatch.setattr(F, "scaled_dot_product_attention", kernel)
    attend(*inputs, entity_mask).square().sum().backward()
    kernel.assert_called_once()
    for each in inputs:
        assert torch.equal(each.grad[0], torch.zeros_like(each.grad[0]))
        assert each.grad[1].all()


def test_encoder__runs_under_bfloat16_autocast(make_encoder: MakeEncoder) -> None:
    encoder, inputs = make_encoder(), _inputs()
    with torch.autocast("cpu", torch.bfloat16):
        answers = encoder(*inputs)
    answers.float().square().sum().backward()
    torch.testing.assert_close(answers.float(), encoder(*inputs), atol=0.05, rtol=0.05)
    for name, parameter in encoder.named_parameters():
        assert parameter.grad.isfinite().all(), name


def test_encoder__takes_the_dtype_of_its_inputs(make_encoder: MakeEncoder) -> None:
    tokens, mask, queries = _inputs()
    for dtype in (torch.float64, torch.bfloat16):
        assert make_encoder().to(dtype)(tokens.to(dtype), mask, queries.to(dtype)).dtype is dtype


COMPILE = """
import torch
from perceiver_rl.nn import EntityTransformerConfig, PerceiverIOConfig, build_encoder

for config in (PerceiverIOConfig(), EntityTransformerConfig()):
    encoder = build_encoder(config, input_dim=5, query_dim=14)
    inputs = torch.randn(3, 11, 5), torch.rand(3, 11) < 0.5, torch.randn(3, 7, 14)
    for dynamic in (None, True):  # None: sizes become symbols once they change
        compiled = torch.compile(encoder, fullgraph=True, backend="eager", dynamic=dynamic)
        torch.testing.assert_close(compiled(*inputs), encoder(*inputs))
        others = torch.randn(2, 40, 5), torch.rand(2, 40) < 0.5, torch.randn(2, 9, 14)
        torch.testing.assert_close(compiled(*others), encoder(*others))
"""


EXPORT = """
import torch
from torch.export import Dim, export
from perceiver_rl.nn import EntityTransformerConfig, PerceiverIOConfig, build_encoder

for config in (PerceiverIOConfig(num_cross_attend_heads=4, num_decoder_heads=4), EntityTransformerConfig()):
    encoder = build_encoder(config, input_dim=5, query_dim=64).eval()
    batch, entities, queries = Dim("batch", min=2), Dim("entities", min=2), Dim("queries", min=2)
    inputs = torch.randn(3, 11, 5), torch.rand(3, 11) < 0.5, torch.randn(3, 7, 64)
    shapes = {0: batch, 1: entities}, {0: batch, 1: entities}, {0: batch, 1: queries}
    exported = export(encoder, inputs, dynamic_shapes=shapes).module()
    others = torch.randn(4, 200, 5), torch.rand(4, 200) < 0.5, torch.randn(4, 150, 64)
    others[1][0] = False
    torch.testing.assert_close(exported(*others), encoder(*others), atol=1e-5, rtol=1e-5)
"""

INDUCTOR = """
import torch
from perceiver_rl.nn import PerceiverIOConfig, build_encoder

encoder = build_encoder(PerceiverIOConfig(num_cross_attend_heads=4, num_decoder_heads=4), input_dim=5, query_dim=64)
inputs = torch.randn(3, 200, 5), torch.rand(3, 200) < 0.5, torch.randn(3, 150, 64)
inputs[1][0] = False
answers, gradients = [], []
for run in (torch.compile(encoder, fullgraph=True), encoder):
    encoder.zero_grad()
    answers.append(run(*inputs))
    answers[-1].square().sum().backward()
    gradients.append([parameter.grad.clone() for parameter in encoder.parameters()])
torch.testing.assert_close(answers[0], answers[1], atol=1e-5, rtol=1e-5)
torch.testing.assert_close(gradients[0], gradients[1], atol=1e-3, rtol=1e-3)
"""


@pytest.mark.parametrize("script", [EXPORT, pytest.param(INDUCTOR, marks=pytest.mark.slow)], ids=["export", "inductor"])
def test_encoders__leave_eager_mode_with_equal_results(script: str) -> None:
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_encoders__compile_to_one_graph() -> None:
    # fullgraph makes an error of a branch on a tensor. In a process of its own, because the shape checks that
    # pytest puts around every function cannot be traced.
    result = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_encoder__answers_the_same_after_its_weights_have_travelled(make_encoder: MakeEncoder) -> None:
    sender, receiver, inputs = make_encoder(), make_encoder(), _inputs()
    assert not torch.equal(sender(*inputs), receiver(*inputs))
    file = io.BytesIO()
    torch.save(sender.state_dict(), file)
    file.seek(0)
    receiver.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert torch.equal(sender(*inputs), receiver(*inputs))


def test_mlp__approximates_the_gelu_when_asked() -> None:
    exact, approximate = MLP(5), MLP(5, gelu_approximation="tanh")
    approximate.load_state_dict(exact.state_dict())
    inputs = torch.randn(2, 7, 5)
    hidden = exact.dense1(exact.norm(inputs))
    torch.testing.assert_close(approximate(inputs), exact.dense2(F.gelu(hidden, approximate="tanh")), atol=1e-7, rtol=0.0)
    assert not torch.allclose(approximate(inputs), exact(inputs), atol=1e-7, rtol=0.0)
