"""The columns of a schema and of raw rows: their names, their types, and what changed about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ferroflow.core.errors import SpecError

ROW = "_row"
"""Number of a row (or line) in its file, from 1."""
PROBLEM = "_problem"
"""Why a line of a text file is no row; null otherwise."""
LINE = "_line"
"""That line as it stands; null otherwise."""
LABEL = "source_label"
"""The label of the file that a row came in, where the source's files have labels."""
RESERVED = (ROW, PROBLEM, LINE)


@dataclass(frozen=True)
class Column:
    """One column of the schema."""

    name: str
    dtype: pl.DataType
    nullable: bool
    required: bool


def schema_columns(schema: Any, came: Iterable[str] = ()) -> dict[str, Column]:
    """The columns of a ``pandera.polars.DataFrameModel``, in its order.

    Args:
        came: names of a frame's columns; a field whose name is a pattern stands for those that match it and are not
            named by a field of their own. Without any it stands for none.

    Raises:
        SpecError: a column has no type.
    """
    frame = schema.to_schema()
    names = list(came)
    found: dict[str, Column] = {}
    for name, column in frame.columns.items():
        dtype = getattr(frame.dtype or column.dtype, "type", None)
        if dtype is None:
            raise SpecError(f"Column {name!r} of {schema.__name__} needs one Polars type.")
        kind = dtype() if isinstance(dtype, type) else dtype
        for each in matching(column, names) if column.regex else [name]:
            if each == name or (each not in frame.columns and each not in found):
                found[each] = Column(each, kind, bool(column.nullable), bool(column.required))
    return found


def matching(column: Any, names: Sequence[str]) -> list[str]:
    """Those of ``names`` that the pattern of a schema's column fits, as Polars reads it."""
    return pl.DataFrame(schema=dict.fromkeys(names, pl.Null)).select(pl.col(column.selector)).columns


def changed_types(files: Sequence[Mapping[str, str]], schema: Any) -> dict[str, str]:
    """Columns whose type in some file is not the schema's: ``"Int32, Int64 -> Int64"``; text cells are not told.

    Args:
        files: one mapping a file, raw column -> raw type.
        schema: a ``pandera.polars.DataFrameModel``.
    """
    changed = {}
    for name, column in schema_columns(schema, dict.fromkeys(name for file in files for name in file)).items():
        wanted = str(column.dtype)
        raw = sorted({file[name] for file in files if name in file and file[name] != "String"})
        if raw and raw != [wanted]:
            changed[name] = f"{', '.join(raw)} -> {wanted}"
    return changed
