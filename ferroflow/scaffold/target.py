"""What is learnt: a number, or one of two classes."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from ferroflow.core.errors import DataError, UsageError
from ferroflow.scaffold.ask import Ask, Question
from ferroflow.scaffold.typed import Table

FEWEST = 30
"""Rows with a known target: fewer cannot be split into rows that train, tune and judge."""

_YES = ("yes", "y", "true", "t", "1", "1.0", "positive", "pos", "churned", "fraud", "bad", "default", "ja", "si", "oui")


@dataclass(frozen=True)
class Target:
    """The column that is learnt; ``spelt`` maps other spellings of a class to the one that is kept."""

    column: str
    positive: str | None = None  # None: a number
    classes: tuple[str | int | float, ...] = ()
    spelt: tuple[tuple[str, str], ...] = ()

    @property
    def regression(self) -> bool:
        """Whether it is a number."""
        return self.positive is None

    def answer(self, frame: pl.DataFrame) -> pl.Series:
        """The learnt number of each row: the value, or 1.0 where it is the positive class; null where not known."""
        cells = frame[self.column]
        if self.positive is None:
            return cells.cast(pl.Float64)
        return (cells.cast(pl.String).replace(dict(self.spelt)) == self.positive).cast(pl.Float64)


def target_of(table: Table, column: str, positive: str | None, ask: Ask) -> Target:
    """See what kind of target a column is.

    Raises:
        UsageError: it has one value, more than two classes, or is no column that can be learnt.
        DataError: it is known in too few rows.
    """
    _check(table, column)
    cells = table.frame[column].drop_nulls()
    if len(cells) < FEWEST:
        raise DataError(
            f"{column!r} is known in {len(cells)} rows of {table.rows:,}; a pipeline needs at least {FEWEST}, to "
            "train, to tune and to judge."
        )
    classes = cells.unique().sort()
    if len(classes) == 1:
        raise UsageError(f"{column!r} has one value only, {_text(classes[0])!r}: there is nothing to learn.")
    spelt = () if cells.dtype != pl.String or len(classes) == 2 else _spellings(cells)
    if spelt:
        classes = pl.Series(sorted({kept for _, kept in spelt}))
    if len(classes) == 2:
        names = tuple(_text(value) for value in classes)
        chosen = _positive(column, cells.cast(pl.String).replace(dict(spelt)), names, positive, ask)
        other = tuple((said, kept) for said, kept in spelt if said != kept)
        return Target(column, chosen, tuple(classes.to_list()), other)
    if positive is not None:
        raise UsageError(f"--positive is for a target of two classes; {column!r} has {len(classes):,} values.")
    if not cells.dtype.is_numeric():
        raise UsageError(_too_many(column, classes))
    return Target(column)


def _check(table: Table, column: str) -> None:
    if column in table.strange:
        raise UsageError(f"{column!r} cannot be the target: {table.strange[column]}. Rename or convert it.")
    if column not in table.types:
        known = ", ".join([*table.types][:40])
        raise UsageError(f"There is no column {column!r} for --target. These came: {known}.")
    if table.types[column] in (pl.Datetime, pl.Date):
        raise UsageError(f"{column!r} is a time; a target is a number or one of two classes.")


def _too_many(column: str, classes: pl.Series) -> str:
    some = ", ".join(repr(_text(value)[:30]) for value in classes.head(5))
    return (
        f"{column!r} has {len(classes):,} classes ({some}{', …' if len(classes) > 5 else ''}). A target is a number, "
        "or one of two classes: make a column that says whether it is one of them."
    )


def _spellings(cells: pl.Series) -> tuple[tuple[str, str], ...]:
    """Texts that are two classes but for dots, blanks and case at most: each with its most frequent spelling."""
    counts = cells.value_counts(sort=True)
    kept: dict[str, str] = {}
    found = []
    for said in counts[cells.name].head(20):
        found.append((said, kept.setdefault(said.strip(" .").lower(), said)))
    return tuple(found) if len(kept) == 2 and counts.height <= 20 else ()


def _positive(column: str, cells: pl.Series, names: tuple[str, ...], given: str | None, ask: Ask) -> str:
    if given is not None:
        if given not in names:
            raise UsageError(f"--positive {given!r} is no value of {column!r}: it has {names[0]!r} and {names[1]!r}.")
        return given
    obvious = [name for name in names if name.lower().strip(" .") in _YES or name.startswith(">")]
    if len(obvious) == 1:
        return obvious[0]
    rarer = min(reversed(names), key=lambda name: (cells == name).sum())
    return ask(Question(f"Which value of {column!r} is to be predicted?", "--positive", names, rarer))


def _text(value: object) -> str:
    return str(pl.Series([value]).cast(pl.String)[0])
