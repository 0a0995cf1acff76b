"""Durations as people write them: ``"15m"``, ``"6h"``, ``"28d"``."""

from __future__ import annotations

import re
from datetime import timedelta

from ferroflow.core.errors import SpecError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_FORM = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def duration(text: str) -> timedelta:
    """Read a number and a unit (s, m, h, d or w).

    Raises:
        SpecError: the text is no such duration.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise SpecError(f"{text!r} is no duration. Write a number and one of s, m, h, d, w: '90s', '6h', '28d'.")
    return timedelta(**{_UNITS[match[2]]: float(match[1])})
