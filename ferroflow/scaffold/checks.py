"""What a cell must be, from what the cells are: bounds and choices with room for what is still to come."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

import polars as pl

from ferroflow.scaffold.roles import FEW
from ferroflow.scaffold.typed import Table

_MOST_CHOICES = 8
_OFTEN = 10
"""A choice is closed where every value came so often: then a new one is more likely a mistake."""
_LARGEST = 1e15


@dataclass(frozen=True)
class Cell:
    """The schema's word on one column: its type, its checks by pandera's names, and what came, in words."""

    name: str
    type: pl.DataType
    checks: dict[str, object] = field(default_factory=dict)
    said: str = ""

    @property
    def title(self) -> str:
        """The name as people write it."""
        words = re.sub(r"(?<=[a-z])(?=[A-Z])|[_\W]+", " ", self.name).strip().lower()
        return words.capitalize() or "Value"


def cells_of(table: Table, checked: set[str]) -> dict[str, Cell]:
    """One for each column, in the file's order; ``checked`` are those whose values are judged, beside their type."""
    rows = table.all_rows() if table.sampled else table.frame.lazy()
    numbers = [name for name, kind in table.types.items() if kind.is_numeric()]
    ends = [pl.col(name).min().alias(f"{place}<") for place, name in enumerate(numbers)]
    ends += [pl.col(name).max().alias(f"{place}>") for place, name in enumerate(numbers)]
    found = rows.select(ends).collect().row(0, named=True) if ends else {}
    bounds = {name: (found[f"{place}<"], found[f"{place}>"]) for place, name in enumerate(numbers)}
    missing = table.missing()
    made = {}
    for name, kind in table.types.items():
        low, high = bounds.get(name, (None, None))
        few = table.frame[name].drop_nulls().n_unique() <= FEW
        checks, said = _judged(table, name, kind, low, high, few)
        wanted = checks if name in checked else {}
        made[name] = Cell(name, kind, {**({"nullable": True} if missing[name] else {}), **wanted}, said)
    return made


def _judged(
    table: Table, name: str, kind: pl.DataType, low: float | None, high: float | None, few: bool
) -> tuple[dict[str, object], str]:
    if low is not None and high is not None:
        return bounds(low, high, whole=kind.is_integer(), few=few), f"{_shown(low)} to {_shown(high)} in the file."
    if kind == pl.Boolean:
        return {}, "0 or 1."
    if kind != pl.String:
        return {}, "A time."
    counts = table.frame[name].drop_nulls().value_counts()
    said = f"{counts.height:,} different texts in the file."
    closed = 2 <= counts.height <= _MOST_CHOICES and counts["count"].min() >= _OFTEN  # type: ignore[operator]
    return ({"isin": sorted(counts[name].to_list())} if closed else {}), said


def bounds(low: float, high: float, *, whole: bool, few: bool) -> dict[str, object]:
    """``ge`` and ``le`` around numbers from ``low`` to ``high``.

    Few whole numbers are taken as they are, shares stay within 0 and 1, and what is never negative stays so. Any other
    end is as far beyond the data as the data are wide, rounded outward to one digit.
    """
    if whole and few and high - low <= 2 * FEW:
        return {"ge": int(low), "le": int(high)}
    if not whole and low >= 0 and 0 < high <= 1:
        return {"ge": 0, "le": 1}
    wide = max(high - low, abs(high), 1e-9)
    found: dict[str, object] = {}
    if low >= 0:
        found["ge"] = 0
    elif low - wide > -_LARGEST:
        found["ge"] = -_outward(wide - low)
    if high + wide < _LARGEST:
        found["le"] = 0 if high <= 0 else _outward(high + wide)
    return found


def _outward(value: float) -> int | float:
    """The next number above with one digit: 163 gives 200, 0.031 gives 0.04."""
    size = 10.0 ** math.floor(math.log10(value))
    rounded = math.ceil(value / size - 1e-9) * size
    return int(rounded) if size >= 1 else float(f"{rounded:.1g}")


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"
