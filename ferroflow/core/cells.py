"""One value of a request, checked by its field: a number is a number, a text is a text.

The endpoint and batch prediction read values by this one way. Pure: the standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from ferroflow.core.contract import CellRule, Field, ServingContract

FLOAT32_MAX = 3.4028234663852886e38
"""The graph computes in float32; anything larger would become infinite in there."""

_INT64 = 2**63
_YEARS = (1900, 2200)
_LONGEST_TEXT = 1_000


class BadValue(ValueError):
    """A value that is not what its field says; the message says what was expected."""


def label(contract: ServingContract, value: Any) -> float:
    """A true value as the log keeps it: target units, or 1.0 for the positive class and 0.0 for the other.

    Raises:
        BadValue: the value is no such thing.
    """
    if contract.task == "regression":
        field = Field(name=contract.target, type="number")
        number = _number(field, value)
        _judge_number(field, number)
        return number
    known = contract.classes or (contract.positive,)
    if isinstance(value, str) and value.strip() in known:
        return 1.0 if value.strip() == contract.positive else 0.0
    if isinstance(value, bool | str) or value not in (0, 1):
        listed = ", ".join(repr(name) for name in known)
        raise BadValue(f"no class; {listed}, or 1 for {contract.positive!r} and 0 for the other, is expected")
    return float(value)


def cell(field: Field, value: Any, null_values: Sequence[str] = ("",)) -> Any:
    """One value of a request, checked: float, int, text, UTC time or None.

    A text loses the blanks around it and is missing when it is one of ``null_values``; then the field's cleaning is
    done, and then its bounds are asked: as in validation.

    Raises:
        BadValue: it is not what the field says.
    """
    if field.type == "text" and isinstance(value, str):
        value = value.strip()
        value = None if value in null_values else value
    if value is not None:
        value = _READ[field.type](field, value)
    for rule in field.cleaning:
        value = _cleaned(rule, field, value, null_values)
    if value is None:
        if field.nullable:
            return None
        raise BadValue(f"nothing, but {_expected(field)} is expected")
    _JUDGE[field.type](field, value)
    return value


def _cleaned(rule: CellRule, field: Field, value: Any, null_values: Sequence[str]) -> Any:
    """What one declared rule makes of a value that was read; None is a missing one."""
    if value is None:
        return _READ[field.type](field, rule.value) if rule.rule == "default" else None
    if rule.rule == "clip":
        value = value if rule.low is None else max(value, type(value)(rule.low))
        return value if rule.high is None else min(value, type(value)(rule.high))
    if rule.rule == "trim":
        text = value.strip(rule.characters)
        return None if text in ("", *null_values) else text
    if rule.rule == "replace":
        for key, stands_for in rule.values:
            if _READ[field.type](field, key) == value:
                return None if stands_for is None else _READ[field.type](field, stands_for)
    return value


def _number(field: Field, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadValue(f"{_kind(value)}, but {_expected(field)} is expected")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if isinstance(value, int) and number != value:
        raise BadValue(f"an integer that no 64-bit float holds; {_expected(field)} is expected")
    return number


def _judge_number(field: Field, number: float) -> None:
    if not math.isfinite(number) or abs(number) > FLOAT32_MAX:
        raise BadValue(f"not finite as a 32-bit number; {_expected(field)} is expected")
    _bounds(field, number)


def _integer(field: Field, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadValue(f"{_kind(value)}, but {_expected(field)} is expected")
    if not math.isfinite(value) or value != int(value) or not -_INT64 <= value < _INT64:
        raise BadValue(f"no whole number of 64 bits; {_expected(field)} is expected")
    return int(value)


def _judge_integer(field: Field, value: int) -> None:
    _bounds(field, value)
    if field.choices is not None and value not in field.choices:
        raise BadValue(f"unknown; {_expected(field)} is expected")


def _text(field: Field, value: Any) -> str:
    if not isinstance(value, str):
        raise BadValue(f"{_kind(value)}, but {_expected(field)} is expected")
    return value


def _judge_text(field: Field, value: str) -> None:
    if field.choices is not None and value not in field.choices:
        raise BadValue(f"unknown; {_expected(field)} is expected")
    if len(value) > _LONGEST_TEXT or not (value or field.nullable):
        raise BadValue(f"{len(value)} characters; a text of 1 to {_LONGEST_TEXT} is expected")


def _time(field: Field, value: Any) -> datetime:
    if isinstance(value, datetime):  # of a Parquet file
        value = value.isoformat()
    if not isinstance(value, str):
        raise BadValue(f"{_kind(value)}, but {_expected(field)} is expected")
    try:
        moment = datetime.fromisoformat(value) if len(value) > len("2023-01-01") else None
        # Without an offset it is UTC; with one, the conversion may leave the calendar.
        moment = moment and (moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise BadValue(f"no time; {_expected(field)} is expected")
    return moment


def _judge_time(field: Field, moment: datetime) -> None:
    if not _YEARS[0] <= moment.year <= _YEARS[1]:
        raise BadValue(f"outside the years {_YEARS[0]} to {_YEARS[1]}; {_expected(field)} is expected")
    _bounds(field, moment.timestamp())


_READ: dict[str, Callable[[Field, Any], Any]] = {
    "number": _number,
    "integer": _integer,
    "text": _text,
    "time": _time,
}
_JUDGE: dict[str, Callable[[Field, Any], None]] = {
    "number": _judge_number,
    "integer": _judge_integer,
    "text": _judge_text,
    "time": _judge_time,
}


def _bounds(field: Field, value: float) -> None:
    if (field.minimum is not None and value < field.minimum) or (field.maximum is not None and value > field.maximum):
        raise BadValue(f"out of bounds; {_expected(field)} is expected")


def _expected(field: Field) -> str:
    """What a field takes, in words."""
    if field.type == "time":
        return "an ISO 8601 time such as '2023-03-01T08:30:00Z' (without an offset: UTC)"
    kind = {"number": "a number", "integer": "a whole number", "text": "a text"}[field.type]
    if field.choices is not None:
        listed = ", ".join(repr(choice) for choice in field.choices[:20])
        return f"{kind}, one of {listed}{', …' if len(field.choices) > 20 else ''},"
    low, high = field.minimum, field.maximum
    if low is not None and high is not None:
        return f"{kind} from {low:.12g} to {high:.12g}"
    if low is not None or high is not None:
        return f"{kind} of at least {low:.12g}" if low is not None else f"{kind} of at most {high:.12g}"
    return kind


def _kind(value: Any) -> str:
    """What came, in words; never the value itself."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "a number"
    kinds = {bool: "true or false", str: "a text", dict: "an object", list: "a list", type(None): "null"}
    return kinds.get(type(value), f"a {type(value).__name__}")
