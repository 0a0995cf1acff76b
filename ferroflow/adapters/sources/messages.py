"""Messages as raw rows: every cell is text, as it was sent; what cannot be a row is kept as a line with its problem."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import polars as pl

from ferroflow.core.sources import reserved
from ferroflow.core.validation import LINE, PROBLEM

MESSAGE_ID = "stream_message_id"
"""The raw column that holds the message's id."""

Fields = Sequence[tuple[bytes, bytes]]


class _NoRow(Exception):
    """Why a message makes no row."""


class _Number(str):
    """A number of a JSON text, spelt as it is there."""


def rows_of(messages: Sequence[tuple[str, Fields]], payload: str | None) -> pl.DataFrame:
    """The raw rows of messages (id and fields), in their order.

    A column for each field, with ``payload`` for each key of the JSON object in that field; ``stream_message_id``;
    and ``_problem`` with ``_line`` where a message is no such thing: two fields of one name, a name that is reserved,
    no JSON object, no UTF-8.
    """
    rows: list[dict[str, str | None]] = []
    names: dict[str, None] = {}
    for message_id, fields in messages:
        try:
            row = _row(fields, payload)
            names |= dict.fromkeys(row)
            rows.append({**row, MESSAGE_ID: message_id})
        except _NoRow as problem:
            rows.append({MESSAGE_ID: message_id, PROBLEM: str(problem), LINE: _line(fields, payload)})
    columns = [*names, MESSAGE_ID, PROBLEM, LINE]
    return pl.DataFrame([pl.Series(name, [row.get(name) for row in rows], pl.String) for name in columns])


def _row(fields: Fields, payload: str | None) -> dict[str, str | None]:
    found: list[tuple[str, str | None]] = []
    for raw_name, raw_value in fields:
        try:
            name, value = raw_name.decode(), raw_value.decode()
        except UnicodeDecodeError as error:
            raise _NoRow("bytes that are no UTF-8") from error
        found += _cells(value) if name == payload else [(name, value)]
    names = [name for name, _ in found]
    if payload is not None and (times := sum(name == payload.encode() for name, _ in fields)) != 1:
        raise _NoRow(f"{times or 'no'} fields {payload!r} instead of one")
    if twice := {name for name in names if names.count(name) > 1}:
        raise _NoRow(f"two values of {', '.join(sorted(twice))}")
    if ours := [*reserved(names), *({MESSAGE_ID} & set(names))]:
        raise _NoRow(f"{', '.join(ours)} is a reserved name")
    if "" in names:
        raise _NoRow("a field without a name")
    return dict(found)


def _cells(text: str) -> list[tuple[str, str | None]]:
    try:
        value = json.loads(
            text, object_pairs_hook=_Object, parse_int=_Number, parse_float=_Number, parse_constant=_no_number
        )
        if not isinstance(value, _Object):
            raise _NoRow("no JSON object")
        cells = [(name, _cell(cell)) for name, cell in value.pairs]
        for name, cell in cells:
            (name + (cell or "")).encode()  # half a character, \ud800, is no text
    except (ValueError, RecursionError) as error:
        raise _NoRow(f"no JSON object: {type(error).__name__}") from error
    return cells


class _Object:
    """A JSON object with all of its pairs: a name may be there twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs


def _no_number(name: str) -> str:
    raise ValueError(f"{name} is no JSON")


def _cell(value: Any) -> str | None:
    """A cell's text: a text itself, a number as it is spelt, anything nested as JSON."""
    if value is None:
        return None
    return str(value) if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, _Object):
        pairs = (f"{json.dumps(name, ensure_ascii=False)}:{_json(cell)}" for name, cell in value.pairs)
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_json(cell) for cell in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _line(fields: Fields, payload: str | None) -> str:
    """The raw message: the payload's own text where that is all of it, else its fields as JSON pairs."""
    if (
        payload is not None
        and [name for name, _ in fields] == [payload.encode()]
        and isinstance(text := _text(fields[0][1]), str)
    ):
        return text
    return json.dumps([[_text(name), _text(value)] for name, value in fields], ensure_ascii=False)


def _text(data: bytes) -> str | dict[str, str]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"hex": data.hex()}
