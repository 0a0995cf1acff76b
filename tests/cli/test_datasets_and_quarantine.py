from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from ferroflow.adapters.home import Home
from ferroflow.cli.datasets import list_datasets, show_dataset
from ferroflow.cli.quarantine import list_quarantine, show_quarantine
from ferroflow.core.errors import NotFound
from ferroflow.core.records import Snapshot
from ferroflow.stations.ingest import ingest
from ferroflow.stations.validate import validate
from tests.parcels import AS_OF, GOOD, HEADER, NOW, a_mirror, parcels, settings_for


@pytest.fixture
def snapshot(home: Home, tmp_path: Path) -> Snapshot:
    dirty = HEADER + GOOD + "3,2024-01-03,1,[red]heavy[/red],3\n4,2024-01-03,1,1,99\n5,2024-01-03\n"
    settings = settings_for(home, mirror=str(a_mirror(tmp_path / "m", parcels=dirty)))
    taken = ingest(parcels(), AS_OF, home, now=NOW, settings=settings)
    validate(parcels(), taken, home)
    return taken


def test_list_counts_rows_that_reconcile(home: Home, snapshot: Snapshot, capsys: pytest.CaptureFixture[str]) -> None:
    list_datasets(home, None, as_json=True)
    (row,) = orjson.loads(capsys.readouterr().out)
    assert row["rows"] == row["accepted"] + row["quarantined"] == 5
    list_datasets(home, "parcels", as_json=False)
    assert snapshot.fingerprint in capsys.readouterr().out


def test_snapshot_is_found_by_the_beginning_of_its_name(
    home: Home, snapshot: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    show_dataset(home, "parcels", snapshot.fingerprint[:5], as_json=True)
    told = orjson.loads(capsys.readouterr().out)
    assert told["snapshot"]["parts"][0]["sha256"] == snapshot.parts[0].sha256
    show_dataset(home, "parcels", snapshot.fingerprint, as_json=False)
    assert "5 rows in = 2 accepted + 3 quarantined" in capsys.readouterr().out
    with pytest.raises(NotFound, match=f"begins with 'zz'. There are: {snapshot.fingerprint}"):
        show_dataset(home, "parcels", "zz", as_json=False)


def test_quarantine_is_counted_by_reason(home: Home, snapshot: Snapshot, capsys: pytest.CaptureFixture[str]) -> None:
    list_quarantine(home, None, as_json=True)
    (told,) = orjson.loads(capsys.readouterr().out)
    assert told["reasons"] == {
        "kilos: not a Float64": 1,
        "days: less_than_or_equal_to(30)": 1,
        "line: 2 cells instead of 5": 1,
    }
    list_quarantine(home, "parcels", as_json=False)
    assert "not a Float64" in capsys.readouterr().out


def test_refused_rows_are_shown_with_their_raw_values(
    home: Home, snapshot: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    show_quarantine(home, "parcels", "kilos", 10, as_json=True)
    (row,) = orjson.loads(capsys.readouterr().out)
    assert (row["row"], row["raw"]["kilos"]) == (4, "[red]heavy[/red]")
    show_quarantine(home, "parcels", None, 1, as_json=False)
    assert "[red]heavy[/red]" in capsys.readouterr().out


def test_nothing_yet_says_how_to_begin(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    list_datasets(home, None, as_json=False)
    list_quarantine(home, None, as_json=False)
    assert capsys.readouterr().out.count("ferroflow run PIPELINE") == 2
    with pytest.raises(NotFound, match="No data of pipeline 'parcels'"):
        show_quarantine(home, "parcels", None, 5, as_json=False)
