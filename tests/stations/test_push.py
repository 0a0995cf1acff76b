"""Pushed events: the online store after them is the one that a batch over all of them makes."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import polars as pl
import pytest

from ferroflow.adapters.feast.packed import PackedStore
from ferroflow.adapters.home import Home
from ferroflow.core import aggregates
from ferroflow.core.aggregates import Aggregate
from ferroflow.core.definitions import feature
from ferroflow.core.errors import DataError, NotFound, SpecError, UsageError
from ferroflow.core.spec import PipelineSpec
from ferroflow.core.windows import WindowFeatures, windows
from ferroflow.stations.features import materialize, refresh_offline
from ferroflow.stations.push import Pushed, Pusher
from tests.rides import START, accept, pipeline, simulate

ROOT = Path(__file__).resolve().parents[2]
END = START + timedelta(days=5)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
T = START + 3 * DAY


@feature
def rides() -> Aggregate:
    return aggregates.count()


@feature
def mean(minutes: pl.Expr) -> Aggregate:
    return aggregates.mean(minutes)


@feature
def longest(minutes: pl.Expr) -> Aggregate:
    return aggregates.max(minutes)


def rides_of_a_day(*features: object) -> WindowFeatures:
    parts = features or (rides, mean)
    return windows(
        "day",
        entity="stop",
        on="destination",
        time="ended",
        last="24h",
        every="6h",
        ttl="2d",
        features=parts,  # type: ignore[arg-type]
    )


def spec(*features: object) -> PipelineSpec:
    return pipeline(features=(rides_of_a_day(*features),))


@cache
def pusher(home: Home) -> Pusher:
    """One whose stream has all events there ever were."""
    made = Pusher(spec(), "day", home)
    if not made.file.exists():
        made.begin(simulate(1).clear(), place=-1, since=START - 2 * DAY, late="1h")
    return made


def pushed(home: Home, events: pl.DataFrame, place: int, until: datetime | None = None) -> Pushed:
    return pusher(home).push(events, place=place, until=until)


def online(home: Home, view: str = "day") -> dict[object, object]:
    with PackedStore(home.online("rides"), read_only=True) as store:
        return dict(store.read(view, list(range(7)), ["rides", "mean"]))


def complete_until(home: Home) -> datetime:
    with PackedStore(home.online("rides"), read_only=True) as store:
        mark = store.watermark("day")
    assert mark is not None
    return datetime.fromtimestamp(mark.event / 1e6, UTC)


def batch(home: Home, rows: pl.DataFrame, as_of: datetime, of: PipelineSpec | None = None) -> None:
    refresh_offline(of or spec(), accept(home, rows, f"v{len(rows)}"), as_of, home)
    materialize(of or spec(), as_of, home)


def ended(rows: pl.DataFrame, start: datetime, end: datetime) -> pl.DataFrame:
    return rows.filter(pl.col("ended").is_between(start, end, closed="left"))


def in_pieces(rows: pl.DataFrame) -> list[pl.DataFrame]:
    return [part for _, part in rows.sort("ended").group_by_dynamic("ended", every="7h")]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_what_was_pushed_piece_by_piece_is_online_as_a_batch_would_put_it(home: Home, tmp_path: Path) -> None:
    rows = simulate(300)
    pieces = in_pieces(rows)
    assert len(pieces) > 10
    for place, piece in enumerate(pieces):
        pushed(home, piece, place)
    pushed(home, rows.clear(), len(pieces), until=END)
    other = Home(tmp_path / "other")
    batch(other, rows, END)
    assert online(home) == online(other)
    assert len(online(home)) == 5
    assert complete_until(home) >= END


def test_a_batch_of_all_events_holds_against_what_was_pushed_of_a_part(home: Home) -> None:
    rows = simulate(300)
    pushed(home, rows.head(100), 1, until=END)
    parts = online(home)
    batch(home, rows, END)
    whole = online(home)
    assert whole != parts
    Pusher(spec(), "day", home).push(rows.head(0), place=2, until=END)
    assert online(home) == whole


def test_a_batch_that_ingested_before_the_window_closed_holds_too(home: Home, tmp_path: Path) -> None:
    ingested = (pl.col("ended") + timedelta(minutes=1)).dt.cast_time_unit("us")
    rows = simulate(300).with_columns(ingested_at=ingested)
    landed = rows.filter(pl.col("ended") < T - timedelta(minutes=40))
    pushed(home, rows.filter(pl.col("ended") < T), 1, until=T)
    batch(home, landed, T)
    batch(tmp := Home(tmp_path / "other"), landed, T)
    assert online(home) == online(tmp)
    batch(home, rows, T)
    batch(tmp, rows, T)
    assert online(home) == online(tmp)


def test_windows_that_are_begun_beside_a_live_batch_go_on_as_batches_would(home: Home, tmp_path: Path) -> None:
    rows = simulate(300)
    batch(home, rows, T)
    before, stream = online(home), Pusher(spec(), "day", home)
    stream.begin(ended(rows, T - DAY, T), place=7, since=T - DAY, until=T)
    assert online(home) == before
    assert stream.push(rows, place=7).rows == 0, "they were in what it began with"
    stream.push(ended(rows, T, T + 6 * HOUR), place=8, until=T + 6 * HOUR)
    other = Home(tmp_path / "other")
    batch(other, rows, T + 6 * HOUR)
    assert online(home) == online(other) != before


@pytest.mark.parametrize("told", [True, False])
def test_windows_that_began_before_the_events_are_neither_written_nor_counted(
    home: Home, tmp_path: Path, told: bool
) -> None:
    rows = simulate(300)
    batch(home, rows, T)
    before, stream = online(home), Pusher(spec(), "day", home)
    stream.begin(ended(rows, T - 3 * HOUR, T), place=0, since=T - 3 * HOUR if told else None, until=T)
    for place in range(1, 4):
        events = ended(rows, T + (place - 1) * 6 * HOUR, T + place * 6 * HOUR)
        assert stream.push(events, place=place, until=T + place * 6 * HOUR).rows == 0
    assert (online(home), complete_until(home)) == (before, T)
    stream.push(ended(rows, T + 18 * HOUR, T + DAY), place=4, until=T + DAY)
    other = Home(tmp_path / "other")
    batch(other, rows, T + DAY)
    assert (online(home), complete_until(home)) == (online(other), T + DAY)


def test_windows_of_n_events_begin_with_the_last_n_of_each_entity(home: Home, tmp_path: Path) -> None:
    view = windows(
        "recent", entity="stop", on="destination", time="ended", events=4, ttl="2d", features=(rides, mean)
    )  # fmt: skip
    of, rows = pipeline(features=(view,)), simulate(300)
    batch(home, rows, T, of)
    stream = Pusher(of, "recent", home)
    last = ended(rows, START, T).sort("ended").group_by("destination", maintain_order=True).tail(4)
    stream.begin(last.select(rows.columns), place=0, until=T)
    stream.push(ended(rows, T, T + 2 * HOUR), place=1, until=T + 2 * HOUR)
    other = Home(tmp_path / "other")
    batch(other, ended(rows, START, T + 2 * HOUR), T + 2 * HOUR, of)
    assert online(home, "recent") == online(other, "recent")


def test_pushes_without_rows_and_with_other_numbers_change_no_type(home: Home, tmp_path: Path) -> None:
    rows, key = simulate(300), pl.col("destination")
    batch(home, rows, T)
    stream = Pusher(spec(), "day", home)
    stream.begin(ended(rows, T - DAY, T), place=0, since=T - DAY, until=T)
    stream.push(rows.clear().with_columns(key.cast(pl.String)), place=1)  # as an empty CSV is read
    first, last = ended(rows, T, T + 3 * HOUR), ended(rows, T + 3 * HOUR, T + 6 * HOUR)
    stream.push(first.with_columns(key.cast(pl.UInt64)), place=2)
    with pytest.raises(DataError, match=r"Entity 'stop' of 'day' was Int64 so far and is Float64 now; \d\.5 cannot"):
        stream.push(last.with_columns(key + 0.5), place=3)
    stream.push(last.with_columns(key.cast(pl.Float64)), place=3, until=T + 6 * HOUR)
    other = Home(tmp_path / "other")
    batch(other, rows, T + 6 * HOUR)
    assert online(home) == online(other)


def test_windows_are_begun_once_and_before_anything_is_pushed(home: Home) -> None:
    stream = Pusher(spec(), "day", home)
    with pytest.raises(NotFound, match=r"windows 'day' were not begun. Give Pusher.begin\(\)"):
        stream.push(simulate(5), place=1)
    with pytest.raises(UsageError, match="Begin with since="):
        stream.begin(simulate(1).clear(), place=0)
    stream.begin(simulate(5), place=0)
    assert not home.online("rides").exists()
    with pytest.raises(UsageError, match=r"'day' were begun already. Push to them, or forget\(\) them"):
        stream.begin(simulate(5), place=0)


def test_a_place_that_was_pushed_counts_once(home: Home) -> None:
    rows = simulate(50)
    assert pushed(home, rows, 5, until=END).rows == 5
    before = online(home)
    assert pushed(home, rows, 5, until=END) == Pushed(place=5, rows=0, too_late=0)
    assert pushed(home, rows, 4) == Pushed(place=5, rows=0, too_late=0)
    assert online(home) == before


def test_events_beyond_the_allowance_are_left_out_and_told(home: Home) -> None:
    rows = simulate(50).sort("ended")
    pushed(home, rows.tail(40), 1)
    told = pushed(home, rows.head(10), 2)
    assert told.too_late == 10


KILLED = """
import sys, os, signal
import polars as pl
from pathlib import Path
from ferroflow.adapters.home import Home
from ferroflow.stations import push as station
from tests.stations.test_push import pushed, in_pieces, simulate
point, folder = sys.argv[1:]
def die(*_a, **_k): os.kill(os.getpid(), signal.SIGKILL)
pieces = in_pieces(simulate(120))
pushed(Home(Path(folder)), pieces[0], 0)
if point == "before the rows":
    station.Pusher._write = die
elif point == "before the file":
    station.write_record = die
pushed(Home(Path(folder)), pieces[1], 1)
"""


@pytest.mark.parametrize("point", ["before the rows", "before the file"])
def test_a_push_that_was_killed_is_pushed_again_with_nothing_lost_or_doubled(
    home: Home, tmp_path: Path, point: str
) -> None:
    pieces = in_pieces(simulate(120))
    ended = subprocess.run([sys.executable, "-c", KILLED, point, str(home.root)], cwd=ROOT, timeout=120)
    assert ended.returncode == -9
    other = Home(tmp_path / "other")
    for place, piece in enumerate(pieces[:4]):
        pushed(home, piece, place)
        pushed(other, piece, place)
    assert online(home) == online(other) != {}


def test_another_definition_refuses_the_kept_state_until_it_is_forgotten(home: Home) -> None:
    pushed(home, simulate(20), 1)
    changed = Pusher(spec(rides, longest), "day", home)
    with pytest.raises(SpecError, match="another definition"):
        changed.push(simulate(20), place=2)
    changed.forget()
    with pytest.raises(NotFound, match="not begun"):
        changed.push(simulate(20), place=1)
    changed.begin(simulate(20), place=1)
    assert changed.push(simulate(20), place=2).place == 2


def test_a_view_that_is_no_window_and_a_damaged_state_are_told(home: Home) -> None:
    with pytest.raises(NotFound, match=r"no windows 'departures' to push to. It has: none"):
        Pusher(pipeline(), "departures", home)
    pushed(home, simulate(20), 1)
    [file] = (home.offline("rides") / "pushed").glob("*.json")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"day.json of 'day' is damaged.*Remove the file"):
        pushed(home, simulate(20), 2)
