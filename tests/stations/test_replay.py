"""Fix, replay and prune: refused rows move into a new snapshot once, and old ones are forgotten without being lost."""

from __future__ import annotations

import dataclasses
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from pandera.polars import Field

from ferroflow.adapters import corrections
from ferroflow.adapters.corrections import Change
from ferroflow.adapters.home import Home
from ferroflow.core.errors import NotFound, UsageError
from ferroflow.core.records import Snapshot, Validated
from ferroflow.core.spec import PipelineSpec, Table
from ferroflow.stations import expiry, fixing, versions
from ferroflow.stations.fixing import Fix
from ferroflow.stations.ingest import ingest
from ferroflow.stations.replay import replay
from ferroflow.stations.validate import validate
from tests.parcels import AS_OF, GOOD, HEADER, NOW, Parcel, a_mirror, parcels, settings_for

DIRTY = (
    HEADER
    + GOOD
    + "3,2024-01-03 10:00,1,-1,3\n"  # line 4: a weight below zero
    + "4,2024-01-03 10:00,9,1,3\n"  # line 5: a city that no reference knows
    + "five,2024-01-04,1,1,3\n"  # line 6: no number
    + "6,2024-01-03 10:00,1,1\n"  # line 7: a cell is missing
)
LATER = NOW + timedelta(days=100)


@pytest.fixture
def post(tmp_path: Path) -> Path:
    return a_mirror(tmp_path / "mirror", parcels=DIRTY)


def taken(home: Home, post: Path, spec: PipelineSpec | None = None) -> Snapshot:
    return ingest(spec or parcels(), AS_OF, home, now=NOW, settings=settings_for(home, mirror=str(post)))


@pytest.fixture
def snapshot(home: Home, post: Path) -> Snapshot:
    snapshot = taken(home, post)
    validate(parcels(), snapshot, home)
    return snapshot


def lines(home: Home, validated: Validated, table: str = "accepted") -> list[int]:
    rows = pl.read_parquet([home.absolute(path) for path in getattr(validated, table)])
    return [int(name.rsplit(":")[-1]) for name in rows["row_id"]]


def row_id(snapshot: Snapshot, line: int) -> str:
    return f"{snapshot.parts[0].fingerprint}:{line}"


def newest(home: Home) -> Validated:
    validated = versions.validated(versions.find("parcels", "latest", home), home)
    assert validated is not None
    return validated


def fixed(home: Home, changes: dict[str, Change]) -> None:
    fixing.fix(parcels(), home, changes, why="telephone", made_at=NOW)


def test_corrected_rows_move_into_a_new_snapshot_exactly_once(home: Home, snapshot: Snapshot) -> None:
    rows = fixing.refused_rows(parcels(), home, reason="kilos: greater_than")["row_id"]
    fixed(home, fixing.changes_of(parcels(), home, rows, Fix({"kilos": "1"})))
    fixed(home, {row_id(snapshot, 7): Change(line="6,2024-01-03 10:00,1,1,5")})
    done = replay(parcels(), home, now=LATER)
    assert (done.parent, done.moved, done.newly_refused) == (snapshot.fingerprint, 2, {})
    assert done.moved_rows == (row_id(snapshot, 4), row_id(snapshot, 7))
    assert done.still_refused == {"country: not_nullable": 1, "id: not a Int64": 1}
    assert lines(home, newest(home)) == [2, 3, 4, 7]
    again = replay(parcels(), home, now=LATER + timedelta(days=1))
    assert (again.snapshot, again.moved) == (done.snapshot, 0)
    assert len(versions.history("parcels", home)) == 2


def test_ingestion_after_a_replay_takes_the_same_snapshot(home: Home, post: Path, snapshot: Snapshot) -> None:
    fixed(home, {row_id(snapshot, 4): Change(cells={"kilos": "1"})})
    done = replay(parcels(), home, now=LATER)
    assert taken(home, post).fingerprint == done.snapshot
    assert validate(parcels(), taken(home, post), home) == newest(home)


def test_old_snapshot_keeps_the_verdicts_of_its_own_corrections(home: Home, snapshot: Snapshot) -> None:
    before = validate(parcels(), snapshot, home)
    fixed(home, {row_id(snapshot, 4): Change(cells={"kilos": "1"})})
    replay(parcels(), home, now=LATER)
    assert validate(parcels(), snapshot, home) == before


def test_replay_under_another_schema_tells_rows_that_are_refused_now(home: Home, snapshot: Snapshot) -> None:
    class Strict(Parcel):
        days: pl.Float64 = Field(le=3)

    done = replay(dataclasses.replace(parcels(), schema=Strict), home, now=LATER)
    assert (done.moved, done.newly_refused) == (0, {"days: less_than_or_equal_to(3)": 1})


def test_map_changes_only_cells_that_hold_the_old_value(home: Home, snapshot: Snapshot) -> None:
    rows = fixing.refused_rows(parcels(), home)["row_id"]
    changes = fixing.changes_of(parcels(), home, rows, Fix({}, (("id", "five", "5"), ("city", "9", "2"))))
    assert {name.rsplit(":")[-1]: change.cells for name, change in changes.items()} == {
        "5": {"city": "2"},
        "6": {"id": "5"},
    }


def test_edited_csv_becomes_a_correction_of_the_edited_cells_only(
    home: Home, snapshot: Snapshot, tmp_path: Path
) -> None:
    rows = fixing.raw_rows(parcels(), home, fixing.refused_rows(parcels(), home)["row_id"], masked=True)
    assert rows.columns == ["row_id", "id", "sent", "city", "kilos", "days", "_line"]
    edited = rows.with_columns(
        kilos=pl.col("kilos").replace("-1", ""), _line=pl.col("_line") + pl.lit(",5"), days=pl.col("days") + pl.lit("")
    )
    edited.write_csv(tmp_path / "edited.csv")
    assert fixing.changes_in(parcels(), home, tmp_path / "edited.csv") == {
        row_id(snapshot, 4): Change(cells={"kilos": None}),
        row_id(snapshot, 7): Change(line="6,2024-01-03 10:00,1,1,5"),
    }


def test_rehearsal_tells_what_a_fix_would_do_and_leaves_nothing(home: Home, snapshot: Snapshot) -> None:
    before = {path: path.stat().st_mtime_ns for path in home.root.rglob("*") if path.is_file()}
    changes = {row_id(snapshot, 4): Change(cells={"kilos": "1"})}
    would = fixing.rehearse(parcels(), home, changes, why="", made_at=LATER)
    assert (would.moved, would.rows_accepted) == (1, 3)
    after = {path: path.stat().st_mtime_ns for path in home.root.rglob("*") if path.is_file()}
    assert after == before


def test_personal_values_are_in_no_quarantine_file_and_can_still_be_corrected(
    home: Home, post: Path, tmp_path: Path
) -> None:
    spec = dataclasses.replace(parcels(), personal=("id", "kilos"))
    snapshot = taken(home, post, spec)
    quarantined = pl.read_parquet(home.absolute(validate(spec, snapshot, home).quarantined[0]))
    assert quarantined["raw"][0] == '{"id":"***","sent":"2024-01-03 10:00","city":"1","kilos":"***","days":"3"}'
    assert quarantined["reasons"][2].to_list() == ["id: not a Int64: '***'"]
    assert quarantined["raw"][3] == '{"line":"***"}'
    fixing.raw_rows(spec, home, quarantined["row_id"], masked=True).write_csv(tmp_path / "edited.csv")
    assert fixing.changes_in(spec, home, tmp_path / "edited.csv") == {}
    changes = fixing.changes_of(spec, home, quarantined["row_id"], Fix({}, (("id", "five", "5"),)))
    fixing.fix(spec, home, changes, why="", made_at=NOW)
    assert replay(spec, home, now=LATER).moved == 1


# --------------------------------------------------------------------------------------------------------------- prune


def expired(home: Home, dry_run: bool = False) -> expiry.Expired:
    return expiry.expire("parcels", home, older_than=timedelta(days=90), now=LATER, dry_run=dry_run)


def everything(home: Home) -> bytes:
    """The cells of all files below data/, spelt out."""
    tables = [pl.read_parquet(path) for path in home.data("parcels").rglob("*.parquet")]
    texts = [path.read_bytes() for path in home.data("parcels").rglob("*.json")]
    return b"".join([*(str(table.to_dicts()).encode() for table in tables), *texts])


def test_old_raw_values_are_gone_from_every_file_and_all_rows_still_counted(
    home: Home, post: Path, snapshot: Snapshot
) -> None:
    fixed(home, {row_id(snapshot, 6): Change(cells={"id": "cinque"})})
    replay(parcels(), home, now=NOW)
    before = newest(home)
    assert expired(home, dry_run=True).rows == expired(home).rows == {"parcels.csv": 4}
    left = everything(home)
    assert not any(word in left for word in (b"'five'", b"cinque", b"'-1'", b"'9'", b'"-1"', b"6,2024"))
    assert newest(home) == before == validate(parcels(), taken(home, post), home)
    counted = pl.read_parquet(home.absolute(before.quarantined[0]))
    assert counted["row_id"].len() == 4
    assert counted["reasons"].to_list()[2] == ["id: not a Int64"]
    assert versions.verify("parcels", home)[1] == []
    assert expired(home).rows == {}
    assert taken(home, post).parts[0].digest != snapshot.parts[0].digest  # ingestion keeps the emptied part


def test_expired_rows_stay_refused_when_all_is_validated_anew(home: Home, post: Path, snapshot: Snapshot) -> None:
    before = validate(parcels(), snapshot, home)
    expired(home)
    for path in (home.data("parcels") / "validated").rglob("*.parquet"):
        path.unlink()
    after = validate(parcels(), taken(home, post), home)
    assert (after.accepted, lines(home, after)) == (before.accepted, [2, 3])
    assert (after.rows_quarantined, after.reasons) == (4, {"line: expired": 4})
    with pytest.raises(UsageError, match="has expired"):
        fixed(home, {row_id(snapshot, 4): Change(cells={"kilos": "1"})})


def test_row_that_any_kept_verdict_accepted_never_expires(home: Home, snapshot: Snapshot) -> None:
    class Strict(Parcel):
        days: pl.Float64 = Field(le=3)

    strict = dataclasses.replace(parcels(), schema=Strict)
    assert replay(strict, home, now=NOW).rows_accepted == 1
    assert expired(home).rows == {"parcels.csv": 4}
    assert replay(parcels(), home, now=LATER).rows_accepted == 2


def test_young_rows_and_accepted_ones_are_left_alone(home: Home, post: Path, snapshot: Snapshot) -> None:
    young = expiry.expire("parcels", home, older_than=timedelta(days=200), now=LATER, dry_run=False)
    assert young == expiry.Expired({}, ())
    accepted = pl.read_parquet(home.absolute(newest(home).accepted[0]))
    expired(home)
    assert pl.read_parquet(home.absolute(newest(home).accepted[0])).equals(accepted)


def test_unreadable_files_lose_their_bytes_with_age(home: Home, post: Path) -> None:
    landing = home.landing("parcels")
    landing.mkdir(parents=True)
    (landing / "bad.parquet").write_bytes(b"PAR1 no table PAR1")
    snapshot = taken(home, post)
    assert expired(home).unreadable == ("bad.parquet",)
    assert not home.absolute(snapshot.unreadable[0].path).exists()
    assert expired(home).unreadable == ()


def test_fix_of_what_is_not_there_names_it(home: Home, snapshot: Snapshot) -> None:
    with pytest.raises(NotFound, match=r"'nothing:4'.*no raw part"):
        fixed(home, {"nothing:4": Change(cells={"kilos": "1"})})
    with pytest.raises(NotFound, match=r"no raw column 'weight'. It has: id, sent, city, kilos, days"):
        fixed(home, {row_id(snapshot, 4): Change(cells={"weight": "1"})})
    assert corrections.current(home, "parcels") == ""


def test_batches_of_a_table_expire_and_the_table_is_still_read_on(home: Home, tmp_path: Path) -> None:
    address = tmp_path / "post.db"
    with closing(sqlite3.connect(address)) as file, file:
        file.execute("CREATE TABLE parcels (id INTEGER, sent TEXT, city INTEGER, kilos REAL, days INTEGER)")
        file.execute(
            "INSERT INTO parcels VALUES (1, '2024-01-01 10:00', 1, 2.5, 3), (2, '2024-01-01 10:00', 1, -77, 3)"
        )
    spec = parcels()
    table = Table(url=f"sqlite:///{address}", name="parcels", since="id")
    spec = dataclasses.replace(spec, source=dataclasses.replace(spec.source, files=None, table=table))
    post = a_mirror(tmp_path / "cities")
    before = validate(spec, taken(home, post, spec), home)
    assert (before.rows_accepted, before.rows_quarantined) == (1, 1)
    assert expired(home).rows == {}  # the last batch tells what was taken
    with closing(sqlite3.connect(address)) as file, file:
        file.execute("INSERT INTO parcels VALUES (3, '2024-01-01 10:00', 1, 1, 3)")
    after = validate(spec, taken(home, post, spec), home)
    assert list(expired(home).rows.values()) == [1]
    assert b"-77" not in everything(home)
    assert len(list((home.data("parcels") / "parts").glob("*.parquet"))) == 2
    assert validate(spec, taken(home, post, spec), home) == after
    assert (after.rows_accepted, after.rows_quarantined, after.reasons) == (2, 1, before.reasons)
