"""A read-through cache in front of online rows on a server: by time, by use, and by the watermark they belong to."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ferroflow.adapters.feast.plan import Entry, Key, Rows
from ferroflow.adapters.feast.rows import Watermark
from ferroflow.core.errors import SpecError


class CacheStatistics(NamedTuple):
    """What a cache did since it was made."""

    hits: int
    """Keys answered from memory."""
    misses: int
    """Keys asked of the store; those that had expired are among them."""
    expired: int
    """Entries that had become too old when they were asked for."""
    evicted: int
    """Entries given up for newer ones, because the cache was full."""
    dropped: int
    """Entries given up because their view's watermark moved."""
    entries: int
    """Entries it has now, absent entities included."""


@dataclass
class _State:
    """A view's watermark, when it was asked for, and how often it has moved."""

    watermark: Watermark | None
    checked: float
    generation: int = 0


class CachedRows:
    """Rows that were read before, for ``ttl_seconds``; that an entity is absent is remembered as well.

    An entry belongs to the watermark it was read at. The store's watermark is asked for again after ``check_seconds``;
    when it moved, the view's entries are dropped. So ``watermark`` never tells more than what ``read`` gave: values are
    of that watermark, or (read since, and not noticed yet) newer. Ask for the watermark before the rows.

    Entries are shared with the callers: they must not change the lists of values.

    Raises:
        SpecError: a bound is not above zero.
    """

    def __init__(
        self,
        rows: Rows,
        ttl_seconds: float,
        capacity: int,
        check_seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if ttl_seconds <= 0 or capacity <= 0 or check_seconds < 0:
            raise SpecError(
                f"A cache of {capacity} entries for {ttl_seconds} s, checked after {check_seconds} s, has no meaning. "
                f"Give numbers above zero."
            )
        self.rows = rows
        self.ttl_seconds = ttl_seconds
        self.capacity = capacity
        self.check_seconds = check_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._shelves: dict[tuple[str, tuple[str, ...]], int] = {}
        self._entries: OrderedDict[tuple[int, Key], tuple[float, Entry | None]] = OrderedDict()
        self._states: dict[str, _State] = {}
        self._hits = self._misses = self._expired = self._evicted = self._dropped = 0

    def read(self, view: str, keys: Sequence[Key], features: Sequence[str]) -> Mapping[Key, Entry]:
        """As the store's own ``read``; only keys that are not here are asked for.

        Raises:
            OnlineStoreAway: the store is asked and does not answer; nothing is remembered of that.
        """
        self._check(view)
        named = (view, tuple(features))
        found: dict[Key, Entry] = {}
        with self._lock:
            shelf = self._shelves.setdefault(named, len(self._shelves))
            generation = self._states[view].generation
            missed = self._known(shelf, keys, found)
        if missed:
            fresh = self.rows.read(view, missed, named[1])
            found.update(fresh)
            with self._lock:
                # What was read before the watermark moved would stay under the new one, wrongly.
                if self._states[view].generation == generation:
                    self._keep(shelf, missed, fresh)
        return found

    def watermark(self, view: str) -> Watermark | None:
        """How far the view was complete when it was last looked at, at most ``check_seconds`` ago."""
        return self._check(view)

    def statistics(self) -> CacheStatistics:
        """Counts since the cache was made, and how full it is."""
        with self._lock:
            return CacheStatistics(
                self._hits, self._misses, self._expired, self._evicted, self._dropped, len(self._entries)
            )

    def clear(self) -> None:
        """Forget all entries, and ask for the watermarks anew."""
        with self._lock:
            self._entries.clear()
            for state in self._states.values():
                state.checked = float("-inf")
                state.generation += 1

    def close(self) -> None:
        """Forget all entries and give the store's connections back."""
        self.clear()
        self.rows.close()

    def _check(self, view: str) -> Watermark | None:
        state = self._states.get(view)
        now = self._clock()
        if state is not None and now - state.checked < self.check_seconds:
            return state.watermark
        found = self.rows.watermark(view)
        with self._lock:
            known = self._states.get(view)
            if known is None:
                self._states[view] = _State(found, now)
            elif now >= known.checked:  # another thread may have looked later, and answered first
                if found != known.watermark:
                    self._drop(view)
                    known.watermark = found
                    known.generation += 1
                known.checked = now
            return self._states[view].watermark

    def _known(self, shelf: int, keys: Sequence[Key], found: dict[Key, Entry]) -> list[Key]:
        """Put what is here into ``found``; give the keys that are not."""
        now, entries, missed = self._clock(), self._entries, []
        for key in dict.fromkeys(keys):
            place = (shelf, key)
            kept = entries.get(place)
            if kept is None:
                missed.append(key)
            elif kept[0] <= now:
                del entries[place]
                self._expired += 1
                missed.append(key)
            else:
                entries.move_to_end(place)
                self._hits += 1
                if kept[1] is not None:
                    found[key] = kept[1]
        self._misses += len(missed)
        return missed

    def _keep(self, shelf: int, keys: Sequence[Key], fresh: Mapping[Key, Entry]) -> None:
        until, entries = self._clock() + self.ttl_seconds, self._entries
        for key in keys:
            entries[shelf, key] = (until, fresh.get(key))
            entries.move_to_end((shelf, key))
        while len(entries) > self.capacity:
            entries.popitem(last=False)
            self._evicted += 1

    def _drop(self, view: str) -> None:
        shelves = {shelf for (name, _), shelf in self._shelves.items() if name == view}
        gone = [place for place in self._entries if place[0] in shelves]
        for place in gone:
            del self._entries[place]
        self._dropped += len(gone)
