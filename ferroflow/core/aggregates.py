"""What a window tells of its events: exact sums that can be cut and merged in any order.

A sum of floats depends on its order, so a batch, an update and a look-up would differ in the last bits. Here every
value is counted in whole steps (``per_unit=1000``: thousandths, rounded half to even) and only integers are added,
in 128 bits; a float is made once, at the end. A value too great for its integer is refused with an error: Polars'
strict cast. 64 bits for a value, 32 for one that is squared; then no sum of less than 2^32 events can overflow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import polars as pl

from ferroflow.core.errors import SpecError

AT = "__at"
"""Column of an event's moment while windows are computed: microseconds since 1970 (UTC), Int64."""

_SHIFT = 2**64
_HALF = 2**63
_FRACTION = 2**20


@dataclass(frozen=True)
class Part:
    """An integer that an aggregate keeps: its value for a single event, and how two of them become one."""

    row: pl.Expr
    merge: Literal["sum", "min", "max"]
    kind: type[pl.DataType] = pl.Int64


@dataclass(frozen=True)
class Aggregate:
    """Parts by name, and the Float64 value that is made of the merged parts."""

    parts: Mapping[str, Part]
    value: Callable[[Mapping[str, pl.Expr]], pl.Expr]


def count(*, where: pl.Expr | None = None) -> Aggregate:
    """How many events, or how many ``where`` is true for."""
    kept = pl.lit(1) if where is None else where.fill_null(False)
    return Aggregate({"n": Part(kept.cast(pl.Int64), "sum")}, lambda parts: parts["n"].cast(pl.Float64))


def sum(value: pl.Expr, *, where: pl.Expr | None = None, per_unit: int = 1000) -> Aggregate:
    """The values' sum, exact; missing values count nothing, and a window without any sums to 0."""
    steps = _steps(value, where, per_unit)
    return Aggregate({"sum": _total(steps)}, lambda parts: _units(parts["sum"], per_unit))


def mean(value: pl.Expr, *, where: pl.Expr | None = None, per_unit: int = 1000) -> Aggregate:
    """The values' mean, rounded down to a whole step; null without any value."""
    steps = _steps(value, where, per_unit)
    # Whole numbers are divided, for Polars divides floats by a single number by way of its reciprocal.
    # Division by zero is null here.
    return Aggregate(
        {"sum": _total(steps), "n": _present(steps)}, lambda parts: _units(parts["sum"] // parts["n"], per_unit)
    )


def min(value: pl.Expr, *, where: pl.Expr | None = None, per_unit: int = 1000) -> Aggregate:
    """The smallest value, in whole steps; null without any."""
    part = Part(_steps(value, where, per_unit), "min")
    return Aggregate({"min": part}, lambda parts: _units(parts["min"], per_unit))


def max(value: pl.Expr, *, where: pl.Expr | None = None, per_unit: int = 1000) -> Aggregate:
    """The greatest value, in whole steps; null without any."""
    part = Part(_steps(value, where, per_unit), "max")
    return Aggregate({"max": part}, lambda parts: _units(parts["max"], per_unit))


def std(value: pl.Expr, *, where: pl.Expr | None = None, per_unit: int = 1000) -> Aggregate:
    """The sample standard deviation (n - 1); null with fewer than two values.

    The variance is exact but for a last division, rounded down to a millionth of a squared step. A value may have
    2^31 steps: two millions in thousandths.
    """
    steps = _steps(value, where, per_unit).cast(pl.Int32).cast(pl.Int128)

    def deviation(parts: Mapping[str, pl.Expr]) -> pl.Expr:
        n, total, squares = parts["n"].cast(pl.Int128), parts["sum"], parts["squares"]
        numerator, denominator = n * squares - total * total, n * (n - 1)  # below 2^127 for n < 2^32
        whole, rest = numerator // denominator, numerator % denominator
        variance = whole.cast(pl.Float64) + (rest * _FRACTION // denominator).cast(pl.Float64) * (1 / _FRACTION)
        return variance.sqrt() * (1 / per_unit)

    return Aggregate({"sum": _total(steps), "squares": _total(steps * steps), "n": _present(steps)}, deviation)


def last(value: pl.Expr, *, where: pl.Expr | None = None, per_unit: int = 1000) -> Aggregate:
    """The value of the latest event that has one, in whole steps; at the same moment the greater one; null without."""
    # Moment and value as one number: the greatest is the latest. It needs no order, and merges as a maximum.
    stamped = pl.col(AT).cast(pl.Int128) * _int128(_SHIFT) + _steps(value, where, per_unit) + _int128(_HALF)

    def value_of(parts: Mapping[str, pl.Expr]) -> pl.Expr:
        return _units(parts["last"] % _int128(_SHIFT) - _int128(_HALF), per_unit)

    return Aggregate({"last": Part(stamped, "max", pl.Int128)}, value_of)


def _steps(value: pl.Expr, where: pl.Expr | None, per_unit: int) -> pl.Expr:
    if isinstance(per_unit, bool) or not isinstance(per_unit, int) or per_unit < 1:
        raise SpecError(f"per_unit is {per_unit!r}; it is how many whole steps make one unit: 1, 1000, 60_000.")
    kept = value if where is None else pl.when(where).then(value)
    return (kept.cast(pl.Float64).fill_nan(None) * per_unit).round().cast(pl.Int64)


def _total(steps: pl.Expr) -> Part:
    return Part(steps.fill_null(0).cast(pl.Int128), "sum", pl.Int128)


def _present(steps: pl.Expr) -> Part:
    return Part(steps.is_not_null().cast(pl.Int64), "sum")


def _units(steps: pl.Expr, per_unit: int) -> pl.Expr:
    return steps.cast(pl.Float64) * (1 / per_unit)


def _int128(number: int) -> pl.Expr:
    return pl.lit(number, dtype=pl.Int128)
