"""Measurements of speed and learning, each with its command and its committed result."""
