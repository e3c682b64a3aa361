"""RLlib training configs, one file a run: each has `make_config() -> AlgorithmConfig`."""
