"""The softmax of short rows: torch's own values and gradients."""

import pytest
import torch

from perceiver_rl.nn.softmax import SHORT, log_softmax, softmax

LENGTHS = [1, 2, SHORT - 1, SHORT, SHORT + 1]


@pytest.mark.parametrize("length", LENGTHS)
def test_softmax__is_torchs(length: int) -> None:
    scores = torch.randn(3, 5, length, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(softmax(scores), scores.softmax(dim=-1))
    assert torch.autograd.gradcheck(softmax, scores)


@pytest.mark.parametrize("length", LENGTHS)
def test_log_softmax__is_torchs(length: int) -> None:
    logits = torch.randn(3, 5, length, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(log_softmax(logits), logits.log_softmax(dim=-1))
    assert torch.autograd.gradcheck(log_softmax, logits)


@pytest.mark.parametrize("length", LENGTHS)
def test_log_softmax__of_nothing_but_the_lowest_number_is_uniform(length: int) -> None:
    logits = torch.full((2, length), torch.finfo(torch.float32).min)
    torch.testing.assert_close(log_softmax(logits), logits.log_softmax(dim=-1))
