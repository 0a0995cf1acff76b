"""The highest value of an incremental column: kept as text in a batch's record, compared as what it is."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from math import floor

from ferroflow.core.durations import duration
from ferroflow.core.errors import SchemaError, SpecError

Mark = int | float | Decimal | date | datetime | str
"""A value of an incremental column."""


def written(mark: Mark) -> str:
    """A mark as a record keeps it; ``read`` gives it back exactly."""
    if isinstance(mark, date | datetime):
        return mark.isoformat()
    return mark if isinstance(mark, str) else str(mark)


def read(text: str, like: Mark) -> Mark:
    """The mark that was written as ``text``, of the kind that the column has now.

    Raises:
        SchemaError: the column was of another kind then.
    """
    try:
        if isinstance(like, str):
            return text
        if isinstance(like, datetime):
            moment = datetime.fromisoformat(text)
            if (moment.tzinfo is None) == (like.tzinfo is None):
                return moment
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
        if isinstance(like, date):
            return datetime.fromisoformat(text).date()
        number = Decimal(text)
    except (ValueError, InvalidOperation) as error:
        raise SchemaError(
            f"The incremental column was read up to {text!r}, and is of another kind now ({type(like).__name__}, "
            f"{like!r}). Name another column in since=, or read the table under a new name."
        ) from error
    if isinstance(like, float):
        return float(number)
    return int(number) if number == int(number) else number


def below(mark: Mark, lookback: str | None) -> Mark:
    """The mark less the look-back: how far below the watermark rows are looked for that came late.

    Raises:
        SpecError: the look-back does not fit the column: a number for numbers, a duration for times.
    """
    if lookback is None:
        return mark
    if isinstance(mark, str):
        # The day's beginning sorts before all of its times, however they are written.
        return (_moment(mark) - duration(lookback)).date().isoformat()
    if isinstance(mark, datetime):
        return mark - duration(lookback)
    if isinstance(mark, date):
        return (datetime.combine(mark, time()) - duration(lookback)).date()
    try:
        less = Decimal(lookback)
    except InvalidOperation as error:
        raise SpecError(
            f"Table(lookback={lookback!r}) goes with a column of times; this one holds numbers ({mark}). "
            f"Write a number: lookback='1000'."
        ) from error
    if isinstance(mark, int):
        return floor(mark - less)
    return float(Decimal(mark) - less) if isinstance(mark, float) else mark - less


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise SpecError(
            f"Table(lookback=...) goes with a text column of ISO times (2024-05-01T10:00:00); this one holds {text!r}. "
            f"Leave lookback out."
        ) from error
