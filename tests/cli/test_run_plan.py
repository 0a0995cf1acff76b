from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ferroflow.adapters.home import Home
from ferroflow.cli.run import plan
from ferroflow.core.spec import Glob, PipelineSpec, Stream, Table
from tests.parcels import AS_OF, a_mirror, parcels, settings_for


def planned(spec: PipelineSpec, home: Home, **settings: Any) -> list[dict[str, str]]:
    files: list[dict[str, str]] = plan(settings_for(home, **settings), spec, AS_OF, None)["files"]
    return files


def reading(**source: Any) -> PipelineSpec:
    spec = parcels()
    return dataclasses.replace(spec, source=dataclasses.replace(spec.source, **{"files": None, **source}))


def test_plan_lists_the_files_that_match_a_pattern_now(home: Home, tmp_path: Path) -> None:
    mirror = a_mirror(tmp_path / "mirror")
    files = planned(reading(files=Glob(pattern="post/*.csv")), home, mirror=str(mirror))
    assert files == [{"file": name, "from": str(mirror / "post" / name)} for name in ("cities.csv", "parcels.csv")]


@pytest.mark.parametrize(
    ("url", "told"),
    [("postgresql://me:p@ss@host:5/db?sslkey=k", "postgresql://host:5/db"), ("env:POST_URL", "env:POST_URL")],
)
def test_plan_names_table_and_stream_without_a_password(home: Home, url: str, told: str) -> None:
    assert planned(reading(table=Table(url=url, name="parcels")), home) == [{"file": "parcels", "from": told}]
    assert planned(reading(table=Table(url=url, query="SELECT 1")), home) == [{"file": "SELECT 1", "from": told}]
    assert planned(reading(stream=Stream(url=url, name="post")), home) == [{"file": "post", "from": told}]


def test_plan_of_a_simulated_pattern_or_table_names_the_simulator(home: Home) -> None:
    simulator = "tests.parcels:simulate"
    table = reading(table=Table(url="env:POST_URL", name="parcels"), simulator=simulator)
    assert planned(table, home, simulate=True) == [{"file": "parcels.parquet", "from": "simulator"}]
    pattern = reading(files=Glob(pattern="s3://post/*.csv"), simulator=simulator)
    assert planned(pattern, home, simulate=True) == [{"file": "parcels.csv", "from": "simulator"}]
