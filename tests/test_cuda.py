"""On a GPU: the answers and gradients that the CPU gives, padded and packed, compiled, in half precision."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from agents.presets import preset
from perceiver_rl.nn import (
    EntityTransformer,
    EntityTransformerConfig,
    Packing,
    PerceiverIO,
    PerceiverIOConfig,
    build_encoder,
)
from perceiver_rl.policy.entity_policy import EntityPolicy
from tests.schemas import SKIRMISH, observe, to_tensors

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device")

BATCH, ENTITIES, QUERIES, DIM = 6, 40, 9, 64
ENCODERS = pytest.mark.parametrize(
    "config",
    [PerceiverIOConfig(num_cross_attend_heads=4, num_decoder_heads=4), EntityTransformerConfig()],
    ids=["perceiver", "transformer"],
)
MASKS = pytest.mark.parametrize("empty", [False, True], ids=["none empty", "one empty"])

Encoder = PerceiverIO | EntityTransformer


@pytest.fixture(autouse=True)
def exact() -> None:
    """Products in full precision; some images turn TF32 on."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.manual_seed(0)


def _inputs(empty: bool) -> tuple[Tensor, Tensor, Tensor]:
    mask = torch.rand(BATCH, ENTITIES) < 0.4
    mask[:, 0] = True
    if empty:
        mask[2] = False
    return torch.randn(BATCH, ENTITIES, DIM), mask, torch.randn(BATCH, QUERIES, DIM)


def _encoder(config: PerceiverIOConfig | EntityTransformerConfig) -> Encoder:
    return build_encoder(config, input_dim=DIM, query_dim=DIM)


def _on(device: str, *tensors: Tensor) -> list[Tensor]:
    return [tensor.to(device) for tensor in tensors]


def _packed(encoder: Encoder, tokens: Tensor, mask: Tensor, queries: Tensor) -> Tensor:
    memory = encoder.read_packed(Packing.from_mask(mask).pack(tokens))
    everyone = torch.ones(queries.shape[:2], dtype=torch.bool, device=queries.device)
    return encoder.decode_packed(memory, Packing.from_mask(everyone).pack(queries)).padded()


def _gradients(module: nn.Module) -> list[Tensor]:
    return [parameter.grad.cpu().clone() for parameter in module.parameters() if parameter.grad is not None]


@ENCODERS
@MASKS
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_encoder__on_a_gpu_equals_that_on_the_cpu(
    config: PerceiverIOConfig | EntityTransformerConfig, empty: bool, packed: bool
) -> None:
    encoder, inputs = _encoder(config), _inputs(empty)
    answers, gradients = [], []
    for device in ("cpu", "cuda"):
        encoder.to(device).zero_grad()
        on_device = _on(device, *inputs)
        answer = _packed(encoder, *on_device) if packed else encoder(*on_device)
        answer.square().mean().backward()
        answers.append(answer.detach().cpu())
        gradients.append(_gradients(encoder))
    torch.testing.assert_close(answers[1], answers[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-4, rtol=1e-3)


@ENCODERS
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_encoder__runs_in_half_precision(config: PerceiverIOConfig | EntityTransformerConfig, packed: bool) -> None:
    encoder, inputs = _encoder(config).cuda(), _on("cuda", *_inputs(empty=False))
    with torch.autocast("cuda", torch.bfloat16):
        half = _packed(encoder, *inputs) if packed else encoder(*inputs)
    half.float().square().mean().backward()
    assert all(gradient.isfinite().all() for gradient in _gradients(encoder))
    torch.testing.assert_close(half.float(), encoder(*inputs), atol=0.1, rtol=0.1)


COMPILED = """
import torch
from perceiver_rl.nn import PerceiverIOConfig, build_encoder

torch.manual_seed(0)
encoder = build_encoder(PerceiverIOConfig(), input_dim=64, query_dim=64).cuda()
inputs = torch.randn(6, 40, 64).cuda(), (torch.rand(6, 40) < 0.4).cuda(), torch.randn(6, 9, 64).cuda()
answers, gradients = [], []
for run in (encoder, torch.compile(encoder)):
    encoder.zero_grad()
    answers.append(run(*inputs))
    answers[-1].square().mean().backward()
    gradients.append([parameter.grad.clone() for parameter in encoder.parameters()])
torch.testing.assert_close(answers[1], answers[0], atol=1e-4, rtol=1e-4)
torch.testing.assert_close(gradients[1], gradients[0], atol=1e-4, rtol=1e-3)
"""


def test_encoder__compiles_with_its_gradient() -> None:
    # In a process of its own, because the shape checks that pytest puts around every function cannot be traced.
    result = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_policy__on_a_gpu_decides_as_on_the_cpu() -> None:
    policy = EntityPolicy(SKIRMISH, preset("small")).eval()
    observation = to_tensors(observe(SKIRMISH, 64, seed=0))
    expected = policy(observation)
    policy.cuda()
    on_gpu = {key: tensor.cuda() for key, tensor in observation.items()}
    with torch.no_grad():
        found = policy(on_gpu)
        actions, _ = policy.act(on_gpu, greedy=True)
    legal = expected.legal
    torch.testing.assert_close(found.logits.cpu()[legal], expected.logits[legal], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.value.cpu(), expected.value, atol=1e-4, rtol=1e-4)
    assert actions.is_cuda
    assert legal.gather(2, actions.cpu().unsqueeze(2))[legal.any(dim=2)].all()
