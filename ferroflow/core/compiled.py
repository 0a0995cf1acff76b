"""A pandera schema compiled to expressions: for each rule one that is true where a row passes it.

Pandera's own check functions are called with a recorder in place of the frame and give the expressions they would have
run. A check that does more than select, or selects something that is not one verdict a row, is run by pandera itself
on the columns of the schema, from within the same pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from ferroflow.core.columns import matching
from ferroflow.core.errors import SchemaError, SpecError


@dataclass(frozen=True)
class Rule:
    """``passes`` is true or false for every row, never null. Where ``warns``, a row that fails stays accepted."""

    reason: str
    passes: pl.Expr
    warns: bool = False


class _NotCompilable(Exception):
    """The check asks for more than an expression can say."""


class _Recorder:
    """Stands in for the frame inside a check's function, and remembers what was selected."""

    def __init__(self, schema: pl.Schema, selected: tuple[pl.Expr, ...] = ()) -> None:
        self._schema = schema
        self.selected = selected

    def select(self, *columns: Any, **named: Any) -> _Recorder:
        if self.selected:
            raise _NotCompilable("selects from what was selected")
        flat = [each for entry in columns for each in (entry if isinstance(entry, list | tuple) else [entry])]
        flat += [(value if isinstance(value, pl.Expr) else pl.col(value)).alias(key) for key, value in named.items()]
        return _Recorder(self._schema, tuple(each if isinstance(each, pl.Expr) else pl.col(each) for each in flat))

    def collect_schema(self) -> pl.Schema:
        return self._schema

    @property
    def columns(self) -> list[str]:
        return self._schema.names()

    def __getattr__(self, name: str) -> Any:
        raise _NotCompilable(f"uses LazyFrame.{name}")


def compiled(schema: Any, frame: pl.Schema, absent: Sequence[str] = (), *, hidden: bool = False) -> list[Rule]:
    """The rules of a ``pandera.polars.DataFrameSchema`` for a frame of its columns, in its types, NaN being null.

    A rule is told as pandera tells it: ``"column: check"``, or ``"row: check"`` for one about several columns. It holds
    for all rows, however few pandera would report (``n_failure_cases``). Repeated nulls of a nullable column are no
    duplicates. ``strict``, ``ordered`` and ``coerce`` are no rules: the frame was made to fit.

    Args:
        frame: the schema's columns and no others.
        absent: optional columns that did not come: nothing is asked of them.
        hidden: the cells are personal: of what a check raises only the kind is told.

    Raises:
        SpecError: the schema has something that pandera leaves out on Polars: parsers, defaults, groups.
    """
    from pandera.backends.polars.register import register_polars_backends

    register_polars_backends()
    _refuse_silent_parts(schema)
    rules = []
    for name, column in schema.columns.items():
        named = [each for each in frame if each not in schema.columns]
        for key in matching(column, named) if column.regex else [name]:
            if key in frame and key not in absent:
                # A pattern's check sees its own column only, as in pandera.
                seen = pl.Schema({key: frame[key]}) if column.regex else frame
                rules += _column_rules(key, column, seen, hidden)
    rules += [_together(names) for names in _unique_sets(schema.unique)]
    return rules + [_check_rule(check, None, frame, hidden) for check in schema.checks]


def _refuse_silent_parts(schema: Any) -> None:
    parts = {"row": schema, **schema.columns}
    for name, part in parts.items():
        if getattr(part, "parsers", None):
            raise SpecError(f"{name}: pandera runs no parsers on Polars. Do it in derive, or declare it as cleaning.")
        if getattr(part, "default", None) is not None:
            raise SpecError(
                f"{name}: default={part.default!r} would fill cells without a trace. Declare Default({name!r}, "
                f"{part.default!r}) in the pipeline's cleaning: there each filled cell is counted."
            )
        for check in part.checks:
            if check.groupby is not None:
                raise SpecError(
                    f"{name}: {_name(check)} has groupby=, which pandera leaves out on Polars. Use .over()."
                )


def _column_rules(name: str, column: Any, seen: pl.Schema, hidden: bool) -> list[Rule]:
    rules = []
    if not column.nullable:
        rules.append(Rule(f"{name}: not_nullable", pl.col(name).is_not_null()))
    if column.unique:
        once = _once([name])
        rules.append(Rule(f"{name}: field_uniqueness", once | pl.col(name).is_null() if column.nullable else once))
    return rules + [_check_rule(check, name, seen, hidden) for check in column.checks]


def _unique_sets(unique: Any) -> list[list[str]]:
    if not unique:
        return []
    return [list(unique)] if all(isinstance(name, str) for name in unique) else [list(names) for names in unique]


def _together(names: list[str]) -> Rule:
    return Rule("row: multiple_fields_uniqueness", _once(names))


def _once(names: list[str]) -> pl.Expr:
    """True where no other row has the same cells; nulls are equal. Needs the whole columns."""
    return pl.struct(names).map_batches(lambda rows: once(rows.struct.unnest()), return_dtype=pl.Boolean)


def once(rows: pl.DataFrame) -> pl.Series:
    """Which rows have no equal: two to four times faster than ``is_unique``, which builds a table of all of them.

    Hashes are sorted; only rows whose hash comes twice are compared.
    """
    hashes = rows.hash_rows()
    ordered = hashes.sort()
    again = ordered.filter(ordered == ordered.shift()).unique()
    unique = pl.repeat(True, rows.height, dtype=pl.Boolean, eager=True)
    if again.is_empty():
        return unique
    suspects = hashes.is_in(again.implode())
    return unique.scatter(suspects.arg_true(), rows.filter(suspects).is_unique())


# -------------------------------------------------------------------------------------------------------------- checks


def _name(check: Any) -> str:
    return str(check.error or check.name or check)


def _check_rule(check: Any, column: str | None, frame: pl.Schema, hidden: bool) -> Rule:
    reason = f"{column or 'row'}: {_name(check)}"
    try:
        passes = _expression(check, column, frame, reason, hidden)
    except _NotCompilable:
        passes = _by_pandera(check, column, frame, reason, hidden)
    return Rule(reason, passes.fill_null(bool(check.ignore_na)), bool(check.raise_warning))


def _expression(check: Any, column: str | None, frame: pl.Schema, reason: str, hidden: bool) -> pl.Expr:
    """What a check would select, as one Boolean expression.

    Raises:
        _NotCompilable: it is no such thing; also where its function raises, which pandera then tells.
    """
    from pandera.api.polars.types import PolarsData

    judge = partial(_function(check), **check._check_kwargs)
    if check.element_wise:
        each = _stopping(judge, reason, hidden)
        cells = [pl.col(name).map_elements(each, return_dtype=pl.Boolean) for name in ([column] if column else frame)]
        return pl.all_horizontal(cells)
    try:
        given = judge(PolarsData(_Recorder(frame), column or "*"))
    except Exception as error:
        raise _NotCompilable(str(error)) from error
    if not isinstance(given, _Recorder) or not given.selected:
        raise _NotCompilable(f"gives {type(given).__name__}")
    if not _is_builtin(check):  # those compare each cell for itself
        _try_out(given.selected, frame)
    return given.selected[0] if len(given.selected) == 1 else pl.all_horizontal(given.selected)


def _function(check: Any) -> Callable[..., Any]:
    """The check's function; of a built-in one that for Polars (the check may hold a copy from before it was known)."""
    from pandera.api.checks import Check

    function: Callable[..., Any] = check._check_fn
    return Check.get_builtin_check_fn(function.__name__) if _is_builtin(check) else function


def _is_builtin(check: Any) -> bool:
    from pandera.api.function_dispatch import Dispatcher

    return isinstance(check._check_fn, Dispatcher)


def _try_out(selected: Sequence[pl.Expr], frame: pl.Schema) -> None:
    """Each expression must give one verdict a row: seen on empty rows, which cost nothing."""
    rows = 3
    for expression in selected:
        if expression.meta.has_multiple_outputs():  # inside the pass there are more columns than the check may see
            raise _NotCompilable("selects columns by a pattern")
        try:
            told = pl.DataFrame(schema=frame).clear(rows).select(expression)
            rightly = expression.meta.is_length_preserving() and not expression.meta.is_scalar()
        except pl.exceptions.PolarsError as error:
            raise _NotCompilable(str(error)) from error
        if not rightly or told.dtypes != [pl.Boolean] or told.height != rows:
            raise _NotCompilable("does not give one verdict a row")


def _stopping(judge: Callable[..., Any], reason: str, hidden: bool) -> Callable[[Any], Any]:
    """The same function of one cell, but what it raises stops everything, as pandera's check errors do here."""

    def each(cell: Any) -> Any:
        try:
            return judge(cell)
        except Exception as error:
            if hidden:
                raise SchemaError(_failed(reason, type(error).__name__)) from None
            raise SchemaError(_failed(reason, f"{type(error).__name__}: {error}")) from error

    return each


# ---------------------------------------------------------------------------------------------------------- by pandera


def _by_pandera(check: Any, column: str | None, frame: pl.Schema, reason: str, hidden: bool) -> pl.Expr:
    """Pandera's own verdicts on all rows, by their position."""

    def judge(rows: pl.Series) -> pl.Series:
        return _verdicts(check, column, rows.struct.unnest(), reason, hidden)

    return pl.struct(frame.names()).map_batches(judge, return_dtype=pl.Boolean)


def _verdicts(check: Any, column: str | None, rows: pl.DataFrame, reason: str, hidden: bool) -> pl.Series:
    """One verdict a row.

    Raises:
        SchemaError: the check raises, fails as a whole, or does not give one verdict a row.
    """
    from pandera.config import ValidationDepth, config_context

    everything = pl.repeat(True, rows.height, dtype=pl.Boolean, eager=True)
    if rows.is_empty():
        return everything
    try:
        with config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_AND_DATA):
            result = check(rows.lazy(), column)
            told: pl.Series = result.check_output.collect().to_series()
    except Exception as error:
        if hidden:  # what it says may quote a cell
            raise SchemaError(_failed(reason, type(error).__name__)) from None
        raise SchemaError(_failed(reason, f"{type(error).__name__}: {error}")) from error
    if told.len() == 1 and (result.failure_cases is None or rows.height > 1):  # one verdict for the whole column
        if told.all():
            return everything
        raise SchemaError(_failed(reason, "False"))
    if told.len() != rows.height:
        raise SchemaError(_failed(reason, f"{told.len()} verdicts for {rows.height} rows"))
    return told


def _failed(reason: str, why: str) -> str:
    subject, _, check = reason.partition(": ")
    what = "The row check" if subject == "row" else f"Column {subject!r}:"
    return f"{what} {check} fails as a whole: {why}. Mend the schema's check or the file."
