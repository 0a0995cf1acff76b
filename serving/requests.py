"""Requests, read strictly by the contract: a number is a number, a text is a text, and nothing is left out or added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

import orjson
import polars as pl

from ferroflow.adapters.vectors import FIELD_TYPES
from ferroflow.core.cells import BadValue, cell, label
from ferroflow.core.contract import Field, ServingContract
from serving.errors import Refused

_SHOWN = 80  # characters of a refused value that are sent back


def parse(body: bytes) -> Any:
    """Read JSON as the standard has it: no NaN, no Infinity, UTF-8.

    Raises:
        Refused: 400, it is no JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(
            400, f"The body is no JSON: {error}. Standard JSON is expected; NaN and Infinity are no part of it."
        ) from None


def rows_of(body: bytes, limit: int) -> list[Any]:
    """The rows of ``{"rows": [...]}``, at least one and at most ``limit``.

    Raises:
        Refused: 400 no JSON, 413 too many rows, 422 another form.
    """
    rows = _only(parse(body), "rows", "objects")
    if not rows:
        raise Refused(422, "'rows' is empty; at least one row is expected.", field="rows")
    if len(rows) > limit:
        raise Refused(413, f"{len(rows)} rows; at most {limit} are taken at once. Send them in several requests.")
    return rows


def typed(contract: ServingContract, rows: Sequence[Any]) -> pl.DataFrame:
    """Request rows as a frame: one column a field, in ``FIELD_TYPES``.

    Raises:
        Refused: 422, with the row, the field and the value of the first cell that is wrong.
    """
    names = {field.name for field in contract.fields}
    optional = {field.name for field in contract.fields if field.optional}
    for number, row in enumerate(rows):
        _shape(row, number, names, optional)
    columns = [_column(field, rows, contract.null_values) for field in contract.fields]
    return pl.DataFrame(columns)


def labels_of(contract: ServingContract, body: bytes, limit: int) -> list[tuple[str, float]]:
    """The labels of ``{"labels": [{"prediction_id", "value"}]}``: target units, or 1.0 and 0.0 for a class.

    Raises:
        Refused: as ``rows_of`` and ``typed``.
    """
    labels = _only(parse(body), "labels", "objects with 'prediction_id' and 'value'")
    if len(labels) > limit:
        raise Refused(413, f"{len(labels)} labels; at most {limit} are taken at once. Send them in several requests.")
    found = []
    for number, entry in enumerate(labels):
        _shape(entry, number, {"prediction_id", "value"})
        name = entry["prediction_id"]
        if not isinstance(name, str):
            raise _refusal(number, "prediction_id", name, "a text is expected, as 'prediction_ids' gave it")
        try:
            found.append((name, label(contract, entry["value"])))
        except BadValue as error:
            raise _refusal(number, "value", entry["value"], str(error)) from None
    return found


def _only(document: Any, name: str, of: str) -> list[Any]:
    """The one list of a body that has nothing else."""
    if not isinstance(document, dict) or not isinstance(document.get(name), list):
        raise Refused(422, f'The body must be {{"{name}": [...]}}, a list of {of}.', field=name)
    if extra := sorted(set(document) - {name}):
        raise Refused(422, f"{_shown(extra[0])!r} is no field of the body; only {name!r} is.", field=_shown(extra[0]))
    return list(document[name])


def _shape(row: Any, number: int, names: set[str], optional: Set[str] = frozenset()) -> None:
    """An object with exactly these names, of which it may lack some."""
    if not isinstance(row, dict):
        raise Refused(422, f"row {number} is no object; one with {', '.join(sorted(names))} is expected", row=number)
    if row.keys() == names:
        return
    if missing := sorted(names - optional - row.keys()):
        raise Refused(422, f"missing; every row has {', '.join(sorted(names))}", row=number, field=missing[0])
    unknown = sorted(row.keys() - names)
    if not unknown:
        return
    extra = _shown(unknown[0])
    raise Refused(422, f"unknown field; expected are {', '.join(sorted(names))}", row=number, field=extra)


def _column(field: Field, rows: Sequence[Mapping[str, Any]], null_values: Sequence[str]) -> pl.Series:
    values = []
    for number, row in enumerate(rows):
        try:
            values.append(cell(field, row.get(field.name), null_values))
        except BadValue as error:
            raise _refusal(number, field.name, row.get(field.name), str(error)) from None
    return pl.Series(field.name, values, dtype=FIELD_TYPES[field.type])


def _refusal(row: int, field: str, value: Any, message: str) -> Refused:
    return Refused(422, f"row {row}, {field}: {message}", row=row, field=field, value=_shown(value))


def _shown(value: Any) -> Any:
    """A refused value, short enough to be sent back; structures are named, not repeated."""
    if isinstance(value, str):
        return value if len(value) <= _SHOWN else value[:_SHOWN] + "…"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return value
