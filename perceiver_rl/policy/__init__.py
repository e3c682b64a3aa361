"""Policies in torch: they know entities and actions, and nothing of Ray."""
