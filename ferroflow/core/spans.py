"""Two kinds of windows: the last stretch of time on a grid, and the last n events.

Both work on partial aggregates: rows of an entity, a moment (``AT``) and integer parts that merge (``aggregates``).
A single event is such a row, and so is a bucket of the grid, or a window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from ferroflow.core.aggregates import AT

Merges = Mapping[str, str]
"""Part's column -> how it merges: "sum", "min" or "max"."""

_SHIFT = "__shift"
_PLACE = "__place"


@dataclass(frozen=True)
class TimeSpan:
    """[T - last, T) for each T of a grid of whole multiples of ``every`` since 1970 (UTC); both in microseconds.

    ``last`` is a multiple of ``every``, so that a window is made of whole buckets of the grid.
    """

    last: int
    every: int

    def condensed(self, partials: pl.LazyFrame, entity: str, merges: Merges) -> pl.LazyFrame:
        """Buckets: what windows can be made of and nothing more. AT is a bucket's start."""
        start = pl.col(AT) // self.every * self.every
        return partials.group_by(entity, start).agg(merged(merges))

    def windows(self, buckets: pl.LazyFrame, entity: str, merges: Merges, after: int | None = None) -> pl.LazyFrame:
        """Every window (that ends later than ``after``) with an event in it; AT is its end.

        Windows grow by the prime factors of their number of buckets, the greatest first: 168 buckets are merged in
        five stages of 7, 3, 2, 2 and 2, instead of each into 168 windows at once.
        """
        found, width = buckets.with_columns(pl.col(AT) + self.every), self.every
        for factor in _factors(self.last // self.every):
            shifts = pl.LazyFrame({_SHIFT: [width * place for place in range(factor)]}, schema={_SHIFT: pl.Int64})
            shifted = found.join(shifts, how="cross").with_columns(pl.col(AT) + pl.col(_SHIFT))
            found, width = shifted.group_by(entity, AT).agg(merged(merges)), width * factor
        return found if after is None else found.filter(pl.col(AT) > after)

    def needed(self, buckets: pl.LazyFrame, entity: str, horizon: int) -> pl.LazyFrame:
        """The buckets that matter for a window that an event at ``horizon`` or later can change."""
        first = horizon // self.every * self.every + self.every
        return buckets.filter(pl.col(AT) >= first - self.last)


@dataclass(frozen=True)
class EventSpan:
    """An entity's last ``events`` events, one window for each moment with an event; ties go by the order of rows."""

    events: int

    def condensed(self, partials: pl.LazyFrame, entity: str, merges: Merges) -> pl.LazyFrame:
        """The events themselves."""
        return partials

    def windows(self, events: pl.LazyFrame, entity: str, merges: Merges, after: int | None = None) -> pl.LazyFrame:
        """The window at each moment of an event, those up to ``after`` too: they may have changed."""
        place = pl.int_range(pl.len(), dtype=pl.Int64).over(entity)
        return (
            events.sort(entity, AT, maintain_order=True)
            .with_columns(place.alias(_PLACE))
            .rolling(_PLACE, period=f"{self.events}i", group_by=entity)
            .agg(pl.col(AT).last(), *merged(merges))
            .unique([entity, AT], keep="last", maintain_order=True)
            .drop(_PLACE)
        )

    def needed(self, events: pl.LazyFrame, entity: str, horizon: int) -> pl.LazyFrame:
        """Events from ``horizon`` on, and before it as many as a window reaches back."""
        ordered = events.sort(entity, AT, maintain_order=True)
        before = pl.col(AT) < horizon
        newer = (before.sum().cast(pl.Int64) - pl.int_range(1, pl.len() + 1, dtype=pl.Int64)).over(entity)
        return ordered.filter(~before | (newer < self.events - 1))


Span = TimeSpan | EventSpan


def merged(merges: Merges) -> list[pl.Expr]:
    """The parts' columns, merged within a group."""
    return [getattr(pl.col(name), how)() for name, how in merges.items()]


def _factors(number: int) -> list[int]:
    """Its prime factors, the greatest first; [1] for 1."""
    found, divisor = [], 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            found.append(divisor)
            number //= divisor
        divisor += 1
    return [number, *reversed(found)] if number > 1 or not found else found[::-1]
