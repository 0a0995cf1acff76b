"""Stored features on servers that speak TLS: brought there and read from there, and only where they are trusted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from ferroflow.adapters.feast.plan import OnlineStoreAway
from ferroflow.adapters.feast.reader import open_rows
from ferroflow.adapters.feast.store import online_plan
from ferroflow.adapters.home import Home
from ferroflow.core.errors import FerroflowError
from ferroflow.stations.features import refresh_offline
from ferroflow.stations.materialize import materialize
from tests.engines import certificate_of_loopback, postgres_server, redis_over_tls
from tests.rides import START, accept, arrivals, pipeline, simulate

SPEC = pipeline(features=(arrivals,))
AS_OF = START + timedelta(days=4)
STOPS, FEATURES = [1, 2, 3, 4, 5], ["rides", "mean"]


@contextmanager
def server(kind: str, shown: tuple[Path, Path], trusted: Path) -> Iterator[str]:
    """The address of a server that shows one certificate, for a client that trusts another or the same."""
    if kind == "redis":
        with redis_over_tls(*shown) as port:
            yield f"rediss://127.0.0.1:{port}/1?ssl_ca_certs={trusted}"
    else:
        with postgres_server(shown) as address:
            yield f"{address}?sslmode=verify-full&sslrootcert={trusted}"


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_features_come_online_over_tls_and_are_read_over_it(home: Home, tmp_path: Path, kind: str) -> None:
    shown, other = certificate_of_loopback(tmp_path / "shown"), certificate_of_loopback(tmp_path / "other")
    refresh_offline(SPEC, accept(home, simulate(400), "v1"), AS_OF, home)
    assert materialize(SPEC, AS_OF, home)["arrivals"] > 0
    with server(kind, shown, shown[0]) as address:
        there = Home(home.root, online_store=address)
        # The registry knows the view already; this server has never heard of it.
        assert materialize(SPEC, AS_OF, there)["arrivals"] > 0
        embedded, rows = open_rows(online_plan(SPEC, home)), open_rows(online_plan(SPEC, there))
        assert rows.read("arrivals", STOPS, FEATURES) == embedded.read("arrivals", STOPS, FEATURES) != {}
        assert rows.watermark("arrivals") == embedded.watermark("arrivals") is not None
        rows.close()
        embedded.close()
        stranger = Home(home.root, online_store=address.replace(str(shown[0]), str(other[0])))
        with pytest.raises(OnlineStoreAway, match="certificate verify failed") as refused:
            open_rows(online_plan(SPEC, stranger)).read("arrivals", STOPS, FEATURES)
        with pytest.raises(FerroflowError, match="certificate verify failed") as unwritten:
            materialize(SPEC, AS_OF, stranger)
        for error in (refused, unwritten):
            assert "tr0ub4dor" not in str(error.value)
