from __future__ import annotations

import dataclasses
import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from ferroflow.adapters import registry
from ferroflow.adapters.catalogue_page import write_catalogue_page
from ferroflow.adapters.home import Home
from ferroflow.adapters.pipelines import load, names
from ferroflow.adapters.predictions import PredictionLog
from ferroflow.core import aggregates
from ferroflow.core.aggregates import Aggregate
from ferroflow.core.catalogue import FeatureEntry, declared, personal, spoken
from ferroflow.core.definitions import feature, features
from ferroflow.core.errors import NotFound, RegistryError, SpecError
from ferroflow.core.features import request
from ferroflow.core.spec import PipelineSpec
from ferroflow.core.windows import windows
from ferroflow.stations.catalogue import MOST, catalogue, freshness
from ferroflow.stations.features import build_features, materialize
from ferroflow.stations.importance import measure, measured
from tests import toy_model
from tests.rides import START, accept, pipeline, simulate

AS_OF = START + timedelta(days=4)
HOSTILE = "<script>alert('x')</script>&\"><img src=x onerror=1>"


@feature(owner="dispatch")
def rides() -> Aggregate:
    """How many rides ended."""
    return aggregates.count()


@feature
def length(minutes: pl.Expr) -> Aggregate:
    """Their mean length."""
    return aggregates.mean(minutes)


@feature(owner="clockmakers")
def night(started: pl.Expr) -> pl.Expr:
    """Whether it is after ten."""
    return (started.dt.hour() >= 22).cast(pl.Float64)


stop_hour = windows(
    "stop_hour",
    entity="stop",
    on="origin",
    time="ended",
    last="1h",
    every="30m",
    ttl="3h",
    features=(rides, length),
    description="The stop's last hour.",
)
hours = features("hours", night)


def with_functions() -> PipelineSpec:
    """``rides`` with features that were written as functions beside those that were not."""
    spec = pipeline()
    return dataclasses.replace(spec, features=(*spec.features, hours, stop_hour), owner="ferries")


def entries(spec: PipelineSpec, home: Home, as_of: datetime = AS_OF) -> dict[str, FeatureEntry]:
    return {entry.name: entry for entry in catalogue([spec], as_of, home).features}


def log(home: Home, name: str, vectors: list[dict[str, float | None]], at: datetime) -> None:
    common = {"at": at, "version": "1", "inputs": "{}", "prediction": 1.0, "degraded": False, "watermarks": "{}"}
    rows = [
        common | {"id": f"{at}{n}", "event_time": at + timedelta(seconds=n), "features": json.dumps(vector)}
        for n, vector in enumerate(vectors)
    ]
    PredictionLog(home.predictions(name)).append(rows)


def test_owner_description_and_dependencies_are_the_functions_own_before_the_pipelines() -> None:
    told = {entry.name: entry for entry in declared(with_functions())}
    assert [told[name].owner for name in ("night", "stop_hour__rides", "stop_hour__length", "origin")] == [
        "clockmakers", "dispatch", "ferries", "ferries",
    ]  # fmt: skip
    mean = told["stop_hour__length"]
    assert (mean.kind, mean.entity, mean.on, mean.ttl_seconds) == ("window", "stop", "origin", 10_800)
    assert mean.description == "Their mean length. The stop's last hour."
    assert (mean.depends_on, mean.reads, mean.window) == (("minutes",), ("minutes",), "last 1h, every 30m")
    assert told["night"].description == "Whether it is after ten." and told["night"].depends_on == ("started",)
    assert told["departures__mean"].kind == "stored" and told["departures__mean"].reads is None
    assert told["departures__mean"].description == "Rides that began here."


@pytest.mark.parametrize("name", names())
def test_the_catalogue_of_a_pipeline_names_every_input_of_its_models_once(name: str) -> None:
    spec = load(name)
    told = [entry.name for entry in declared(spec)]
    assert len(set(told)) == len(told) and spec.time not in told
    assert all(entry.owner and entry.description and entry.dtype for entry in declared(spec))


def test_catalogue_and_training_table_name_the_same_inputs(home: Home) -> None:
    spec = with_functions()
    table = build_features(spec, accept(home, simulate(500)), AS_OF, home)
    assert {entry.name for entry in declared(spec)} == {*table.numeric, *table.categorical}


def test_an_untouched_home_has_a_catalogue_of_what_is_declared_and_stays_untouched(home: Home) -> None:
    told = entries(pipeline(), home)
    fresh = told["departures__mean"].freshness
    assert fresh is not None and fresh.stale == "never computed"
    assert {(entry.training, entry.logged, entry.importance, entry.used_by) for entry in told.values()} == {
        (None, None, None, ())
    }
    assert not home.root.exists()


def test_age_counts_from_the_newest_row_and_a_view_beyond_its_ttl_is_stale(home: Home) -> None:
    spec = pipeline()
    build_features(spec, accept(home, simulate(500)), AS_OF, home)
    fresh = entries(spec, home)["departures__mean"].freshness
    assert fresh is not None
    newest = pl.read_parquet(home.offline("rides") / "departures.parquet")["available_at"].max()
    assert fresh.available_at == newest and fresh.ingested_at == START + timedelta(days=9)
    assert fresh.age_seconds == (AS_OF - fresh.available_at).total_seconds()
    assert fresh.stale == "never brought to the online store"
    materialize(spec, AS_OF, home)
    fresh = entries(spec, home)["departures__mean"].freshness
    assert fresh is not None and fresh.stale == "" and fresh.online_until == AS_OF
    later = entries(spec, home, AS_OF + timedelta(hours=5))
    departures, arrivals = (later[name].freshness for name in ("departures__mean", "arrivals__mean"))
    assert departures is not None and re.match(r"newest row is 5h.* old, usable for 3h", departures.stale)
    assert arrivals is not None and arrivals.stale == ""  # usable for two days
    # A look at an earlier moment sees the rows of then.
    earlier = entries(spec, home, AS_OF - timedelta(days=1))["departures__mean"].freshness
    assert earlier is not None and earlier.rows is not None and fresh.rows is not None
    assert earlier.rows < fresh.rows and (earlier.age_seconds or 0) >= 0


def test_an_online_store_that_is_away_is_told_without_its_password_and_the_rest_stands(home: Home) -> None:
    away = Home(home.root, online_store="redis://:secret@127.0.0.1:1/0")
    spec = pipeline()
    build_features(spec, accept(away, simulate(500)), AS_OF, away)
    fresh = entries(spec, away)["departures__mean"].freshness
    assert fresh is not None and fresh.rows and fresh.stale == ""
    assert "127.0.0.1" in fresh.problem and "secret" not in fresh.problem


def test_an_address_that_cannot_be_read_is_told_without_showing_it_and_the_rest_stands(home: Home) -> None:
    wrong = Home(home.root, online_store="redis://:secret@127.0.0.1:many/0")
    spec = pipeline()
    build_features(spec, accept(home, simulate(500)), AS_OF, home)
    fresh = entries(spec, wrong)["departures__mean"].freshness
    assert fresh is not None and fresh.rows and "secret" not in fresh.problem
    assert fresh.problem.startswith("its address cannot be read")


def test_offline_facts_alone_ask_no_server(home: Home) -> None:
    away = Home(home.root, online_store="redis://127.0.0.1:1/0")
    spec = pipeline()
    build_features(spec, accept(home, simulate(500)), AS_OF, home)
    found = freshness(spec, AS_OF, away, online=False)["departures"]
    assert found.rows and found.age_seconds is not None and found.problem == ""


def test_missing_shares_and_values_are_those_of_the_table_and_of_the_log(home: Home) -> None:
    spec = pipeline()
    record = build_features(spec, accept(home, simulate(500)), AS_OF, home)
    table = pl.read_parquet(home.absolute(record.path))
    missing: list[dict[str, float | None]] = [
        {"hour": 1.0, "departures__mean": None if n % 4 else 2.0} for n in range(8)
    ]
    log(home, "rides", missing, AS_OF - timedelta(minutes=5))
    log(home, "rides", [{"hour": None}] * 3, AS_OF + timedelta(minutes=5))  # later than the moment asked about
    told = entries(spec, home)
    mean, origin = told["departures__mean"], told["origin"]
    assert mean.training is not None and mean.logged is not None and origin.training is not None
    assert mean.training.missing == table["departures__mean"].null_count() > 0
    assert (mean.training.low, mean.training.high) == (table["departures__mean"].min(), table["departures__mean"].max())
    assert origin.training.top_rows == table["origin"].value_counts()["count"].max()
    assert (mean.logged.rows, mean.logged.missing) == (8, 6)
    assert told["hour"].logged is not None and told["hour"].logged.missing == 0
    assert origin.logged is None


def test_of_many_predictions_the_newest_count(home: Home) -> None:
    old: list[dict[str, float | None]] = [{"hour": None}] * 100
    new: list[dict[str, float | None]] = [{"hour": 1.0}] * MOST
    log(home, "rides", old, AS_OF - timedelta(hours=30))
    log(home, "rides", new, AS_OF - timedelta(hours=20))
    found = catalogue([pipeline()], AS_OF, home).pipelines[0]
    hour = next(entry for entry in found.features if entry.name == "hour")
    assert (found.logged, hour.logged and hour.logged.missing) == (MOST, 0)


def test_values_of_personal_columns_and_of_what_is_made_of_them_are_not_told(home: Home) -> None:
    spec = dataclasses.replace(with_functions(), personal=("origin", "minutes"))
    hidden = {entry.name for entry in declared(spec) if personal(entry, spec)}
    opaque = {f"{view}__{name}" for view in ("departures", "arrivals") for name in ("rides", "mean")}
    # The rides of an hour read nothing personal, and are looked up by what is.
    assert hidden == {"origin", "stop_hour__length", "stop_hour__rides", *opaque}
    build_features(spec, accept(home, simulate(500)), AS_OF, home)
    told = entries(spec, home)
    for name in hidden:
        values = told[name].training
        assert values is not None and values.hidden
        assert (values.low, values.mean, values.high, values.top) == (None,) * 4


def test_a_feature_that_does_not_fit_the_schema_is_an_error_that_names_the_pipeline() -> None:
    @request
    def odd() -> list[pl.Expr]:
        return [pl.col("nowhere").alias("odd")]

    spec = pipeline()
    with pytest.raises(SpecError, match=r"features of 'rides' do not fit Ride.*nowhere"):
        declared(dataclasses.replace(spec, features=(*spec.features, odd)))


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0s"), (90, "1m 30s"), (108_000, "1d 6h"), (-3600, "-1h"), (0.2, "0s")]
)
def test_durations_are_spoken_in_their_two_greatest_units(seconds: float, told: str) -> None:
    assert spoken(seconds) == told


# -------------------------------------------------------------------------------------------------------------- models


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with a champion (version 2) of the toy pipeline; its registry is real."""
    home = Home(tmp_path_factory.mktemp("served") / "home")
    for number in (1, 2):
        toy_model.deployed(home, number, trials=0)
    registry.set_alias("toy", "challenger", "1", home)
    return home


def test_models_use_what_their_packages_say(served: Home) -> None:
    told = entries(toy_model.spec(), served, toy_model.AT)
    assert told["distance"].used_by == ("champion 2", "challenger 1")
    renamed = dataclasses.replace(toy_model.spec(), features=(*toy_model.spec().features, hours_of_day))
    assert entries(renamed, served, toy_model.AT)["early"].used_by == ()


@request
def hours_of_day() -> list[pl.Expr]:
    return [(pl.col("asked_at").dt.hour() < 8).cast(pl.Float64).alias("early")]


def test_importance_is_how_much_shuffling_costs_and_is_only_reused_for_the_same_model(served: Home) -> None:
    spec = toy_model.spec()
    assert entries(spec, served, toy_model.AT)["distance"].importance is None
    found = measure(spec, served)
    growth = found.growth
    # The toy's graph leans on the distance, a little on the hour, and leaves the others out.
    assert growth["distance"] > 5 * abs(growth["hour"]) and growth["zone"] == growth["colour"] == 0
    assert entries(spec, served, toy_model.AT)["distance"].importance == growth["distance"]
    assert measure(spec, served) == found
    assert measured("toy", "another model", served) is None
    assert measure(spec, served, seed=1).growth["distance"] == pytest.approx(growth["distance"], rel=0.2)


def test_a_registry_that_is_away_is_told_and_the_rest_stands(served: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> dict[str, str]:
        raise RegistryError("The registry does not answer.")

    monkeypatch.setattr(registry, "aliases", away)
    [found] = catalogue([toy_model.spec()], toy_model.AT, served).pipelines
    assert found.models_problem == "The registry does not answer." and found.models == ()
    assert {entry.used_by for entry in found.features} == {()}


def test_a_package_that_is_gone_is_told_with_its_version(served: Home) -> None:
    package = served.absolute(registry.version("toy", "1", served).package) / "serving.json"
    content = package.read_bytes()
    for broken, told in ((None, "is gone"), (b"{", "cannot be read")):
        package.unlink()
        if broken is not None:
            package.write_bytes(broken)
        [found] = catalogue([toy_model.spec()], toy_model.AT, served).pipelines
        assert [told in model.problem for model in found.models] == [False, True]
        package.write_bytes(content)


def test_without_a_champion_there_is_nothing_to_measure(home: Home) -> None:
    with pytest.raises(NotFound, match="ferroflow run rides"):
        measure(pipeline(), home)


# ---------------------------------------------------------------------------------------------------------------- page

VOID = {"meta", "link", "input"}


class Elements(HTMLParser):
    """Which elements a page has; each is closed as it was opened."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag in VOID or self.open.pop() == tag


def drawn(spec: PipelineSpec, home: Home, path: Path, as_of: datetime = AS_OF) -> tuple[str, Elements]:
    write_catalogue_page(path, catalogue([spec], as_of, home))
    page, elements = path.read_text(), Elements()
    elements.feed(page)
    return page, elements


def test_the_page_holds_every_feature_asks_for_nothing_and_says_what_is_stale(home: Home, tmp_path: Path) -> None:
    spec = with_functions()
    build_features(spec, accept(home, simulate(500)), AS_OF, home)
    materialize(spec, AS_OF, home)
    page, elements = drawn(spec, home, tmp_path / "features.html", AS_OF + timedelta(hours=5))
    assert elements.open == [] and elements.seen.count("script") == 1
    assert elements.addresses == ["data:,"] and "http" not in page and "url(" not in page
    assert [name for name in entries(spec, home) if f'<span class="name">{name}</span>' not in page] == []
    assert page.count('data-state="stale') == 4 and "newest row is 5h" in page
    assert "No model is registered." in page


def test_hostile_texts_stay_texts(home: Home, tmp_path: Path) -> None:
    spec = dataclasses.replace(with_functions(), description=HOSTILE, owner=HOSTILE)
    page, elements = drawn(spec, home, tmp_path / "features.html")
    assert elements.seen.count("script") == 1 and "img" not in elements.seen and HOSTILE not in page


def test_the_page_of_a_served_pipeline_shows_who_uses_what(served: Home, tmp_path: Path) -> None:
    page, _ = drawn(toy_model.spec(), served, tmp_path / "features.html", datetime(2023, 3, 1, 13, tzinfo=UTC))
    assert "champion 2" in page and "challenger 1" in page
