"""Assembled agents: presets of the model, and scripted and random agents to compare with."""
