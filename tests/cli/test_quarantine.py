"""``ferroflow quarantine`` as a user meets it: through the command line, with a pipeline of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from typer.testing import CliRunner

from ferroflow.adapters.home import Home
from ferroflow.cli.main import app
from ferroflow.core.errors import FerroflowError, NotFound, UsageError
from ferroflow.core.records import Snapshot
from ferroflow.stations.ingest import ingest
from ferroflow.stations.validate import validate
from tests.parcels import AS_OF, GOOD, HEADER, NOW, a_mirror, parcels, settings_for

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
        (["--from", "missing.csv"], NotFound, "is not there"),
    ],
)
def test_fix_that_cannot_be_says_why_and_records_nothing(
    quarantine: Command, snapshot: Snapshot, home: Home, words: list[str], kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        quarantine("fix", "parcels", *words)
    assert not list((home.data("parcels") / "corrections").glob("*.json"))


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
