"""A policy out of a bundle as an RLlib module: an opponent or team-mate that stays as it is, or weights to go on from."""

from __future__ import annotations

from pathlib import Path

from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from perceiver_rl.bundle import load_policy
from perceiver_rl.entities import EntitySchema
from perceiver_rl.policy.entity_policy import EntityPolicy, EntityPolicyConfig
from perceiver_rl.rllib.module import PerceiverRLModule

BUNDLE_KEY = "bundle"
"""The bundle's path in RLlib's `model_config`."""


class BundleRLModule(PerceiverRLModule):
    """A `PerceiverRLModule` that begins with a bundle's weights, for environments that differ in numbers of slots alone."""

    def build_policy(self, schema: EntitySchema) -> EntityPolicy:
        """The bundle's policy for a schema.

        Raises:
            ValueError: If there is no sound bundle, or the schema differs from its own in more than slots.
        """
        return load_policy(self.model_config[BUNDLE_KEY]).for_schema(schema)

    def policy_config(self) -> EntityPolicyConfig:
        """The bundle's own configuration."""
        return self.policy.config


def bundle_spec(path: str | Path) -> RLModuleSpec:
    """The spec of a module with a bundle's weights.

    As an opponent that does not learn, beside a policy that does:

        config.multi_agent(
            policies={"red", "blue"},
            policy_mapping_fn=lambda agent, episode, **kwargs: agent.split("_")[0],
            policies_to_train=["red"],
        ).rl_module(
            rl_module_spec=MultiRLModuleSpec(
                rl_module_specs={"red": module_spec(preset("small")), "blue": bundle_spec("bundles/champion")}
            )
        )

    Alone, `config.rl_module(rl_module_spec=bundle_spec(path))` goes on training from it. The bundle has to be where every
    process of the run finds it; relative paths are made absolute here.

    Args:
        path: The bundle's folder.

    Raises:
        ValueError: If it is no sound bundle.
    """
    load_policy(path)  # fails here and not in a remote process
    return RLModuleSpec(module_class=BundleRLModule, model_config={BUNDLE_KEY: str(Path(path).resolve())})
