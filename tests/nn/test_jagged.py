"""The variable-length path that CUDA takes, on whatever device is at hand: equal to the padded one."""

import pytest
import torch
from torch import Tensor

from perceiver_rl.nn import CrossAttention, Packed, Packing, SelfAttention

# PyTorch calls its jagged tensors a prototype, once in each process; its CPU path says so of nested ones.
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")

BATCH, ENTITIES, DIM, LATENTS = 5, 7, 12, 3


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor]:
    """Entities, zeros where absent, and their mask, with a sample in which nothing is present."""
    torch.manual_seed(0)
    mask = torch.rand(BATCH, ENTITIES) < 0.5
    mask[2], mask[3] = False, True
    return torch.randn(BATCH, ENTITIES, DIM).double() * mask.unsqueeze(-1), mask


@pytest.mark.parametrize("shared", [True, False], ids=["shared queries", "queries for each sample"])
def test_read_jagged__equals_reading_the_padded_batch(inputs: tuple[Tensor, Tensor], shared: bool) -> None:
    entities, mask = inputs
    block = CrossAttention(16, DIM, num_heads=4).double()
    queries = torch.randn(1 if shared else BATCH, LATENTS, 16).double()
    packed = Packing.from_mask(mask).pack(entities)
    answers = block._answer(queries, block._read_jagged(queries, packed))
    torch.testing.assert_close(answers, block(queries, entities, mask))


def test_read_jagged__has_the_gradients_of_the_padded_batch(inputs: tuple[Tensor, Tensor]) -> None:
    entities, mask = inputs
    block = CrossAttention(16, DIM, num_heads=4).double()
    queries = torch.randn(BATCH, LATENTS, 16).double()
    gradients = []
    for jagged in (True, False):
        leaf, asked = entities.clone().requires_grad_(), queries.clone().requires_grad_()
        if jagged:
            answers = block._answer(asked, block._read_jagged(asked, Packing.from_mask(mask).pack(leaf)))
        else:
            answers = block(asked, leaf, mask)
        answers.square().sum().backward()
        gradients.append((torch.where(mask.unsqueeze(-1), leaf.grad, 0.0), asked.grad))
    torch.testing.assert_close(gradients[0], gradients[1])


def test_self_attention__reads_jagged_what_it_reads_padded(inputs: tuple[Tensor, Tensor]) -> None:
    entities, mask = inputs
    block = SelfAttention(DIM, num_heads=3).double()
    packed = Packing.from_mask(mask).pack(entities)
    answers = block._answer(packed.values, block._read_jagged(packed))
    torch.testing.assert_close(answers, block(entities, mask)[mask])
    torch.testing.assert_close(block.forward_packed(packed).values, answers)


def test_packed__takes_the_kernels_where_they_apply(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Packed, "suits_kernels", property(lambda packed: packed.packing.shortest > 0))  # as if on CUDA
    taken = []
    for block_class in (CrossAttention, SelfAttention):
        read = block_class._read_jagged
        monkeypatch.setattr(
            block_class, "_read_jagged", lambda self, *args, read=read: taken.append(type(self)) or read(self, *args)
        )
    reader, layer = CrossAttention(16, DIM, num_heads=4).double(), SelfAttention(DIM, num_heads=3).double()
    queries = torch.randn(1, LATENTS, 16).double()
    for empty, expected in ((False, [CrossAttention, SelfAttention]), (True, [])):
        mask = torch.rand(BATCH, ENTITIES) < 0.5
        mask[:, 0], mask[2] = True, not empty
        entities = torch.randn(BATCH, ENTITIES, DIM).double()
        packed = Packing.from_mask(mask).pack(entities)
        torch.testing.assert_close(reader.read_packed(queries, packed), reader(queries, entities, mask))
        torch.testing.assert_close(layer.forward_packed(packed).values, layer(entities, mask)[mask])
        assert taken == expected
        taken.clear()
