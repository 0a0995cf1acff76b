"""The offline store over an object store: a real S3 server on loopback (moto's)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import polars as pl
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.repo_config import RepoConfig
from feast.types import Float64, Int64

from ferroflow.core.errors import DataError, UsageError

START = datetime(2023, 1, 1, tzinfo=UTC)
ROWS = pl.DataFrame({"stop": [1, 2], "at": [START, START + timedelta(hours=1)], "n": [1.0, 2.0]})
ASKED = pl.DataFrame({"stop": [2, 1, 1], "event_timestamp": [START + timedelta(hours=hours) for hours in (1, 2, -1)]})


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    import boto3

    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "its-secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("HOME", str(tmp_path))
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="features")
    return client


def put(bucket: Any, key: str, rows: pl.DataFrame, folder: Path) -> None:
    rows.write_parquet(folder / "object.parquet")
    bucket.put_object(Bucket="features", Key=key, Body=(folder / "object.parquet").read_bytes())


def a_view(path: str, endpoint: str) -> FeatureView:
    return FeatureView(
        name="rides",
        entities=[Entity(name="stop", join_keys=["stop"], value_type=ValueType.INT64)],
        schema=[Field(name="stop", dtype=Int64), Field(name="n", dtype=Float64)],
        source=FileSource(name="rides", path=path, timestamp_field="at", s3_endpoint_override=endpoint),
    )


@pytest.fixture
def feast(tmp_path: Path) -> FeatureStore:
    config = RepoConfig(
        project="p",
        provider="local",
        registry=str(tmp_path / "registry.db"),
        online_store={"type": "sqlite", "path": str(tmp_path / "online.db")},
        offline_store={"type": "ferroflow.adapters.feast.offline.PolarsOfflineStore"},
        entity_key_serialization_version=3,
    )
    return FeatureStore(config=config)


def test_objects_prefixes_patterns_and_partitions_are_read_and_added_to(
    feast: FeatureStore, bucket: Any, endpoint: str, tmp_path: Path
) -> None:
    stop = Entity(name="stop", join_keys=["stop"], value_type=ValueType.INT64)
    put(bucket, "whole/rides.parquet", ROWS, tmp_path)
    for number in (1, 2):
        part = ROWS.filter(pl.col("stop") == number)
        put(bucket, f"parts/{number}.parquet", part, tmp_path)
        put(bucket, f"hive/stop={number}/a.parquet", part.drop("stop"), tmp_path)
    for path in ("whole/rides.parquet", "parts", "parts/*.parquet", "hive"):
        feast.apply([stop, a_view(f"s3://features/{path}", endpoint)])
        table = feast.get_historical_features(ASKED, ["rides:n"]).to_polars()
        assert table["n"].to_list() == [2.0, 1.0, None]

    view = a_view("s3://features/parts", endpoint)
    newer = ROWS.head(1).with_columns(n=pl.lit(9.0), at=pl.lit(START + timedelta(hours=2)))
    feast._get_provider().offline_store.offline_write_batch(feast.config, view, newer.to_arrow(), None)
    feast.apply([stop, view])
    job = feast.get_historical_features(ASKED, ["rides:n"])
    assert job.to_polars()["n"].to_list() == [2.0, 9.0, None]

    storage = SavedDatasetFileStorage("s3://features/saved", s3_endpoint_override=endpoint)
    feast.create_saved_dataset(job, "saved", storage)
    assert feast.get_saved_dataset("saved").to_df()["n"].tolist()[:2] == [2.0, 9.0]
    with pytest.raises(UsageError, match="is at s3://features/saved already"):
        feast.create_saved_dataset(job, "saved", storage)


def test_an_object_that_is_not_there_is_named(feast: FeatureStore, bucket: Any, endpoint: str) -> None:
    offline = feast._get_provider().offline_store
    for path in ("s3://features/none.parquet", "s3://features/nowhere"):
        with pytest.raises(DataError, match=f"has no {path}"):
            source = a_view(path, endpoint).batch_source
            offline.get_table_column_names_and_types_from_data_source(feast.config, source)


@contextmanager
def refusing() -> Iterator[tuple[str, list[str]]]:
    """An S3 server that refuses everything, and what it was asked to do."""
    asked: list[str] = []

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.command)
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_PUT = do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def test_a_store_that_does_not_answer_counts_as_neither_free_nor_empty(
    feast: FeatureStore, bucket: Any, endpoint: str, tmp_path: Path
) -> None:
    put(bucket, "whole/rides.parquet", ROWS, tmp_path)
    stop = Entity(name="stop", join_keys=["stop"], value_type=ValueType.INT64)
    feast.apply([stop, a_view("s3://features/whole/rides.parquet", endpoint)])
    job = feast.get_historical_features(ASKED, ["rides:n"])
    offline = feast._get_provider().offline_store
    with refusing() as (elsewhere, asked):
        for path in ("s3://features/saved", "s3://features/saved.parquet"):
            with pytest.raises(DataError, match=f"{path} cannot be read: "):
                job.persist(SavedDatasetFileStorage(path, s3_endpoint_override=elsewhere))
        with pytest.raises(DataError, match="s3://features/parts cannot be read: "):
            offline.offline_write_batch(feast.config, a_view("s3://features/parts", elsewhere), ROWS.to_arrow(), None)
    assert set(asked) <= {"GET", "HEAD"}
