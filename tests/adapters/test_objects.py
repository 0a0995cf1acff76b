"""Against a real S3 server on loopback (moto's), through a wire that can be cut."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from ferroflow.adapters.home import Home
from ferroflow.adapters.sources.download import NotPublished
from ferroflow.adapters.sources.globs import matched
from ferroflow.adapters.sources.locate import locate
from ferroflow.adapters.sources.objects import store_of
from ferroflow.core.errors import DataError, EmptySource, SourceUnavailable
from ferroflow.core.records import Snapshot
from ferroflow.core.spec import Glob, SourceFile
from ferroflow.stations.ingest import ingest
from tests.parcels import AS_OF, HEADER, NOW, a_mirror, parcels, settings_for

BIG = bytes(range(256)) * 80_000  # 20 MB: three pieces


class Wire:
    """Carries bytes between clients and a server; after ``left`` answered bytes all connections are cut."""

    def __init__(self, host: str, port: int) -> None:
        self.server = (host, port)
        self.left: int | None = None  # None: no end
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.server)
            threading.Thread(target=self._carry, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._carry, args=(server, client, True), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        try:
            while data := source.recv(2**16):
                if answers and self.left is not None:
                    data = data[: self.left]
                    self.left -= len(data)
                    if not data:
                        break
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):  # a mere close would wait for the other direction
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture
def wire(moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Wire]:
    host, _, port = moto.partition(":")
    carried = Wire(host, int(port))
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", carried.address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "its-secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("HOME", str(tmp_path))
    yield carried
    carried.listener.close()
    httpx.post(f"http://{moto}/moto-api/reset")


@pytest.fixture
def bucket(moto: str, wire: Wire) -> Callable[[str, bytes | None], None]:
    import boto3

    client = boto3.client("s3", endpoint_url=f"http://{moto}")
    client.create_bucket(Bucket="post")

    def put(key: str, data: bytes | None) -> None:
        if data is None:
            client.delete_object(Bucket="post", Key=key)
        else:
            client.put_object(Bucket="post", Key=key, Body=data)

    return put


def taken(home: Home, tmp_path: Path, pattern: str, hive: bool = False, **source: Any) -> Snapshot:
    spec = parcels()
    source = {"files": Glob(pattern=pattern, hive=hive), **source}
    spec = dataclasses.replace(spec, source=dataclasses.replace(spec.source, **source))
    return ingest(spec, AS_OF, home, now=NOW, settings=settings_for(home, mirror=str(a_mirror(tmp_path / "mirror"))))


def rows(number: int) -> bytes:
    return f"{HEADER}{number},2024-01-05 10:00,1,1,2\n".encode()


def test_pattern_takes_the_objects_that_match_in_the_order_of_their_names(bucket: Any, tmp_path: Path) -> None:
    for key in (
        "in/b.csv",
        "in/a b.csv",
        "in/a.tsv",
        "in/deep/c.csv",
        "in/deep/er/d[1].csv",
        "in/.hidden.csv",
        "x.csv",
    ):
        bucket(key, rows(1))
    settings = settings_for(Home(tmp_path))

    def names(pattern: str) -> list[str]:
        return [match.name for match in matched(Glob(pattern=f"s3://post/{pattern}"), settings)]

    assert names("in/*.csv") == ["a b.csv", "b.csv"]
    assert names("in/**/*.csv") == ["a b.csv", "b.csv", "deep/c.csv", "deep/er/d[1].csv"]
    assert names("in/*/?.csv") == ["deep/c.csv"]
    assert names("in/deep/er/d[1].csv") == ["d[1].csv"]
    assert names("**") == [f"in/{name}" for name in names("in/**")] + ["x.csv"]
    assert names("none/*.csv") == []


def test_changed_object_is_fetched_again_and_an_unchanged_one_is_not(
    bucket: Any, home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bucket("in/a.csv", rows(1))
    bucket("in/b.csv", rows(2))
    first = taken(home, tmp_path, "s3://post/in/*.csv")
    assert [(part.file, part.origin, part.address) for part in first.parts] == [
        ("a.csv", "url", "s3://post/in/a.csv"),
        ("b.csv", "url", "s3://post/in/b.csv"),
    ]
    bucket("in/b.csv", rows(3))  # within the same second, and of the same size
    second = taken(home, tmp_path, "s3://post/in/*.csv")
    assert second.parts[0] == first.parts[0]
    assert pl.read_parquet(home.absolute(second.parts[1].path))["id"].to_list() == ["3"]
    assert second.parent == first.fingerprint
    bucket("in/b.csv", None)
    assert [part.file for part in taken(home, tmp_path, "s3://post/in/*.csv").parts] == ["a.csv"]


def test_transfer_that_is_cut_goes_on_where_it_was_cut(bucket: Any, wire: Wire, tmp_path: Path) -> None:
    bucket("big", BIG)
    store = store_of("s3://post/big")
    wire.left = 12_000_000
    cut: list[int] = []
    told: list[int] = []

    def mended(_: float) -> None:
        cut.append(told[-1])
        wire.left = None

    store.pause = mended
    store.fetch("s3://post/big", tmp_path / "big", progress=lambda name, have, total: told.append(have))
    assert (tmp_path / "big").read_bytes() == BIG
    assert cut == [2**23]
    assert told == [2**23, 2**24, len(BIG)]
    assert not list(tmp_path.glob("big.*"))


def test_object_that_changed_while_its_transfer_was_cut_is_not_spliced(bucket: Any, wire: Wire, tmp_path: Path) -> None:
    bucket("big", BIG)
    store = store_of("s3://post/big")
    wire.left = 12_000_000

    def changed(_: float) -> None:
        wire.left = None
        bucket("big", BIG[::-1])

    store.pause = changed
    store.fetch("s3://post/big", tmp_path / "big")
    assert (tmp_path / "big").read_bytes() == BIG[::-1]


def test_object_beyond_the_bound_is_refused_before_it_is_fetched(bucket: Any, tmp_path: Path) -> None:
    bucket("big", BIG)
    with pytest.raises(DataError, match="20,480,000 bytes, more than the 1,000"):
        store_of("s3://post/big").fetch("s3://post/big", tmp_path / "big", max_bytes=1000)
    assert not list(tmp_path.iterdir())


def test_missing_bucket_object_and_match_are_three_errors_with_a_way_out(
    bucket: Any, home: Home, tmp_path: Path
) -> None:
    with pytest.raises(NotPublished, match=r"s3://nobody cannot be had: there is no such bucket.*AWS_"):
        taken(home, tmp_path, "s3://nobody/*.csv")
    with pytest.raises(NotPublished, match=r"s3://post/none\.csv cannot be had: there is no such object"):
        store_of("s3://post/none.csv").fetch("s3://post/none.csv", tmp_path / "none")
    with pytest.raises(EmptySource, match=r"No file matches 's3://post/in/\*\.csv'"):
        taken(home, tmp_path, "s3://post/in/*.csv")


def test_store_that_refuses_the_credentials_is_asked_once(bucket: Any, moto: str, tmp_path: Path) -> None:
    bucket("a.csv", rows(1))
    httpx.post(f"http://{moto}/moto-api/reset-auth", content=b"0")
    try:
        store = store_of("s3://post/a.csv")
        pauses: list[float] = []
        store.pause = pauses.append
        with pytest.raises(SourceUnavailable, match=r"s3://post/ cannot be had: .*INVALID_ACCESS_KEY_ID.*AWS_…"):
            store.listed("", deep=True)
        with pytest.raises(NotPublished, match="ACCESS_DENIED"):
            store.fetch("s3://post/a.csv", tmp_path / "a.csv")
        assert pauses == []
    finally:
        httpx.post(f"http://{moto}/moto-api/reset-auth", content=b"inf")


def test_store_where_nobody_answers_is_told_after_two_tries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "its-secret")
    store = store_of("s3://post/a.csv")
    pauses: list[float] = []
    store.pause = pauses.append
    with pytest.raises(SourceUnavailable, match=r"s3://post/a\.csv cannot be had: .*connect.*Ways out"):
        store.fetch("s3://post/a.csv", tmp_path / "a.csv")
    assert len(pauses) == 1


def test_azure_without_an_account_is_told_before_anybody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT", raising=False)
    with pytest.raises(SourceUnavailable, match=r"az://post cannot be had: AZURE_STORAGE_ACCOUNT is not set"):
        store_of("az://post/a.csv")


def test_without_credentials_the_store_is_asked_anonymously(
    bucket: Any, moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import boto3

    bucket("own.csv", rows(1))
    bucket("all.csv", rows(2))
    boto3.client("s3", endpoint_url=f"http://{moto}").put_object_acl(Bucket="post", Key="all.csv", ACL="public-read")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = store_of("s3://post")
    store.fetch("s3://post/all.csv", tmp_path / "all.csv")
    assert (tmp_path / "all.csv").read_bytes() == rows(2)
    with pytest.raises(NotPublished, match="ACCESS_DENIED"):
        store.fetch("s3://post/own.csv", tmp_path / "own.csv")


def test_fixed_file_and_mirror_may_lie_in_a_store_and_keep_their_checksum(bucket: Any, home: Home) -> None:
    bucket("a.csv", rows(1))
    bucket("mirror/b.csv", rows(2))
    spec, settings = parcels(), settings_for(home, mirror="s3://post/mirror")
    found = locate(spec, SourceFile("s3://post/a.csv", "a.csv"), home.downloads, settings)
    assert (found.origin, found.address, found.path.read_bytes()) == ("url", "s3://post/a.csv", rows(1))
    mirrored = locate(spec, SourceFile("http://127.0.0.1:9/b.csv", "b.csv"), home.downloads, settings)
    assert (mirrored.origin, mirrored.path.read_bytes()) == ("mirror", rows(2))
    found.path.unlink()
    bucket("a.csv", rows(3))
    with pytest.raises(DataError, match=r"s3://post/a\.csv has SHA-256"):
        locate(spec, SourceFile("s3://post/a.csv", "a.csv"), home.downloads, settings)


def test_hive_folders_become_text_columns_and_name_the_part(bucket: Any, home: Home, tmp_path: Path) -> None:
    data = b"id,sent\n1,2024-01-05\n"
    bucket("t/city=1/day=2024-01-05/0.csv", data)
    bucket("t/city=2%2F3/day=__HIVE_DEFAULT_PARTITION__/0.csv", data)
    snapshot = taken(home, tmp_path, "s3://post/t/**/*.csv", hive=True)
    assert [part.file for part in snapshot.parts] == [
        "city=1/day=2024-01-05/0.csv",
        "city=2%2F3/day=__HIVE_DEFAULT_PARTITION__/0.csv",
    ]
    assert snapshot.parts[0].columns == dict.fromkeys(["id", "sent", "city", "day"], "String")
    raw = pl.concat(pl.read_parquet(home.absolute(part.path)) for part in snapshot.parts)
    assert raw.select("id", "city", "day").rows() == [("1", "1", "2024-01-05"), ("1", "2/3", None)]
