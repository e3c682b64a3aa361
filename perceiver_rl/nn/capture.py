"""What attention attends to, on request; nothing is computed or kept while nobody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perceiver_rl.nn.attention import CrossAttention, SelfAttention

_captures = 0
"""How many captures are under way."""


def is_capturing() -> bool:
    """Whether somebody looks at attention now, so that a policy reads without packing, which is not captured."""
    return _captures > 0


@contextmanager
def capture_attention(
    module: nn.Module,
) -> Iterator[dict[str, list[Float[Tensor, "batch heads queries inputs"]]]]:
    """Collect the attention weights of every attention block inside a module while it runs.

    For example::

        with capture_attention(encoder) as weights:
            encoder(tokens, entity_mask, queries)
        weights["cross_attends.0"][0]  # [batch, heads, latents, entities]

    Args:
        module: An encoder, a policy, or anything else that holds attention blocks.

    Yields:
        A dictionary that fills while the module runs: name of the block → its weights, one entry for each time
        that it ran (shared blocks run more than once), without gradient. Packed readings are not captured; a policy
        does without packing meanwhile.
    """
    captured: dict[str, list[Tensor]] = {}

    def hook_for(name: str, block: CrossAttention | SelfAttention) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
            with torch.no_grad():
                captured.setdefault(name, []).append(block.weights(*args, **kwargs))

        return hook

    global _captures
    _captures += 1
    handles = [
        block.register_forward_pre_hook(hook_for(name, block), with_kwargs=True)
        for name, block in module.named_modules()
        if isinstance(block, CrossAttention | SelfAttention)
    ]
    try:
        yield captured
    finally:
        _captures -= 1
        for handle in handles:
            handle.remove()
