"""Rules about all accepted rows together. ``severity``: an error ends the run before it trains, a warning is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, kw_only=True)
class RowCount:
    """So many accepted rows."""

    at_least: int = 1
    at_most: int | None = None
    severity: Severity = "error"
    name: ClassVar[str] = "row_count"


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """The newest event time lies at most ``within`` before the moment of the run."""

    within: str
    severity: Severity = "error"
    name: ClassVar[str] = "fresh"


@dataclass(frozen=True, kw_only=True)
class NullShare:
    """At most this share of a column is missing."""

    column: str
    at_most: float
    severity: Severity = "error"
    name: ClassVar[str] = "null_share"


@dataclass(frozen=True, kw_only=True)
class UniqueShare:
    """At least this share of the rows differs in ``columns`` from all others (distinct combinations over rows)."""

    columns: tuple[str, ...]
    at_least: float = 1.0
    severity: Severity = "error"
    name: ClassVar[str] = "unique_share"


@dataclass(frozen=True, kw_only=True)
class Known:
    """At least this share of a column's present values is in column ``key`` of the reference ``reference``."""

    column: str
    reference: str
    key: str
    at_least: float = 1.0
    severity: Severity = "error"
    name: ClassVar[str] = "known"


@dataclass(frozen=True, kw_only=True)
class LikeBefore:
    """Columns are distributed as in the last good snapshot: the population stability index is at most ``psi``.

    Passes, and says so, while there is no good snapshot of other rows.
    """

    columns: tuple[str, ...]
    psi: float = 0.25
    severity: Severity = "error"
    name: ClassVar[str] = "like_before"


DatasetRule = RowCount | Fresh | NullShare | UniqueShare | Known | LikeBefore
