"""Load a bundle: no Ray, no pickle, no code of the bundle's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from perceiver_rl.bundle.format import FILES, POLICY_FILE, WEIGHTS_FILE, BundleRecord, Provenance, read_json, require_bounded
from perceiver_rl.bundle.weights import read_weights
from perceiver_rl.entities import ACTION_MASK, EntitySchema
from perceiver_rl.policy.entity_policy import EntityPolicy
from perceiver_rl.schema_differences import require_same_but_slots
from perceiver_rl.whole_file import require_writable


class LoadedPolicy:
    """A policy out of a bundle, ready to choose.

    Made by `load_policy`.

    Args:
        path: Where the bundle is.
        record: What its `policy.json` says.
        policy: The policy with the bundle's weights, on the device where it shall compute.
        seed: Of the draws of `act(…, greedy=False)`.
    """

    def __init__(self, path: Path, record: BundleRecord, policy: EntityPolicy, seed: int) -> None:
        self.path = path
        self.policy = policy.eval()
        """The network itself: logits and, for whoever wants it, the value."""
        self._record = record
        self._device = next(policy.parameters()).device
        self._generator = torch.Generator(self._device).manual_seed(seed)

    @property
    def schema(self) -> EntitySchema:
        """What it sees and does."""
        return self.policy.schema

    @property
    def provenance(self) -> Provenance:
        """Environment, training config, seed, steps, seconds, commit and versions of its training."""
        return self._record.provenance

    @property
    def evaluation(self) -> tuple[dict[str, Any], ...]:
        """Records of `perceiver-rl evaluate` that came with the policy; empty if there were none."""
        return self._record.evaluation

    def act(self, observation: Mapping[str, NDArray[Any]], *, greedy: bool = True) -> NDArray[np.int64]:
        """Choose for every actor.

        Args:
            observation: Arrays by key as `EntitySchema` tells: of one moment, or a batch of them with one leading axis.
            greedy: The most probable option of each actor rather than a draw; of sequential choices, given those before it.

        Returns:
            Options `[max_actors]` or `[batch, max_actors]`; 0 for absent actors.

        Raises:
            ValueError: If the observation breaks the contract; the message says what, where, got and expected.
        """
        mask = observation.get(ACTION_MASK)
        batched = isinstance(mask, np.ndarray) and mask.ndim == 3
        self.schema.check(observation, (len(mask),) if batched and mask is not None else ())
        # torch.tensor copies: environments may hand out read-only views of memory that is not theirs.
        tensors = {
            key: torch.tensor(array if batched else array[None], device=self._device) for key, array in observation.items()
        }
        with torch.inference_mode():
            options, _ = self.policy.act(tensors, greedy=greedy, generator=self._generator)
        actions = options.cpu().numpy()
        return actions if batched else actions[0]

    def for_schema(self, schema: EntitySchema, rows: int = 1) -> EntityPolicy:
        """The policy for an environment whose numbers of slots (`max_count`) may differ; no weight depends on them.

        Args:
            schema: The environment's.
            rows: Observations that it will decide about at once.

        Raises:
            ValueError: If the schema differs in anything else (the message lists what), or so much is beyond the limits: a
                bundle names its environment's options, too.
        """
        try:
            require_bounded(schema, self.policy.config, rows)
        except ValueError as error:
            raise ValueError(f"bundle {self.path}, on {rows:,} observations at once: {error}") from None
        if schema == self.schema:
            return self.policy
        env = self.provenance.env
        require_same_but_slots(self.schema, schema, f"bundle {self.path}, trained in {env!r}", env)
        return self.policy.with_slots(schema)


def load_policy(path: str | Path, device: str | torch.device = "cpu", *, seed: int = 0) -> LoadedPolicy:
    """Load a bundle that `perceiver-rl export` wrote.

    Nothing in a bundle is run, and nothing in it names a file or a module that would be loaded: weights are a safetensors
    file, all else is JSON. Sizes that are declared are compared with the weights that are there before memory is taken.

    Args:
        path: The bundle's folder.
        device: Where the policy shall compute.
        seed: Of the draws of `act(…, greedy=False)`.

    Raises:
        ValueError: If it is no bundle, of an unknown format, or anything in it is missing, extra, changed, damaged, not
            finite or beyond the limits; the message says which, and what to do.
    """
    path = Path(path)
    require_bundle(path)
    try:
        record, parsed = read_json(path / POLICY_FILE)
    except ValueError as error:
        raise ValueError(f"bundle {path}: {POLICY_FILE}: {error}") from error
    try:
        tensors = read_weights(path / WEIGHTS_FILE, record.schema, record.config, parsed)
    except ValueError as error:
        raise ValueError(f"bundle {path}: {error}") from error
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and thrown away
        policy = EntityPolicy(record.schema, record.config)
    policy.load_state_dict(tensors)
    return LoadedPolicy(path, record, policy.to(device), seed)


def is_bundle(path: Path) -> bool:
    """Whether a folder looks like a bundle, whole or not."""
    return any((path / name).is_file() for name in FILES)


def require_place_for(file: Path, option: str) -> None:
    """Raise if what a command finds out cannot be written there, or would lie in a bundle; asked before it plays.

    Args:
        file: What will be written; missing folders are made.
        option: That named it.

    Raises:
        ValueError: What is in the way.
    """
    require_no_bundle(file.parent, f"{option} {file}")
    require_writable(file, option)


def require_no_bundle(folder: Path, what: str) -> None:
    """Raise if what is to be written into a folder would lie in a bundle, which would be none afterwards.

    Args:
        folder: Where it is to be.
        what: What asks for it, for the message.

    Raises:
        ValueError: If it is a bundle.
    """
    if is_bundle(folder):
        raise ValueError(f"{what}: got a place in a bundle, expected another folder: bundles stay as they are")


def require_bundle(path: Path) -> None:
    """Raise if a folder does not hold the files of a bundle, or holds others.

    Raises:
        ValueError: What is missing, or does not belong there.
    """
    if not path.is_dir():
        what = "got a file" if path.exists() else "does not exist"
        raise ValueError(f"bundle {path}: {what}, expected a folder that `perceiver-rl export` wrote")
    for name in (POLICY_FILE, WEIGHTS_FILE):
        if not (path / name).is_file():
            raise ValueError(
                f"bundle {path}: {name} is missing, expected a folder that `perceiver-rl export` wrote: get a whole copy"
            )
    others = sorted(entry.name for entry in path.iterdir() if entry.name not in FILES)
    if others:
        raise ValueError(
            f"bundle {path}: got {others[0]!r}{' and others' if len(others) > 1 else ''} in it, expected "
            f"{', '.join(sorted(FILES))} alone: get a whole copy, or keep what else there is elsewhere"
        )
