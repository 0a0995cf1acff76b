"""The assets of a run, as Prefect's server hears of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.states import State
from prefect.testing.utilities import prefect_test_harness

from ferroflow.adapters import pipelines
from ferroflow.adapters.home import Home
from ferroflow.core.records import Deployment, FeatureTable, ModelVersion
from tasks import assets, data
from tests.rides import START, accept, pipeline, simulate

pytestmark = pytest.mark.servers

AS_OF = START + timedelta(days=4)
ROWS = simulate(400)


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="module")
def rides(server: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home in which the pipeline ``rides`` can be asked for by its name."""
    home = Home(tmp_path_factory.mktemp("rides") / "home")
    spec = pipeline()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERROFLOW_HOME", str(home.root))
        patch.setattr(pipelines, "load", lambda name: spec)
        yield home


@pytest.fixture(scope="module")
def made(rides: Home) -> tuple[str, Any]:
    """The id of a run that made a training table and brought features to the online store, and what both gave."""
    return ran(lambda: both(rides))


def both(home: Home) -> tuple[FeatureTable, dict[str, int]]:
    table: Any = data.features("rides", accept(home, ROWS), AS_OF)
    return table.result() if isinstance(table, State) else table, data.materialize("rides", AS_OF)


def heard(event: str, run: str, count: int) -> dict[str, dict[str, Any]]:
    """Asset -> its event of that kind about that flow run, once so many have arrived."""
    chosen = {"filter": {"event": {"name": [event]}, "related": {"id": [f"prefect.flow-run.{run}"]}}, "limit": 50}
    deadline = time.monotonic() + 60
    while True:
        with get_client(sync_client=True) as client:
            found = client.request("POST", "/events/filter", json=chosen).json()["events"]
        told = {entry["resource"]["prefect.resource.id"]: entry for entry in found}
        if len(told) >= count or time.monotonic() > deadline:
            return told
        time.sleep(0.2)


def origins(event: dict[str, Any]) -> set[str]:
    return {one["prefect.resource.id"] for one in event["related"] if one["prefect.resource.role"] == "asset"}


def ran(body: Any) -> tuple[str, Any]:
    """A flow's run id and what it gave."""

    @flow
    def walk() -> tuple[str, Any]:
        from prefect.runtime import flow_run

        return flow_run.id, body()

    return walk()


MATERIALIZED = "prefect.asset.materialization.succeeded"


def test_a_run_tells_what_its_features_are_made_of_and_how_new_they_are(made: tuple[str, Any]) -> None:
    run, (table_made, written) = made
    told = heard(MATERIALIZED, run, 5)
    views = {assets.key("rides", "features", view) for view in ("departures", "arrivals")}
    table, online = assets.key("rides", "training_table"), assets.key("rides", "online", "departures")
    assert set(told) == {*views, table, online, assets.key("rides", "online", "arrivals")}
    assert {origin for view in views for origin in origins(told[view])} == {"ferroflow://rides/validated"}
    assert origins(told[table]) == {*views, "ferroflow://rides/validated"}
    assert origins(told[online]) == {"ferroflow://rides/features/departures"}
    stored = told["ferroflow://rides/features/departures"]["payload"]
    assert set(stored["null_rate"]) == {"rides", "mean"}
    assert 0 <= stored["age_seconds"] <= stored["ttl_seconds"] == 3 * 3600
    assert told[table]["payload"]["rows"] == table_made.rows
    assert told[online]["payload"]["rows"] == written["departures"]


def test_the_catalogue_is_a_table_with_the_way_to_its_page(rides: Home, made: tuple[str, Any]) -> None:
    chosen = {"artifacts": {"flow_run_id": {"any_": [made[0]]}, "key": {"any_": ["rides-features"]}}}
    with get_client(sync_client=True) as client:
        [artifact] = client.request("POST", "/artifacts/filter", json=chosen).json()
    assert "/reports/rides/features.html)" in artifact["description"] and "0 stale" in artifact["description"]
    assert "departures__mean" in artifact["data"]
    assert (rides.reports("rides") / "features.html").stat().st_size > 0


def test_a_reused_table_and_reused_stored_features_are_not_materialized_again(
    rides: Home, made: tuple[str, Any]
) -> None:
    again, (table, _) = ran(lambda: both(rides))
    assert table == made[1][0]
    # What comes after them has arrived, so that they would be there too.
    views = ("departures", "arrivals")
    assert set(heard(MATERIALIZED, again, 2)) == {assets.key("rides", "online", view) for view in views}


def test_stored_features_of_another_moment_are_told_and_of_the_same_one_not_again(rides: Home, made: Any) -> None:
    def refreshed(moment: Any) -> dict[str, Any]:
        run, _ = ran(lambda: (data.refresh("rides", accept(rides, ROWS), moment), assets_online(moment)))
        return heard(MATERIALIZED, run, 1 if moment == AS_OF else 3)

    def assets_online(moment: Any) -> None:
        task(assets.online)("rides", {"last": 1}, moment)

    earlier = AS_OF - timedelta(days=1)
    views = {assets.key("rides", "features", view) for view in ("departures", "arrivals")}
    last = {assets.key("rides", "online", "last")}
    assert set(refreshed(AS_OF)) == last
    assert set(refreshed(earlier)) == views | last


def test_a_server_that_is_away_keeps_no_offline_fact_from_being_told(
    rides: Home, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(assets, "_materialized", lambda *told: sent.append(told[-1]))
    assets.stored("rides", AS_OF, Home(rides.root, online_store="redis://127.0.0.1:many/0"))
    assert [set(told["null_rate"]) for told in sent] == [{"rides", "mean"}] * 2
    assert all(told["rows"] for told in sent)


def test_a_champion_comes_from_a_challenger_and_a_rejected_one_is_none(rides: Home) -> None:
    named: dict[str, Any] = {"pipeline": "rides", "fingerprint": "f", "version": "4"}
    version = ModelVersion(
        **named, name="rides", run_id="r", package="p", reference="q", metrics={"test_rmse": 1.5}, candidate="c"
    )
    common: dict[str, Any] = named | {"entry": 1, "previous": "3", "at": AS_OF, "why": "better"}
    rejected, promoted = (Deployment(**common, action=action) for action in ("rejected", "promoted"))  # type: ignore[arg-type]

    def outcomes() -> None:
        task(assets.promoted)(rejected, rides)
        task(assets.registered)(version)

    first, _ = ran(outcomes)
    challenger = heard(MATERIALIZED, first, 1)
    assert set(challenger) == {"ferroflow://rides/models/challenger"}
    assert challenger["ferroflow://rides/models/challenger"]["payload"]["test_rmse"] == 1.5
    second, _ = ran(lambda: task(assets.promoted)(promoted, rides))
    champion = heard(MATERIALIZED, second, 1)["ferroflow://rides/models/champion"]
    assert origins(champion) == {"ferroflow://rides/models/challenger"}
    assert champion["payload"] == {"version": "4", "previous": "3", "why": "better"}


def test_outside_a_run_nothing_is_sent(rides: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(assets.AssetContext, "emit_events", lambda self, state: sent.append(state))
    assets.online("rides", {"departures": 3}, AS_OF)
    assert sent == []
