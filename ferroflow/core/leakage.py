"""Inputs that tell the target: found by looking, before anything is trained on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ferroflow.core.totals import FEWEST as _FEWEST
from ferroflow.core.totals import totals

_SAMPLE = 2_000
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Leak:
    """Columns that tell the target together, and how, in words; those of ``minus`` are taken away."""

    columns: tuple[str, ...]
    how: str
    minus: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.sum(repr)} {self.how}"

    def sum(self, said: Callable[[str], str] = str) -> str:
        """The columns with their signs."""
        terms = [f"{'-' if name in self.minus else '+'} {said(name)}" for name in self.columns]
        return " ".join(terms).removeprefix("+ ")


def find_leaks(frame: pl.DataFrame, target: str, inputs: Sequence[str], positive: str | None = None) -> list[str]:
    """A phrase for each leak that :func:`leaks` finds."""
    return [str(leak) for leak in leaks(frame, target, inputs, positive)]


def leaks(
    frame: pl.DataFrame, target: str, inputs: Sequence[str], positive: str | None = None, *, exceptions: float = 0.0
) -> list[Leak]:
    """Inputs that reproduce the target exactly on every row where both are known.

    Looked for are: a column that equals the target, a number that is a linear function of it (seconds for minutes), and
    up to eight numbers that it is the sum of, some of them taken away (the parts of a total, the cost of a profit).

    Args:
        frame: one row an example.
        target: its column; with ``positive``, the learnt number is 1 where the column has that value, else 0.
        inputs: the columns to look at.
        positive: the positive value of a classification's target.
        exceptions: the share of rows that a sum of several columns may miss.

    Returns:
        One for each column or sum; none when the target has one value only, or below 30 rows.
    """
    known = frame.filter(pl.col(target).is_not_null())
    if known[target].n_unique() < 2 or known.height < _FEWEST:
        return []
    same = [name for name in inputs if name != target and _equals(known, name, target)]
    values = known[target] if positive is None else known[target].cast(pl.String) == positive
    answer = values.cast(pl.Float64)
    numbers = {name: known[name].cast(pl.Float64) for name in inputs if known[name].dtype.is_numeric()}
    linear = [name for name, column in numbers.items() if name not in same and _linear(column, answer)]
    told = {*same, *linear}
    others = {name: column for name, column in numbers.items() if name not in told}
    pairs = _sums(others, answer)
    sums = [one for one in totals(others, answer, exceptions) if one.minus or one.plus not in pairs]
    return [
        *(Leak((name,), "equals the target") for name in same),
        *(Leak((name,), "is a linear function of the target") for name in linear),
        *(Leak(pair, "is the target") for pair in pairs),
        *(Leak((*one.plus, *one.minus), _told(one.share), frozenset(one.minus)) for one in sums),
    ]


def _told(share: float) -> str:
    return "is the target" if share == 1 else f"is the target in {int(share * 100)}% of the rows"


def _equals(frame: pl.DataFrame, name: str, target: str) -> bool:
    if frame[name].dtype != frame[target].dtype or frame[name].dtype.is_float():
        return False  # floats are compared as numbers, with a tolerance
    both = frame.select(name, target).drop_nulls()
    return both.height >= _FEWEST and both[target].n_unique() > 1 and bool((both[name] == both[target]).all())


def _linear(column: pl.Series, answer: pl.Series) -> bool:
    """Whether two rows that differ give a line that all the others lie on."""
    one, two = _known(column, answer)
    if len(one) < _FEWEST:
        return False
    low, high = one.arg_min(), one.arg_max()
    if low is None or high is None or one[low] == one[high] or two[low] == two[high]:
        return False
    slope = (two[high] - two[low]) / (one[high] - one[low])
    return _same((one - one[low]) * slope + two[low], two)


def _sums(numbers: dict[str, pl.Series], answer: pl.Series) -> list[tuple[str, str]]:
    """Pairs whose sum is the target: tried on a few rows first, then on a sample, then on all rows."""
    step = max(1, len(answer) // _SAMPLE)
    few = answer.gather_every(step)
    sample = {name: column.gather_every(step) for name, column in numbers.items()}
    likely = [pair for pair in _near(sample, few) if _adds_up(sample[pair[0]], sample[pair[1]], few)]
    return [pair for pair in likely if _adds_up(numbers[pair[0]], numbers[pair[1]], answer)]


def _near(numbers: dict[str, pl.Series], answer: pl.Series) -> list[tuple[str, str]]:
    """Pairs whose sum differs from the target on none of a few rows; what is not known differs from nothing."""
    names = list(numbers)
    if len(names) < 2:
        return []
    rows = np.linspace(0, len(answer) - 1, min(_FEWEST, len(answer)), dtype=np.int64)
    table = np.stack([numbers[name].to_numpy()[rows] for name in names])
    wanted = answer.to_numpy()[rows]
    finite = answer.filter(answer.is_finite().fill_null(False))
    slack = _TOLERANCE * max(1.0, float(finite.abs().max() or 0.0))  # type: ignore[arg-type]
    found = []
    with np.errstate(invalid="ignore", over="ignore"):
        for place, name in enumerate(names[:-1]):
            misses = np.abs(table[place + 1 :] + table[place] - wanted) > slack
            found += [(name, names[place + 1 + other]) for other in np.flatnonzero(~misses.any(axis=1))]
    return found


def _adds_up(one: pl.Series, other: pl.Series, answer: pl.Series) -> bool:
    total, wanted = _known(one + other, answer)
    return len(total) >= _FEWEST and wanted.n_unique() > 1 and _same(total, wanted)


def _known(column: pl.Series, answer: pl.Series) -> tuple[pl.Series, pl.Series]:
    finite = (column.is_finite() & answer.is_finite()).fill_null(False)
    return column.filter(finite), answer.filter(finite)


def _same(column: pl.Series, answer: pl.Series) -> bool:
    scale = max(1.0, float(answer.abs().max() or 0.0))  # type: ignore[arg-type]
    return bool(((column - answer).abs() <= _TOLERANCE * scale).all())
