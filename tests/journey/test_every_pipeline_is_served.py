"""Every pipeline whose files are at hand goes from its real files to an endpoint that answers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from ferroflow.adapters import pipelines, registry
from ferroflow.adapters.home import Home
from ferroflow.adapters.processes import Stack
from ferroflow.adapters.settings import Settings, load_settings
from ferroflow.core.records import Evaluation
from ferroflow.stations import (
    evaluate,
    features,
    gate,
    ingest,
    package,
    predict,
    register,
    split,
    train,
    validate,
)

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

NAMES = ["bikes", "income"]  # taxi is the tour's
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, mirror: Path) -> Settings:
    return load_settings(home=tmp_path_factory.mktemp("home"), mirror=str(mirror), service_port=3320)


def champion(name: str, settings: Settings) -> Evaluation:
    """All stations, with a search of a few seconds."""
    spec, home = pipelines.load(name), Home(settings.home)
    as_of = spec.as_of or NOW
    snapshot = ingest.ingest(spec, as_of, home, now=NOW, settings=settings)
    table = features.build_features(spec, validate.validate(spec, snapshot, home), as_of, home)
    parts = split.split(spec, table, home)
    model = train.train(spec, parts, home, seconds=4, trials=2)
    evaluation = evaluate.evaluate(spec, parts, model, registry.champion(name, home), home)
    verdict = gate.judge(spec, evaluation)
    folder = package.write_package(spec, model, {"snapshot": snapshot.fingerprint}, home)
    version = register.register(spec, model, evaluation, verdict, parts, folder, home, at=NOW)
    register.promote(spec, version, verdict, home, at=NOW)
    return evaluation


@pytest.fixture(scope="module")
def evaluations(settings: Settings) -> dict[str, Evaluation]:
    return {name: champion(name, settings) for name in NAMES}


@pytest.fixture(scope="module")
def address(settings: Settings, evaluations: dict[str, Evaluation]) -> Iterator[str]:
    stack = Stack(settings)
    stack.start(services=("service",))
    yield stack.addresses["service"]
    stack.stop()


@pytest.mark.parametrize("name", NAMES)
def test_it_beats_its_baseline_with_the_whole_interval(name: str, evaluations: dict[str, Evaluation]) -> None:
    assert evaluations[name].against_baseline.low > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_endpoint_and_the_batch_give_the_same_predictions(
    name: str, settings: Settings, address: str, tmp_path: Path
) -> None:
    spec, home = pipelines.load(name), Home(settings.home)
    [accepted, *_] = sorted((home.data(name) / "validated").glob("*/accepted.parquet"))
    rows = pl.read_parquet(accepted).head(40).select("row_id", *spec.inputs)
    body = {"rows": rows.drop("row_id").with_columns(pl.selectors.datetime().dt.to_string("iso:strict")).to_dicts()}
    answer: dict[str, Any] = httpx.post(f"{address}/v1/{name}/predict", json=body, timeout=30).json()
    assert answer["degraded"] is False
    rows.write_parquet(tmp_path / "rows.parquet")
    batch = pl.read_parquet(predict.predict_file(spec, tmp_path / "rows.parquet", home, at=NOW))
    assert batch["row_id"].to_list() == rows["row_id"].to_list()
    assert batch["prediction"].to_list() == pytest.approx(answer["predictions"], rel=1e-6)
