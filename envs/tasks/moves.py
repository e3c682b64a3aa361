"""Directions on a plane whose x grows to the east and y to the north."""

from __future__ import annotations

import numpy as np

STREETS_VERBS = ("north", "east", "south", "west")
STREETS = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])
"""Step of each of `STREETS_VERBS`."""
NO_STEP_LAST = np.vstack([STREETS, (0, 0)])
"""The same, and no step at index -1, `NO_OPTION`."""

COMPASS_VERBS = ("north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest")
COMPASS = np.array([(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)])
"""Step of each of `COMPASS_VERBS`."""
