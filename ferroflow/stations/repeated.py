"""A value that the schema calls unique holds over all parts of a snapshot: rows that share one are all refused.

A part's own rows were judged with its other rules; here the accepted rows of different parts are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import polars as pl

from ferroflow.core.columns import ROW, matching
from ferroflow.stations.checked import CheckedPart, Checking
from ferroflow.stations.superseded import moved

_PLACE = "_place"
_HASH = "_hash"


def without_repeated(checking: Checking, checked: list[CheckedPart]) -> list[CheckedPart]:
    """The parts without the accepted rows whose unique value (or set of them) is also in another part.

    Parts without such rows keep their files. Nulls of a column are no duplicates; in a set of columns they are equal.
    A hash of eight bytes a row is held, and the values of rows whose hash comes again.
    """
    if len(checked) < 2:
        return checked
    files = [checking.folder(entry.fingerprint) / "accepted.parquet" for entry in checked]
    columns = [pl.scan_parquet(file).collect_schema().names() for file in files]
    found: dict[int, list[pl.DataFrame]] = {}
    for names, reason in _unique(checking, list(dict.fromkeys(chain.from_iterable(columns)))):
        there = [place for place, have in enumerate(columns) if set(names) <= set(have)]
        for (place,), rows in _repeated(files, there, names).partition_by(_PLACE, as_dict=True).items():
            found.setdefault(int(place), []).append(rows.select("row_id", pl.lit(reason).alias("reason")))
    return [
        moved(checking, part, entry, _told(found[place], part.fingerprint)) if place in found else entry
        for place, (part, entry) in enumerate(zip(checking.snapshot.parts, checked, strict=True))
    ]


def _unique(checking: Checking, came: list[str]) -> list[tuple[list[str], str]]:
    """Columns that are unique, alone or together, with the reason of rows that break it."""
    schema = checking.spec.schema.to_schema()
    named = [name for name in came if name not in schema.columns]
    alone = [
        ([each], f"{each}: field_uniqueness")
        for name, column in schema.columns.items()
        if column.unique
        for each in (matching(column, named) if column.regex else [name])
    ]
    sets = schema.unique or []
    together = [sets] if all(isinstance(name, str) for name in sets) and sets else sets
    return alone + [(list(names), "row: multiple_fields_uniqueness") for names in together]


def _repeated(files: Sequence[Path], places: Sequence[int], names: Sequence[str]) -> pl.DataFrame:
    """``row_id`` and ``_place`` of accepted rows whose values come twice; within a part none do."""
    rows = pl.concat(
        [pl.scan_parquet(files[place]).select(*names, "row_id", pl.lit(place).alias(_PLACE)) for place in places]
    )
    if len(names) == 1:
        rows = rows.drop_nulls(list(names))
    hashed = rows.with_columns(pl.struct(names).hash().alias(_HASH))
    hashes = hashed.select(_HASH).collect(engine="streaming")[_HASH].sort()
    again = hashes.filter(hashes == hashes.shift()).unique()
    if again.is_empty():
        return pl.DataFrame(schema={"row_id": pl.String, _PLACE: pl.Int32})
    suspects = hashed.filter(pl.col(_HASH).is_in(again.implode())).collect(engine="streaming")
    return suspects.filter(suspects.select(names).is_duplicated()).select("row_id", _PLACE)


def _told(found: Sequence[pl.DataFrame], part: str) -> pl.DataFrame:
    """Each row once, in its order, with all its reasons."""
    number = pl.col("row_id").str.strip_prefix(f"{part}:").cast(pl.UInt32).alias(ROW)
    return pl.concat(found).group_by(number).agg(pl.col("reason").unique().sort().alias("reasons")).sort(ROW)
