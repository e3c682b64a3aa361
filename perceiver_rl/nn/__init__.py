"""Perceiver IO and the entity transformer that it replaces: pure torch, no reinforcement learning."""

from perceiver_rl.nn.attention import MLP, CrossAttention, SelfAttention
from perceiver_rl.nn.capture import capture_attention
from perceiver_rl.nn.encoder import EncoderConfig, EntityEncoder, build_encoder
from perceiver_rl.nn.masked_attention import attend, attention_weights
from perceiver_rl.nn.memory import Memory
from perceiver_rl.nn.packing import Packed, Packing, pick_rows
from perceiver_rl.nn.perceiver_io import PerceiverIO, PerceiverIOConfig
from perceiver_rl.nn.positions import FourierPositions, TrainablePositions, grid_positions, relative_positions
from perceiver_rl.nn.queries import (
    EntityQueries,
    LearnedQueries,
    PositionQueries,
    Queries,
    QueryArray,
    QueryPart,
    TaskQueries,
    decode_in_chunks,
)
from perceiver_rl.nn.transformer import EntityTransformer, EntityTransformerConfig

__all__ = [
    "MLP",
    "CrossAttention",
    "EncoderConfig",
    "EntityEncoder",
    "EntityQueries",
    "EntityTransformer",
    "EntityTransformerConfig",
    "FourierPositions",
    "LearnedQueries",
    "Memory",
    "Packed",
    "Packing",
    "PerceiverIO",
    "PerceiverIOConfig",
    "PositionQueries",
    "Queries",
    "QueryArray",
    "QueryPart",
    "SelfAttention",
    "TaskQueries",
    "TrainablePositions",
    "attend",
    "attention_weights",
    "build_encoder",
    "capture_attention",
    "decode_in_chunks",
    "grid_positions",
    "pick_rows",
    "relative_positions",
]
