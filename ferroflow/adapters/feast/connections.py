"""Connections of back-ends that have one a thread: none outlives its thread, and a fork closes none of its parent's."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable


class _Mark:
    """Kept by one thread alone: when it is gone, the thread has ended."""


class Connections:
    """The connections of a back-end that has one a thread: each is closed when its thread ends."""

    def __init__(self) -> None:
        self._open: set[weakref.finalize[..., _Mark]] = set()
        self._lock = threading.Lock()

    def add(self, close: Callable[[], object]) -> object:
        """Call ``close`` when the answer is gone: keep it in the thread's ``threading.local``, and nowhere else."""
        mark = _Mark()
        ending = weakref.finalize(mark, _closed, os.getpid(), close)
        with self._lock:
            self._open = {known for known in self._open if known.alive} | {ending}
        return mark

    def close(self) -> None:
        """Close those of all threads."""
        with self._lock:
            found, self._open = self._open, set()
        for ending in found:
            ending()

    def __len__(self) -> int:
        with self._lock:
            return sum(known.alive for known in self._open)


_FOREIGN: list[Callable[[], object]] = []


def _closed(process: int, close: Callable[[], object]) -> None:
    if process == os.getpid():
        close()
    else:  # after a fork: whatever is closed here, or let go of, the other process would lose
        _FOREIGN.append(close)
