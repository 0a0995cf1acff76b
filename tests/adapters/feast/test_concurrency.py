"""Online reads while others apply, materialize, are killed or fail: never refused, never half a row, nothing lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from feast import FeatureStore, RepoConfig

from ferroflow.adapters.feast import online
from ferroflow.adapters.feast.packed import PackedStore
from ferroflow.adapters.feast.project import objects
from ferroflow.adapters.feast.steady import SteadyFeatureStore
from ferroflow.adapters.feast.store import open_store
from ferroflow.adapters.home import Home
from tests.rides import START, write_views

ROOT = Path(__file__).resolve().parents[3]


def after(hours: float) -> Any:
    return START + timedelta(hours=hours)


class Killed(BaseException):
    """What nobody catches."""


def read(feast: FeatureStore) -> list[float | None]:
    feast.refresh_registry()  # as another process, which does so from time to time
    found: list[float | None] = feast.get_online_features(["arrivals:mean"], [{"stop": 2}]).to_dict()["mean"]
    return found


def disturbed(monkeypatch: pytest.MonkeyPatch, materializer: FeatureStore, action: Callable[[], None]) -> None:
    """Materialize, with ``action`` in the middle of it."""
    write = PackedStore.write_packed

    def patched(*arguments: Any, **named: Any) -> int:
        action()
        return write(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(PackedStore, "write_packed", patched)
        materializer.materialize(after(0), after(8), feature_views=["arrivals"])


def die() -> None:
    raise Killed


def fail() -> None:
    raise OSError("disk full")


@pytest.fixture
def config(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RepoConfig:
    """Views that were materialized once, in a file registry: the SQL one forgets most marks of Feast's own, today."""
    monkeypatch.setattr(online, "now", lambda: after(8))
    found = RepoConfig(
        project="ferroflow",
        provider="local",
        registry=str(tmp_path / "registry.pb"),
        offline_store={"type": "ferroflow.adapters.feast.offline.PolarsOfflineStore"},
        online_store={"type": "ferroflow.adapters.feast.online.PackedSqliteOnlineStore", "path": str(tmp_path)},
        batch_engine={"type": "ferroflow.adapters.feast.engine.BulkComputeEngine"},
        entity_key_serialization_version=3,
    )
    feast = SteadyFeatureStore(config=found)
    feast.apply(objects(write_views(home), home))
    feast.materialize(after(0), after(8))
    return found


def test_feast_itself_refuses_reads_during_after_a_killed_and_after_a_failed_materialization(
    config: RepoConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    materializer, reader = FeatureStore(config=config), FeatureStore(config=config)

    def refused(state: str) -> None:
        with pytest.raises(ValueError, match=f"in state '{state}' and cannot serve features"):
            read(reader)

    assert read(reader) == [4.5]
    disturbed(monkeypatch, materializer, lambda: refused("MATERIALIZING"))
    assert read(reader) == [4.5]
    with pytest.raises(Killed):
        disturbed(monkeypatch, materializer, die)
    refused("MATERIALIZING")
    with pytest.raises(Exception, match="disk full"):
        disturbed(monkeypatch, materializer, fail)
    refused("GENERATED")
    SteadyFeatureStore(config=config).materialize(after(0), after(8), feature_views=["arrivals"])
    assert read(reader) == [4.5], "the next materialization that ends well heals it"


def test_with_our_store_reads_are_never_refused_not_even_by_feasts_own_readers(
    config: RepoConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    materializer = SteadyFeatureStore(config=config)
    readers = [SteadyFeatureStore(config=config), FeatureStore(config=config)]

    def all_read() -> None:
        assert [read(reader) for reader in readers] == [[4.5], [4.5]]

    all_read()
    disturbed(monkeypatch, materializer, all_read)
    all_read()
    with pytest.raises(Killed):
        disturbed(monkeypatch, materializer, die)
    all_read()
    with pytest.raises(Exception, match="disk full"):
        disturbed(monkeypatch, materializer, fail)
    all_read()


def test_our_readers_pass_over_the_marks_of_other_programs(config: RepoConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Killed):
        disturbed(monkeypatch, FeatureStore(config=config), die)
    assert read(SteadyFeatureStore(config=config)) == [4.5]


TOGETHER = """
import os, sys, time, traceback
from datetime import timedelta
from pathlib import Path
import polars as pl
from ferroflow.adapters.feast.packed import PackedStore
from ferroflow.adapters.feast.steady import SteadyFeatureStore
from ferroflow.adapters.feast.store import open_store, store
from ferroflow.adapters.home import Home
from ferroflow.core.features import stored
from ferroflow.stations.features import refresh_offline
from ferroflow.stations.materialize import materialize
from tests.rides import START, UTC_TIME, accept, arrivals, pipeline

HOME, ROUNDS, STOPS, NAMES = Home(Path(sys.argv[1])), 3, list(range(1, 300)), ["a", "b", "c"]

def versions(rows):
    at = pl.col("ended").alias("available_at")
    return rows.select(pl.col("destination").alias("stop"), at, *(pl.col("minutes").alias(name) for name in NAMES))

def named(name, ttl):
    def view(rows):
        return arrivals.function(rows)
    view.__name__ = name
    return stored(entity="stop", on="destination", ttl=ttl)(view)

SPEC = pipeline(features=(stored(entity="stop", on="destination", ttl="90d")(versions),))

def accepted(version):
    moments = [START + timedelta(hours=number) for number in range(1, version + 1)]
    rows = pl.DataFrame({"ended": moments}, schema={"ended": UTC_TIME}).with_columns(
        minutes=pl.int_range(1, pl.len() + 1).cast(pl.Float64), started=pl.col("ended"), ingested_at=pl.col("ended"),
        origin=pl.lit(1, pl.Int64),
    ).join(pl.DataFrame({"destination": STOPS}, schema={"destination": pl.Int64}), how="cross")
    return accept(HOME, rows.with_row_index("row_id").with_columns(pl.col("row_id").cast(pl.String)), f"v{version}")

def materializer(number):
    for version in range(2 + number, 2 + number + ROUNDS):
        as_of = START + timedelta(hours=version)
        refresh_offline(SPEC, accepted(version), as_of, HOME)
        materialize(SPEC, as_of, HOME)

def applier(number):
    for turn in range(ROUNDS + 1):
        store(HOME, [pipeline(f"pipe{number}", (named(f"one{number}", f"{turn + 1}h"), named(f"two{number}", "9h")))])

def reader(number):
    last, seen = (0, 0), set()
    feast = SteadyFeatureStore(config=open_store(HOME).config)
    while not Path(sys.argv[1], "ended").exists():
        with PackedStore(HOME.online("rides"), read_only=True) as packed:
            for _ in range(20):
                mark = packed.watermark("versions")
                rows = packed.read("versions", STOPS, NAMES)
                assert len(rows) == len(STOPS), len(rows)
                found = {(event, *values) for event, values in rows.values()}
                assert len(found) == 1, found
                event, a, b, c = found.pop()
                assert a == b == c and event == int((START + timedelta(hours=a)).timestamp() * 1e6), (event, a, b, c)
                assert tuple(mark) >= last and mark.ingested >= last[1] and event >= mark.event, (mark, last, event)
                last = tuple(mark)
                seen.add(a)
        time.sleep(0.02)
        feast.refresh_registry()
        answer = feast.get_online_features(
            ["versions:a", "versions:b", "versions:c"], [{"stop": stop} for stop in STOPS[:5]]).to_dict()
        assert len({value for name in NAMES for value in answer[name]}) == 1, answer
    assert len(seen) > 1, seen

def forked(work, number):
    child = os.fork()
    if child == 0:
        try:
            work(number)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child

def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def first(number):
    refresh_offline(SPEC, accepted(1), START + timedelta(hours=1), HOME)
    materialize(SPEC, START + timedelta(hours=1), HOME)

assert ended(forked(first, 0)) == 0
readers = [forked(reader, number) for number in range(2)]
others = [forked(work, number) for work in (materializer, applier) for number in range(2)]
codes = [ended(child) for child in others]
Path(sys.argv[1], "ended").touch()
print(codes + [ended(child) for child in readers])
"""


def test_appliers_materializers_and_readers_at_once_lose_nothing_and_meet_no_error(tmp_path: Path) -> None:
    root = tmp_path / "home"
    root.mkdir()
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    environment = os.environ | {"POLARS_MAX_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.splitlines()[-1:] == ["[0, 0, 0, 0, 0, 0]"], done.stderr[-4000:] + done.stdout
    views = {view.name: view for view in open_store(Home(root)).list_feature_views()}
    assert sorted(views) == ["one0", "one1", "two0", "two1", "versions"]
    assert [views[name].ttl for name in ("one0", "one1")] == [timedelta(hours=4)] * 2
    with PackedStore(Home(root).online("rides"), read_only=True) as packed:
        last = int((START + timedelta(hours=5)).timestamp() * 1e6)
        assert packed.watermark("versions") == (last, last)
        assert set(map(str, packed.read("versions", [1, 299], ["a"]).values())) == {str((last, [5.0]))}
