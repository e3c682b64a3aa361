"""Who is in a recording and how each is drawn: what the replay's viewer knows, for pictures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

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

    def features(self, episode: Episode, frame: int) -> dict[str, float]:
        """Its features by name."""
        values = episode.features[self.entity_type.name][frame, self.slot]
        return dict(zip(self.entity_type.feature_names, values.tolist(), strict=True))

    def place(self, episode: Episode, frame: int) -> tuple[float, float] | None:
        """East and north, in the environment's unit; None if it stands nowhere."""
        position = self.look.position
        if position is None:
            return None
        if isinstance(position, str):
            assert position == ORIGIN  # `Look` takes no other word
            return 0.0, 0.0
        features = self.features(episode, frame)
        return features[position[0]], features[position[1]]

    def health(self, episode: Episode, frame: int) -> float | None:
        """From 0, dead, to 1, unhurt; None if its features tell none."""
        if self.look.health is None:
            return None
        feature = next(each for each in self.entity_type.features if each.name == self.look.health)
        share = (self.features(episode, frame)[feature.name] - feature.low) / (feature.high - feature.low)
        return min(1.0, max(0.0, share))

    def kind(self, episode: Episode, frame: int) -> str:
        """Name of its kind; of its type where kinds are not told apart."""
        if not self.look.kinds:
            return self.entity_type.name
        features = self.features(episode, frame)
        return max(self.look.kinds, key=features.__getitem__)


class Cast:
    """All slots of a recording's schema.

    Args:
        recording: What is drawn.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        types = [(each, recording.scene.look(each.name)) for each in recording.schema.entity_types]
        places = [(slot, each, look) for each, look in types for slot in range(each.max_count)]
        self.roles = tuple(Role(index, slot, each, look) for index, (slot, each, look) in enumerate(places))
        self.actors = tuple(self.roles[slot] for slot in recording.schema.actor_slots)
        kinds = [kind for each, look in types for kind in (look.kinds or (each.name,))]
        self.kinds = tuple(dict.fromkeys(kinds))
        """Names of all kinds; the place of one is the number of its shape."""

    @cached_property
    def has_field(self) -> bool:
        """Whether all who act stand somewhere, so that there is a field to draw."""
        return all(actor.look.position is not None for actor in self.actors)

    def present(self, episode: Episode, frame: int) -> list[Role]:
        """Who is there."""
        return [role for role in self.roles if episode.entity_mask[frame, role.index]]

    def target(self, option: int) -> Role | None:
        """Whom an option is aimed at."""
        schema = self.recording.schema
        for verb, options in zip(schema.targeted_verbs, schema.target_slices, strict=True):
            if options.start <= option < options.stop:
                return self.roles[schema.entity_slices[verb.target].start + option - options.start]
        return None

    def token_names(self) -> list[str]:
        """What attention is paid to: all slots, and the globals if there are any."""
        return [role.name for role in self.roles] + (["globals"] if self.recording.schema.globals else [])

    def tokens_present(self, episode: Episode, frame: int) -> list[int]:
        """Which tokens are there; the globals always are."""
        here = np.flatnonzero(episode.entity_mask[frame]).tolist()
        return here + list(range(len(self.roles), len(self.token_names())))
