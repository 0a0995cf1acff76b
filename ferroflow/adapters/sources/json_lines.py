"""One line of NDJSON, exactly: every cell as the text that stands there.

A string is its characters; a number, true, false, an object and a list are the JSON text itself (``1e5`` stays ``1e5``,
an integer may be of any length); null is null.
"""

from __future__ import annotations

import json
import re
from json.decoder import JSONDecodeError, scanstring  # type: ignore[attr-defined]
from typing import Any

from ferroflow.core.sources import reserved

_MAX_DEPTH = 100
_SPACE = re.compile(r"[ \t\r]*")
_KEY = re.compile(r'[ \t\r]*"([^"\\\x00-\x1f]*)"[ \t\r]*:[ \t\r]*')
_NEXT = re.compile(r"[ \t\r]*([,}])")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


class BadLine(ValueError):
    """A line that is no JSON object; the message says why."""


def cells_of(line: str) -> dict[str, str | None]:
    """The cells of a line that is one JSON object, in its order.

    Raises:
        BadLine: it is none, or one that says two things (a key twice) or nothing that can be kept.
    """
    if line.count("[") + line.count("{") > _MAX_DEPTH and _depth(line) > _MAX_DEPTH:
        raise BadLine(f"JSON nested deeper than {_MAX_DEPTH} levels")
    at = _skip(line, 0)
    if line[at : at + 1] != "{":
        raise BadLine("no JSON object")
    try:
        cells, end = _object(line, at + 1)
        if "\\u" in line:
            json.dumps(_DECODER.decode(line), ensure_ascii=False).encode()
    except JSONDecodeError as error:
        raise BadLine(f"broken JSON: {error.msg} at character {error.pos + 1}") from error
    except UnicodeEncodeError as error:
        raise BadLine("broken JSON: half of a character (a lone surrogate)") from error
    if _skip(line, end) != len(line):
        raise BadLine(f"something after its JSON object, at character {end + 1}")
    return cells


def _object(line: str, at: int) -> tuple[dict[str, str | None], int]:
    """The cells of the object whose inside begins at ``at``, and the place behind it."""
    cells: dict[str, str | None] = {}
    at = _skip(line, at)
    if line[at : at + 1] == "}":
        return cells, at + 1
    while True:
        found = _KEY.match(line, at)
        key, start = (found[1], found.end()) if found else _escaped_key(line, _skip(line, at))
        if key in cells:
            raise BadLine(f"the key {key!r} twice")
        value, at = _DECODER.raw_decode(line, start)
        first = line[start]
        cells[_checked(key)] = value if first == '"' else None if first == "n" else line[start:at]
        following = _NEXT.match(line, at)
        if following is None:
            raise JSONDecodeError("',' or '}' is expected", line, _skip(line, at))
        at = following.end()
        if following[1] == "}":
            return cells, at


def _escaped_key(line: str, at: int) -> tuple[str, int]:
    """The key at ``at``, which has escapes or is none, and where its value begins."""
    if line[at : at + 1] != '"':
        raise JSONDecodeError("a key in quotes is expected", line, at)
    key, at = scanstring(line, at + 1, True)
    at = _skip(line, at)
    if line[at : at + 1] != ":":
        raise JSONDecodeError("':' is expected", line, at)
    return key, _skip(line, at + 1)


def _skip(line: str, at: int) -> int:
    return _SPACE.match(line, at).end()  # type: ignore[union-attr]


def _checked(key: str) -> str:
    if not key or "\x00" in key:
        raise BadLine("a key without a name")
    if reserved((key,)):
        raise BadLine(f"the key {key!r}, which is kept for Ferroflow")
    if is_pattern(key):
        raise BadLine(f"the key {key!r}, which means several columns")
    return key


def is_pattern(name: str) -> bool:
    """Whether Polars takes a column's name for a pattern of names: ``*``, or what stands between ``^`` and ``$``."""
    return name == "*" or (name.startswith("^") and name.endswith("$"))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise BadLine(f"the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return found


def _refused(constant: str) -> Any:
    raise BadLine(f"{constant}, which is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_int=str, parse_float=str, parse_constant=_refused)


def _depth(line: str) -> int:
    """How deep brackets are nested, those in strings left out."""
    deepest = depth = 0
    for bracket in re.findall(r"[\[\]{}]", _STRING.sub("", line)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest
