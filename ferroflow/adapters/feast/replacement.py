"""What the rows that are written take the place of. Without Feast: whoever plans a run need not load it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

FOREVER = 2**63 - 1
"""Later than any event, in microseconds since 1970."""


@dataclass(frozen=True)
class Replacement:
    """What rows take the place of."""

    before: tuple[str, ...]
    """The features that the view had before."""
    until: int = FOREVER
    """Rows of later events stay; microseconds since 1970."""


_REPLACEMENT: ContextVar[Replacement | None] = ContextVar("replacement", default=None)


@contextmanager
def replacing(what: Replacement | None) -> Iterator[None]:
    """Rows written in this block replace those that the online store has of their view, newer ones too.

    For a view whose definition changed: a row of the old one means something else, however new it is. Feast's
    materialization has no argument to say so. None: nothing is replaced.
    """
    token = _REPLACEMENT.set(what)
    try:
        yield
    finally:
        _REPLACEMENT.reset(token)


def replacement() -> Replacement | None:
    """What is replaced just now."""
    return _REPLACEMENT.get()
