from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ferroflow.adapters.feast.packed import PackedStore
from ferroflow.adapters.home import Home
from ferroflow.adapters.pipelines import load, names
from ferroflow.adapters.settings import load_settings
from ferroflow.core.errors import EmptySource, LeakageError, NotFound, SpecError
from ferroflow.core.features import request, stored
from ferroflow.core.records import Validated
from ferroflow.core.spec import ByColumn, NoWorseSlice, PipelineSpec, Regression
from ferroflow.stations import features
from ferroflow.stations.features import build_features, materialize, refresh_offline
from ferroflow.stations.ingest import ingest
from ferroflow.stations.validate import validate
from tests.rides import START, accept, arrivals, clock, departures, pipeline, simulate

AS_OF = START + timedelta(days=4)
ROWS = simulate(2_000)


def table(spec: PipelineSpec, home: Home, rows: pl.DataFrame = ROWS, name: str = "v1") -> pl.DataFrame:
    made = build_features(spec, accept(home, rows, name), AS_OF, home)
    return pl.read_parquet(home.absolute(made.path))


def test_the_table_holds_every_labelled_row_once_with_all_inputs(home: Home) -> None:
    record = build_features(pipeline(), accept(home, ROWS), AS_OF, home)
    made = pl.read_parquet(home.absolute(record.path))
    labelled = ROWS.filter(pl.col("ended") <= AS_OF)
    assert made["row_id"].to_list() == labelled["row_id"].to_list()
    assert record.rows == labelled.height < ROWS.height
    assert record.categorical == ("origin", "destination")
    stored_names = [f"{view}__{name}" for view in ("departures", "arrivals") for name in ("rides", "mean")]
    assert record.numeric == ("hour", *stored_names)
    assert made.columns == ["row_id", "started", "minutes", "origin", "destination", "hour", *stored_names]
    assert {kind for name, kind in made.schema.items() if name in record.numeric} == {pl.Float64}
    assert made["departures__rides"].null_count() < made.height / 2


def test_a_stored_value_is_what_a_loop_over_the_rides_finds(home: Home) -> None:
    made = table(pipeline(), home).sample(60, seed=1)
    for origin, started, value in made.select("origin", "started", "departures__mean").iter_rows():
        # The last full hour in which a ride from here ended, if it was over three hours ago at most.
        mine = ROWS.filter((pl.col("origin") == origin) & (pl.col("ended") <= AS_OF))
        hours = mine.with_columns(over=pl.col("ended").dt.truncate("1h") + timedelta(hours=1))
        usable = hours.filter(pl.col("over").is_between(started - timedelta(hours=3), started))
        last = usable.filter(pl.col("over") == pl.col("over").max())
        assert value == (pytest.approx(last["minutes"].mean()) if last.height else None)


def test_what_was_not_known_at_a_moment_changes_no_feature_of_earlier_rows(home: Home) -> None:
    moment = START + timedelta(days=2, hours=7, minutes=23)
    unknown = pl.col("ended") > moment
    told = ROWS.with_columns(minutes=pl.when(unknown).then(pl.col("minutes") * 100).otherwise("minutes"))
    fewer = ROWS.filter(~unknown | (pl.col("minutes") < 90))
    _same_features_before(moment, pipeline(), home, ROWS, [told, fewer])


def _same_features_before(
    moment: datetime, spec: PipelineSpec, home: Home, rows: pl.DataFrame, others: Sequence[pl.DataFrame]
) -> None:
    features = ["row_id", *(name for name in table(spec, home, rows, "true").columns if "__" in name)]
    before = pl.col(str(spec.time)) <= moment
    true = table(spec, home, rows, "true").filter(before).select(features)
    assert true.height > 100
    for number, other in enumerate(others):
        made = table(spec, home, other, f"other{number}")
        again = made.filter(before).select(features)
        assert again.equals(true.join(again, on="row_id", how="semi", maintain_order="left"))
        # The perturbation does reach the features after that moment: the test can fail.
        after = table(spec, home, rows, "true").filter(~before).select(features)
        assert not made.filter(~before).select(features).equals(after)


@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in names() if load(name).stored])
def test_what_was_not_known_changes_no_earlier_feature_of_real_rows(name: str, mirror: Path, home: Home) -> None:
    spec = load(name)
    as_of = START + timedelta(days=32)
    settings = load_settings(home=home.root, mirror=str(mirror))
    validated = validate(spec, ingest(spec, as_of, home, now=as_of, settings=settings), home)
    known_at, target = str(spec.target.known_at), spec.target.column
    rows = pl.read_parquet([home.absolute(path) for path in validated.accepted])
    for day in (9, 20):
        moment = START + timedelta(days=day, hours=16, minutes=11)
        unknown = pl.col(known_at) > moment
        other = rows.with_columns(pl.when(unknown).then(pl.col(target) * 3 + 1).otherwise(target).alias(target))
        tables = [
            pl.read_parquet(
                home.absolute(build_features(spec, accept(home, part, f"{day}{i}", name), as_of, home).path)
            )
            for i, part in enumerate((rows, other))
        ]
        before = pl.col(str(spec.time)) <= moment
        features = [column for column in tables[0].columns if "__" in column]
        one, two = (made.filter(before).select(features) for made in tables)
        assert one.height > 10_000
        assert one.equals(two)
        one, two = (made.filter(~before).select(features) for made in tables)
        assert not one.equals(two)


def test_the_same_rows_are_joined_once(home: Home) -> None:
    validated = accept(home, ROWS)
    first = build_features(pipeline(), validated, AS_OF, home)
    written = home.absolute(first.path).stat().st_mtime_ns
    assert build_features(pipeline(), validated, AS_OF, home) == first
    assert home.absolute(first.path).stat().st_mtime_ns == written
    assert build_features(pipeline(), validated, AS_OF - timedelta(hours=1), home).fingerprint != first.fingerprint
    home.absolute(first.path).unlink()
    assert build_features(pipeline(), validated, AS_OF, home) == first
    assert home.absolute(first.path).is_file()


def test_the_offline_store_holds_only_what_was_available(home: Home) -> None:
    counts = refresh_offline(pipeline(), accept(home, ROWS), AS_OF, home)
    for view, rows in counts.items():
        frame = pl.read_parquet(home.offline("rides") / f"{view}.parquet")
        assert frame.height == rows > 0
        assert frame["available_at"].max() <= AS_OF
        assert frame["available_at"].is_sorted()
        assert frame["ingested_at"].unique().to_list() == [START + timedelta(days=9)]


def test_an_interrupted_refresh_is_done_again(home: Home) -> None:
    validated = accept(home, ROWS)
    counts = refresh_offline(pipeline(), validated, AS_OF, home)
    (home.offline("rides") / "manifest.json").unlink()
    (home.offline("rides") / "arrivals.parquet").write_bytes(b"half")
    assert refresh_offline(pipeline(), validated, AS_OF, home) == counts
    assert pl.read_parquet(home.offline("rides") / "arrivals.parquet").height == counts["arrivals"]


def test_materialized_rows_are_the_latest_that_have_not_expired(home: Home) -> None:
    refresh_offline(pipeline(), accept(home, ROWS), AS_OF, home)
    now = START + timedelta(days=3)
    written = materialize(pipeline(), now, home)
    with PackedStore(home.online("rides"), read_only=True) as store:
        for view in (departures, arrivals):
            frame = pl.read_parquet(home.offline("rides") / f"{view.name}.parquet")
            fresh = frame.filter(pl.col("available_at").is_between(now - view.ttl, now)).sort("available_at")
            last = fresh.group_by("stop", maintain_order=True).last()
            assert written[view.name] == last.height > 0
            expected = {
                stop: (at, [rides, mean])
                for stop, at, rides, mean in last.select(
                    "stop", pl.col("available_at").dt.timestamp("us"), "rides", "mean"
                ).iter_rows()
            }
            assert store.read(view.name, [1, 2, 3, 4, 5, 6], ["rides", "mean"]) == expected
            watermark = store.watermark(view.name)
            assert watermark is not None
            assert watermark.event == int(now.timestamp()) * 1_000_000


def test_an_earlier_materialization_takes_nothing_back(home: Home) -> None:
    refresh_offline(pipeline(), accept(home, ROWS), AS_OF, home)
    materialize(pipeline(), AS_OF, home)
    with PackedStore(home.online("rides"), read_only=True) as store:
        before = store.read("arrivals", [1, 2, 3, 4, 5], ["rides", "mean"])
        materialize(pipeline(), AS_OF - timedelta(days=1), home)
        assert store.read("arrivals", [1, 2, 3, 4, 5], ["rides", "mean"]) == before
        watermark = store.watermark("arrivals")
        assert watermark is not None
        assert watermark.event == int(AS_OF.timestamp()) * 1_000_000


def values(home: Home) -> dict[int | str, tuple[int, list[float | None]]]:
    with PackedStore(home.online("rides"), read_only=True) as store:
        return store.read("arrivals", [1, 2, 3, 4, 5], ["rides", "mean"])


@pytest.mark.parametrize("told_last", ["a table made before", "an earlier refresh"])
def test_a_run_for_an_earlier_moment_keeps_nothing_from_the_online_store(home: Home, told_last: str) -> None:
    validated, other = accept(home, ROWS), Home(home.root.parent / "other")
    refresh_offline(pipeline(), accept(other, ROWS), AS_OF, other)
    materialize(pipeline(), AS_OF, other)
    build_features(pipeline(), validated, AS_OF, home)
    refresh_offline(pipeline(), validated, AS_OF - timedelta(days=1), home)
    if told_last == "a table made before":
        build_features(pipeline(), validated, AS_OF, home)
    materialize(pipeline(), AS_OF, home)
    assert values(home) == values(other)


def test_materializing_a_moment_that_no_refresh_reached_is_refused(home: Home) -> None:
    refresh_offline(pipeline(), accept(home, ROWS), AS_OF, home)
    with pytest.raises(NotFound, match=r"computed as of 2023.* at the latest, not as of 2023"):
        materialize(pipeline(), AS_OF + timedelta(hours=1), home)
    assert not home.online("rides").exists()


def test_a_refresh_for_another_moment_waits_until_a_table_is_joined(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    validated, join = accept(home, ROWS), features._joined
    other = threading.Thread(target=refresh_offline, args=(pipeline(), validated, START + timedelta(days=1), home))

    def disturbed(*arguments: Any) -> pl.DataFrame:
        other.start()
        other.join(timeout=1)  # enough to swap the files, if nothing kept it from that
        return join(*arguments)

    monkeypatch.setattr(features, "_joined", disturbed)
    made = build_features(pipeline(), validated, AS_OF, home)
    other.join()
    frame = pl.read_parquet(home.absolute(made.path)).filter(pl.col("started") > START + timedelta(days=2))
    assert frame["departures__rides"].null_count() < frame.height / 2


def test_training_and_online_values_agree_at_the_moment_of_materialization(home: Home) -> None:
    now = AS_OF - timedelta(hours=10)
    asked = simulate(40, seed=5).with_columns(
        started=pl.lit(now, dtype=pl.Datetime("us", "UTC")),
        ended=pl.lit(now + timedelta(minutes=50), dtype=pl.Datetime("us", "UTC")),
        row_id=pl.concat_str(pl.lit("asked:"), pl.col("row_id")),
    )
    made = table(pipeline(), home, pl.concat([ROWS, asked])).filter(pl.col("row_id").str.starts_with("asked"))
    materialize(pipeline(), now, home)
    with PackedStore(home.online("rides"), read_only=True) as store:
        for view in (departures, arrivals):
            found = store.read(view.name, [1, 2, 3, 4, 5], ["rides", "mean"])
            columns = [view.on, f"{view.name}__rides", f"{view.name}__mean"]
            for stop, *values in made.select(columns).iter_rows():
                assert values == (found[stop][1] if stop in found else [None, None])


def test_materializing_what_was_never_computed_is_refused(home: Home) -> None:
    with pytest.raises(NotFound, match="'departures' offline"):
        materialize(pipeline(), AS_OF, home)


@request
def speed() -> Sequence[pl.Expr]:
    return [(pl.col("destination") / pl.col("minutes")).alias("speed")]


def test_a_request_feature_that_asks_for_more_than_the_request_is_refused_by_name(home: Home) -> None:
    spec = dataclasses.replace(pipeline(), features=(speed,))
    with pytest.raises(LeakageError, match="'speed' of 'rides' ask for minutes, which is not known"):
        build_features(spec, accept(home, ROWS), AS_OF, home)


def test_an_input_that_is_the_target_in_other_units_is_refused(home: Home) -> None:
    spec = dataclasses.replace(pipeline(features=()), inputs=("origin", "destination", "started", "seconds"))
    rows = ROWS.with_columns(seconds=pl.col("minutes") * 60)
    with pytest.raises(LeakageError, match="'seconds' is a linear function of the target"):
        build_features(spec, accept(home, rows), AS_OF, home)


def test_without_times_all_rows_are_used_and_the_feature_store_is_left_alone(home: Home) -> None:
    spec = dataclasses.replace(
        pipeline(features=()),
        source=dataclasses.replace(pipeline().source, time=None),
        inputs=("origin", "destination", "kind"),
        features=(),
        target=Regression("minutes"),
        split=ByColumn(column="half", test="b"),
        gates=(NoWorseSlice("kind"), NoWorseSlice("half")),
    )
    rows = ROWS.with_columns(kind=pl.lit("slow"), half=pl.lit("a"))
    record = build_features(spec, accept(home, rows), AS_OF, home)
    made = pl.read_parquet(home.absolute(record.path))
    assert made.columns == ["row_id", "minutes", "half", "origin", "destination", "kind"]
    assert (record.rows, record.time, record.slices) == (ROWS.height, None, ("kind", "half"))
    assert record.categorical == ("origin", "destination", "kind")
    assert not home.feature_registry.exists()
    assert materialize(spec, AS_OF, home) == {}
    assert build_features(spec, accept(home, rows), AS_OF + timedelta(days=1), home) == record, "no row has a time"


def test_inputs_of_other_types_become_numbers_or_categories_or_are_refused(home: Home) -> None:
    rows = ROWS.with_columns(
        flag=pl.col("origin") > 2,
        size=pl.col("origin").cast(pl.UInt8),
        ratio=pl.lit(float("nan")),
        speed=pl.col("origin") / 0.0,
    )
    inputs = ("origin", "destination", "started", "flag", "size", "ratio", "speed")
    spec = dataclasses.replace(pipeline(features=()), inputs=inputs, categorical=("size",), features=())
    made = table(spec, home, rows)
    assert made.schema["flag"] == made.schema["origin"] == pl.Float64
    assert made.schema["size"] == pl.Int64
    assert made["ratio"].null_count() == made["speed"].null_count() == made.height
    with pytest.raises(SpecError, match="'ratio' is Float64; a category is"):
        table(dataclasses.replace(spec, categorical=("ratio",)), home, rows)
    with pytest.raises(SpecError, match="calls nothing categorical"):
        table(dataclasses.replace(spec, categorical=("nothing",)), home, rows)


def test_two_inputs_of_one_name_are_refused(home: Home) -> None:
    spec = dataclasses.replace(pipeline(features=()), features=(clock, clock))
    with pytest.raises(SpecError, match="two inputs of one name"):
        build_features(spec, accept(home, ROWS), AS_OF, home)


def test_a_slice_that_nobody_has_is_refused(home: Home) -> None:
    spec = dataclasses.replace(pipeline(features=()), gates=(NoWorseSlice("borough"),))
    with pytest.raises(SpecError, match="slices or splits by borough"):
        build_features(spec, accept(home, ROWS), AS_OF, home)


def test_before_the_first_label_there_is_no_table(home: Home) -> None:
    with pytest.raises(EmptySource, match="no row whose target was known by 2022"):
        build_features(pipeline(features=()), accept(home, ROWS), datetime(2022, 1, 1, tzinfo=UTC), home)


def test_a_changed_lookup_makes_another_table(home: Home) -> None:
    validated: Validated = accept(home, ROWS)
    shorter = stored(entity="stop", on="origin", ttl="20m")(departures.function)
    first = build_features(pipeline(), validated, AS_OF, home)
    second = build_features(pipeline(features=(shorter, arrivals)), validated, AS_OF, home)
    assert first.fingerprint != second.fingerprint
    missing = [pl.read_parquet(home.absolute(made.path))["departures__rides"].null_count() for made in (first, second)]
    assert missing[1] > missing[0]
