"""Split raw rows into accepted and refused ones: nothing is dropped, nothing passes unseen.

One lazy pass over frames: cast, clean, derive, judge. Nothing is computed before it is collected, and what is collected
together is computed once, as a stream. The raw cells do not go along: those of refused rows are fetched by their row
numbers afterwards. Pandera's ways of failing open are closed here: types are made to fit and compared before anything
is judged, NaN is missing, and a check that raises, or speaks about a whole column, stops everything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from ferroflow.core.cleaned import CellRule, told
from ferroflow.core.cleaning import Deduplicate
from ferroflow.core.columns import (
    LABEL,
    LINE,
    PROBLEM,
    ROW,
    Column,
    changed_types,
    matching,
    schema_columns,
)
from ferroflow.core.compiled import Rule, compiled
from ferroflow.core.errors import RowsLost, SchemaError, SpecError
from ferroflow.core.prepared import Prepared, prepared
from ferroflow.core.refusals import FIRST, Explanation, words

__all__ = [
    "LABEL",
    "LINE",
    "PROBLEM",
    "ROW",
    "Checked",
    "Column",
    "Derive",
    "RowPlan",
    "Tally",
    "changed_types",
    "check_rows",
    "judging",
    "plan_rows",
    "reason_kind",
    "schema_columns",
]

Derive = Callable[[pl.LazyFrame, Mapping[str, pl.LazyFrame]], pl.LazyFrame]

_OK = "_ok"
_NAMES_ONLY = re.compile(
    r"conversion from `[^`]*` to `[^`]*` failed in column '[^'\n]*'|casting from [^\n`']* not supported(?=\n|$)"
)
_TOLD = pl.Schema({ROW: pl.UInt32(), "reasons": pl.List(pl.String), "raw": pl.String()})


@dataclass(frozen=True)
class Tally:
    """``rows`` in; ``warnings``: rule -> rows it would have refused; ``cleaned``: "column: rule" -> cells changed."""

    rows: int
    warnings: dict[str, int]
    cleaned: dict[str, int]


@dataclass(frozen=True)
class Checked:
    """``accepted``: ``_row`` and the schema's columns. ``quarantined``: ``_row``, ``reasons``, ``raw`` (JSON text)."""

    accepted: pl.DataFrame
    quarantined: pl.DataFrame
    warnings: dict[str, int] = field(default_factory=dict)
    cleaned: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RowPlan:
    """What becomes of a part's raw rows; lazy: nothing is computed before it is collected, inside ``judging()``.

    ``accepted``: ``_row``, then the schema's columns in its order and types, in the raw order unless ``derive`` changed
    it. ``early`` and ``late``: of the rows that never met a rule (broken lines, lost cells, duplicates) and of those
    that failed one, ``_row`` and bit masks of what failed (some bytes a row, for ``refused``), and one row of counts
    for ``tally``. Collected with ``accepted`` at once all is computed once; collected one after the other no end waits
    for another, so memory does not grow with the rows.
    """

    accepted: pl.LazyFrame
    early: tuple[pl.LazyFrame, pl.LazyFrame]
    late: tuple[pl.LazyFrame, pl.LazyFrame]
    cells: pl.LazyFrame
    explanation: Explanation
    warnings: tuple[str, ...]
    cleaning: tuple[str, ...]

    def refused(self, early: pl.DataFrame, late: pl.DataFrame) -> pl.LazyFrame:
        """``_row``, ``reasons`` (sorted, each once) and ``raw`` (JSON text) of the refused rows, in the raw order.

        Args:
            early: the collected rows of ``early``.
            late: the collected rows of ``late``.
        """
        masks = pl.concat([early, late]).sort(ROW)
        # The masks are few: they are held, and the cells stream by.
        return self.cells.map_batches(
            lambda cells: self.explanation.told(_with_cells(masks, cells)), schema=_TOLD, streamable=True
        )

    def tally(self, early: pl.DataFrame, late: pl.DataFrame) -> Tally:
        """What was counted on the way: the collected counts of ``early`` and ``late``.

        Raises:
            SpecError: ``derive`` dropped or multiplied rows.
        """
        found = early.row(0, named=True) | late.row(0, named=True)
        if (found["live"], found["live_rows"]) != (found["derived"], found["derived_rows"]):
            raise SpecError(
                f"derive made {found['derived']} rows of {found['live']}. It may neither drop nor multiply rows: join "
                f"unique keys from the left, and leave refusing to the schema."
            )
        return Tally(found["rows"], _summed(self.warnings, found, "_warns"), _summed(self.cleaning, found, "_changed"))

    def collect(self) -> Checked:
        """All rows in memory, each one accounted for.

        Raises:
            SchemaError: a whole column cannot be of its type, or a check does not judge rows.
            SpecError: ``derive`` dropped or multiplied rows.
            RowsLost: rows in are not rows accepted plus rows quarantined (never seen).
        """
        with judging(hidden=bool(self.explanation.personal)):
            ends = [self.accepted, *self.early, *self.late]
            accepted, early, before, late, after = pl.collect_all(ends, engine="streaming")
            tally = self.tally(before, after)
            quarantined = self.refused(early, late).collect()
        accepted, quarantined = (rows if rows[ROW].is_sorted() else rows.sort(ROW) for rows in (accepted, quarantined))
        if accepted.height + quarantined.height != tally.rows:
            raise RowsLost(f"{tally.rows} rows in, {accepted.height} accepted and {quarantined.height} quarantined.")
        return Checked(accepted, quarantined, tally.warnings, tally.cleaned)


def check_rows(
    raw: pl.DataFrame | pl.LazyFrame,
    schema: Any,
    *,
    derive: Derive | None = None,
    references: Mapping[str, pl.LazyFrame] | None = None,
    null_values: Sequence[str] = ("",),
    label: str = "",
    cleaning: Sequence[CellRule | Deduplicate] = (),
    absent: Sequence[str] = (),
    personal: Sequence[str] = (),
) -> Checked:
    """Cast, clean, derive and judge raw rows in memory: ``plan_rows`` collected, with its errors and those of that."""
    return plan_rows(
        raw.lazy(),
        schema,
        derive=derive,
        references=references,
        null_values=null_values,
        label=label,
        cleaning=cleaning,
        absent=absent,
        personal=personal,
    ).collect()


def plan_rows(
    raw: pl.LazyFrame,
    schema: Any,
    *,
    derive: Derive | None = None,
    references: Mapping[str, pl.LazyFrame] | None = None,
    null_values: Sequence[str] = ("",),
    label: str = "",
    cleaning: Sequence[CellRule | Deduplicate] = (),
    absent: Sequence[str] = (),
    personal: Sequence[str] = (),
) -> RowPlan:
    """How the raw rows of one file are cast, cleaned, derived and judged.

    A refused row is told every rule that it fails. One with lost cells is told all of these and no rule, since without
    its cells it cannot be judged; a broken line and a duplicate are told that they are one.

    Args:
        raw: rows with ``_row``, and with ``_problem`` and ``_line`` where they come from text.
        schema: a ``pandera.polars.DataFrameModel``; raw columns of its names are cast to its types before ``derive``.
        derive: adds columns; may neither drop nor add rows.
        references: handed to ``derive``.
        null_values: what a text cell says (without the blanks around it) when it is empty.
        label: of the file; given to ``derive`` and the schema as the column ``source_label``, unless it is empty.
        cleaning: done in this order after the cast and before ``derive``; each changed cell is counted.
        absent: columns of the schema that did not come and are null, for ``derive`` too.
        personal: raw columns whose values are told nowhere.

    Raises:
        SchemaError: a column is missing, or has another type than the schema's after ``derive``.
        SpecError: a cleaning rule, ``derive`` or the schema contradicts the columns.
    """
    with judging(hidden=bool(personal)):
        rows = prepared(raw, schema, null_values=null_values, label=label, absent=absent, cleaning=cleaning)
        complete, columns, missing = _complete(_derived(rows, derive, references or {}), schema, list(rows.given))
        frame = pl.Schema({name: column.dtype for name, column in columns.items()})
        rules = compiled(schema.to_schema(), frame, missing, hidden=bool(personal))
        accepted, early, late = _split(rows, complete, list(columns), rules)
    shown = tuple(name for name in rows.kept if name != LABEL or not label)
    errors = tuple(rule.reason for rule in rules if not rule.warns)
    return RowPlan(
        accepted,
        early,
        late,
        rows.cells(),
        Explanation(rows.casts, errors, shown, frozenset(personal)),
        tuple(rule.reason for rule in rules if rule.warns),
        tuple(told(rule) for rule in cleaning),
    )


def reason_kind(reason: str) -> str:
    """A reason without the cell's own value, so that equal kinds can be counted."""
    head, found, _ = reason.partition(": '")
    return head if found and ": not a " in head else reason


@contextmanager
def judging(*, hidden: bool = True) -> Iterator[None]:
    """What Polars cannot compute while a plan is collected, it tells as an error of the data.

    Args:
        hidden: columns may be personal: only the kind of error is told, with the column and types where it names them.
            Say False where none is, and the whole text is told, which may quote cells.

    Raises:
        SchemaError: in place of any error of Polars.
    """
    try:
        yield
    except pl.exceptions.PolarsError as error:
        why = _without_cells(error) if hidden else str(error)
        raise SchemaError(
            f"The rows cannot be cast, derived or checked: {why}. Mend the file, derive or the schema's check."
        ) from (None if hidden else error)


def _without_cells(error: pl.exceptions.PolarsError) -> str:
    """An error's kind, and the text that names types and columns only."""
    named = _NAMES_ONLY.match(str(error))
    return type(error).__name__ + (f": {named[0]}" if named else "")


# --------------------------------------------------------------------------------------------------- derived and judged


def _derived(rows: Prepared, derive: Derive | None, references: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
    going = rows.going()
    if derive is None:
        return going
    try:
        derived = derive(going, references)
        names = derived.collect_schema().names()
    except pl.exceptions.ColumnNotFoundError as error:
        raise SchemaError(_missing(str(error).split("\n", 1)[0], list(rows.given))) from error
    if ROW not in names:
        raise SpecError("derive must keep the columns it is given: add columns by with_columns, and do not select.")
    return derived


def _missing(name: str, came: Sequence[str]) -> str:
    return (
        f"Column {name!r} is missing. These came: {', '.join(came)}. Mend the file, or the schema (there a column that "
        f"may be absent is Optional[...])."
    )


def _complete(
    derived: pl.LazyFrame, schema: Any, came: Sequence[str]
) -> tuple[pl.LazyFrame, dict[str, Column], list[str]]:
    """The rows with every column of the schema in its type; those columns; the optional ones that did not come."""
    given = derived.collect_schema()
    columns = schema_columns(schema, [name for name in given if not name.startswith("_")])
    absent = [column for column in columns.values() if column.name not in given]
    for column in absent:
        if column.required:
            raise SchemaError(_missing(column.name, came))
    for pattern, field_ in schema.to_schema().columns.items():
        if field_.regex and field_.required and not matching(field_, list(columns)):
            raise SchemaError(_missing(pattern, came))
    cells = {}
    for name, column in columns.items():
        dtype = given.get(name, pl.Null())
        if dtype == pl.Null:  # constants and joins without a match: no value is touched by giving them their type
            cells[name] = pl.col(name).cast(column.dtype) if name in given else pl.lit(None, column.dtype)
        elif dtype != column.dtype:
            raise SchemaError(
                f"Column {name!r} is {dtype} after derive, the schema wants {column.dtype}. Cast it in derive, or "
                f"change the schema."
            )
        elif dtype.is_float():
            cells[name] = pl.col(name).fill_nan(None)
    return (
        derived.with_columns(cell.alias(name) for name, cell in cells.items()),
        columns,
        [column.name for column in absent],
    )


def _split(
    rows: Prepared, complete: pl.LazyFrame, columns: Sequence[str], rules: Sequence[Rule]
) -> tuple[pl.LazyFrame, tuple[pl.LazyFrame, pl.LazyFrame], tuple[pl.LazyFrame, pl.LazyFrame]]:
    """Accepted rows; masks and counts of before ``derive``; masks and counts of after it: ends of one pass."""
    errors = [rule for rule in rules if not rule.warns]
    warnings = [rule for rule in rules if rule.warns]
    flags = [f"_passes{place}" for place in range(len(errors))]
    warned = [f"_warns{place}" for place in range(len(warnings))]
    judged = complete.with_columns(
        *(rule.passes.alias(flag) for rule, flag in zip(errors, flags, strict=True)),
        *((~rule.passes).alias(flag) for rule, flag in zip(warnings, warned, strict=True)),
    ).with_columns((pl.all_horizontal(flags) if flags else pl.lit(True)).alias(_OK))
    accepted = judged.filter(_OK).select(ROW, *columns)
    first = [pl.lit(None, pl.UInt32).alias(FIRST)] if FIRST in rows.marks else []
    refused = judged.filter(~pl.col(_OK)).select(ROW, *first, *words([*[None] * len(rows.casts), *flags]))
    live = rows.live
    before = rows.frame.select(
        pl.len().alias("rows"),
        (pl.len() if live is None else live.sum()).alias("live"),
        _identity(live).alias("live_rows"),
        *(count.alias(f"_changed{place}") for place, count in enumerate(rows.changes)),
    )
    after = judged.select(
        pl.len().alias("derived"), _identity(None).alias("derived_rows"), *(pl.col(flag).sum() for flag in warned)
    )
    return accepted, (rows.refused(len(errors)), before), (refused, after)


def _with_cells(masks: pl.DataFrame, cells: pl.DataFrame) -> pl.DataFrame:
    """The raw cells of those rows that have masks, with these, in the order of the cells."""
    numbers = cells[ROW]
    if not numbers.is_sorted():
        return cells.join(masks, on=ROW, how="inner", maintain_order="left")
    # Looking up the few refused rows among the sorted ones costs nothing beside a join of all of them.
    own = masks.filter(pl.col(ROW).is_between(numbers.min(), numbers.max()))
    return cells[numbers.search_sorted(own[ROW], "left")].hstack(own.drop(ROW).get_columns())


def _identity(live: pl.Expr | None) -> pl.Expr:
    """A number that tells which rows there are, in whatever order."""
    digest = pl.col(ROW).hash() % (1 << 31)
    return (digest if live is None else pl.when(live).then(digest)).sum()


def _summed(names: Sequence[str], found: Mapping[str, Any], prefix: str) -> dict[str, int]:
    """Counts of equal names added up, those of nothing too."""
    total: dict[str, int] = {}
    for place, name in enumerate(names):
        total[name] = total.get(name, 0) + found[f"{prefix}{place}"]
    return total
