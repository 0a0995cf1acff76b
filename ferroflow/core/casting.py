"""Raw cells become cells of the schema's types, and every one that cannot be is known: expressions, nothing computed.

A text loses the blanks around it; NaN is missing; 1.9 is not 1, and an integer beyond 2**53 is no float.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from ferroflow.core.columns import Column
from ferroflow.core.errors import SchemaError

_MOMENTS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M")
_ZONED = ("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z")
_LONGEST_TOLD = 80


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
        """The cell in the schema's type; null where it cannot be had. A NaN is still one.

        Raises:
            SchemaError: a time without a zone where one is wanted, or the other way round.
        """
        cell, dtype = pl.col(self.name), self.column.dtype
        if self.came == pl.String:
            return _from_text(cell, dtype)
        self._refuse_to_guess_zones()
        return cell.cast(dtype, strict=False)

    def lost(self, typed: pl.Expr) -> pl.Expr:
        """True where the raw cell is there and ``typed`` is nothing, or not the same."""
        before, wanted = pl.col(self.name), self.column.dtype
        lost = before.is_not_null() & typed.is_null()
        to_integer = self.came.is_numeric() and wanted.is_integer()
        if to_integer or (self.came.is_integer() and wanted.is_float()):
            lost = before.is_not_null() & ~(before == typed.cast(self.came, strict=False)).fill_null(False)
        if self.came.is_float():
            return lost & before.is_not_nan().fill_null(False)
        return lost

    def reason(self, raw: pl.Expr, *, masked: bool) -> pl.Expr:
        """Why the row of a lost cell is refused, with the cell's own text unless it is ``masked``."""
        shown = raw.cast(pl.String).str.strip_chars() if self.came == pl.String else raw.cast(pl.String)
        text = pl.lit("***") if masked else shown.str.slice(0, _LONGEST_TOLD)
        told = pl.lit(f"{self.column.name}: not a {type(self.column.dtype).__name__}: '")
        return pl.concat_str(told, text, pl.lit("'"))

    def _refuse_to_guess_zones(self) -> None:
        came, wanted = self.came, self.column.dtype
        if not (isinstance(came, pl.Datetime) and isinstance(wanted, pl.Datetime)):
            return
        if bool(came.time_zone) != bool(wanted.time_zone):
            raise SchemaError(
                f"Column {self.name!r} came as {came}, the schema wants {wanted}: a time zone cannot be guessed. Give "
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
