"""Declared cleaning: what is changed in raw cells before rows are judged, in the open and counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

BLANKS = (
    "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
    "\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
"""Unicode's white space: the same for a text in a frame and one in a request."""


@dataclass(frozen=True)
class Default:
    """A missing cell of ``column`` becomes ``value``."""

    column: str
    value: Any
    name: ClassVar[str] = "default"


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A number below ``low`` becomes ``low``, one above ``high`` becomes ``high``."""

    column: str = field(kw_only=False)
    low: float | None = None
    high: float | None = None
    name: ClassVar[str] = "clip"


@dataclass(frozen=True)
class Trim:
    """A text loses ``characters`` at its ends (blanks are always taken off)."""

    column: str
    characters: str = " "
    name: ClassVar[str] = "trim"


@dataclass(frozen=True)
class Replace:
    """A cell that equals a key of ``values`` becomes what the key stands for; every other one stays."""

    column: str
    values: Mapping[Any, Any] = field(default_factory=dict)
    name: ClassVar[str] = "replace"


@dataclass(frozen=True)
class Deduplicate:
    """Of rows that are equal in ``columns`` (none: in all of the schema's raw ones) the first of a file is kept.

    The others are quarantined as duplicates: no row leaves without a reason. It happens before the rules judge: where
    the first one fails a rule, all of them are in quarantine. Where the last good one shall win, name the columns in
    ``Source.key``: there only accepted rows compete.
    """

    columns: tuple[str, ...] = ()
    name: ClassVar[str] = "deduplicate"
