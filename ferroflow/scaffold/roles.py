"""Which columns a model may learn from, which are names and not quantities, and which are left out and why."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import polars as pl

from ferroflow.core.leakage import leaks
from ferroflow.scaffold.target import Target

FEW = 25
"""So many whole numbers may be names of something (hours, months, codes)."""

_ID_NAME = re.compile(r"(^|[_\W])(id|ids|uuid|guid|index|key|nr|no|number|record|instant|rownum)$|[a-z]I[dD]$|^unnamed")
_WORDS = 4.0
_LONG = 40.0
_MOST_VALUES = 10_000
_ROWS_A_VALUE = 5
_BEND = 0.02
_TELLING_ROWS = 10
_EXCEPTIONS = 0.2
"""A sum that is the target on the other rows still tells it: real totals have fees that no column holds."""


@dataclass(frozen=True)
class Roles:
    """Columns of a file by what they are good for; ``left_out`` and ``known_with`` say why."""

    inputs: tuple[str, ...]
    categorical: tuple[str, ...]
    left_out: dict[str, str]
    known_with: dict[str, str]


def roles_of(frame: pl.DataFrame, candidates: Iterable[str], target: Target, entity: str | None) -> Roles:
    """Look at each candidate column of a frame, beside a target (``frame`` holds rows where that is known)."""
    left_out: dict[str, str] = {}
    names = list(candidates)
    for name in names:
        if frame[name].n_unique() == 1:
            empty = frame[name].null_count() == frame.height
            left_out[name] = "no value at all" if empty else "the same value in every row"
    names = [name for name in names if name not in left_out]
    known_with = _known_with(frame, names, target)
    judges: tuple[Callable[[pl.Series], str | None], ...] = (_identifies, _tells_a_story)
    for name in names:
        if name not in known_with and name != entity:
            why = next((why for judge in judges if (why := judge(frame[name]))), None)
            if why:
                left_out[name] = why
    names = [name for name in names if name not in known_with and name not in left_out]
    left_out |= {name: why for name, why in _copies(frame, names).items() if name != entity}
    inputs = tuple(name for name in names if name not in left_out)
    answer = target.answer(frame)
    categorical = tuple(name for name in inputs if _is_name(frame[name], answer, name == entity))
    return Roles(inputs, categorical, left_out, known_with)


# ------------------------------------------------------------------------------------------------ known with the target


def _known_with(frame: pl.DataFrame, names: list[str], target: Target) -> dict[str, str]:
    found: dict[str, str] = {}
    numbers = frame.with_columns(target.answer(frame).alias(target.column)) if target.regression else frame
    quantities = [name for name in names if not _ID_NAME.search(name.strip())]
    exact = leaks(numbers, target.column, names, target.positive)
    most = leaks(numbers, target.column, quantities, target.positive, exceptions=_EXCEPTIONS)
    for leak in (*exact, *most):
        for name in leak.columns:
            told = leak.sum() if len(leak.columns) > 1 else "it"
            found.setdefault(name, f"{told} {leak.how.replace('the target', target.column)}")
    answer = target.answer(frame)
    for name in names:
        if name not in found and (why := _tells(frame[name], answer, target)):
            found[name] = why
    return found


def _tells(cells: pl.Series, answer: pl.Series, target: Target) -> str | None:
    """How a column alone says what the target is, on every row."""
    both = pl.DataFrame({"cell": cells, "answer": answer})
    values = both["cell"].n_unique()
    if 1 < values <= cells.len() / _TELLING_ROWS and both.n_unique() == values:
        return f"each of its {values} values goes with one value of {target.column}"
    absent = both.select(pl.col("cell").is_null(), "answer")
    if not target.regression and absent["cell"].n_unique() == 2 and absent.n_unique() == 2:
        return f"whether it is there says what {target.column} is"
    if not cells.dtype.is_numeric():
        return None
    known = both.drop_nulls()
    enough = max(30, cells.len() / 2)
    if known.height < enough or known["answer"].n_unique() < (10 if target.regression else 2):
        return None
    one_answer = known.n_unique() == known["cell"].n_unique()
    ordered = known.sort("cell")["answer"]
    if one_answer and (ordered.is_sorted() or ordered.is_sorted(descending=True)):
        return f"{target.column} follows from it: it only rises or only falls with it"
    return None


# ------------------------------------------------------------------------------------------------------------ of no use


def _identifies(cells: pl.Series) -> str | None:
    present = cells.drop_nulls()
    distinct = present.n_unique()
    named = _ID_NAME.search(cells.name.strip()) is not None
    if cells.dtype == pl.String:
        if distinct > present.len() / 2 and distinct > FEW:
            return None if _story(present) else "nearly every row has its own text: an identifier"
        return f"{distinct:,} different texts: too many to learn from" if distinct > _MOST_VALUES else None
    if not cells.dtype.is_integer():
        return None
    if distinct == present.len() and distinct > FEW:
        counted = present.is_sorted() or present.is_sorted(descending=True)
        spread = int(present.max()) - int(present.min()) + 1  # type: ignore[arg-type]
        if named or counted or spread == distinct:
            return "every row has its own number: an identifier"
    if named and distinct > present.len() / _ROWS_A_VALUE:
        return "numbers that name something, with few rows each: an identifier"
    return None


def _tells_a_story(cells: pl.Series) -> str | None:
    if cells.dtype == pl.String and cells.n_unique() > FEW and _story(cells.drop_nulls()):
        return "free text: make features of it if it tells something"
    return None


def _story(texts: pl.Series) -> bool:
    words = texts.str.split(" ").list.len().mean()
    letters = texts.str.len_chars().mean()
    rich = texts.n_unique() > texts.len() / 5
    return rich and (float(words or 0) >= _WORDS or float(letters or 0) >= _LONG)  # type: ignore[arg-type]


def _copies(frame: pl.DataFrame, names: list[str]) -> dict[str, str]:
    """Columns that say the same as an earlier one, in other words or other units."""
    seen: dict[tuple[object, ...], str] = {}
    found = {}
    for name in names:
        key = _signature(frame[name])
        if key in seen:
            found[name] = f"it says the same as {seen[key]}, row by row"
        else:
            seen[key] = name
    return found


def _signature(cells: pl.Series) -> tuple[object, ...]:
    """Equal for columns that are one-to-one: the places of each value's first row, or for a scale the scaled values."""
    if cells.dtype.is_float() or cells.n_unique() > cells.len() / 2:
        if not cells.dtype.is_numeric():
            return (cells.name,)
        low, high = cells.min(), cells.max()
        scaled = (cells - low).cast(pl.Float64) / float(high - low)  # type: ignore[operator, arg-type]
        codes = scaled.round(9).to_frame("cell").with_row_index("row")
        return ("scale", codes.hash_rows().sum())
    placed = cells.to_frame("cell").with_row_index("row")
    codes = placed.select("row", pl.col("row").first().over("cell").alias("first"))
    return ("codes", cells.n_unique(), *codes["first"].head(1000).to_list(), codes.hash_rows().sum())


# ----------------------------------------------------------------------------------------------------- names or numbers


def _is_name(cells: pl.Series, answer: pl.Series, is_entity: bool) -> bool:
    """Whether a column is a category: texts, and whole numbers that the target does not rise or fall with."""
    if cells.dtype == pl.String:
        return True
    if not cells.dtype.is_integer():
        return False
    distinct = cells.drop_nulls().n_unique()
    if is_entity or _ID_NAME.search(cells.name.strip()):
        return distinct <= _MOST_VALUES
    return 2 < distinct <= FEW and _bends(cells, answer)


def _bends(cells: pl.Series, answer: pl.Series) -> bool:
    """Whether a mean for each value tells clearly more than a straight line (shares of the variance)."""
    both = pl.DataFrame({"x": cells.cast(pl.Float64), "y": answer}).drop_nulls()
    if both.height < FEW * _ROWS_A_VALUE:
        return False
    mean = pl.col("y").mean().over("x")
    shares = both.select(
        steps=mean.var() / pl.col("y").var(), line=pl.corr("x", "y") ** 2, values=pl.col("x").n_unique()
    )
    steps, line, values = shares.row(0)
    chance = values / both.height  # what as many means explain of mere noise
    return steps is not None and line is not None and steps - line - chance > _BEND
