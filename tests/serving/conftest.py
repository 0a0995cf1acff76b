"""One real process answers most of these tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving_toy import Server, toy_home


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running service; tests that break it start their own."""
    found = Server(toy_home(tmp_path_factory.mktemp("service"))).start()
    yield found
    found.stop()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A service, not yet started, that a test may kill."""
    found = Server(toy_home(tmp_path))
    yield found
    if found.process is not None:
        found.kill()
