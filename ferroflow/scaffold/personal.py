"""Columns that are about a person by the shape of their cells: e-mail addresses, phone numbers, bank accounts."""

from __future__ import annotations

import re

import polars as pl

_MOST = 0.8
"""So many of a column's cells have the shape."""
_EMAIL = r"^[^@\s]+@[^@\s]+\.[A-Za-z]{2,}$"
_IBAN = r"^[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?$"
_DATE = r"^\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|^(?:\d{1,3}\.){3}\d{1,3}$"  # and network addresses
_PHONE = (
    r"^\+\d[\d\s().\-/]{6,}$"  # +49 30 1234567
    r"|^\(?0\d{1,5}\)?[\s/\-]\s?\d[\d\s\-/]{4,}$"  # 030 1234567
    r"|^(?:1[\s.\-])?\(?\d{3}\)?[\s.\-]\s?\d{3}[\s.\-]\d{4}$"  # (555) 123-4567
)
_DIGITS = r"^\+?\(?\d[\d\s().\-/]{6,}$"
_PHONE_NAME = re.compile(r"phone|mobile|cell_?(no|nr|num)|(^|[_\W])(tel|fax|msisdn)([_\W]|$)|telefon|handy", re.I)


def personal_of(cells: pl.DataFrame) -> dict[str, str]:
    """Column -> what its cells are, for the columns that are about a person."""
    return {name: what for name in cells.columns if (what := _what(cells[name].drop_nulls()))}


def _what(cells: pl.Series) -> str | None:
    named = _PHONE_NAME.search(cells.name) is not None
    if cells.dtype.is_integer() and named:
        cells = cells.cast(pl.String)
    if cells.dtype != pl.String:
        return None
    texts = cells.str.strip_chars().filter(cells != "")
    if texts.is_empty():
        return None
    if _most(texts.str.contains(_EMAIL)):
        return "e-mail addresses"
    if _most(texts.str.contains(_IBAN)):
        return "bank accounts"
    phones = texts.str.contains(_DIGITS if named else _PHONE) & ~texts.str.contains(_DATE)
    digits = texts.str.count_matches(r"\d")
    return "phone numbers" if _most(phones & (digits >= 7) & (digits <= 15)) else None


def _most(shaped: pl.Series) -> bool:
    return float(shaped.mean() or 0.0) >= _MOST  # type: ignore[arg-type]
