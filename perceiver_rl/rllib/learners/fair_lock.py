"""A lock for a thread that works without a pause and others that now and then want to see its work."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import AbstractContextManager


class FairLock(AbstractContextManager[None]):
    """Like `threading.RLock`, but threads get it in the order in which they asked for it.

    Of Python's own locks, a thread that gives one up at the end of a piece of work and takes it at once for the next would
    leave nothing to others. The thread that has it may take it again.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._owner: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._changed:
            if self._owner != me:
                place = object()
                self._waiting.append(place)
                try:
                    self._changed.wait_for(lambda: self._owner is None and self._waiting[0] is place)
                finally:  # also where waiting was interrupted
                    self._waiting.remove(place)
                    self._changed.notify_all()
                self._owner = me
            self._depth += 1

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._depth -= 1
            if not self._depth:
                self._owner = None
                self._changed.notify_all()
