"""The offline store as Feast uses it: every form of retrieval through a real FeatureStore."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.errors import RequestDataNotFoundInEntityDfException
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.repo_config import RepoConfig
from feast.types import Float64, Int64, String

from ferroflow.core.errors import DataError, SpecError, UsageError

START = datetime(2023, 1, 1, tzinfo=UTC)
STORE = "ferroflow.adapters.feast.offline.PolarsOfflineStore"
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")


def after(hours: float) -> datetime:
    return START + timedelta(hours=hours)


RIDES = pl.DataFrame(
    {
        "stop": [1, 1, 1, 2, 2],
        "at": [after(h) for h in (0, 2, 2, 1, 50)],
        "made": [after(h) for h in (0, 2, 3, 1, 50)],
        "n": [1, 2, 3, 4, 5],
        "mean_of_it": [0.1, 0.2, 0.3, None, 0.5],
    }
)
CITY = pl.DataFrame({"day": [date(2023, 1, 1), date(2023, 1, 2)], "rain": [1.5, 2.5]})
LATE = pl.DataFrame(
    {"stop": [1, 1], "at": [after(0), after(1)], "available_at": [after(0), after(5)], "level": [1.0, 2.0]}
)


def a_store(folder: Path, **offline: Any) -> FeatureStore:
    config = RepoConfig(
        project="p",
        provider="local",
        registry=str(folder / "registry.db"),
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        offline_store={"type": STORE, **offline},
        entity_key_serialization_version=3,
    )
    config.repo_path = folder
    return FeatureStore(config=config)


STOP = Entity(name="stop", join_keys=["stop"], value_type=ValueType.INT64)


def rides(path: str | Path, **given: Any) -> FeatureView:
    source = FileSource(
        name=given.get("name", "rides"),
        path=str(path),
        timestamp_field="at",
        created_timestamp_column="made",
        field_mapping={"mean_of_it": "mean"},
    )
    schema = [Field(name="stop", dtype=Int64), Field(name="n", dtype=Int64), Field(name="mean", dtype=Float64)]
    settings = {"name": "rides", "entities": [STOP], "ttl": timedelta(hours=24), "schema": schema, **given}
    return FeatureView(source=source, **settings)


@on_demand_feature_view(
    sources=[rides("rides.parquet"), RequestSource(name="asked", schema=[Field(name="extra", dtype=Int64)])],
    schema=[Field(name="sum_python", dtype=Float64)],
    mode="python",
)
def with_python(inputs: dict[str, Any]) -> dict[str, Any]:
    return {
        "sum_python": [
            float(a + b) if a is not None else None for a, b in zip(inputs["n"], inputs["extra"], strict=True)
        ]
    }


@on_demand_feature_view(
    sources=[rides("rides.parquet"), RequestSource(name="asked", schema=[Field(name="extra", dtype=Int64)])],
    schema=[Field(name="sum_pandas", dtype=Float64)],
    mode="pandas",
)
def with_pandas(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"sum_pandas": (inputs["n"] + inputs["extra"]).astype("float64")})


@pytest.fixture(scope="module")
def feast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    folder = tmp_path_factory.mktemp("repo")
    RIDES.write_parquet(folder / "rides.parquet")
    CITY.write_parquet(folder / "city.parquet")
    LATE.write_parquet(folder / "late.parquet")
    view = rides("rides.parquet")
    city = FeatureView(
        name="city",
        schema=[Field(name="rain", dtype=Float64)],
        source=FileSource(name="city", path="city.parquet", timestamp_field="day"),
        ttl=timedelta(0),
    )
    late = FeatureView(
        name="late",
        entities=[STOP],
        schema=[Field(name="stop", dtype=Int64), Field(name="level", dtype=Float64)],
        source=FileSource(name="late", path="late.parquet", timestamp_field="at"),
    )
    both = FeatureService(
        name="both_ends",
        features=[
            view.with_name("here").with_join_key_map({"stop": "origin"}),
            view.with_name("there").with_join_key_map({"stop": "destination"}),
        ],
    )
    store = a_store(folder)
    store.apply([STOP, view, city, late, with_python, with_pandas, both])
    yield store


ASKED = pl.DataFrame(
    {"stop": [2, 1, 1, 2, 1], "event_timestamp": [after(h) for h in (1, 2, 27, 60, 2)], "label": list("abcde")}
)
ANSWER = [(4, None), (3, 0.3), (None, None), (5, 0.5), (3, 0.3)]
FEATURES = ["rides:n", "rides:mean"]


@pytest.mark.parametrize("form", ["polars", "lazy", "pandas", "arrow"])
def test_entity_rows_of_every_form_keep_their_order_and_columns_and_get_their_features(
    feast: FeatureStore, form: str
) -> None:
    forms = {"polars": ASKED, "lazy": ASKED.lazy(), "pandas": ASKED.to_pandas(), "arrow": ASKED.to_arrow()}
    job = feast.get_historical_features(forms[form], FEATURES)
    table = job.to_polars()
    assert table.columns == ["stop", "event_timestamp", "label", "n", "mean"]
    assert table.select("n", "mean").rows() == ANSWER
    assert table.select("stop", "event_timestamp", "label").rows() == ASKED.rows()
    assert job.to_arrow().num_rows == 5
    assert job.to_df()["event_timestamp"].dt.tz is not None
    metadata = job.metadata
    assert metadata is not None
    assert (metadata.keys, metadata.min_event_timestamp) == (["stop", "label"], after(1))


def test_a_query_over_the_views_gives_the_entity_rows(feast: FeatureStore) -> None:
    query = "SELECT stop, MAX(at) AS event_timestamp FROM rides GROUP BY stop ORDER BY stop"
    table = feast.get_historical_features(query, FEATURES).to_polars()
    assert table.select("stop", "n").rows() == [(1, 3), (2, 5)]


def test_without_entity_rows_every_entity_of_the_span_is_given_as_of_its_end(feast: FeatureStore) -> None:
    job = feast.get_historical_features(None, FEATURES, start_date=after(0), end_date=after(3))
    assert sorted(job.to_polars().rows()) == [(1, after(3), 3, 0.3), (2, after(3), 4, None)]
    naive = after(3).replace(tzinfo=None)
    assert feast.get_historical_features(None, FEATURES, start_date=after(2), end_date=naive).to_polars().height == 1
    assert feast.get_historical_features(None, ["city:rain"], start_date=after(0), end_date=after(30)).to_polars()[
        "rain"
    ].to_list() == [2.5]


def test_a_view_without_entities_is_joined_by_time_alone_and_a_ttl_of_zero_is_none(feast: FeatureStore) -> None:
    moments = pd.DataFrame({"event_timestamp": pd.to_datetime(["2022-12-31", "2023-01-01", "2024-01-01"])})
    assert feast.get_historical_features(moments, ["city:rain"]).to_polars()["rain"].to_list() == [None, 1.5, 2.5]


def test_full_names_and_join_key_maps_keep_two_uses_of_a_view_apart(feast: FeatureStore) -> None:
    rows = pl.DataFrame({"origin": [1, 2], "destination": [2, 1], "event_timestamp": [after(2), after(2)]})
    table = feast.get_historical_features(rows, feast.get_feature_service("both_ends"), True).to_polars()
    assert table.select("here__n", "there__n").rows() == [(3, 4), (4, 3)]


def test_on_demand_views_of_both_modes_are_computed_on_top(feast: FeatureStore) -> None:
    rows = ASKED.with_columns(extra=pl.Series([10, 20, 30, 40, 50]))
    job = feast.get_historical_features(rows, ["rides:n", "with_python:sum_python", "with_pandas:sum_pandas"])
    for table in (job.to_polars(), pl.from_pandas(job.to_df())):
        assert table["sum_python"].to_list() == [14.0, 23.0, None, 45.0, 53.0]
        assert table["sum_pandas"].to_list() == [14.0, 23.0, None, 45.0, 53.0]
        assert table["extra"].to_list() == [10, 20, 30, 40, 50]
    with pytest.raises(RequestDataNotFoundInEntityDfException):
        feast.get_historical_features(ASKED, ["with_python:sum_python"])


def test_a_saved_data_set_is_read_back_as_it_was_and_never_overwritten_unasked(
    feast: FeatureStore, tmp_path: Path
) -> None:
    def save(rows: pl.DataFrame, name: str, **given: Any) -> Any:
        job = feast.get_historical_features(rows, FEATURES)
        storage = SavedDatasetFileStorage(str(tmp_path / f"{name}.parquet"))
        return feast.create_saved_dataset(job, name, storage, **given)

    saved = save(ASKED, "training")
    again = pl.from_pandas(feast.get_saved_dataset("training").to_df())
    for table in (again, pl.from_pandas(saved.to_df())):
        assert table.select("stop", "n", "mean").rows() == [
            (stop, *answer) for stop, answer in zip(ASKED["stop"], ANSWER, strict=True)
        ]
    with pytest.raises(UsageError, match="allow_overwrite"):
        save(ASKED, "training")
    save(ASKED.head(2), "training", allow_overwrite=True)
    assert len(feast.get_saved_dataset("training").to_df()) == 2
    save(ASKED.rename({"event_timestamp": "moment"}), "other_time")
    assert feast.get_saved_dataset("other_time").to_df()["n"].tolist()[:2] == [4, 3]
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".parquet"] == []


def test_a_value_known_late_reaches_no_earlier_row_unless_the_guard_is_off(feast: FeatureStore, tmp_path: Path) -> None:
    rows = pl.DataFrame({"stop": [1, 1], "event_timestamp": [after(2), after(5)]})
    assert feast.get_historical_features(rows, ["late:level"]).to_polars()["level"].to_list() == [1.0, 2.0]
    LATE.write_parquet(tmp_path / "late.parquet")
    off = a_store(tmp_path, available_at_column=None)
    off.apply([STOP, feast.get_feature_view("late")])
    assert off.get_historical_features(rows, ["late:level"]).to_polars()["level"].to_list() == [2.0, 2.0]


def test_feasts_own_filter_by_creation_holds_back_what_was_created_later(feast: FeatureStore) -> None:
    rows = pl.DataFrame({"stop": [1], "event_timestamp": [after(2.5)]})
    job = feast.get_historical_features(rows, ["rides:n"], filter_by_created_timestamp=True)
    assert job.to_polars()["n"].to_list() == [2]
    assert feast.get_historical_features(rows, ["rides:n"]).to_polars()["n"].to_list() == [3]


def pulled(
    feast: FeatureStore, name: str, source: str, keys: list[str], features: list[str], *order: Any
) -> pl.DataFrame:
    pull = getattr(feast._get_provider().offline_store, name)
    created = order[1] if len(order) > 1 else None
    job = pull(feast.config, feast.get_data_source(source), keys, features, order[0], created, after(0), after(30))
    table = job.to_arrow()
    assert all(len(column.chunks) <= 1 for column in table.columns)
    return pl.DataFrame(pl.from_arrow(table))


def test_pulling_gives_all_rows_or_each_keys_latest_with_both_bounds_included(feast: FeatureStore) -> None:
    columns = (["stop"], ["n", "mean_of_it"], "at", "made")
    every = pulled(feast, "pull_all_from_table_or_query", "rides", *columns)
    assert every["n"].to_list() == [1, 2, 3, 4]
    last = pulled(feast, "pull_latest_from_table_or_query", "rides", *columns)
    assert sorted(last.select("stop", "n").rows()) == [(1, 3), (2, 4)]
    assert last.columns == ["stop", "n", "mean_of_it", "at", "made"]
    whole = pulled(feast, "pull_all_from_table_or_query", "rides", ["stop"], [], "at")
    assert set(whole.columns) == set(RIDES.columns)


def test_pulling_a_view_without_entities_gives_one_row_under_feasts_own_key(feast: FeatureStore) -> None:
    every = pulled(feast, "pull_all_from_table_or_query", "city", [], ["rain"], "day")
    assert every["__dummy_id"].to_list() == ["", ""]
    last = pulled(feast, "pull_latest_from_table_or_query", "city", [], ["rain"], "day")
    assert last.select("rain", "__dummy_id").rows() == [(2.5, "")]
    assert last["day"].dtype == pl.Datetime("us", "UTC")


def test_what_feast_materializes_from_a_view_without_entities_is_read_online(feast: FeatureStore) -> None:
    feast.materialize(after(-1), after(30), feature_views=["city"])
    assert feast.get_online_features(["city:rain"], [{"__dummy_id": ""}]).to_dict() == {"rain": [2.5]}


def test_a_batch_becomes_one_more_file_and_a_wrong_one_none(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    store.apply([STOP, rides("parts")])
    view = store.get_feature_view("rides")
    write = store._get_provider().offline_store.offline_write_batch
    told: list[int] = []
    with pytest.raises(UsageError, match=r"lack the columns \['made'\]"):
        write(store.config, view, RIDES.drop("made").to_arrow(), told.append)
    write(store.config, view, RIDES.head(2).to_arrow(), told.append)
    write(store.config, view, RIDES.tail(3).select(reversed(RIDES.columns)).to_arrow(), told.append)
    with pytest.raises(UsageError, match=r"have \['more'\] too many"):
        write(store.config, view, RIDES.with_columns(more=1).to_arrow(), told.append)
    with pytest.raises(UsageError, match="do not fit the types"):
        write(store.config, view, RIDES.with_columns(n=pl.col("n") + 0.5).to_arrow(), told.append)
    store.write_to_offline_store("rides", RIDES.tail(1).with_columns(n=pl.lit(6), made=pl.lit(after(60))).to_pandas())
    assert told == [2, 3]
    assert len(list((tmp_path / "parts").iterdir())) == 3
    table = store.get_historical_features(ASKED, FEATURES).to_polars()
    assert table["n"].to_list() == [4, 3, None, 6, 3]


def test_a_single_file_and_a_pattern_are_not_added_to(tmp_path: Path) -> None:
    RIDES.write_parquet(tmp_path / "rides.parquet")
    store = a_store(tmp_path)
    for path in ("rides.parquet", "*.parquet"):
        with pytest.raises(SpecError, match="only a source that is a folder can be added to"):
            store._get_provider().offline_store.offline_write_batch(store.config, rides(path), RIDES.to_arrow(), None)


def test_folders_patterns_and_partitions_are_read_as_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "odd [1] name"
    for stop in (1, 2):
        for place in (folder / "deep" / f"{stop}.parquet", tmp_path / "hive" / f"stop={stop}" / "a.parquet"):
            place.parent.mkdir(parents=True, exist_ok=True)
            part = RIDES.filter(pl.col("stop") == stop)
            (part.drop("stop") if "hive" in str(place) else part).write_parquet(place)
    store = a_store(tmp_path)
    for path in ("odd [1] name", "odd*/**/*.parquet", "hive", "hive/**/*.parquet"):
        store.apply([STOP, rides(path)])
        assert store.get_historical_features(ASKED, FEATURES).to_polars().select("n", "mean").rows() == ANSWER
        names = dict(store.get_data_source("rides").field_mapping)
        assert names == {"mean_of_it": "mean"}
    with pytest.raises(SpecError, match="in partitions of hive"):
        store._get_provider().offline_store.offline_write_batch(store.config, rides("hive"), RIDES.to_arrow(), None)


def test_a_missing_file_column_key_or_time_is_named(feast: FeatureStore, tmp_path: Path) -> None:
    RIDES.drop("n").rename({"at": "when"}).write_parquet(tmp_path / "thin.parquet")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("no Parquet file at all")
    schema = [Field(name=name, dtype=Float64) for name in ("n", "mean")]
    entity = Field(name="stop", dtype=Int64)

    def asked(path: str) -> None:
        store = a_store(tmp_path)
        store.registry.apply_entity(STOP, "p")
        view = rides(path, schema=[entity, *schema])
        view.entity_columns = [entity]
        store.registry.apply_feature_view(view, "p")
        store.get_historical_features(ASKED, FEATURES)

    with pytest.raises(DataError, match=r"View 'rides' needs 'n', 'at', which thin\.parquet does not have"):
        asked("thin.parquet")
    for path in ("nowhere.parquet", "empty", "no*.parquet"):
        with pytest.raises(DataError, match="The offline store has no"):
            asked(path)
    with pytest.raises(DataError, match=r"text.parquet cannot be read as Parquet"):
        asked("text.parquet")
    with pytest.raises(SpecError, match=r"View 'rides' is joined by \['stop'\]"):
        feast.get_historical_features(ASKED.rename({"stop": "halt"}), FEATURES)
    with pytest.raises(SpecError, match="time columns"):
        feast.get_historical_features(ASKED.drop("event_timestamp"), FEATURES)
    with pytest.raises(SpecError, match=r"have \['n'\] already"):
        feast.get_historical_features(ASKED.with_columns(n=1), FEATURES)
    with pytest.raises(SpecError, match="cannot be compared"):
        feast.get_historical_features(ASKED.with_columns(pl.col("stop").cast(pl.String)), FEATURES).to_polars()


def test_texts_as_keys_and_naive_entity_times_of_any_column_name_are_taken(tmp_path: Path) -> None:
    stored = RIDES.with_columns(pl.col("stop").cast(pl.String), pl.col("at", "made").dt.replace_time_zone(None))
    stored.write_parquet(tmp_path / "rides.parquet")
    store = a_store(tmp_path)
    entity = Entity(name="stop", join_keys=["stop"], value_type=ValueType.STRING)
    fields = [Field(name="stop", dtype=String), Field(name="n", dtype=Int64)]
    store.apply([entity, rides("rides.parquet", entities=[entity], schema=fields)])
    rows = pa.table({"stop": ["1", "2"], "when": pa.array([datetime(2023, 1, 1, 2)] * 2, pa.timestamp("ns"))})
    table = store.get_historical_features(rows, ["rides:n"]).to_polars()
    assert table.rows() == [("1", after(2), 3), ("2", after(2), 4)]
