"""Stored features on a server: what Feast wrote there is what the model is fed, and the server may go away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

from ferroflow.adapters.feast.store import open_store
from ferroflow.adapters.home import Home
from ferroflow.adapters.vectors import FIELD_TYPES
from serving.model import Model, load
from serving.online import OnlineStores
from tests.engines import free_port, postgres_server, redis_server
from tests.serving_toy import NOON, ROW, package, toy_home


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("FERROFLOW_PIPELINES", str(tmp_path / "more"))
    home = toy_home(tmp_path)
    home.online("toy").unlink()
    return home


def written_by_feast(home: Home) -> None:
    """Zone 1 has a mean of 20, available at noon; by Feast's own way of writing."""
    zone = Entity(name="zone", join_keys=["zone"], value_type=ValueType.INT64)
    source = FileSource(name="s", path=str(home.root / "none"), timestamp_field="available_at")
    schema = [Field(name="mean", dtype=Float64), Field(name="n", dtype=Float64)]
    feast = open_store(home)
    feast.apply([zone, FeatureView(name="zone_hour", entities=[zone], schema=schema, source=source, ttl=timedelta(1))])
    frame = pd.DataFrame({"zone": [1], "available_at": [NOON], "mean": [20.0], "n": [3.0]})
    feast.write_to_online_store("zone_hour", frame)


def loaded(home: Home, stores: OnlineStores) -> Model:
    folder = home.packages("toy") / package(home, 1)
    return load(folder, version="1", source="registry", online=stores.of)


def answered(model: Model, zone: int = 1) -> tuple[float, tuple[str, ...]]:
    moment = NOON + timedelta(minutes=30)
    values = {**ROW, "zone": zone, "asked_at": moment}
    row = pl.DataFrame({field.name: [values[field.name]] for field in model.contract.fields}).cast(
        {field.name: FIELD_TYPES[field.type] for field in model.contract.fields}  # type: ignore[arg-type]
    )
    answer = model.answer(row, moment)
    return float(answer.predictions[0]), answer.reasons


@pytest.fixture(params=["redis", "postgresql"])
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "redis":
        with redis_server() as port:
            yield f"redis://127.0.0.1:{port}"
    else:
        with postgres_server() as address:
            yield address


def test_the_model_is_fed_what_feast_wrote(embedded: Home, server: str) -> None:
    home = Home(embedded.root, server)
    written_by_feast(home)
    model = loaded(home, OnlineStores(home))
    assert model.online is not None
    assert answered(model) == (100 + 2 * 2.5 + 12 + 20, ())
    assert answered(model, zone=9) == (100 + 2 * 2.5 + 12 + 10, ())
    before = model.online.cache()
    assert answered(model) == (100 + 2 * 2.5 + 12 + 20, ())
    assert model.online.cache()["hits"] == before["hits"] + 1
    assert model.online.cache()["misses"] == before["misses"]


def test_models_of_one_plan_share_one_store_and_its_cache(embedded: Home) -> None:
    home = Home(embedded.root, "redis://127.0.0.1:1")
    stores = OnlineStores(home)
    one, other = loaded(home, stores), loaded(home, stores)
    assert one.online is other.online is not None


def test_a_server_that_is_away_degrades_the_answer_until_it_is_back(embedded: Home, tmp_path: Path) -> None:
    port, kept = free_port(), tmp_path / "kept"
    kept.mkdir()
    home = Home(embedded.root, f"redis://127.0.0.1:{port}")
    model = loaded(home, OnlineStores(home))
    without, whole = 100 + 2 * 2.5 + 12 + 10, 100 + 2 * 2.5 + 12 + 20
    assert answered(model) == (without, ("online store unreadable",))
    with redis_server(port, kept):
        written_by_feast(home)
        assert soon(model) == (whole, ())
        # The cache may answer for an entity it knows; zone 2 has to be asked for.
    assert answered(model, zone=2) == (without, ("online store unreadable",))
    with redis_server(port, kept):
        assert soon(model) == (whole, ())


def soon(model: Model) -> tuple[float, tuple[str, ...]]:
    """The first answer that is not degraded: a server that failed is left alone for a moment."""
    until = time.monotonic() + 10
    while (found := answered(model))[1] and time.monotonic() < until:
        time.sleep(0.05)
    return found
