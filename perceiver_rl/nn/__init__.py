"""Perceiver IO and the entity transformer that it replaces: pure torch, no reinforcement learning."""

from perceiver_rl.nn.attention import MLP, CrossAttention, SelfAttention, attend
from perceiver_rl.nn.encoder import EncoderConfig, EntityEncoder, build_encoder
from perceiver_rl.nn.memory import Memory
from perceiver_rl.nn.perceiver_io import PerceiverIO, PerceiverIOConfig
from perceiver_rl.nn.queries import EntityQueries, LearnedQueries
from perceiver_rl.nn.transformer import EntityTransformer, EntityTransformerConfig

__all__ = [
    "MLP",
    "CrossAttention",
    "EncoderConfig",
    "EntityEncoder",
    "EntityQueries",
    "EntityTransformer",
    "EntityTransformerConfig",
    "LearnedQueries",
    "Memory",
    "PerceiverIO",
    "PerceiverIOConfig",
    "SelfAttention",
    "attend",
    "build_encoder",
]
