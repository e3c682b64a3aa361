"""The RLlib side: the only folder that imports Ray."""
