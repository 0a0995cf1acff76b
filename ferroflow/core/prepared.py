"""Raw rows made ready for ``derive``: every cell in the schema's type and cleaned, and whether its row goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from ferroflow.core.casting import Cast, is_text, present, stripped
from ferroflow.core.cleaned import CellRule, cleaned, duplicates, known
from ferroflow.core.cleaning import Deduplicate
from ferroflow.core.columns import LABEL, LINE, PROBLEM, RESERVED, ROW, Column, schema_columns
from ferroflow.core.refusals import FIRST, RAW, words

_TYPED = "_typed:"
_CAST = "_cast:"  # true where no cell was lost
_CHANGED = "_changed:"
_NUMBER = pl.col(ROW).cast(pl.UInt32)


@dataclass(frozen=True)
class Prepared:
    """All raw rows of a file; lazy.

    ``raw`` has the cells as they came. ``frame`` has ``_row``, the ``given`` columns and the Boolean columns that say
    what was lost or changed; it carries no raw cells: few rows are refused, and theirs are fetched by ``cells``.
    """

    raw: pl.LazyFrame
    frame: pl.LazyFrame
    given: Mapping[str, pl.DataType]  # what derive is given: name -> type
    kept: tuple[str, ...]  # columns whose cells are told as they came
    casts: tuple[Cast, ...]
    marks: tuple[str, ...]  # those of _problem, _line and _first that are there
    cleanings: int = 0

    @property
    def live(self) -> pl.Expr | None:
        """True where a row goes on: it is one, all its cells were cast, it repeats none. None: all do."""
        told = [pl.col(_CAST + cast.name) for cast in self.casts]
        if PROBLEM in self.marks:
            told.append(pl.col(PROBLEM).is_null())
        if FIRST in self.marks:
            told.append(pl.col(FIRST) == pl.col(ROW))
        return pl.all_horizontal(told) if told else None

    @property
    def changes(self) -> list[pl.Expr]:
        """How many cells (or rows) each cleaning changed, in order."""
        return [pl.col(f"{_CHANGED}{place}").sum() for place in range(self.cleanings)]

    def going(self) -> pl.LazyFrame:
        """``_row`` and the given columns of the rows that go on."""
        rows = self.frame if self.live is None else self.frame.filter(self.live)
        return rows.select(ROW, *self.given)

    def refused(self, rules: int) -> pl.LazyFrame:
        """``_row``, ``_first`` where rows may repeat others, and the masks of the rows that do not go on."""
        failed = words([*(_CAST + cast.name for cast in self.casts), *[None] * rules])
        stopped = pl.lit(False) if self.live is None else ~self.live
        return self.frame.filter(stopped).select(ROW, *(name for name in self.marks if name == FIRST), *failed)

    def cells(self) -> pl.LazyFrame:
        """``_row``, ``_problem`` and ``_line`` where they came, and the kept cells of all rows (``_raw:`` + name)."""
        marks = [name for name in self.marks if name != FIRST]
        return self.raw.select(_NUMBER, *marks, *(pl.col(name).alias(RAW + name) for name in self.kept))


def prepared(
    raw: pl.LazyFrame,
    schema: Any,
    *,
    null_values: Sequence[str],
    label: str,
    absent: Sequence[str],
    cleaning: Sequence[CellRule | Deduplicate],
) -> Prepared:
    """Cast and clean raw rows; the arguments are those of ``plan_rows``.

    Raises:
        SchemaError: a whole column cannot be cast.
        SpecError: a cleaning rule does not fit its column.
    """
    if label:
        raw = raw.with_columns(pl.lit(label).alias(LABEL))
    came = raw.collect_schema()
    columns = schema_columns(schema, [name for name in came if name not in RESERVED])
    rows = _cast(raw, came, columns, null_values)
    named = [name for name in rows.given if name in columns]
    # What cleaning may fill has to be there, and so has what derive counts on.
    optional = {rule.column for rule in cleaning if not isinstance(rule, Deduplicate)}
    needed = {*absent, *(name for name in optional if name in columns and not columns[name].required)}
    added = {name: columns[name].dtype for name in columns if name in needed and name not in came}
    if added:
        frame = rows.frame.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in added.items())
        rows = replace(rows, frame=frame, given={**rows.given, **added})
    for rule in cleaning:
        rows = _deduplicated(rows, rule, named) if isinstance(rule, Deduplicate) else _clean(rows, rule, null_values)
    return rows


def _cast(raw: pl.LazyFrame, came: pl.Schema, columns: Mapping[str, Column], null_values: Sequence[str]) -> Prepared:
    """Text cells lose the blanks around them. Columns that the schema does not name keep their type."""
    names = [name for name in came if name not in RESERVED]
    text = [name for name in names if is_text(came[name])]
    now = {name: pl.String() if name in text else came[name] for name in names}
    casts = [
        Cast(name, now[name], columns[name]) for name in names if name in columns and now[name] != columns[name].dtype
    ]
    marks = [name for name in (PROBLEM, LINE) if name in came]
    frame = raw.select(
        _NUMBER,
        *marks,
        *(stripped(pl.col(name)).alias(name) if name in text else pl.col(name) for name in names),
    ).with_columns(present(pl.col(name), null_values).alias(name) for name in text)
    given = {name: columns[name].dtype if name in columns else now[name] for name in names}
    typed = {cast.name: pl.col(_TYPED + cast.name) for cast in casts}
    cells = {name: typed.get(name, pl.col(name)) for name in names}
    frame = frame.with_columns(cast.typed().alias(_TYPED + cast.name) for cast in casts).select(
        ROW,
        *marks,
        *(
            cells[name].fill_nan(None).alias(name) if given[name].is_float() else cells[name].alias(name)
            for name in names
        ),
        *((~cast.lost(typed[cast.name])).alias(_CAST + cast.name) for cast in casts),
    )
    return Prepared(raw, frame, given, tuple(names), tuple(casts), tuple(marks))


def _clean(rows: Prepared, rule: CellRule, null_values: Sequence[str]) -> Prepared:
    dtype = known(rule, rule.column, rows.given)
    after = cleaned(rule, dtype, null_values)
    changed = after.ne_missing(pl.col(rule.column))
    if rows.live is not None:
        changed = changed & rows.live
    frame = rows.frame.with_columns(after.alias(rule.column), changed.alias(f"{_CHANGED}{rows.cleanings}"))
    return replace(rows, frame=frame, cleanings=rows.cleanings + 1)


def _deduplicated(rows: Prepared, rule: Deduplicate, named: Sequence[str]) -> Prepared:
    """Rows that repeat an earlier one know it as ``_first``; rows that do not go on are repeated by none."""
    keys = duplicates(rule, rows.given, named)
    own = pl.col(ROW)
    live = rows.live if rows.live is not None else pl.lit(True)
    first = pl.when(live).then(own).min().over(keys)
    known_first = pl.col(FIRST) if FIRST in rows.marks else own
    repeats = live & (first != own)
    frame = rows.frame.with_columns(
        pl.when(repeats).then(first).otherwise(known_first).alias(FIRST),
        repeats.alias(f"{_CHANGED}{rows.cleanings}"),
    )
    marks = rows.marks if FIRST in rows.marks else (*rows.marks, FIRST)
    return replace(rows, frame=frame, marks=marks, cleanings=rows.cleanings + 1)
