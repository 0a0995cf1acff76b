"""Pushed events: the online store after them is the one that a batch over all of them makes."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import polars as pl
import pytest

from ferroflow.adapters.feast.packed import PackedStore
from ferroflow.adapters.home import Home
from ferroflow.core import aggregates
from ferroflow.core.aggregates import Aggregate
from ferroflow.core.definitions import feature
from ferroflow.core.errors import DataError, NotFound, SpecError
from ferroflow.core.spec import PipelineSpec
from ferroflow.core.windows import WindowFeatures, windows
from ferroflow.stations.features import materialize, refresh_offline
from ferroflow.stations.push import Pushed, Pusher
from tests.rides import START, accept, pipeline, simulate

ROOT = Path(__file__).resolve().parents[2]
END = START + timedelta(days=5)


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
    return Pusher(spec(), "day", home, late="1h")


def pushed(home: Home, events: pl.DataFrame, place: int, until: datetime | None = None) -> Pushed:
    return pusher(home).push(events, place=place, until=until)


def online(home: Home) -> dict[object, object]:
    with PackedStore(home.online("rides"), read_only=True) as store:
        return dict(store.read("day", list(range(7)), ["rides", "mean"]))


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
    refresh_offline(spec(), accept(other, rows), END, other)
    materialize(spec(), END, other)
    assert online(home) == online(other)
    assert len(online(home)) == 5
    with PackedStore(home.online("rides"), read_only=True) as store:
        mark = store.watermark("day")
    assert mark is not None
    assert mark.event >= int(END.timestamp() * 1e6)


def test_a_batch_of_all_events_holds_against_what_was_pushed_of_a_part(home: Home) -> None:
    rows = simulate(300)
    pushed(home, rows.head(100), 1, until=END)
    parts = online(home)
    refresh_offline(spec(), accept(home, rows), END, home)
    materialize(spec(), END, home)
    whole = online(home)
    assert whole != parts
    Pusher(spec(), "day", home).push(rows.head(0), place=2, until=END)
    assert online(home) == whole


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
    assert changed.push(simulate(20), place=1).place == 1


def test_a_view_that_is_no_window_and_a_damaged_state_are_told(home: Home) -> None:
    with pytest.raises(NotFound, match=r"no windows 'departures' to push to. It has: none"):
        Pusher(pipeline(), "departures", home)
    pushed(home, simulate(20), 1)
    [file] = (home.offline("rides") / "pushed").glob("*.json")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"day.json of 'day' is damaged.*Remove the file"):
        pushed(home, simulate(20), 2)
