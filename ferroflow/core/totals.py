"""A number that is made of others by adding and taking away: found by least squares, then tried on every row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

MOST_TERMS = 8
FEWEST = 30
"""On fewer rows a sum may be chance."""
_CELLS = 1_000_000
_ROWS = (2_000, 50_000)
_NEAR = 0.3  # a factor so close to -1 or 1 is taken for it, and then tried
_ROUNDS = 15
_TOLERANCE = 1e-9

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Total:
    """Columns that are added (``plus``) and taken away (``minus``); ``share`` of the rows have exactly that."""

    plus: tuple[str, ...]
    minus: tuple[str, ...]
    share: float


def totals(numbers: dict[str, pl.Series], answer: pl.Series, exceptions: float = 0.0) -> list[Total]:
    """Signed sums of two to eight columns that are the answer, but for one constant.

    Args:
        numbers: Float64 columns by name.
        answer: as many numbers, Float64.
        exceptions: the share of rows that may differ; 0: the sum is exact on every row where all is known.

    Returns:
        None, one, or two: columns that depend on each other are taken in their order, then in the reverse one.
    """
    found: list[Total] = []
    names, table, wanted = _complete(numbers, answer)
    for order in _orders(table) if names else []:
        factors = _fitted(table[:, order], wanted, _ROUNDS if exceptions else 1)
        signs = _signs([names[place - 1] for place in order[1:]], factors[1:])
        plus = tuple(name for name in numbers if signs.get(name, 0) > 0)
        minus = tuple(name for name in numbers if signs.get(name, 0) < 0)
        if not 2 <= len(signs) <= MOST_TERMS or any((one.plus, one.minus) == (plus, minus) for one in found):
            continue
        share = _share({name: numbers[name] for name in signs}, signs, answer)
        if share >= 1 - exceptions:
            found.append(Total(plus, minus, share))
    return found


def _orders(table: Numbers) -> list[list[int]]:
    """Columns to fit: all, or where some depend on others the first of them that do not, and then the last."""
    places = list(range(table.shape[1]))
    first = _independent(table, places)
    if len(first) == len(places):
        return [first]
    return [first, _independent(table, [0, *places[:0:-1]])]


def _signs(names: list[str], factors: Numbers) -> dict[str, int]:
    """Column -> -1 or 1, for factors close to these; what others give is left out, and every row then tries that."""
    near = np.abs(np.abs(factors) - 1) <= _NEAR
    return {name: int(np.sign(factor)) for name, factor, one in zip(names, factors, near, strict=True) if one}


def _complete(numbers: dict[str, pl.Series], answer: pl.Series) -> tuple[list[str], Numbers, Numbers]:
    """Some rows where all is known, a column of ones before the others; the emptiest columns are left out for that."""
    least, most = _ROWS
    rows = min(len(answer), most, max(least, 4 * len(numbers), _CELLS // max(1, len(numbers))))
    places = np.linspace(0, len(answer) - 1, rows, dtype=np.int64)
    wanted = answer.to_numpy()[places]
    cells = {name: column.to_numpy()[places] for name, column in numbers.items()}
    known = {name: np.isfinite(column) & np.isfinite(wanted) for name, column in cells.items()}
    fullest = sorted(cells, key=lambda name: -int(known[name].sum()))
    whole, taken = np.isfinite(wanted), 0
    for name in fullest:
        if (whole & known[name]).sum() < 2 * (taken + 1) + FEWEST:
            break
        whole, taken = whole & known[name], taken + 1
    names = [name for name in cells if name in set(fullest[:taken])]
    if len(names) < 2:
        return [], np.empty((0, 0)), np.empty(0)
    columns = [np.ones(int(whole.sum())), *(cells[name][whole] for name in names)]
    return names, np.stack(columns, axis=1), wanted[whole]


def _independent(table: Numbers, order: list[int]) -> list[int]:
    """Those of the columns that no earlier ones add up to; the first, of ones, is always there."""
    sizes = np.linalg.norm(table, axis=0)
    sizes[sizes == 0] = 1.0
    rests = np.abs(np.diag(np.linalg.qr((table / sizes)[:, order], mode="r")))
    return [place for place, rest in zip(order, rests, strict=True) if rest > _TOLERANCE]


def _fitted(table: Numbers, wanted: Numbers, rounds: int) -> Numbers:
    """Factors of least squares; with more rounds of least distances, which rows that differ do not bend."""
    sizes = np.linalg.norm(table, axis=0)
    scaled = table / sizes
    weights = np.ones(len(wanted))
    smallest = 1e-6 * (float(np.median(np.abs(wanted))) or 1.0)
    factors = np.zeros(table.shape[1])
    for _ in range(rounds):
        weighted = scaled * weights[:, None]
        factors = np.linalg.solve(weighted.T @ scaled, weighted.T @ wanted)
        weights = 1 / np.maximum(np.abs(scaled @ factors - wanted), smallest)
        weights /= weights.max()
    return np.asarray(factors / sizes, dtype=np.float64)


def _share(numbers: dict[str, pl.Series], signs: dict[str, int], answer: pl.Series) -> float:
    """How many of the rows where all is known have the sum, apart from the most frequent answer; 0 for too few."""
    terms = np.stack([signs[name] * column.to_numpy() for name, column in numbers.items()])
    wanted = answer.to_numpy()
    known = np.isfinite(terms).all(axis=0) & np.isfinite(wanted)
    terms, wanted = terms[:, known], wanted[known]
    if not len(wanted):
        return 0.0
    misses = wanted - terms.sum(axis=0)
    scale = np.abs(wanted) + np.abs(terms).sum(axis=0)
    right = np.abs(misses - np.median(misses)) <= _TOLERANCE * (scale + np.median(scale))
    values, counts = np.unique(wanted, return_counts=True)
    rare = wanted != values[counts.argmax()]  # where most answers are nothing, so are most sums
    if rare.sum() < FEWEST:
        return 0.0
    return float(min(right.mean(), right[rare].mean()))
