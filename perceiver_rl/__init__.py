"""A Perceiver IO entity encoder with per-entity action queries, as an RLlib model."""

__version__ = "0.1.0"
