"""Environments and adapters, each told to the model by an `EntitySchema`."""
