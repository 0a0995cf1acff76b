"""Of rows with one key, over all parts of a snapshot, the last one is accepted: the others are superseded."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from ferroflow.core.columns import ROW, schema_columns
from ferroflow.core.errors import SpecError
from ferroflow.core.fingerprint import fingerprint
from ferroflow.core.records import Part
from ferroflow.stations.accounted import sink, writing
from ferroflow.stations.checked import (
    SUPERSEDED,
    CheckedPart,
    Checking,
    evolved_rows,
    quarantine_columns,
    raw_cells,
    row_id,
    vouch,
    whole,
)

_ORDER = "_order"  # place of the part, then the row: rows compare by it over all parts
_LAST = "_last"
_PLACE_BITS = 32


def without_superseded(checking: Checking, checked: list[CheckedPart]) -> list[CheckedPart]:
    """The parts without the rows whose key comes again later: those are in quarantine, naming the last one.

    Parts without such rows keep their files. A row with a missing cell in its key has none.

    Raises:
        SpecError: a column of the key is not in the schema.
    """
    key = checking.spec.source.key
    if not key:
        return checked
    unknown = sorted(set(key) - set(schema_columns(checking.spec.schema)))
    if unknown:
        raise SpecError(f"Source(key=...) of {checking.spec.name!r} names {', '.join(unknown)}: not in the schema.")
    losers = _losers(checking, checked, key)
    names = [part.fingerprint for part in checking.snapshot.parts]
    return [
        moved(checking, part, entry, rows.select(ROW, _reasons(names)))
        if (rows := losers.get(place)) is not None
        else entry
        for place, (part, entry) in enumerate(zip(checking.snapshot.parts, checked, strict=True))
    ]


def _losers(checking: Checking, checked: Sequence[CheckedPart], key: Sequence[str]) -> dict[int, pl.DataFrame]:
    """For each part's place that has some: ``_row`` of its superseded rows and ``_last``, the order of their last one.

    Only keys and numbers of rows are held, and of keys that come once nothing but the key.
    """
    scans = [
        pl.scan_parquet(checking.folder(entry.fingerprint) / "accepted.parquet").select(
            *key, _order(place, pl.col("row_id").str.strip_prefix(f"{entry.part}:").cast(pl.UInt64)).alias(_ORDER)
        )
        for place, entry in enumerate(checked)
    ]
    keyed = pl.concat(scans).drop_nulls(list(key))
    last = keyed.group_by(key).agg(pl.len().alias("_times"), pl.col(_ORDER).max().alias(_LAST))
    repeated = last.filter(pl.col("_times") > 1).drop("_times").collect(engine="streaming")
    if repeated.is_empty():
        return {}
    found = keyed.join(repeated.lazy(), on=list(key), how="inner").filter(pl.col(_ORDER) < pl.col(_LAST))
    rows = found.select(_ORDER, _LAST).sort(_ORDER).collect(engine="streaming")
    parts = rows.select(
        (pl.col(_ORDER) // (1 << _PLACE_BITS)).cast(pl.UInt32).alias("place"),
        (pl.col(_ORDER) % (1 << _PLACE_BITS)).cast(pl.UInt32).alias(ROW),
        _LAST,
    ).partition_by("place", as_dict=True, include_key=False)
    return {int(place): frame for (place,), frame in parts.items()}


def _order(place: int, row: pl.Expr) -> pl.Expr:
    return row + pl.lit(place << _PLACE_BITS, pl.UInt64)


def moved(checking: Checking, part: Part, entry: CheckedPart, told: pl.DataFrame) -> CheckedPart:
    """The part's files with some accepted rows in quarantine: found whole, or made.

    Args:
        told: ``_row`` of these rows in their order, and ``reasons``.
    """
    name = fingerprint(entry.fingerprint, "moved", told.rows())
    known = whole(checking.folder(name), part)
    if known is not None:
        return known
    folder = checking.folder(entry.fingerprint)
    losers = told.select(row_id(part))
    accepted = pl.scan_parquet(folder / "accepted.parquet").join(
        losers.lazy(), on="row_id", how="anti", maintain_order="left"
    )
    quarantined = pl.scan_parquet(folder / "quarantined.parquet")
    added = _explained(checking, part, told)
    both = quarantined.merge_sorted(added.lazy(), key="row")
    with writing(checking.folder(name), part) as (good, bad):
        pl.collect_all([sink(accepted, good), sink(both, bad)], engine="streaming")
    return vouch(checking, part, name, warnings=entry.warnings, cleaned=entry.cleaned)


def _reasons(names: Sequence[str]) -> pl.Expr:
    """What tells which row replaced this one, from the order of that."""
    part = (pl.col(_LAST) // (1 << _PLACE_BITS)).cast(pl.UInt32)
    winner = part.replace_strict(list(range(len(names))), list(names), return_dtype=pl.String)
    row = (pl.col(_LAST) % (1 << _PLACE_BITS)).cast(pl.String)
    return pl.concat_list(pl.concat_str(pl.lit(SUPERSEDED), winner, pl.lit(":"), row)).alias("reasons")


def _explained(checking: Checking, part: Part, told: pl.DataFrame) -> pl.DataFrame:
    """The rows as a quarantine file holds them."""
    raw, _ = evolved_rows(checking, part)
    own = raw.filter(pl.col(ROW).is_in(told[ROW].implode()))
    refused, explanation = raw_cells(checking, own, "row: moved")
    rows = explanation.told(refused.collect(engine="streaming"))
    named = rows.drop("reasons").join(told, on=ROW, how="left", maintain_order="left")
    return named.select(quarantine_columns(part))
