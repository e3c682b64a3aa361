"""The StarCraft-style agent in sizes, each with a Perceiver IO or the entity transformer that it replaces.

Names are `<size>` or `<size>-transformer`, e.g. `small` and `small-transformer`. Both forms of a size share
token width, depth and pointer, so that one word in a config compares encoders and nothing else.
"""

from __future__ import annotations

from dataclasses import replace

from perceiver_rl.configuration import unknown_name
from perceiver_rl.nn import EntityTransformerConfig, PerceiverIOConfig
from perceiver_rl.policy.entity_policy import EntityPolicyConfig

TRANSFORMER_SUFFIX = "-transformer"

SIZES: dict[str, EntityPolicyConfig] = {
    # For tests and for tasks with a handful of entities.
    "tiny": EntityPolicyConfig(
        token_dim=32,
        pointer_dim=16,
        perceiver=PerceiverIOConfig(num_latents=4, latent_dim=32, num_self_attend_heads=2),
        transformer=EntityTransformerConfig(num_layers=1, model_dim=32, num_heads=2, head_dim=16, widening_factor=1),
    ),
    # For squads of up to about thirty units on a CPU.
    "small": EntityPolicyConfig(
        token_dim=64,
        pointer_dim=32,
        perceiver=PerceiverIOConfig(
            num_latents=8, latent_dim=64, num_cross_attend_heads=4, num_self_attend_heads=4, num_decoder_heads=4
        ),
        transformer=EntityTransformerConfig(
            num_layers=1, model_dim=64, num_heads=4, head_dim=16, widening_factor=1, num_decoder_heads=4
        ),
    ),
    # The sizes of the StarCraft II experiment of Perceiver IO (Jaegle et al. 2022, appendix B): three latent
    # layers, 32 latents; the paper does not state their width, 512 with widening 4 gives its 0.93 billion
    # FLOPs. The transformer is AlphaStar's: three layers of two heads of 128, width 256, MLP 1024.
    "alphastar": EntityPolicyConfig(
        token_dim=128,
        pointer_dim=32,
        perceiver=PerceiverIOConfig(
            num_latents=32,
            latent_dim=512,
            num_self_attends_per_block=3,
            num_self_attend_heads=8,
            cross_widening_factor=4,
            self_widening_factor=4,
        ),
        transformer=EntityTransformerConfig(num_layers=3, model_dim=256, num_heads=2, head_dim=128, widening_factor=4),
    ),
}


def preset(name: str) -> EntityPolicyConfig:
    """The policy configuration of that name.

    Args:
        name: `tiny`, `small` or `alphastar`, with `-transformer` appended for the transformer.

    Raises:
        ValueError: If there is none; the message lists the known names.
    """
    size = name.removesuffix(TRANSFORMER_SUFFIX)
    if size not in SIZES:
        raise ValueError(unknown_name("preset: unknown name", name, preset_names()))
    return replace(SIZES[size], encoder="transformer") if name != size else SIZES[size]


def preset_names() -> list[str]:
    """Names of all presets."""
    return [size + suffix for size in SIZES for suffix in ("", TRANSFORMER_SUFFIX)]
