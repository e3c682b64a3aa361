"""Who is in an episode and how each is drawn: what the replay's viewer knows, for pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from perceiver_rl.entities import EntityType
from perceiver_rl.replay.recording import Episode, Recording
from perceiver_rl.scene import ORIGIN, Look


@dataclass(frozen=True)
class Role:
    """One slot of a schema."""

    index: int
    """Among the slots of all types."""
    slot: int
    """Among those of its type."""
    entity_type: EntityType
    look: Look

    @property
    def name(self) -> str:
        """Such as `"enemy 3"`."""
        return f"{self.entity_type.name} {self.slot}" if self.entity_type.max_count > 1 else self.entity_type.name


class Cast:
    """All slots of a recording's schema, and where and how they are in every frame of an episode.

    Args:
        recording: What is drawn.
        episode: One of its episodes.
    """

    def __init__(self, recording: Recording, episode: Episode) -> None:
        self.recording = recording
        self.schema = recording.schema
        self.episode = episode
        self._types = [(each, recording.scene.look(each.name)) for each in self.schema.entity_types]
        slots = [(slot, each, look) for each, look in self._types for slot in range(each.max_count)]
        self.roles = tuple(Role(index, slot, each, look) for index, (slot, each, look) in enumerate(slots))
        self.actors = tuple(self.roles[slot] for slot in self.schema.actor_slots)
        self.kind_names = tuple(dict.fromkeys(kind for each, look in self._types for kind in _kinds(each, look)))
        """All kinds; the place of one is the number of its shape."""

    @cached_property
    def places(self) -> Float[np.ndarray, "frames entities 2"]:
        """East and north, in the environment's unit; NaN for who is absent or stands nowhere."""
        parts = []
        for each, look in self._types:
            features = self.episode.features[each.name]
            if look.position is None:
                parts.append(np.full((*features.shape[:2], 2), np.nan))
            elif look.position == ORIGIN:
                parts.append(np.zeros((*features.shape[:2], 2)))
            else:
                parts.append(features[..., _columns(each, look.position)].astype(float))
        return np.where(self.episode.entity_mask[..., None], np.concatenate(parts, axis=1), np.nan)

    @cached_property
    def health(self) -> Float[np.ndarray, "frames entities"]:
        """From 0, dead, to 1, unhurt; NaN where features tell none."""
        parts = []
        for each, look in self._types:
            features = self.episode.features[each.name]
            if look.health is None:
                parts.append(np.full(features.shape[:2], np.nan))
                continue
            (column,) = _columns(each, (look.health,))
            feature = each.features[column]
            parts.append(((features[..., column] - feature.low) / (feature.high - feature.low)).clip(0, 1).astype(float))
        return np.concatenate(parts, axis=1)

    @cached_property
    def kinds(self) -> Int[np.ndarray, "frames entities"]:
        """Which of `kind_names` each is."""
        parts = []
        for each, look in self._types:
            features = self.episode.features[each.name]
            numbers = np.array([self.kind_names.index(kind) for kind in _kinds(each, look)])
            largest = features[..., _columns(each, look.kinds)].argmax(axis=-1) if look.kinds else np.zeros(1, int)
            parts.append(np.broadcast_to(numbers[largest], features.shape[:2]))
        return np.concatenate(parts, axis=1)

    @property
    def has_field(self) -> bool:
        """Whether all who act stand somewhere, so that there is a field to draw."""
        return all(actor.look.position is not None for actor in self.actors)

    def standing(self, frame: int) -> list[Role]:
        """Who is there and stands somewhere."""
        return [self.roles[index] for index in np.flatnonzero(~np.isnan(self.places[frame, :, 0]))]

    def acting(self, step: int) -> list[int]:
        """Numbers of the actors that have something to choose."""
        return np.flatnonzero(self.episode.legal[step].any(axis=-1)).tolist()

    def target(self, option: int) -> Role | None:
        """Whom an option is aimed at."""
        for verb, options in zip(self.schema.targeted_verbs, self.schema.target_slices, strict=True):
            if options.start <= option < options.stop:
                return self.roles[self.schema.entity_slices[verb.target].start + option - options.start]
        return None

    def token_names(self) -> list[str]:
        """What attention is paid to: all slots, and the globals if there are any."""
        return [role.name for role in self.roles] + (["globals"] if self.schema.globals else [])

    def tokens_present(self, frame: int) -> list[int]:
        """Which tokens are there; the globals always are."""
        here: list[int] = np.flatnonzero(self.episode.entity_mask[frame]).tolist()
        return here + list(range(len(self.roles), len(self.token_names())))


def _kinds(entity_type: EntityType, look: Look) -> tuple[str, ...]:
    """Kinds that are told apart within a type, or the type itself."""
    return look.kinds or (entity_type.name,)


def _columns(entity_type: EntityType, names: Sequence[str]) -> list[int]:
    return [entity_type.feature_names.index(name) for name in names]
