"""A policy out of a bundle as an RLlib module: an opponent or team-mate that stays as it is, or weights to go on from."""

from __future__ import annotations

from pathlib import Path

from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from safetensors import torch as safetensors

from perceiver_rl.bundle import load_policy
from perceiver_rl.configuration import to_mapping
from perceiver_rl.entities import EntitySchema
from perceiver_rl.policy.entity_policy import EntityPolicy
from perceiver_rl.rllib.module import MODEL_CONFIG_KEY, PerceiverRLModule
from perceiver_rl.schema_differences import require_same_but_slots

BUNDLE_KEY = "bundle"
"""The bundle's path, schema and weights in RLlib's `model_config`: the file itself need not be where the module is built."""


class BundleRLModule(PerceiverRLModule):
    """A `PerceiverRLModule` that begins with a bundle's weights, for environments that differ in numbers of slots alone."""

    def build_policy(self, schema: EntitySchema) -> EntityPolicy:
        """The bundle's policy for a schema.

        Raises:
            ValueError: If the schema differs from the bundle's in more than slots; the message lists what.
        """
        bundle = self.model_config[BUNDLE_KEY]
        trained = EntitySchema.from_dict(bundle["schema"])
        require_same_but_slots(trained, schema, f"bundle {bundle['path']}, trained in {bundle['env']!r}", bundle["env"])
        policy = super().build_policy(schema)
        policy.load_state_dict(safetensors.load(bundle["weights"]))
        return policy


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

    Alone, `config.rl_module(rl_module_spec=bundle_spec(path))` goes on training from it. The weights travel with the spec
    and with checkpoints, so the bundle may be gone later.

    Args:
        path: The bundle's folder.

    Raises:
        ValueError: If it is no sound bundle.
    """
    loaded = load_policy(path)
    bundle = {
        "path": str(path),
        "env": loaded.provenance.env,
        "schema": loaded.schema.to_dict(),
        "weights": safetensors.save({name: each.contiguous() for name, each in loaded.policy.state_dict().items()}),
    }
    settings = to_mapping(loaded.policy.config)
    return RLModuleSpec(module_class=BundleRLModule, model_config={MODEL_CONFIG_KEY: settings, BUNDLE_KEY: bundle})
