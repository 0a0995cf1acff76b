from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from feast import FeatureStore

from ferroflow.adapters.feast.packed import PackedStore
from ferroflow.adapters.feast.plan import ReadPlan, RedisPlan
from ferroflow.adapters.feast.rows import Watermark
from ferroflow.adapters.home import Home
from ferroflow.core.errors import DataError, UsageError
from ferroflow.core.features import StoredFeatures, stored
from ferroflow.core.spec import PipelineSpec
from ferroflow.stations import materialize as materialize_station
from ferroflow.stations import offline
from ferroflow.stations.features import refresh_offline
from ferroflow.stations.materialize import backfill, materialize
from tests.engines import redis_server
from tests.rides import START, accept, arrivals, pipeline, simulate, summary

ROOT = Path(__file__).resolve().parents[2]
AS_OF = START + timedelta(days=4)
HOUR, DAY, NONE = timedelta(hours=1), timedelta(days=1), timedelta(0)
INGESTED = START + timedelta(days=9)
ROWS = simulate(400)
STOPS = [1, 2, 3, 4, 5]
SPEC = pipeline(features=(arrivals,))


def micros(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000


def online(home: Home, features: list[str] | None = None) -> dict[Any, Any]:
    with PackedStore(home.online("rides"), read_only=True) as store:
        return dict(store.read("arrivals", STOPS, features or ["rides", "mean"]))


def watermark(home: Home) -> Watermark | None:
    with PackedStore(home.online("rides"), read_only=True) as store:
        return store.watermark("arrivals")


def stored_rows(home: Home) -> pl.DataFrame:
    return pl.read_parquet(home.offline("rides") / "arrivals.parquet")


def late(stop: int, ended: datetime, minutes: float, ingested: datetime) -> pl.DataFrame:
    """A ride that came in late."""
    return ROWS.head(1).with_columns(
        destination=pl.lit(stop, pl.Int64), minutes=pl.lit(minutes), row_id=pl.lit(f"late:{ended}:{stop}"),
        started=pl.lit(ended - timedelta(minutes=minutes)).dt.cast_time_unit("us"),
        ended=pl.lit(ended).dt.cast_time_unit("us"), ingested_at=pl.lit(ingested).dt.cast_time_unit("us"),
    )  # fmt: skip


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> list[tuple[datetime, datetime]]:
    """The ranges that Feast was asked to materialize."""
    asked: list[tuple[datetime, datetime]] = []
    real = FeatureStore.materialize

    def materialize(self: FeatureStore, start: datetime, end: datetime, **more: Any) -> None:
        asked.append((start, end))
        real(self, start, end, **more)

    monkeypatch.setattr(FeatureStore, "materialize", materialize)
    return asked


def bring(home: Home, rows: pl.DataFrame, as_of: datetime = AS_OF, spec: PipelineSpec = SPEC, **more: Any) -> int:
    name = f"v{len(rows)}-{rows['minutes'].sum()}"
    refresh_offline(spec, accept(home, rows, name), as_of, home)
    return materialize(spec, as_of, home, **more)["arrivals"]


def test_an_edit_of_a_feature_is_found_though_a_replay_made_it_first(home: Home) -> None:
    def changed(rows: pl.LazyFrame) -> pl.LazyFrame:
        return summary(rows, "destination", 6).with_columns(mean=pl.col("mean") * 60)

    changed.__name__ = "arrivals"
    before, spec = AS_OF - DAY, pipeline(features=(stored(entity="stop", on="destination", ttl="2d")(changed),))
    early = pl.col("ended") < before
    rows = ROWS.filter((pl.col("destination") != 5) | (pl.col("ended") < before - 7 * HOUR)).with_columns(
        ingested_at=pl.when(early).then(pl.lit(INGESTED)).otherwise(pl.lit(INGESTED + DAY)).dt.cast_time_unit("us")
    )
    for as_of in (before, AS_OF, before):
        bring(home, rows, as_of)
    for as_of in (before, AS_OF):
        bring(home, rows, as_of, spec=spec)
    anew = Home(home.root.parent / "anew")
    bring(anew, rows, AS_OF, spec=spec)
    assert online(home) == online(anew)


def test_other_code_of_a_feature_is_materialized_over_the_whole_time_to_live(
    home: Home, spans: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(home, ROWS)
    real = offline.definitions
    monkeypatch.setattr(offline, "definitions", lambda spec: [{**part, "code": "edited"} for part in real(spec)])
    bring(home, ROWS, AS_OF - DAY)
    bring(home, ROWS)
    assert spans[1:] == [(AS_OF - DAY - arrivals.ttl, AS_OF - DAY), (AS_OF - arrivals.ttl, AS_OF)]
    assert bring(home, ROWS) == 0


def test_pushes_that_are_ahead_of_the_runs_hide_nothing_from_them_and_make_no_work(
    home: Home, spans: list[Any]
) -> None:
    bring(home, ROWS)
    with PackedStore(home.online("rides")) as store:
        store.advance("arrivals", micros(AS_OF + 2 * DAY))
    rows = ROWS.filter(pl.col("ended") < AS_OF)
    bring(home, rows, AS_OF + 6 * HOUR)
    for hour in (7, 8):
        assert bring(home, rows, AS_OF + hour * HOUR) == 0
    assert len(spans) == 1
    more = pl.concat([rows, late(3, AS_OF - DAY, 7.0, INGESTED + DAY)])
    assert bring(home, more, AS_OF + 9 * HOUR) > 0
    anew = Home(home.root.parent / "anew")
    bring(anew, more, AS_OF + 9 * HOUR)
    assert online(home) == online(anew)


def test_each_online_store_is_known_by_what_it_was_given_itself(home: Home, spans: list[Any]) -> None:
    with redis_server() as port:
        there = Home(home.root, online_store=f"redis://127.0.0.1:{port}/3")
        bring(there, ROWS)
        spec = pipeline(features=(wider(),))
        bring(home, ROWS, spec=spec)
        bring(there, ROWS, spec=spec)
        assert spans == [(AS_OF - arrivals.ttl, AS_OF)] * 3
        assert bring(there, ROWS, spec=spec) == bring(home, ROWS, spec=spec) == 0
        assert len(spans) == 3


def test_no_address_of_an_online_store_is_written_down(home: Home) -> None:
    where = materialize_station._where
    plans = [
        ReadPlan(store=RedisPlan(url=f"redis://:{word}@{host}:1/0"), project="p", views=())
        for word, host in (("secret", "one"), ("other", "one"), ("other", "two"))
    ]
    one, same, two = (where(plan, arrivals) for plan in plans)
    assert one == same != two
    assert "secret" not in one and "one" not in one.removeprefix("arrivals in redis ")


def test_what_came_late_decides_the_range_that_is_materialized(home: Home, spans: list[Any]) -> None:
    bring(home, ROWS)
    assert spans == [(AS_OF - arrivals.ttl, AS_OF)]
    assert watermark(home) == (micros(AS_OF), micros(INGESTED))
    more = pl.concat([ROWS, late(3, AS_OF - DAY, 7.0, INGESTED + DAY)])
    assert bring(home, more, lookback=NONE) == 5
    assert spans[1:] == [(AS_OF - DAY + 6 * HOUR, AS_OF)], "the window that the late ride is in ended then"
    assert watermark(home) == (micros(AS_OF), micros(INGESTED + DAY))


def test_where_nothing_is_new_nothing_is_read_and_the_event_watermark_advances(home: Home, spans: list[Any]) -> None:
    rows = ROWS.filter(pl.col("ended") < AS_OF)
    bring(home, rows, AS_OF + 6 * HOUR)
    before = online(home)
    assert bring(home, rows, AS_OF + 7 * HOUR) == 0
    assert len(spans) == 1
    assert watermark(home) == (micros(AS_OF + 7 * HOUR), micros(INGESTED))
    assert online(home) == before
    assert bring(home, rows, AS_OF + 8 * HOUR, lookback=HOUR) == 5, "the offline files may have been written by others"
    assert len(spans) == 2


def test_a_run_for_an_earlier_moment_does_not_make_later_corrections_look_done(home: Home, spans: list[Any]) -> None:
    bring(home, ROWS, lookback=NONE)
    corrected = pl.concat([ROWS, late(3, AS_OF - HOUR * 7, 500.0, INGESTED + DAY)])
    refresh_offline(SPEC, accept(home, corrected, "v2"), AS_OF, home)
    materialize(SPEC, AS_OF - DAY, home, lookback=NONE)
    assert watermark(home) == (micros(AS_OF), micros(INGESTED))
    materialize(SPEC, AS_OF, home, lookback=NONE)
    anew = Home(home.root.parent / "anew")
    bring(anew, corrected)
    assert online(home) == online(anew)
    assert watermark(home) == (micros(AS_OF), micros(INGESTED + DAY))


@pytest.mark.parametrize("seed", [1, 2])
def test_step_by_step_gives_what_a_run_from_nothing_gives(home: Home, seed: int) -> None:
    dice, rows, as_of = random.Random(seed), ROWS, START + DAY
    for step in range(4):
        as_of += dice.choice([NONE, HOUR, 8 * HOUR, DAY])
        ingested = INGESTED + dice.choice([0, step]) * DAY
        if dice.random() < 0.7:
            ended = as_of - dice.randrange(60) * HOUR
            rows = pl.concat([rows, late(dice.choice(STOPS), ended, float(dice.randint(1, 90)), ingested)])
        if dice.random() < 0.5:
            corrected = pl.int_range(pl.len()) == dice.randrange(rows.height)
            rows = rows.with_columns(minutes=pl.when(corrected).then(pl.lit(77.0)).otherwise("minutes"))
        bring(home, rows, as_of, lookback=dice.choice([NONE, HOUR]))
        anew = Home(home.root.parent / f"anew{step}")
        bring(anew, rows, as_of)
        # A value that expired is not brought to a new store; the reader does not use it.
        fresh = {key: row for key, row in online(home).items() if row[0] >= micros(as_of - arrivals.ttl)}
        assert fresh == online(anew)


def wider(ttl: str = "2d") -> StoredFeatures:
    """Arrivals with a feature more."""

    def arrivals(rows: pl.LazyFrame) -> pl.LazyFrame:
        return summary(rows, "destination", 6).with_columns(longest=pl.col("mean") * 2)

    return stored(entity="stop", on="destination", ttl=ttl)(arrivals)


def test_a_new_feature_is_filled_in_over_history_offline_and_online(home: Home, spans: list[Any]) -> None:
    bring(home, ROWS, lookback=NONE)
    spec = pipeline(features=(wider(),))
    assert bring(home, ROWS, spec=spec, lookback=NONE) == 5
    assert spans[1:] == [(AS_OF - timedelta(days=2), AS_OF)]
    frame = stored_rows(home)
    assert frame.filter(pl.col("longest") != pl.col("mean") * 2).is_empty()
    assert all(values[0] == 2 * values[1] for _, values in online(home, ["longest", "mean"]).values())
    assert bring(home, ROWS, spec=pipeline(features=(wider("3d"),)), lookback=NONE) == 5
    assert spans[2:] == [(AS_OF - timedelta(days=3), AS_OF)]


def test_a_back_fill_writes_a_time_of_history_and_moves_no_watermark(home: Home, spans: list[Any]) -> None:
    rows = ROWS.filter((pl.col("destination") != 5) | (pl.col("ended") < START + DAY))
    bring(home, rows)
    assert 5 not in online(home), "expired"
    mark = watermark(home)
    assert backfill(SPEC, START, START + 2 * DAY, home) == {"arrivals": 5}
    assert spans[1:] == [(START, START + 2 * DAY)]
    assert watermark(home) == mark
    found = online(home)
    assert found[5][0] <= micros(START + DAY + 6 * HOUR)
    assert all(found[stop][0] > micros(START + 2 * DAY) for stop in STOPS[:4]), "later values stay"
    with pytest.raises(UsageError, match="Swap them"):
        backfill(SPEC, AS_OF, START, home)


def test_rows_that_cannot_be_read_back_move_no_watermark(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    bring(home, ROWS)
    before, more = watermark(home), pl.concat([ROWS, late(3, AS_OF + HOUR, 7.0, INGESTED + DAY)])
    with monkeypatch.context() as patched:
        patched.setattr(FeatureStore, "materialize", lambda self, start, end, feature_views: None)
        with pytest.raises(DataError, match=r"stop \d of 'arrivals' cannot be read back from the online store"):
            bring(home, more, AS_OF + 8 * HOUR)
        assert watermark(home) == before
    bring(home, more, AS_OF + 8 * HOUR)
    with PackedStore(home.online("rides")) as store, closing(sqlite3.connect(store.path)) as connection:
        connection.execute("UPDATE entries SET packed = zeroblob(17)")
        connection.commit()
    monkeypatch.setattr(FeatureStore, "materialize", lambda self, start, end, feature_views: None)
    with pytest.raises(DataError, match="has other values in"):
        materialize(SPEC, AS_OF + 8 * HOUR, home, lookback=2 * DAY)


def test_an_online_store_of_another_version_or_an_empty_one_is_filled_whole(home: Home) -> None:
    bring(home, ROWS)
    full = online(home)
    with closing(sqlite3.connect(home.online("rides"))) as connection:
        connection.execute("PRAGMA user_version = 1")
    bring(home, ROWS, lookback=NONE)
    assert online(home) == full
    home.online("rides").unlink()
    bring(home, ROWS, lookback=NONE)
    assert online(home) == full


def test_materializing_says_nothing_on_standard_output(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    bring(home, ROWS)
    assert capsys.readouterr().out == ""


KILLED = """
import os, signal, sys
from datetime import datetime
from pathlib import Path
import feast
from ferroflow.adapters.feast import marks
from ferroflow.adapters.feast.packed import PackedStore
from ferroflow.adapters.home import Home
from ferroflow.stations import materialize
from tests.rides import arrivals, pipeline

def die(*arguments, **named):
    os.kill(os.getpid(), signal.SIGKILL)

def then_die(real):
    def patched(*arguments, **named):
        real(*arguments, **named)
        die()
    return patched

def halfway(self, view, layout, rows, *more):
    def some():
        for place, row in enumerate(rows):
            if place == 3:
                die()
            yield row
    return write(self, view, layout, some(), *more)

write = PackedStore._write
points = {
    "before anything is written": lambda: setattr(feast.FeatureStore, "materialize", die),
    "in the middle of the rows": lambda: setattr(PackedStore, "_write", halfway),
    "before the rows are read back": lambda: setattr(materialize, "_read_back", die),
    "before the watermark moves": lambda: setattr(marks, "advance", die),
    "after the watermark moved": lambda: setattr(marks, "advance", then_die(marks.advance)),
}
for point, home in zip(points, sys.argv[2:], strict=True):
    child = os.fork()
    if child == 0:
        points[point]()
        materialize.materialize(pipeline(features=(arrivals,)), datetime.fromisoformat(sys.argv[1]), Home(Path(home)))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_materialization_that_is_killed_anywhere_is_simply_done_again(tmp_path: Path) -> None:
    later, more = AS_OF + 8 * HOUR, pl.concat([ROWS, late(3, AS_OF - DAY, 7.0, INGESTED + DAY)])
    homes = [Home(tmp_path / str(place)) for place in range(6)]
    bring(homes[0], ROWS)
    refresh_offline(SPEC, accept(homes[0], more, "more"), later, homes[0])
    before, values = watermark(homes[0]), online(homes[0])
    for home in homes[1:]:
        shutil.copytree(homes[0].root, home.root)
    whole = homes.pop()
    materialize(SPEC, later, whole)
    command = [sys.executable, "-c", KILLED, later.isoformat(), *(str(home.root) for home in homes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["-9"] * 5, done.stderr
    assert [watermark(home) == before for home in homes] == [True, True, True, True, False]
    assert [online(home) == values for home in homes] == [True, True, False, False, False]
    for home in homes:
        materialize(SPEC, later, home)
        assert (online(home), watermark(home)) == (online(whole), watermark(whole))
