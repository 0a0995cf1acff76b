from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from feast import Entity, FeatureStore, FeatureView

from ferroflow.adapters.feast import online
from ferroflow.adapters.feast.packed import PackedStore
from ferroflow.adapters.feast.project import objects
from ferroflow.adapters.feast.store import open_store, store
from ferroflow.adapters.home import Home
from ferroflow.core.errors import DataError, ServiceError, SpecError
from ferroflow.core.features import stored
from ferroflow.core.spec import PipelineSpec
from tests.rides import START, arrivals, departures, pipeline, write_view, write_views

ROOT = Path(__file__).resolve().parents[3]


def after(hours: float) -> object:
    return START + timedelta(hours=hours)


@pytest.fixture
def rides(home: Home) -> PipelineSpec:
    return write_views(home)


@pytest.fixture
def feast(home: Home, rides: PipelineSpec) -> FeatureStore:
    return store(home, [rides])


def test_a_pipeline_becomes_an_entity_its_views_and_a_service(feast: FeatureStore) -> None:
    assert [entity.name for entity in feast.list_entities()] == ["stop"]
    views = {view.name: view for view in feast.list_feature_views()}
    assert {name: view.ttl for name, view in views.items()} == {
        "departures": timedelta(hours=3),
        "arrivals": timedelta(days=2),
    }
    assert [field.name for field in views["arrivals"].features] == ["rides", "mean"]
    (service,) = feast.list_feature_services()
    assert service.name == "rides"


@pytest.mark.parametrize(
    ("setting", "what"),
    [("online_store", "online store or the feature registry"), ("registry_address", "feature registry")],
)
def test_a_server_that_is_away_is_told_without_its_password(home: Home, setting: str, what: str) -> None:
    away = replace(home, **{setting: "postgresql://me:s3cret@127.0.0.1:1/features"})
    with pytest.raises(ServiceError, match=f"^The {what} cannot be reached: .*127.0.0.1.* Start it") as told:
        store(away, [write_views(home)])
    assert "s3cret" not in str(told.value)


def test_a_pipeline_without_stored_features_has_no_objects(home: Home) -> None:
    assert objects(pipeline(features=()), home) == []


def test_training_rows_are_joined_by_the_requests_own_fields_as_of_their_time(feast: FeatureStore) -> None:
    entities = pl.DataFrame(
        {
            "origin": [1, 1, 2, 1, 1],
            "destination": [2, 2, 1, 9, 2],
            "event_timestamp": [after(2), after(7), after(1.5), after(1), after(2)],
        }
    )
    job = feast.get_historical_features(
        entity_df=entities, features=feast.get_feature_service("rides"), full_feature_names=True
    )
    table = job.to_polars()
    assert table["departures__rides"].to_list() == [6.0, None, None, 5.0, 6.0]
    assert table["departures__mean"].to_list() == [None, None, None, 10.0, None]
    assert table["arrivals__mean"].to_list() == [None, 4.5, None, None, None]
    assert table["origin"].to_list() == entities["origin"].to_list()


def test_pandas_arrow_and_polars_entity_rows_give_the_same_table(feast: FeatureStore) -> None:
    frame = pl.DataFrame({"stop": [2, 1], "event_timestamp": [after(3), after(7)]})
    features = ["departures:rides", "arrivals:mean"]
    from_polars = feast.get_historical_features(frame, features).to_df()
    from_pandas = feast.get_historical_features(frame.to_pandas(), features).to_df()
    assert from_polars["mean"].iloc[1] == 2.0
    pd.testing.assert_frame_equal(from_polars, from_pandas, check_dtype=False)
    assert feast.get_historical_features(frame.to_arrow(), features).to_arrow().num_rows == 2


def test_without_entity_rows_every_entity_of_the_span_is_given(feast: FeatureStore) -> None:
    job = feast.get_historical_features(features=["departures:rides"], start_date=after(0), end_date=after(2))
    assert sorted(job.to_polars().select("stop", "rides").rows()) == [(1, 6.0), (2, 7.0)]


def test_feasts_own_materialize_writes_what_a_direct_read_and_get_online_features_agree_on(
    feast: FeatureStore, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online, "now", lambda: after(5))  # before the departures expire
    feast.materialize(after(0), after(8))
    keys = [1, 2, 3]
    asked = {"origin": keys, "destination": keys}
    answer = feast.get_online_features(
        feast.get_feature_service("rides"), [{name: asked[name][i] for name in asked} for i in range(3)], True
    ).to_dict()
    with PackedStore(home.online("rides"), read_only=True) as packed:
        for view in ("departures", "arrivals"):
            found = packed.read(view, keys, ["rides", "mean"])
            for position, name in enumerate(["rides", "mean"]):
                direct = [found[key][1][position] if key in found else None for key in keys]
                assert answer[f"{view}__{name}"] == direct
        assert packed.read("arrivals", [2], ["mean"]) == {2: (int(after(6).timestamp() * 1e6), [4.5])}


def test_materializing_an_older_range_again_changes_nothing(feast: FeatureStore, home: Home) -> None:
    feast.materialize(after(0), after(8))
    feast.materialize(after(0), after(1))
    with PackedStore(home.online("rides"), read_only=True) as packed:
        assert packed.read("departures", [1], ["rides"])[1][1] == [6.0]


def test_materializing_after_a_correction_brings_it_online(feast: FeatureStore, home: Home) -> None:
    feast.materialize(after(0), after(8))
    write_view(home, "departures", [(1, 2, 12, 6.5, 1.0)])
    feast.materialize(after(0), after(8), feature_views=["departures"])
    with PackedStore(home.online("rides"), read_only=True) as packed:
        assert packed.read("departures", [1], ["rides"])[1][1] == [6.5]


def test_applying_an_unchanged_description_leaves_the_registry_alone(home: Home, rides: PipelineSpec) -> None:
    before = store(home, [rides]).get_feature_view("arrivals").last_updated_timestamp
    assert store(home, [rides]).get_feature_view("arrivals").last_updated_timestamp == before


def test_a_view_that_left_the_description_leaves_the_registry_and_the_online_store(
    home: Home, rides: PipelineSpec
) -> None:
    store(home, [rides]).materialize(after(0), after(8))
    feast = store(home, [pipeline(features=(departures,))])
    assert [view.name for view in feast.list_feature_views()] == ["departures"]
    with PackedStore(home.online("rides"), read_only=True) as packed:
        assert packed.read("arrivals", [1, 2], ["rides"]) == {}
        assert packed.read("departures", [1, 2], ["rides"]).keys() == {1, 2}


def test_a_changed_time_to_live_reaches_the_registry(home: Home, rides: PipelineSpec) -> None:
    store(home, [rides])
    longer = stored(entity="stop", on="origin", ttl="9h")(departures.function)
    feast = store(home, [pipeline(features=(longer, arrivals))])
    assert feast.get_feature_view("departures").ttl == timedelta(hours=9)
    assert {view.name for view in feast.list_feature_views()} == {"departures", "arrivals"}


def test_two_pipelines_may_not_name_a_view_alike(home: Home, rides: PipelineSpec) -> None:
    with pytest.raises(SpecError, match="'departures' are in 'rides' and in 'other'"):
        store(home, [rides, pipeline("other", (departures,))])
    store(home, [rides])
    with pytest.raises(SpecError, match="'departures' of 'other' are in 'rides' already"):
        store(home, [pipeline("other", (departures,))])
    assert {view.tags["pipeline"] for view in open_store(home).list_feature_views()} == {"rides"}


def test_other_pipelines_objects_stay(home: Home, rides: PipelineSpec) -> None:
    store(home, [pipeline("other", (arrivals,))])
    feast = store(home, [pipeline(features=(departures,))])
    assert {view.name: view.tags["pipeline"] for view in feast.list_feature_views()} == {
        "arrivals": "other",
        "departures": "rides",
    }


def test_a_stored_feature_that_is_no_float_is_refused(home: Home) -> None:
    @stored(entity="stop", on="origin", ttl="1h")
    def counted(rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.select(pl.col("origin").alias("stop"), pl.col("ended").alias("available_at"), pl.lit(1).alias("n"))

    with pytest.raises(SpecError, match=r"'counted' give .*Float64"):
        objects(pipeline(features=(counted,)), home)


def test_an_entity_of_another_type_than_its_field_is_refused(home: Home) -> None:
    @stored(entity="stop", on="origin", ttl="1h")
    def named(rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.select(pl.col("origin").cast(pl.String).alias("stop"), pl.col("ended").alias("available_at"))

    with pytest.raises(SpecError, match="'stop' as String, looked up by 'origin' of type Int64"):
        objects(pipeline(features=(named,)), home)


def test_a_missing_offline_file_is_told_by_name(home: Home) -> None:
    feast = store(home, [pipeline()])
    frame = pl.DataFrame({"stop": [1], "event_timestamp": [after(1)]})
    with pytest.raises(DataError, match=r"no departures\.parquet"):
        feast.get_historical_features(frame, ["departures:rides"])


def test_every_object_has_its_description_and_owner(home: Home) -> None:
    for entry in objects(pipeline(), home):
        assert isinstance(entry, Entity) or entry.tags == {"pipeline": "rides"}
        assert not isinstance(entry, FeatureView) or entry.description.startswith("Rides that")


def test_the_feast_command_applies_every_pipeline_and_lists_its_views(tmp_path: Path) -> None:
    def run(*command: str) -> str:
        environment = os.environ | {"FERROFLOW_HOME": str(tmp_path / "home"), "TZ": "UTC"}
        program = str(Path(sys.executable).parent / "feast")
        done = subprocess.run(
            [program, "-c", str(ROOT / "feature_repo"), *command],
            env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    run("apply")
    listed = run("feature-views", "list")
    from ferroflow.adapters.pipelines import load, names

    for name in names():
        for view in load(name).stored:
            assert view.name in listed
    # The framework's own store and the command's are one.
    assert {view.name for view in open_store(Home(tmp_path / "home")).list_feature_views()} == {
        view.name for name in names() for view in load(name).stored
    }


def test_clocks_of_this_process_are_utc() -> None:
    # Feast turns naive times into local ones on its way: anything else than UTC would shift them.
    assert time.tzname[0] == "UTC"
