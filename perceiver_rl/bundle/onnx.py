"""The actors' logits as an ONNX graph, for batches and numbers of entities of any size."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perceiver_rl.entities import GLOBALS, features_key, mask_key
from perceiver_rl.policy.action_heads import target_types
from perceiver_rl.policy.embedding import module_key
from perceiver_rl.policy.entity_policy import EntityPolicy

OUTPUT = "logits"

EXAMPLE_BATCH = 3
EXAMPLE_SLOTS = 5
"""Sizes of the example that the graph is traced with; they do not end up in it."""


def require_exportable(policy: EntityPolicy) -> None:
    """Raise if a policy cannot be written as ONNX.

    Raises:
        ValueError: Which kind of policy cannot, and what to do.
        ImportError: Which package is missing.
    """
    reason = None
    if policy.sequence is not None:
        reason = "its choices are sequential: each actor is told those before it, which takes one pass for each actor"
    elif policy.views is not None:
        reason = "its control is decentralized: each actor has a view of its own, and their number depends on the data"
    if reason is not None:
        raise ValueError(
            f"ONNX: a policy of this kind cannot be exported, since {reason}; expected independent choices under "
            "centralized control. Write the bundle without ONNX (--no-onnx): load_policy plays all kinds"
        )
    missing = [package for package in ("onnx", "onnxscript") if find_spec(package) is None]
    if missing:
        raise ImportError(
            f"ONNX: {' and '.join(missing)} not installed; pip install 'perceiver-rl[export]', or write the bundle without "
            "ONNX (--no-onnx)"
        )


def write_onnx(path: Path, policy: EntityPolicy) -> None:
    """Write the logits of a policy as an ONNX graph.

    Inputs are the observation's arrays without `action_mask`, by the same names: for each entity type features
    `[batch, slots, features]` and mask `[batch, slots]`, and the globals if there are any; privileged ones, which no actor
    reads, are left out. Batch and slots may be of any size from 1 on, also beyond `max_count`. The output `logits`
    `[batch, actors, options]` has actors and options in the schema's order; those of illegal options mean nothing.

    Args:
        path: The file; all weights are in it.
        policy: What to write.

    Raises:
        ValueError: If that kind of policy cannot be exported.
        ImportError: If a package is missing.
    """
    require_exportable(policy)
    graph = LogitsGraph(policy).eval()
    example = graph.example()
    some = torch.export.Dim.DYNAMIC
    shapes = {name: {0: some} if name == GLOBALS else {0: some, 1: some} for name in example}
    with _quiet():
        program = torch.onnx.export(
            graph,
            kwargs={"observation": example},
            input_names=list(example),
            output_names=[OUTPUT],
            dynamic_shapes={"observation": shapes},
            dynamo=True,
            verbose=False,
            external_data=False,
        )
    if program is None:
        raise ValueError("ONNX: torch.onnx.export gave no program")
    program.save(path, external_data=False)


class LogitsGraph(nn.Module):
    """`EntityPolicy.forward` for independent choices under centralized control, with sizes taken from the observation.

    `EntityPolicy` takes numbers of slots from the schema, and leaves absent entities out where that pays. A graph for any
    sizes can do neither.

    Args:
        policy: Whose layers it uses.
    """

    def __init__(self, policy: EntityPolicy) -> None:
        super().__init__()
        self.policy = policy

    def example(self) -> dict[str, Tensor]:
        """Inputs of the right form, by name."""
        schema = self.policy.schema
        inputs: dict[str, Tensor] = {}
        for each in schema.entity_types:
            if each.name not in schema.privileged:
                inputs[features_key(each.name)] = torch.zeros(EXAMPLE_BATCH, EXAMPLE_SLOTS, each.num_features)
                inputs[mask_key(each.name)] = torch.ones(EXAMPLE_BATCH, EXAMPLE_SLOTS, dtype=torch.bool)
        if schema.globals and GLOBALS not in schema.privileged:
            inputs[GLOBALS] = torch.zeros(EXAMPLE_BATCH, len(schema.globals))
        return inputs

    def forward(self, observation: Mapping[str, Tensor]) -> Float[Tensor, "batch actors options"]:
        """Logits of all actors' options.

        Args:
            observation: As of `write_onnx`.
        """
        policy, schema = self.policy, self.policy.schema
        shown = self._with_privileged_absent(observation)
        tokens, mask = policy.embedding(shown)
        if schema.globals and GLOBALS in schema.privileged:
            mask = torch.cat([mask[:, :-1], torch.zeros_like(mask[:, -1:])], dim=1)
        counts = {each.name: shown[mask_key(each.name)].shape[1] for each in schema.entity_types}
        of_type = dict(zip(counts, tokens[:, : sum(counts.values())].split(list(counts.values()), dim=1), strict=True))

        targets = target_types(schema)
        actor_tokens = torch.cat([of_type[name] for name in schema.actors], dim=1)
        num_actors = actor_tokens.shape[1]
        asked = [policy.queries.parts["actors"](len(tokens), actor_tokens)]
        if targets:
            target_tokens = torch.cat([of_type[name] for name in targets], dim=1)
            asked.append(policy.queries.parts["targets"](len(tokens), target_tokens))
        answers = policy.encoder.decode(policy.encoder.read(tokens, mask), torch.cat(asked, dim=1))
        keys = []
        if targets:
            normed = policy.heads.target_norm(answers[:, num_actors:])
            of_target = dict(zip(targets, normed.split([counts[name] for name in targets], dim=1), strict=True))
            keys = [
                policy.heads.pointer_keys[module_key(verb.name)](of_target[verb.target]) for verb in schema.targeted_verbs
            ]
        return policy.heads.logits(answers[:, :num_actors], keys)

    def _with_privileged_absent(self, observation: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What no actor reads is no input: one absent slot stands for each such type."""
        schema = self.policy.schema
        some_features = observation[features_key(schema.actors[0])]
        batch = some_features.shape[0]
        shown = dict(observation)
        for each in schema.entity_types:
            if each.name in schema.privileged:
                shown[features_key(each.name)] = some_features.new_zeros(batch, 1, each.num_features)
                shown[mask_key(each.name)] = some_features.new_zeros(batch, 1, dtype=torch.bool)
        if schema.globals and GLOBALS in schema.privileged:
            shown[GLOBALS] = some_features.new_zeros(batch, len(schema.globals))
        return shown


@contextmanager
def _quiet() -> Iterator[None]:
    """Torch's exporter tells on the terminal what concerns its developers alone."""
    logs = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
