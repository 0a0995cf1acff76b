from __future__ import annotations

import io
import os
from datetime import timedelta
from pathlib import Path

import orjson
import polars as pl
import pytest
from rich.console import Console
from typer.testing import CliRunner

from ferroflow.adapters.home import Home
from ferroflow.cli.datasets import _drifts, print_whole
from ferroflow.cli.main import app
from ferroflow.core.errors import DataError, FerroflowError, NotFound, UsageError
from ferroflow.core.records import ColumnDrift, Snapshot
from ferroflow.stations.ingest import ingest
from ferroflow.stations.validate import validate
from tests.parcels import AS_OF, GOOD, HEADER, NOW, a_mirror, parcels, settings_for

DIRTY = HEADER + GOOD + "3,2024-01-03,1,[red]heavy[/red],3\n4,2024-01-03,1,1,99\n5,2024-01-03\n"


@pytest.fixture
def two(home: Home, tmp_path: Path) -> list[Snapshot]:
    found = []
    for day, (name, text) in enumerate({"first": HEADER + GOOD, "second": DIRTY}.items()):
        settings = settings_for(home, mirror=str(a_mirror(tmp_path / name, parcels=text)))
        found.append(ingest(parcels(), AS_OF, home, now=NOW + timedelta(days=day), settings=settings))
        validate(parcels(), found[-1], home)
    return found


def said(home: Home, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["datasets", *arguments, "--home", str(home.root)])
    if isinstance(result.exception, FerroflowError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_list_counts_rows_that_reconcile(home: Home, two: list[Snapshot]) -> None:
    newest, first = orjson.loads(said(home, "list", "--json"))
    assert newest["rows"] == newest["accepted"] + newest["quarantined"] == 5
    assert (newest["parent"], first["parent"]) == (two[0].fingerprint, None)
    assert two[1].fingerprint in said(home, "list", "-p", "parcels")


def test_snapshot_is_found_by_the_beginning_of_its_name(home: Home, two: list[Snapshot]) -> None:
    told = orjson.loads(said(home, "show", "parcels", two[1].fingerprint[:6], "--json"))
    assert told["snapshot"]["parts"][0]["sha256"] == two[1].parts[0].sha256
    assert told["models"] == []
    assert "5 rows in = 2 accepted + 3 quarantined" in said(home, "show", "parcels", two[1].fingerprint)
    with pytest.raises(NotFound, match=r"No snapshot of 'parcels' begins with 'zz'\. There are: "):
        said(home, "show", "parcels", "zz")


def test_file_with_the_bytes_of_another_one_is_told(home: Home, two: list[Snapshot], tmp_path: Path) -> None:
    landing = home.landing("parcels")
    landing.mkdir(parents=True)
    (landing / "copy.csv").write_text(DIRTY)
    settings = settings_for(home, mirror=str(tmp_path / "second"))
    assert ingest(parcels(), AS_OF, home, now=NOW, settings=settings).fingerprint == two[1].fingerprint
    told = said(home, "show", "parcels", two[1].fingerprint)
    assert "taken once: copy.csv holds the bytes of another file" in told


def test_diff_compares_with_the_snapshot_before(home: Home, two: list[Snapshot]) -> None:
    told = orjson.loads(said(home, "diff", "parcels", "--json"))
    assert (told["old"], told["new"], told["rows"]) == (two[0].fingerprint, two[1].fingerprint, [2, 5])
    text = said(home, "diff", "parcels", two[0].fingerprint, "--against", two[1].fingerprint)
    assert "rows 5 -> 2" in text
    with pytest.raises(NotFound, match="is the first of 'parcels': name two"):
        said(home, "diff", "parcels", two[0].fingerprint)


def test_list_cuts_no_name_and_no_number(home: Home, two: list[Snapshot], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    line = next(line for line in said(home, "list").splitlines() if two[1].fingerprint in line)
    assert line.split()[-4:] == ["1", "5", "2", "3"]
    monkeypatch.setenv("FORCE_COLOR", "1")  # as at a terminal: moments fold, nothing else does
    assert two[1].fingerprint in (told := said(home, "list"))
    assert "…" not in told


def test_diff_says_from_where_on_a_column_moved(home: Home) -> None:
    reason = "PSI 0.04, needs 0.20 (a stretch of the reference reaches 0.13)"
    drift = ColumnDrift(column="\x1b[31mkilos", psi=0.04, p=0.5, drifted=False, reason=reason)
    console = Console(record=True, file=io.StringIO())
    print_whole(console, _drifts((drift,)))
    told = console.export_text()
    assert "PSI 0.04, moved from 0.20 on (a stretch" in told
    assert "\\x1b[31mkilos" in told


def test_as_of_writes_the_rows_of_that_time(home: Home, two: list[Snapshot], tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    told = orjson.loads(said(home, "as-of", "parcels", "2024-06-01", "--out", str(out), "--json"))
    assert told["accepted"] == pl.read_parquet(out).height == 2
    with pytest.raises(UsageError, match="'yesterday' is no moment"):
        said(home, "as-of", "parcels", "yesterday")


def test_prune_asks_before_it_removes(home: Home, two: list[Snapshot]) -> None:
    assert "0 files" in said(home, "prune", "parcels", "--keep", "1", "--dry-run")  # both are minutes old
    for path in home.data("parcels").rglob("*"):
        os.utime(path, (NOW.timestamp(), NOW.timestamp() + (two[1].fingerprint in path.name)))
    with pytest.raises(UsageError, match="There is nobody to ask: give --yes"):
        said(home, "prune", "parcels", "--keep", "1")
    assert f"removed {two[0].fingerprint}" in said(home, "prune", "parcels", "--keep", "1", "--yes")
    assert len(orjson.loads(said(home, "list", "--json"))) == 1


def test_verify_ends_with_an_error_that_names_the_file(home: Home, two: list[Snapshot]) -> None:
    assert "parcels: 16 files read, 0 damaged" in said(home, "verify")
    path = home.absolute(two[0].parts[0].path)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match=rf"{path.name} has SHA-256 .* made again .* ferroflow run parcels"):
        said(home, "verify", "-p", "parcels")


def test_nothing_yet_says_how_to_begin(home: Home) -> None:
    assert "ferroflow run PIPELINE" in said(home, "list")
    with pytest.raises(NotFound, match="No data of pipeline 'parcels'"):
        said(home, "diff", "parcels")
