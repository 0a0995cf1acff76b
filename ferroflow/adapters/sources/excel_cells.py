"""What an Excel cell says, as text without loss.

A number is the shortest text that gives the same double again; a date or time is ISO 8601, to the millisecond, by the
number format that makes it one; an error is its own text (``#DIV/0!``). calamine, the usual reader, gives null for it.
"""

from __future__ import annotations

import math
import re
from datetime import date, timedelta
from typing import Literal

Kind = Literal["number", "date", "time", "moment"]

_DAY_MS = 86_400_000
_LAST_DAY = 2_958_465  # 9999-12-31
_WHOLE = re.compile(r"-?[1-9][0-9]{0,14}|0")
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_LITERAL = re.compile(r'"[^"]*"|\\.|_.|\*.')
_BRACKETS = re.compile(r"\[([^\]]*)\]")
_BUILT_IN: dict[int, Kind] = {
    **dict.fromkeys((14, 15, 16, 17, 27, 28, 29, 30, 31, 36, *range(50, 59)), "date"),
    **dict.fromkeys((18, 19, 20, 21, 32, 33, 34, 35, 45, 47), "time"),
    22: "moment",
}


def kind_of(number_format: int, code: str | None) -> Kind:
    """What a number of this format is; ``code`` is the format's own text where the file gives one.

    A length of time (``[h]:mm``) is a number: of days.
    """
    if code is None:
        return _BUILT_IN.get(number_format, "number")
    code = _LITERAL.sub("", code).split(";")[0].lower()
    if any(set(inside) <= set("hms") and inside for inside in _BRACKETS.findall(code)):
        return "number"
    letters = set(_BRACKETS.sub("", code).replace("general", "").replace("am/pm", "h"))
    of_day = bool(letters & set("hs"))
    of_year = bool(letters & set("yd")) or ("m" in letters and not of_day)
    if of_day:
        return "moment" if of_year else "time"
    return "date" if of_year else "number"


def number_text(text: str) -> str:
    """The shortest text of the double that ``text`` spells; ``text`` itself where it spells none."""
    if _WHOLE.fullmatch(text):
        return text
    try:
        number = float(text)
    except ValueError:
        return text
    if not math.isfinite(number):
        return text
    return str(int(number)) if number.is_integer() and abs(number) < 2**63 and number else repr(number)


def moment_text(text: str, kind: Kind, from_1904: bool) -> str:
    """The day, time or both that a serial number stands for; the number's text where it stands for none."""
    try:
        serial = float(text)
    except ValueError:
        return text
    if not 0 <= serial < _LAST_DAY + 1:
        return number_text(text)
    days, ms = divmod(round(serial * _DAY_MS), _DAY_MS)
    seconds, ms = divmod(ms, 1000)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}" + (f".{ms:03}" if ms else "")
    if days == 0 and kind == "time":
        return clock
    if not from_1904 and days in (0, 60):  # 1900-01-00 and 1900-02-29, which Excel believes in
        return number_text(text)
    first = date(1904, 1, 1) if from_1904 else date(1899, 12, 31) if days < 60 else date(1899, 12, 30)
    if days > (date.max - first).days:
        return number_text(text)
    day = (first + timedelta(days=days)).isoformat()
    return day if kind == "date" and clock == "00:00:00" else f"{day} {clock}"


def unescaped(text: str) -> str:
    """A text of the file with its ``_x000D_`` made characters; half a character stays as it is written."""
    if "_x" not in text:
        return text
    return _ESCAPED.sub(lambda code: _character(int(code[1], 16), code[0]), text)


def _character(number: int, otherwise: str) -> str:
    return otherwise if 0xD800 <= number < 0xE000 else chr(number)
