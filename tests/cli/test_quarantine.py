"""``ferroflow quarantine`` as a user meets it: through the command line, with a pipeline of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from pandera.polars import Field
from typer.testing import CliRunner

from ferroflow.adapters.home import Home
from ferroflow.cli.main import app
from ferroflow.core.errors import FerroflowError, NotFound, UsageError
from ferroflow.core.records import Snapshot
from ferroflow.stations.ingest import ingest
from ferroflow.stations.validate import validate
from tests.parcels import AS_OF, GOOD, HEADER, NOW, Parcel, a_mirror, parcels, settings_for

DIRTY = HEADER + GOOD + "3,2024-01-03,1,[red]heavy[/red],3\n4,2024-01-03,1,1,99\n5,2024-01-03\n6,2024-01-03,9,1,3\n"

Command = Callable[..., Any]


@pytest.fixture
def snapshot(home: Home, tmp_path: Path) -> Snapshot:
    landing = home.landing("parcels")
    landing.mkdir(parents=True)
    (landing / "bad.parquet").write_bytes(b"PAR1 no table PAR1")
    settings = settings_for(home, mirror=str(a_mirror(tmp_path / "m", parcels=DIRTY)))
    taken = ingest(parcels(), AS_OF, home, now=NOW, settings=settings)
    validate(parcels(), taken, home)
    return taken


@pytest.fixture
def quarantine(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Call the command; with ``--json`` its answer is read, else its lines are given."""
    folder = tmp_path / "pipelines" / "parcels"
    folder.mkdir(parents=True)
    (folder / "spec.py").write_text("from tests.parcels import parcels\n\npipeline = parcels()\n")
    monkeypatch.setenv("FERROFLOW_PIPELINES", str(folder.parent))

    def call(*words: str) -> Any:
        done = CliRunner().invoke(app, ["quarantine", *words, "--home", str(home.root)])
        if isinstance(done.exception, FerroflowError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return orjson.loads(done.stdout) if "--json" in words else done.stdout

    return call


def test_rows_are_counted_by_reason_with_examples_and_unreadable_files(quarantine: Command, snapshot: Snapshot) -> None:
    (told,) = quarantine("list", "--json")
    assert told["reasons"] == {
        "kilos: not a Float64": 1,
        "days: less_than_or_equal_to(30)": 1,
        "line: 2 cells instead of 5": 1,
        "country: not_nullable": 1,
    }
    (example,) = told["examples"]["days: less_than_or_equal_to(30)"]
    assert (example["row"], example["raw"]["days"]) == (5, "99")
    assert told["unreadable"][0]["size"] == 18
    lines = quarantine("list", "-p", "parcels")
    assert "not a Float64" in lines
    assert "bad.parquet" in lines
    assert "6 rows in = 2 accepted + 4 quarantined" in lines


def test_refused_rows_are_shown_with_their_raw_values(quarantine: Command, snapshot: Snapshot) -> None:
    (row,) = quarantine("show", "parcels", "--reason", "kilos", "--json")
    assert (row["row"], row["raw"]["kilos"]) == (4, "[red]heavy[/red]")
    assert "[red]heavy[/red]" in quarantine("show", "parcels", "--limit", "1")


def test_fix_and_replay_move_rows_once(quarantine: Command, snapshot: Snapshot) -> None:
    words = ("fix", "parcels", "--reason", "days", "--set", "days=9", "--why", "typed twice")
    would = quarantine(*words, "--dry-run", "--json")
    assert (would["changes"], would["accepted"]) == (1, 1)
    assert quarantine("replay", "parcels", "--dry-run", "--json")["moved"] == 0
    assert "Next: ferroflow quarantine replay parcels" in quarantine(*words)
    assert "Nothing to record" in quarantine(*words)
    assert quarantine("replay", "parcels", "--dry-run", "--json")["moved"] == 1
    done = quarantine("replay", "parcels", "--json")
    assert (done["moved"], done["rows_accepted"], done["rows_quarantined"]) == (1, 3, 3)
    assert quarantine("replay", "parcels", "--json")["moved"] == 0
    (told,) = quarantine("list", "--json")
    assert (told["rows_in"], told["rows_accepted"]) == (6, 3)


def test_edited_csv_mends_rows_and_lines(quarantine: Command, snapshot: Snapshot, tmp_path: Path) -> None:
    path = tmp_path / "edited.csv"
    assert f"fix parcels --from {path}" in quarantine("show", "parcels", "--csv", str(path))
    rows = pl.read_csv(path, infer_schema=False)
    rows.with_columns(
        kilos=pl.col("kilos").replace("[red]heavy[/red]", "7"), _line=pl.col("_line") + ",1,1,1"
    ).write_csv(path)
    assert quarantine("fix", "parcels", "--from", str(path), "--json")["rows"] == 2
    assert quarantine("replay", "parcels", "--json")["moved"] == 2


HOSTILE = "3,2024-01-03,1,\x1b]0;owned\x07\x9b2J,3\n4,2024-01-03,1,=1+1,3\n5,2024-01-03,1,'=2,3\n6,2024-01-03,1,-7x,3\n"


@pytest.fixture
def hostile(home: Home, tmp_path: Path) -> None:
    settings = settings_for(home, mirror=str(a_mirror(tmp_path / "m", parcels=HEADER + GOOD + HOSTILE)))
    validate(parcels(), ingest(parcels(), AS_OF, home, now=NOW, settings=settings), home)


def test_cells_cannot_steer_the_terminal(quarantine: Command, hostile: None) -> None:
    for words in (["list"], ["show", "parcels"]):
        told = quarantine(*words)
        assert "\\x1b]0;owned\\x07" in told
        assert not {"\x1b", "\x07", "\x9b"} & set(told)


def test_cells_are_no_formulas_in_a_spreadsheet_and_come_back_as_they_were(
    quarantine: Command, hostile: None, tmp_path: Path
) -> None:
    path = tmp_path / "edited.csv"
    quarantine("show", "parcels", "--csv", str(path))
    rows = pl.read_csv(path, infer_schema=False)
    assert rows["kilos"].to_list()[1:] == ["'=1+1", "'=2", "'-7x"]
    assert quarantine("fix", "parcels", "--from", str(path), "--dry-run", "--json")["changes"] == 0
    rows.with_columns(pl.col("kilos").replace({"'-7x": "'7", "'=2": "2", "'=1+1": "=1+1"})).write_csv(path)
    assert quarantine("fix", "parcels", "--from", str(path), "--json")["rows"] == 2
    assert quarantine("replay", "parcels", "--json")["moved"] == 2


def test_map_touches_only_the_rows_that_hold_the_value(quarantine: Command, snapshot: Snapshot) -> None:
    told = quarantine("fix", "parcels", "--reason", "country", "--map", "city:9=2", "--map", "kilos:8=1", "--json")
    assert told["rows"] == 1
    assert quarantine("replay", "parcels", "--json")["moved"] == 1


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        (["--set", "days=9"], UsageError, "Say which rows"),
        (["--reason", "days"], UsageError, "Say what they become"),
        (["--reason", "days", "--set", "days"], UsageError, "is not COLUMN=VALUE"),
        (["--reason", "days", "--map", "days=9"], UsageError, "is not COLUMN:OLD=NEW"),
        (["--reason", "days", "--line", "x"], UsageError, "one --row"),
        (["--reason", "days", "--set", "weight=9"], NotFound, "no raw column 'weight'"),
        (["--reason", "nothing like it", "--set", "days=9"], NotFound, "No refused row"),
        (["--row", "9", "--set", "days=9"], NotFound, "is no row_id"),
        (["--row", "no-such-part:9", "--set", "days=9"], NotFound, "has no part 'no-such-part'"),
        (["--row", "PART:999", "--set", "days=9"], NotFound, "No row '.*:999' in the newest snapshot"),
        (["--row", "PART:999", "--map", "days:99=9"], NotFound, "No row '.*:999' in the newest snapshot"),
        (["--from", "missing.csv"], NotFound, "is not there"),
    ],
)
def test_fix_that_cannot_be_says_why_and_records_nothing(
    quarantine: Command, snapshot: Snapshot, home: Home, words: list[str], kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        quarantine("fix", "parcels", *(word.replace("PART", snapshot.parts[0].fingerprint) for word in words))
    assert not list((home.data("parcels") / "corrections").glob("*.json"))


def test_every_command_speaks_of_the_snapshot_that_was_made_last_also_for_an_earlier_moment(
    quarantine: Command, snapshot: Snapshot, home: Home, tmp_path: Path
) -> None:
    settings = settings_for(home, mirror=str(a_mirror(tmp_path / "m2", parcels=HEADER + GOOD + "8,2024-01-03,9,1,3\n")))
    earlier = ingest(parcels(), AS_OF - timedelta(days=30), home, now=NOW, settings=settings)
    assert quarantine("list", "--json")[0]["validated"] is None
    assert "was not validated yet" in quarantine("list")
    (row,) = quarantine("show", "parcels", "--json")  # judges it
    (told,) = quarantine("list", "--json")
    assert (told["snapshot"], told["rows_quarantined"]) == (earlier.fingerprint, 1)
    assert quarantine("show", "parcels", "--csv", str(tmp_path / "rows.csv"), "--json")["rows"] == 1
    assert pl.read_csv(tmp_path / "rows.csv")["row_id"].to_list() == [row["row_id"]]
    assert quarantine("fix", "parcels", "--row", row["row_id"], "--set", "city=1", "--json")["rows"] == 1
    assert quarantine("replay", "parcels", "--json")["moved_rows"] == [row["row_id"]]


def test_verdicts_that_are_met_again_are_the_ones_that_are_listed(
    quarantine: Command, snapshot: Snapshot, home: Home
) -> None:
    class Strict(Parcel):
        days: pl.Float64 = Field(ge=1, le=3)

    first = quarantine("list", "--json")[0]
    validate(dataclasses.replace(parcels(), schema=Strict), snapshot, home)
    assert quarantine("list", "--json")[0]["rows_quarantined"] == first["rows_quarantined"] + 1
    validate(parcels(), snapshot, home)
    assert quarantine("list", "--json")[0] == first


def test_prune_asks_before_it_forgets(quarantine: Command, snapshot: Snapshot) -> None:
    assert quarantine("prune", "parcels", "--older-than", "1d", "--dry-run", "--json")["rows"] == {"parcels.csv": 4}
    with pytest.raises(UsageError, match="nobody to ask"):
        quarantine("prune", "parcels", "--older-than", "1d")
    assert "4 refused rows were removed" in quarantine("prune", "parcels", "--older-than", "1d", "--yes")
    assert "Nothing of parcels is older" in quarantine("prune", "parcels", "--older-than", "1d", "--yes")
    (told,) = quarantine("list", "--json")
    assert (told["rows_in"], told["rows_quarantined"], len(told["reasons"])) == (6, 4, 4)


def test_nothing_yet_says_how_to_begin(quarantine: Command) -> None:
    assert "ferroflow run PIPELINE" in quarantine("list")
    with pytest.raises(NotFound, match="No data of pipeline 'parcels'"):
        quarantine("show", "parcels")
