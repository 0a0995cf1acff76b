"""Raw cells become cells of the schema's types, and every one that cannot be is known: expressions, nothing computed.

A text loses the blanks around it; a float that is NaN is missing. A cell is lost unless cast back it is what came: 1.9
is not 1, an integer beyond 2**53 is no float, 13:05 is no date. Only the rounding of a fraction to a float is no loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ferroflow.core.columns import Column
from ferroflow.core.errors import SchemaError

_MOMENTS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M")
_ZONED = ("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z")
_LONGEST_TOLD = 80
_WHOLE: dict[Any, float] = {
    pl.Float16: 2.0**11,
    pl.Float32: 2.0**24,
    pl.Float64: 2.0**53,
}  # up to there a float holds every whole number
_DIGITS = {"ms": 3, "us": 6, "ns": 9}  # of a second


@dataclass(frozen=True)
class Cast:
    """How one raw column (``name``, of the type ``came`` after ``stripped``) gets the schema's type."""

    name: str
    came: pl.DataType
    column: Column

    @property
    def needed(self) -> bool:
        """Whether the raw type is another one: only then can a cell be lost."""
        return self.came != self.column.dtype

    def typed(self) -> pl.Expr:
        """The cell in the schema's type; null where it cannot be had. A NaN that becomes a float is still one.

        Raises:
            SchemaError: what the cells are in that type would be a guess: a time without a zone where one is wanted (or
                the other way round), a number as a time, a list as a text.
        """
        cell, dtype = pl.col(self.name), self.column.dtype
        if self.came == pl.String:
            return _from_text(cell, dtype)
        self._refuse_to_guess()
        if self.came == pl.Binary and dtype == pl.String:
            return cell.map_batches(_decoded, return_dtype=pl.String, is_elementwise=True)
        if self.came.is_float() and not dtype.is_float():
            cell = cell.fill_nan(None)  # it would be a true Boolean
        return cell.cast(dtype, strict=False)

    def lost(self, typed: pl.Expr) -> pl.Expr:
        """True where the raw cell is there and ``typed`` is nothing, or not the same."""
        before, wanted = pl.col(self.name), self.column.dtype
        there = before.is_not_null()
        if self.came == pl.String:
            return there & (typed.is_null() | _text_changed(before, typed, wanted))
        if self.came.is_float():
            there = there & before.is_not_nan()
        if self.came.is_float() and wanted.is_float():
            return there & _rounded_away(before, typed)
        if not _may_change(self.came, wanted):
            return there & typed.is_null()
        now = typed.cast(pl.Int8) if wanted == pl.Boolean else typed  # a Boolean becomes no Decimal at once
        return there & before.ne_missing(now.cast(self.came, strict=False))

    def reason(self, raw: pl.Expr, *, masked: bool) -> pl.Expr:
        """Why the row of a lost cell is refused, with the cell's own text unless it is ``masked``."""
        text = pl.lit("***") if masked else self._shown(raw).str.slice(0, _LONGEST_TOLD)
        told = pl.lit(f"{self.column.name}: not a {type(self.column.dtype).__name__}: '")
        return pl.concat_str(told, text, pl.lit("'"))

    def _shown(self, raw: pl.Expr) -> pl.Expr:
        if self.came == pl.String:
            return stripped(raw)
        if self.came == pl.Binary:
            return raw.bin.encode("hex")
        return pl.struct(raw).struct.json_encode() if self.came.is_nested() else raw.cast(pl.String)

    def _refuse_to_guess(self) -> None:
        came, wanted = self.came, self.column.dtype
        why = ""
        if isinstance(came, pl.Datetime) and isinstance(wanted, pl.Datetime):
            why = "a time zone cannot be guessed" if bool(came.time_zone) != bool(wanted.time_zone) else ""
        elif wanted.is_temporal() and (came.is_numeric() or came == pl.Boolean):
            why = "what a number counts, and from when, cannot be guessed"
        elif wanted == pl.Time and came.is_temporal():
            why = "the day would be lost"
        elif came.is_nested() and not wanted.is_nested():
            why = "several values are no single one"
        if why:
            raise SchemaError(
                f"Column {self.name!r} came as {came}, the schema wants {wanted}: {why}. Give "
                f"the raw column the type it has, and convert it in derive under another name."
            )


def is_text(dtype: pl.DataType) -> bool:
    """Whether cells of that type are texts, whose blanks and null values mean nothing."""
    return dtype in (pl.String, pl.Categorical) or dtype == pl.Enum


def stripped(cell: pl.Expr) -> pl.Expr:
    """A text without the blanks around it."""
    return cell.cast(pl.String).str.strip_chars()


def present(text: pl.Expr, null_values: Sequence[str]) -> pl.Expr:
    """A stripped text; null where it is one of ``null_values``."""
    return pl.when(text.is_in(list(null_values))).then(None).otherwise(text)


def _from_text(cell: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Datetime):
        return _moment(cell, dtype)
    if dtype == pl.Date:
        return cell.str.to_date("%Y-%m-%d", strict=False)
    if dtype == pl.Time:
        return cell.str.to_time("%H:%M:%S%.f", strict=False)
    if dtype == pl.Boolean:
        known = {"true": True, "1": True, "false": False, "0": False}
        return cell.str.to_lowercase().replace_strict(known, default=None, return_dtype=pl.Boolean)
    return cell.cast(dtype, strict=False)


def _moment(text: pl.Expr, dtype: pl.Datetime) -> pl.Expr:
    """ISO 8601 with or without seconds; a lone date is its midnight; with an offset where the type has a zone."""
    unit = dtype.time_unit
    if dtype.time_zone is None:
        naive = [text.str.to_datetime(form, time_unit=unit, strict=False) for form in _MOMENTS]
        return pl.coalesce(*naive, text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime(unit)))
    utc = text.str.replace("[Zz]$", "+00:00")
    zoned = [utc.str.to_datetime(form, time_unit=unit, time_zone="UTC", strict=False) for form in _ZONED]
    return pl.coalesce(zoned).dt.convert_time_zone(dtype.time_zone)


# ------------------------------------------------------------------------------------------------- the same, or changed


def _may_change(came: pl.DataType, wanted: pl.DataType) -> bool:
    """Whether a cell that is cast (and not null) may be another one: only then is it worth the way back."""
    if came in (pl.Null, pl.Binary, pl.Boolean) or wanted == pl.String:
        return False
    return not came.is_integer() or wanted.is_float() or wanted == pl.Boolean


def _rounded_away(before: pl.Expr, typed: pl.Expr) -> pl.Expr:
    """True where another float is infinite, or not the whole number that it was: that may be a count or a name."""
    whole = (before == before.round()) & (before.abs() <= _WHOLE[pl.Float64])
    return (typed.is_infinite() & before.is_finite()) | (whole & (before != typed))


def _text_changed(text: pl.Expr, typed: pl.Expr, wanted: pl.DataType) -> pl.Expr:
    """True where a text says more than ``typed`` holds. Rounding of a fraction to the nearest float is no change."""
    if isinstance(wanted, pl.Datetime):
        return _digits_beyond(text, _DIGITS[wanted.time_unit])
    if wanted == pl.Time:
        return _digits_beyond(text, _DIGITS["ns"])
    if isinstance(wanted, pl.Decimal):
        return _digits_beyond(text, wanted.scale) | _power_rounded(text, typed, wanted)
    return _float_changed(text, typed, _WHOLE[type(wanted)]) if wanted.is_float() else pl.lit(False)


def _power_rounded(text: pl.Expr, typed: pl.Expr, wanted: pl.Decimal) -> pl.Expr:
    """True for a number with an exponent that the Decimal rounds, or that the widest one could not tell exactly."""
    scale = 38 - (wanted.precision - wanted.scale)  # room for the same digits before the point, and all others behind
    power = min(9, scale)
    exact = rf"^[+-]?[0-9]*[.]?[0-9]{{0,{scale - power}}}[eE]([+]?[0-9]+|-0*[0-{power}])$"
    same = text.str.contains(exact) & typed.eq_missing(text.cast(pl.Decimal(38, scale), strict=False))
    return text.str.contains("[eE]") & ~same


def _float_changed(text: pl.Expr, typed: pl.Expr, whole: float) -> pl.Expr:
    """True for a NaN, for a number that became infinite, and for an integer that the float does not hold."""
    # Polars holds NaN for the largest. Only these few texts are read again: the others are nulls from here on.
    doubtful = pl.when(typed.abs() >= whole).then(text)
    integer = doubtful.str.extract("^([+-]?[0-9]+)(?:[.]0*)?$")
    endless = typed.is_infinite() & ~doubtful.str.contains("(?i)inf")
    return typed.is_nan() | endless | (integer.is_not_null() & _another(integer, typed))


def _another(integer: pl.Expr, typed: pl.Expr) -> pl.Expr:
    return integer.cast(pl.Int128, strict=False).eq(typed.cast(pl.Int128, strict=False)).not_().fill_null(True)


def _digits_beyond(text: pl.Expr, digits: int) -> pl.Expr:
    return text.str.contains(rf"\.\d{{{digits}}}\d*[1-9]")


def _decoded(cells: pl.Series) -> pl.Series:
    """Bytes as the UTF-8 that they are; null where they are none."""
    try:
        return cells.cast(pl.String)
    except pl.exceptions.ComputeError:
        texts = [None if cell is None else cell.decode(errors="replace") for cell in cells]
        told = pl.Series(cells.name, texts, dtype=pl.String)
        return told.set(told.cast(pl.Binary) != cells, None)
