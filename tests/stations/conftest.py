"""A morning of answered rides, made once for all tests of the skew."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ferroflow.adapters.home import Home


@pytest.fixture(scope="session")
def morning(tmp_path_factory: pytest.TempPathFactory) -> Home:
    from tests.stations import served_rides

    home = Home(tmp_path_factory.mktemp("morning") / "home")
    served_rides.a_morning(home)
    return home


@pytest.fixture
def rides(morning: Home, tmp_path: Path) -> Home:
    """A copy of the morning, to be spoilt."""
    shutil.copytree(morning.root, tmp_path / "home")
    return Home(tmp_path / "home")
