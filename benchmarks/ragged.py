"""What a unit costs in a ragged batch: squads of 1 to 81 units mixed, beside full ones.

    python -m benchmarks.ragged

Forward and backward of the policy's loss on MAgent2's largest battle, one torch thread. *Full*: every squad has all 81
units and faces 81. *Mixed*: squads of every size from 1 to 81, facing as many. *Even*: as many squads and units as mixed,
41 in each; a squad's latents cost the same however few its units are, so this is what mixing is measured by. *Agents*: the
multi-agent form of the same battle, one sample for each living unit. Milliseconds are divided by the number of present
actors; medians over repeats that take turns.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from agents.presets import preset
from envs.magent import battle_schema
from envs.magent_parallel import unit_schema
from perceiver_rl.entities import ACTION_MASK, GLOBALS, EntitySchema, features_key, mask_key
from perceiver_rl.policy.entity_policy import EntityPolicy

UNITS = 81


def main(
    squads: Annotated[int, typer.Option(help="Squads in a batch of the squad form.", min=UNITS)] = 2 * UNITS,
    model: Annotated[str, typer.Option("--preset", help="Size of the policy.")] = "small",
    repeats: Annotated[int, typer.Option(help="Measurements of each, taken in turn.", min=1)] = 7,
) -> None:
    """Print milliseconds a unit of each batch, and what the mixed batch costs in multiples of it."""
    torch.set_num_threads(1)
    squad, unit = battle_schema("battle-45"), unit_schema("battle-45")
    random = np.random.default_rng(0)
    sizes = 1 + np.arange(squads) % UNITS
    full, even = np.full(squads, UNITS), np.full(squads, (UNITS + 1) // 2)
    agents = squads * 8  # views of single agents, each with those of its neighbours that live
    near, far = 1 + np.arange(agents) % UNITS, np.full(agents, UNITS)
    batches = {
        "squads, full": (squad, observations(squad, {"ally": full, "enemy": full}, random)),
        "squads, even": (squad, observations(squad, {"ally": even, "enemy": even}, random)),
        "squads, mixed": (squad, observations(squad, {"ally": sizes, "enemy": sizes}, random)),
        "agents, full": (unit, observations(unit, {"self": far * 0 + 1, "ally": far - 1, "enemy": far}, random)),
        "agents, mixed": (unit, observations(unit, {"self": near * 0 + 1, "ally": near - 1, "enemy": near}, random)),
    }
    policies = {id(schema): EntityPolicy(schema, preset(model)) for schema in (squad, unit)}
    times: dict[str, list[float]] = {name: [] for name in batches}
    for turn in range(repeats + 1):
        for name, (schema, observation) in batches.items():
            seconds = _step(policies[id(schema)], observation)
            if turn:  # the first warms up
                times[name].append(seconds)
    print("| batch | present actors | ms / actor | mixed, of this |\n|---|---|---|---|")
    costs = {name: 1000 * median(times[name]) / _actors(*batch) for name, batch in batches.items()}
    for name, cost in costs.items():
        mixed = costs[f"{name.split(',')[0]}, mixed"]
        print(f"| {name} | {_actors(*batches[name]):,} | {cost:.4f} | {mixed / cost:.2f} |")


def observations(schema: EntitySchema, counts: dict[str, np.ndarray], random: np.random.Generator) -> dict[str, Tensor]:
    """Random features; as many entities of each type as told for each sample; legal are all verbs, and targets there."""
    arrays: dict[str, np.ndarray] = {}
    batch = len(next(iter(counts.values())))
    for each in schema.entity_types:
        shape = (batch, each.max_count)
        arrays[features_key(each.name)] = random.uniform(-1.0, 1.0, (*shape, len(each.features))).astype(np.float32)
        arrays[mask_key(each.name)] = np.arange(each.max_count) < counts[each.name][:, None]
    if schema.globals:
        arrays[GLOBALS] = random.uniform(0.0, 1.0, (batch, len(schema.globals))).astype(np.float32)
    actor = np.concatenate([arrays[mask_key(name)] for name in schema.actors], axis=1)[:, :, None]
    verbs = np.ones((batch, 1, schema.num_verbs), bool)
    targets = [arrays[mask_key(verb.target)][:, None] for verb in schema.targeted_verbs]
    arrays[ACTION_MASK] = actor & np.concatenate([verbs, *targets], axis=2)
    return {key: torch.from_numpy(array) for key, array in arrays.items()}


def _actors(schema: EntitySchema, observation: dict[str, Tensor]) -> int:
    """Present actors of a batch."""
    return sum(int(observation[mask_key(actor)].sum()) for actor in schema.actors)


def _step(policy: EntityPolicy, observation: dict[str, Tensor]) -> float:
    """Seconds of one forward and backward pass."""
    policy.zero_grad()
    began = time.perf_counter()
    output = policy(observation)
    assert output.value is not None
    (output.distribution.entropy().sum() + output.value.sum()).backward()
    return time.perf_counter() - began


if __name__ == "__main__":
    typer.run(main)
