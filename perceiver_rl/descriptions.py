"""Models and schemas in words, as TensorBoard shows them: text for readers, hyper-parameters for comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perceiver_rl.entities import EntitySchema, Feature


def model_parameters(model: Mapping[str, Any]) -> dict[str, Any]:
    """By what models are told apart, under names that are the same for both encoders; None for what a model does not say.

    Args:
        model: Fields of an `EntityPolicyConfig`.
    """
    encoder = model.get(str(model.get("encoder")), {})
    return {
        "encoder": model.get("encoder"),
        "latents": encoder.get("num_latents", 0),
        "model/critic": model.get("critic"),
        "model/joint": model.get("joint"),
        "model/token_dim": model.get("token_dim"),
        "model/width": encoder.get("latent_dim", encoder.get("model_dim")),
    }


def model_text(model: Mapping[str, Any]) -> str:
    """A model's settings as Markdown; of the two encoders, the one in use."""
    other = {"perceiver": "transformer", "transformer": "perceiver"}.get(str(model.get("encoder")))
    return table_text(("model setting", "value"), _flat({key: value for key, value in model.items() if key != other}))


def schema_text(schema: EntitySchema) -> str:
    """What a policy sees and may do, as Markdown."""
    types = [
        (each.name, each.max_count, "yes" if each.name in schema.actors else "no", _features(each.features))
        for each in schema.entity_types
    ]
    verbs = [(verb, "") for verb in schema.verbs] + [(verb.name, verb.target) for verb in schema.targeted_verbs]
    parts = [
        f"Control: **{schema.control}**. {schema.max_actors} actors at most, {schema.num_options} options for each.",
        table_text(("entity type", "slots", "acts", "features and their ranges"), types),
        table_text(("verb", "aimed at"), verbs),
    ]
    if schema.globals:
        parts.append(table_text(("globals and their ranges",), [(_features(schema.globals),)]))
    return "\n\n".join(parts)


def table_text(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as Markdown; a class in it by its full name."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _features(features: Iterable[Feature]) -> str:
    return ", ".join(f"{each.name} [{each.low:g}, {each.high:g}]" for each in features)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in settings.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return rows


def _cell(value: Any) -> str:
    if isinstance(value, type):
        value = f"{value.__module__}.{value.__qualname__}"
    return str(value).replace("\n", " ").replace("|", "\\|")
