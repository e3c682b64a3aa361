"""Typed features to tokens: every kind of entity gets its own input layer into one common width."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from perceiver_rl.entities import GLOBALS, EntitySchema, Feature, features_key, mask_key
from perceiver_rl.nn import Packed, Packing

_RESERVED = frozenset(dir(nn.ModuleDict()))


class FeatureScaling(nn.Module):
    """Rescale each feature from its declared range `[low, high]` to [-1, 1], linearly and without clipping.

    Args:
        features: The declared features, one for each column.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, features: tuple[Feature, ...]) -> None:
        super().__init__()
        low = torch.tensor([feature.low for feature in features])
        high = torch.tensor([feature.high for feature in features])
        # Not saved with the weights: the ranges belong to the schema, and one source of truth is enough.
        self.register_buffer("center", (low + high) / 2, persistent=False)
        self.register_buffer("scale", 2 / (high - low), persistent=False)

    def forward(self, values: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        """Rescaled values, same shape."""
        return (values - self.center) * self.scale


class EntityEmbedding(nn.Module):
    """Turn an observation into one token for each entity slot, and one for the globals if there are any.

    Each type's features pass through a layer of their own (so types need no further marking) and a shared
    second one. What stands in absent slots is replaced by zeros before any arithmetic: a NaN there reaches
    neither an output nor, multiplied by a zero gradient, a weight.

    Args:
        schema: What the observation means.
        dim: Width of the tokens.

    Source: AlphaStar's entity encoder embeds one-hot and scaled features in the same way (Vinyals et al.
        2019, supplement).
    """

    def __init__(self, schema: EntitySchema, dim: int) -> None:
        super().__init__()
        self.schema = schema
        self.scaling = nn.ModuleDict({module_key(each.name): FeatureScaling(each.features) for each in schema.entity_types})
        self.projection = nn.ModuleDict(
            {module_key(each.name): nn.Linear(each.num_features, dim) for each in schema.entity_types}
        )
        if schema.globals:
            self.globals_scaling = FeatureScaling(schema.globals)
            self.globals_projection = nn.Linear(len(schema.globals), dim)
        self.output = nn.Linear(dim, dim)
        self.slots = schema.entity_slices
        """Where each type's tokens stand on the token axis; the globals' token comes last."""
        self.num_slots = schema.max_entities + bool(schema.globals)

    def forward(
        self, observation: Mapping[str, Tensor]
    ) -> tuple[Float[Tensor, "batch tokens dim"], Bool[Tensor, "batch tokens"]]:
        """Embed a batch of observations.

        Args:
            observation: Tensors by key as `EntitySchema` tells, each with one leading batch axis.

        Returns:
            Tokens, types in the schema's order and then the globals' token, and their mask (True = present).
        """
        return self.activate(self.hidden(observation)), self.mask(observation)

    def hidden(self, observation: Mapping[str, Tensor]) -> Float[Tensor, "batch tokens dim"]:
        """The first layer alone, to which something may be added before `activate` makes tokens of it."""
        hidden = []
        for each in self.schema.entity_types:
            mask = observation[mask_key(each.name)]
            features = torch.where(mask.unsqueeze(-1), observation[features_key(each.name)], 0.0)
            hidden.append(self._project(each.name, features))
        if self.schema.globals:
            hidden.append(self._project_globals(observation).unsqueeze(1))
        return torch.cat(hidden, dim=1)

    def activate(self, hidden: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """The second layer, shared by all types."""
        return self.output(torch.relu(hidden))

    def forward_packed(self, observation: Mapping[str, Tensor], packing: Packing) -> Packed:
        """Embed present entities only.

        Args:
            observation: As of `forward`.
            packing: Made from `mask(observation)`.
        """
        hidden = []
        for each in self.schema.entity_types:
            rows = packing.rows_of(self.slots[each.name])
            features = observation[features_key(each.name)][rows.samples, rows.slots]
            hidden.append((rows, self._project(each.name, features)))
        if self.schema.globals:
            rows = packing.rows_of(slice(self.num_slots - 1, self.num_slots))
            hidden.append((rows, self._project_globals(observation)))
        return packing.join(hidden).map(self.activate)

    def mask(self, observation: Mapping[str, Tensor]) -> Bool[Tensor, "batch tokens"]:
        """Which tokens are present; the globals' always is."""
        masks = [observation[mask_key(each.name)] for each in self.schema.entity_types]
        if self.schema.globals:
            masks.append(torch.ones_like(masks[0][:, :1]))
        return torch.cat(masks, dim=1)

    def _project(self, entity_type: str, features: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch dim"]:
        key = module_key(entity_type)
        return self.projection[key](self.scaling[key](features))

    def _project_globals(self, observation: Mapping[str, Tensor]) -> Float[Tensor, "batch dim"]:
        return self.globals_projection(self.globals_scaling(observation[GLOBALS]))


def module_key(name: str) -> str:
    """A name of the schema in a form under which torch keeps a layer.

    `nn.ModuleDict` refuses dots and the names of its own attributes, one of which, `items`, is a good name
    for an entity type.
    """
    return name.replace(".", "·") + ("'" if name in _RESERVED else "")
