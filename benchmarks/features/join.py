"""The point-in-time join: the store against plain Polars, DuckDB and Feast's default store.

One million entity rows, two views of one million rows with ten features each, a TTL of seven days. Polars in, and out
by ``to_polars()``. Plain Polars is what one writes by hand: scan, sort, ``join_asof`` for each view, rows back in their
order. Every round's results are compared. Feast's default store takes a minute for one view, so it runs once; it drops
the rows whose features have expired, collapses those that share a key and a time, and of two stored rows of one time it
takes either. So compared are the rows with features, alone in their key and time, of entities without such ties.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.features import tables
from benchmarks.features.apart import Stopwatch, apart

if TYPE_CHECKING:
    import polars as pl

ROWS = 1_000_000
SMALLER = 1_000_000
"""Entity rows that Feast's default store joins to one view of ``ROWS`` rows in about a minute."""
FOUND = 0.5
"""Share of the entity rows that have to find features, and of those that have to be comparable: more than that."""
TTL = timedelta(days=7)
VIEWS = ("a", "b")
STORES = {"ours": "ferroflow.adapters.feast.offline.PolarsOfflineStore", "duckdb": "duckdb", "default": "dask"}
_HERE = "benchmarks.features.join"


def measure(rounds: int = 2) -> dict[str, Any]:
    """Medians over the rounds, ratios, and whether the limits hold."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), ROWS, VIEWS)
        found: dict[str, list[dict[str, Any]]] = {"ours": [], "plain": [], "duckdb": []}
        rounds_equal: dict[str, list[bool]] = {"plain": [], "duckdb": []}
        for _ in range(rounds):
            for way in found:
                (Path(folder) / f"{way}.parquet").unlink(missing_ok=True)
                found[way].append(apart(f"{_HERE}:{way}", folder=folder, views=list(VIEWS), rows=ROWS))
            for way, same in rounds_equal.items():
                same.append(_same(Path(folder), way))
        figures = {way: _median(runs) for way, runs in found.items()}
        smaller, kept = _against_default(folder, rounds)
    equal = {way: all(same) for way, same in rounds_equal.items()} | {"default": kept["equal"]}
    ratios = {
        "times_faster_than_duckdb": round(figures["duckdb"]["wall_s"] / figures["ours"]["wall_s"], 2),
        "time_against_plain": round(figures["ours"]["wall_s"] / figures["plain"]["wall_s"], 2),
        "memory_against_plain": round(figures["ours"]["peak_mb"] / figures["plain"]["peak_mb"], 2),
        "times_faster_than_default": round(smaller["default"]["wall_s"] / smaller["ours"]["wall_s"], 1),
    }
    passed = (
        all(equal.values())
        and ratios["times_faster_than_duckdb"] >= 3
        and ratios["time_against_plain"] <= 1.25
        and ratios["memory_against_plain"] <= 1.5
        and ratios["times_faster_than_default"] >= 30
    )
    told = {f"with_{SMALLER}_rows_and_one_view": smaller, "compared_with_default": kept}
    return {**figures, **told, "equal_to": equal, "rounds_compared": rounds, **ratios, "passed": passed}


def _against_default(folder: str, rounds: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both stores' figures; and in how many rows their results were compared, and whether they are equal."""
    given: dict[str, Any] = {"folder": folder, "views": ["a"], "rows": SMALLER}
    default = apart(f"{_HERE}:default", **given)
    runs, kept = [], []
    for _ in range(rounds):
        runs.append(apart(f"{_HERE}:ours", **given))
        kept.append(_same_kept(Path(folder)))
    equal = all(one["equal"] for one in kept)
    return {"ours": _median(runs), "default": default}, kept[0] | {"equal": equal}


def write(folder: Path, rows: int, views: Sequence[str]) -> None:
    """Write the views and the entity rows, as ``a.parquet``, ``b.parquet`` and ``entities.parquet``."""
    for number, name in enumerate(views):
        tables.write_view(folder / f"{name}.parquet", rows, seed=number, prefix=name)
    tables.entity_rows(rows, seed=len(views)).write_parquet(folder / "entities.parquet")


def ours(watch: Stopwatch, folder: str, views: list[str], rows: int, result: bool = True) -> dict[str, Any]:
    """The store, through Feast."""
    asked = _entities(folder, rows)
    store = _feast(Path(folder), "ours", views)
    with watch.running():
        table = store.get_historical_features(asked, _features(views)).to_polars()
    return _told(table, Path(folder) / "ours.parquet" if result else None)


def plain(watch: Stopwatch, folder: str, views: list[str], rows: int) -> dict[str, Any]:
    """By hand."""
    import polars as pl

    asked = _entities(folder, rows)
    with watch.running():
        joined = asked.lazy().with_row_index("row").sort("event_timestamp")
        for view in views:
            stored = (
                pl.scan_parquet(Path(folder) / f"{view}.parquet").sort("event_timestamp", "created").drop("created")
            )
            joined = joined.join_asof(
                stored, on="event_timestamp", by="entity_id", tolerance=TTL, check_sortedness=False
            )
        table = joined.sort("row").drop("row").collect()
    return _told(table, Path(folder) / "plain.parquet")


def duckdb(watch: Stopwatch, folder: str, views: list[str], rows: int) -> dict[str, Any]:
    """Feast's DuckDB store, out by Arrow; it takes pandas, which is made before the clock runs."""
    import polars as pl

    asked = _entities(folder, rows).to_pandas()
    store = _feast(Path(folder), "duckdb", views)
    with watch.running():
        table = store.get_historical_features(asked, _features(views)).to_arrow()
    return _told(pl.DataFrame(pl.from_arrow(table)), Path(folder) / "duckdb.parquet")


def default(watch: Stopwatch, folder: str, views: list[str], rows: int) -> dict[str, Any]:
    """Feast's default file store: pandas in and out."""
    import polars as pl

    asked = _entities(folder, rows).to_pandas()
    store = _feast(Path(folder), "default", views)
    with watch.running():
        table = store.get_historical_features(asked, _features(views)).to_df()
    return _told(pl.from_pandas(table), Path(folder) / "default.parquet")


def _columns(view: str) -> list[str]:
    return [f"{view}{number}" for number in range(tables.FEATURES)]


def _features(views: Sequence[str]) -> list[str]:
    return [f"view_{view}:{feature}" for view in views for feature in _columns(view)]


def _feast(folder: Path, way: str, views: Sequence[str]) -> Any:
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.repo_config import RepoConfig
    from feast.types import Float64, Int64

    entity = Entity(name="entity_id", join_keys=["entity_id"], value_type=ValueType.INT64)
    described = [
        FeatureView(
            name=f"view_{view}",
            entities=[entity],
            ttl=TTL,
            schema=[Field(name="entity_id", dtype=Int64), *(Field(name=f, dtype=Float64) for f in _columns(view))],
            source=FileSource(
                name=f"view_{view}",
                path=str(folder / f"{view}.parquet"),
                timestamp_field="event_timestamp",
                created_timestamp_column="created",
            ),
        )
        for view in views
    ]
    config = RepoConfig(
        project="benchmark",
        provider="local",
        registry=str(folder / f"{way}.db"),
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        offline_store={"type": STORES[way]},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    store.apply([entity, *described])
    return store


def _entities(folder: str, rows: int) -> pl.DataFrame:
    import polars as pl

    return pl.read_parquet(Path(folder) / "entities.parquet", n_rows=rows)


def _told(table: pl.DataFrame, path: Path | None) -> dict[str, Any]:
    if path is not None:
        table.write_parquet(path)
    return {"rows": table.height}


def _same(folder: Path, way: str) -> bool:
    """Whether the ways' results hold the same rows, most of them with features; by hand also in the same order."""
    import polars as pl

    one, other = (pl.read_parquet(folder / f"{name}.parquet") for name in ("ours", way))
    if way != "plain":
        order = ["label", "entity_id", "event_timestamp"]
        one, other = (table.sort(order) for table in (one, other.select(one.columns)))
        other = other.cast(dict(one.schema))
    found = one.filter(pl.any_horizontal(pl.col(_columns(VIEWS[0])).is_not_null())).height
    return one.equals(other) and one.height == ROWS and found > FOUND * ROWS


def _same_kept(folder: Path) -> dict[str, Any]:
    """Whether the default store gave the same rows as ours, of those that it gives as they are meant."""
    import polars as pl

    key = ["entity_id", "event_timestamp"]
    asked = _entities(str(folder), SMALLER).lazy()
    stored = pl.scan_parquet(folder / "a.parquet")
    tied = stored.group_by(key).len().filter(pl.col("len") > 1).select("entity_id")
    alone = asked.group_by(key).len().filter(pl.col("len") == 1).join(tied, on="entity_id", how="anti").select(key)

    def kept(name: str) -> pl.DataFrame:
        table = pl.read_parquet(folder / f"{name}.parquet").lazy()
        table = table.with_columns(pl.col("event_timestamp").cast(pl.Datetime("us", "UTC")))
        features = _columns("a")
        found = table.filter(pl.any_horizontal(pl.col(features).is_not_null())).join(alone, on=key, how="semi")
        return found.select(*key, "label", *features).sort(*key, "label").collect()

    one, other = kept("ours"), kept("default")
    equal = one.equals(other.cast(dict(one.schema))) and one.height > FOUND * SMALLER
    return {"rows": one.height, "of": SMALLER, "equal": equal}


def _median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]}
