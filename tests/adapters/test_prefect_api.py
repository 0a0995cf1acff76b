"""Calls to a Prefect server that is slow. On SQLite a busy one was seen to say 503, and to be silent for a minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ferroflow.adapters.prefect_api import PATIENCE, PrefectApi
from ferroflow.core.errors import ServiceError


@contextmanager
def serving(refuses: float, silent: float) -> Iterator[str]:
    """The address of a server that says 503 for some seconds, and then answers, the first time late."""
    began, answered = time.monotonic(), threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            refused = time.monotonic() < began + refuses
            if not refused and not answered.is_set():
                answered.set()
                time.sleep(silent)
            with suppress(BrokenPipeError):  # who asked may have gone
                self.send_response(503 if refused else 200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"[]")

        def log_message(self, *told: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/api"
        finally:
            server.shutdown()


def test_a_busy_server_is_waited_for() -> None:
    assert PATIENCE > 60, "a server on SQLite waits that long for the lock on its file"
    with serving(refuses=2, silent=2) as address, closing(PrefectApi(address)) as api:
        assert api.deployments() == []


@pytest.mark.parametrize(
    ("refuses", "silent", "told"),
    [(60, 0, "list the deployments: 503"), (1, 10, "did not answer to list the deployments: timed out")],
)
def test_a_server_that_stays_busy_is_an_error_that_says_so(refuses: float, silent: float, told: str) -> None:
    with (
        serving(refuses, silent) as address,
        closing(PrefectApi(address, patience=4)) as api,
        pytest.raises(ServiceError, match=told),
    ):
        api.deployments()


def test_no_server_is_an_error() -> None:
    with serving(refuses=0, silent=0) as address:
        pass
    with closing(PrefectApi(address)) as api, pytest.raises(ServiceError, match="did not answer to make the work pool"):
        api.make_pool()
