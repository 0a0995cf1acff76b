from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import logging
import sqlite3
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ferroflow.adapters import corrections
from ferroflow.adapters.home import Home
from ferroflow.core.errors import DataError, EmptySource, SourceUnavailable, UnreadableFile
from ferroflow.core.records import Snapshot
from ferroflow.core.spec import Glob, MonthlyFiles, PipelineSpec, Table
from ferroflow.stations import parts
from ferroflow.stations.ingest import ingest
from tests.parcels import AS_OF, GOOD, HEADER, NOW, a_mirror, parcels, settings_for

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def post(tmp_path: Path) -> Path:
    return a_mirror(tmp_path / "mirror")


def taken(home: Home, post: Path, spec: PipelineSpec | None = None, later: int = 0) -> Snapshot:
    settings = settings_for(home, mirror=str(post))
    return ingest(spec or parcels(), AS_OF, home, now=NOW + timedelta(days=later), settings=settings)


def files(home: Home) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in home.data("parcels").rglob("*") if path.is_file()}


def test_ingesting_twice_adds_nothing(home: Home, post: Path) -> None:
    first = taken(home, post)
    before = files(home)
    assert taken(home, post, later=1) == first
    assert files(home) == before


def test_manifest_tells_file_checksum_types_and_first_moment(home: Home, post: Path) -> None:
    (part,) = taken(home, post).parts
    assert (part.file, part.origin, part.rows, part.ingested_at) == ("parcels.csv", "mirror", 2, NOW)
    assert part.columns == dict.fromkeys(["id", "sent", "city", "kilos", "days"], "String")
    raw = pl.read_parquet(home.absolute(part.path))
    assert raw["kilos"].to_list() == ["2.5", ""]


def test_landed_file_comes_after_the_sources_own_and_changes_the_snapshot(home: Home, post: Path) -> None:
    first = taken(home, post)
    landing = home.landing("parcels")
    landing.mkdir(parents=True)
    (landing / "b.csv").write_text(HEADER + "7,2024-01-05 10:00,1,1,2\n")
    pl.DataFrame({"id": [8], "sent": ["2024-01-06"], "city": [2], "kilos": [1.0], "days": [3]}).write_parquet(
        landing / "a.parquet"
    )
    (landing / ".hidden.csv").write_text("half a")
    second = taken(home, post, later=1)
    assert [(part.file, part.origin) for part in second.parts] == [
        ("parcels.csv", "mirror"),
        ("a.parquet", "landing"),
        ("b.csv", "landing"),
    ]
    assert second.fingerprint != first.fingerprint
    assert second.parts[0] == first.parts[0]
    (landing / "c.csv").write_text((landing / "b.csv").read_text())  # the same bytes again are no new rows
    assert taken(home, post) == second.model_copy(update={"repeated": ("c.csv",)})
    (landing / "c.csv").unlink()
    assert taken(home, post) == second


@pytest.mark.parametrize("harm", ["removed", "cut", "one byte"])
def test_part_that_is_removed_or_damaged_is_made_again(home: Home, post: Path, harm: str) -> None:
    first = taken(home, post)
    path = home.absolute(first.parts[0].path)
    good = path.read_bytes()
    if harm == "removed":
        path.unlink()
    else:
        path.write_bytes(good[:100] if harm == "cut" else good[:200] + bytes([good[200] ^ 1]) + good[201:])
    assert taken(home, post, later=1) == first
    assert path.read_bytes() == good


_KILLED = """
import os, signal, sys
from pathlib import Path
from ferroflow.adapters.home import Home
from ferroflow.stations.ingest import ingest
from ferroflow.stations.validate import validate
from tests.parcels import AS_OF, NOW, parcels, settings_for

moves, real = int(sys.argv[3]), Path.replace
def replace(self, target):
    global moves
    moves -= 1
    if moves == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)
Path.replace = replace
home = Home(Path(sys.argv[1]))
spec = parcels(files=("parcels.csv", "more.csv"))
validate(spec, ingest(spec, AS_OF, home, now=NOW, settings=settings_for(home, mirror=sys.argv[2])), home)
"""


@pytest.mark.parametrize("move", [3, 4, 8, 10])
def test_kill_before_any_move_of_a_file_leaves_what_the_next_run_completes(
    home: Home, tmp_path: Path, move: int
) -> None:
    from ferroflow.stations.validate import validate

    post = a_mirror(tmp_path / "mirror", more=HEADER + "9,2024-01-05 10:00,1,1,2\n")
    spec = parcels(files=("parcels.csv", "more.csv"))
    command = [sys.executable, "-c", _KILLED, str(home.root), str(post), str(move)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9
    for path in home.data("parcels").rglob("*.parquet"):
        if not path.name.startswith("."):
            pl.read_parquet(path)
    calm = Home(tmp_path / "calm")
    assert taken(home, post, spec).fingerprint == taken(calm, post, spec).fingerprint
    validated = validate(spec, taken(home, post, spec), home)
    assert validated == validate(spec, taken(calm, post, spec), calm)
    assert validated.rows_accepted == 3


def test_source_that_can_be_had_from_nowhere_says_both_ways_out(home: Home) -> None:
    with pytest.raises(SourceUnavailable, match=r"FERROFLOW_MIRROR.*--simulate"):
        ingest(parcels(), AS_OF, home, now=NOW, settings=settings_for(home))
    assert not (home.data("parcels") / "snapshots").exists()


def test_simulator_stands_in_for_files_and_references(home: Home) -> None:
    spec = parcels(simulator="tests.parcels:simulate")
    snapshot = ingest(spec, AS_OF, home, now=NOW, settings=settings_for(home, simulate=True))
    assert (snapshot.parts[0].origin, snapshot.rows) == ("simulator", 20)
    assert pl.read_parquet(home.absolute(snapshot.references["cities"])).columns == ["city", "country"]


@pytest.mark.parametrize(
    "source",
    [{"files": Glob(pattern="s3://nobody/*.tsv")}, {"files": None, "table": Table(url="env:NOBODY", name="parcels")}],
)
def test_simulator_stands_in_for_a_pattern_and_for_a_table(home: Home, source: dict[str, Any]) -> None:
    spec = parcels(simulator="tests.parcels:simulate")
    spec = dataclasses.replace(spec, source=dataclasses.replace(spec.source, **source))
    (part,) = ingest(spec, AS_OF, home, now=NOW, settings=settings_for(home, simulate=True)).parts
    assert (part.origin, part.rows, *part.columns) == ("simulator", 20, "id", "sent", "city", "kilos", "days")


BAD = b"PAR1 no table PAR1"


def land(home: Home, **files: bytes) -> Path:
    landing = home.landing("parcels")
    landing.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (landing / name.replace("_", ".")).write_bytes(data)
    return landing


def test_file_that_makes_no_table_is_kept_whole_with_its_reason_and_the_others_go_on(
    home: Home, post: Path, caplog: pytest.LogCaptureFixture
) -> None:
    land(home, bad_parquet=BAD, empty_csv=b"\n", copy_parquet=BAD)
    first = taken(home, post)
    assert [part.file for part in first.parts] == ["parcels.csv"]
    bad, empty = first.unreadable
    assert (bad.file, bad.origin, bad.size, bad.seen_at) == ("bad.parquet", "landing", len(BAD), NOW)
    assert "is no readable Parquet file" in bad.reason
    assert "empty.csv holds no row" in empty.reason
    assert home.absolute(bad.path).read_bytes() == BAD
    assert bad.path == f"data/parcels/unreadable/{hashlib.sha256(BAD).hexdigest()}"
    assert caplog.text.count("is quarantined whole") == 2
    before = files(home)
    caplog.clear()
    assert taken(home, post, later=1) == first  # known: not read again
    assert files(home) == before
    assert "quarantined" not in caplog.text
    home.absolute(bad.path).write_bytes(BAD[:-1])
    assert taken(home, post, later=1) == first
    assert files(home) == before
    (home.landing("parcels") / "empty.csv").unlink()
    assert taken(home, post).fingerprint != first.fingerprint


def test_source_of_which_no_file_can_be_read_stops_the_run_and_names_them_all(home: Home, tmp_path: Path) -> None:
    land(home, bad_parquet=BAD)
    with pytest.raises(UnreadableFile, match=r"2 came.*parcels\.csv holds no row.*bad\.parquet is no readable Parquet"):
        taken(home, a_mirror(tmp_path / "empty", parcels="\n"))
    assert (home.data("parcels") / "unreadable" / hashlib.sha256(BAD).hexdigest()).read_bytes() == BAD
    assert not (home.data("parcels") / "snapshots").exists()
    with pytest.raises(EmptySource, match="has no file for 2024-04-01"):
        taken(Home(tmp_path / "other"), tmp_path / "empty", parcels(files=()))


def test_reason_shows_no_byte_of_a_file_with_personal_columns(home: Home, post: Path) -> None:
    land(home, a_parquet=b"Jane Doe", b_csv=b"Jane,Jane\nJohn,John\n")
    spec = dataclasses.replace(parcels(), personal=("id",))
    reasons = [file.reason for file in taken(home, post, spec).unreadable]
    assert all("It begins with ***. Fetch it again" in reason for reason in reasons)
    assert not any("Jane" in reason for reason in reasons)
    assert "empty names: ***." in reasons[1]


def test_landing_folder_takes_every_format_and_reads_it_by_its_name(home: Home, post: Path) -> None:
    cells = {"id": [8], "sent": ["2024-01-06"], "city": [2], "kilos": [1.0], "days": [3]}
    frame = pl.DataFrame(cells)
    landing = land(home, a_tsv=frame.write_csv(separator="\t").encode(), b_ndjson=frame.write_ndjson().encode())
    (landing / "c.csv.gz").write_bytes(gzip.compress(frame.write_csv().encode()))
    frame.write_ipc(landing / "d.arrow")
    frame.write_excel(landing / "e.xlsx")
    landed = taken(home, post).parts[1:]
    assert [part.file for part in landed] == ["a.tsv", "b.ndjson", "c.csv.gz", "d.arrow", "e.xlsx"]
    for part in landed:
        row = pl.read_parquet(home.absolute(part.path)).select(pl.col(*cells).cast(pl.String)).row(0)
        assert (part.rows, part.columns.keys(), row[:3]) == (1, cells.keys(), ("8", "2024-01-06", "2"))


def test_file_that_is_written_while_it_is_read_is_left_for_the_next_run(
    home: Home, post: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    land(home, half_csv=(HEADER + GOOD.replace("2.5", "4")).encode())
    real = parts.read_raw

    def disturbed(path: Path, *rest: Any) -> Any:
        if path.name == disturbing:
            with path.open("a") as file:
                file.write("7,2024-01-05 10:00,1,1,2\n")
        return real(path, *rest)

    monkeypatch.setattr(parts, "read_raw", disturbed)
    disturbing = "half.csv"
    assert [part.file for part in taken(home, post).parts] == ["parcels.csv"]
    assert "half.csv changed while it was read" in caplog.text
    disturbing = "nothing"
    assert [part.rows for part in taken(home, post).parts] == [2, 3]
    disturbing = "parcels.csv"
    with pytest.raises(DataError, match=r"parcels\.csv changed while it was read"):
        taken(Home(home.root / "other"), post)


def test_snapshot_knows_when_it_was_made_and_which_came_before(home: Home, post: Path) -> None:
    first = taken(home, post)
    assert (first.made_at, first.parent) == (NOW, None)
    land(home, b_csv=(HEADER + "7,2024-01-05 10:00,1,1,2\n").encode())
    second = taken(home, post, later=1)
    land(home, c_csv=(HEADER + "8,2024-01-05 10:00,1,1,2\n").encode())
    third = taken(home, post, later=2)
    assert (second.parent, third.parent) == (first.fingerprint, second.fingerprint)
    assert third.made_at == NOW + timedelta(days=2)
    for name in ("b.csv", "c.csv"):
        (home.landing("parcels") / name).unlink()
    assert taken(home, post, later=3) == first  # the same files: the same snapshot, as it was


def test_corrections_make_another_snapshot_of_the_same_parts(home: Home, post: Path) -> None:
    first = taken(home, post)
    (part,) = first.parts
    row = f"{part.fingerprint}:3"
    change = corrections.Change(cells={"kilos": "2"})
    corrections.record(home, "parcels", {row: change}, {part.fingerprint: part}, why="weighed again", made_at=NOW)
    second = taken(home, post)
    assert (second.parts, second.parent) == (first.parts, first.fingerprint)
    assert second.corrections == corrections.current(home, "parcels")
    assert second.fingerprint != first.fingerprint
    assert taken(home, post, later=1) == second


def test_reference_with_a_broken_line_is_refused_whole(home: Home, tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"Line 3 of the reference cities\.csv has 1 cells instead of 2"):
        taken(home, a_mirror(tmp_path / "mirror", cities="city,country\n1,IS\n2\n"))


def test_same_files_at_a_later_moment_are_the_same_snapshot_with_that_moment(home: Home, post: Path) -> None:
    settings = settings_for(home, mirror=str(post))
    first = taken(home, post)
    second = ingest(parcels(), AS_OF + timedelta(days=3), home, now=NOW, settings=settings)
    assert second.as_of == AS_OF + timedelta(days=3)
    assert second.fingerprint == first.fingerprint


def test_months_after_as_of_are_left_out_and_counted_by_their_types(home: Home, mirror: Path) -> None:
    """Real months: Int64 and Int32, Null and Float64 drift between them."""
    from ferroflow.adapters.pipelines import load
    from ferroflow.stations.validate import validate

    spec = load("taxi")
    assert isinstance(spec.source.files, MonthlyFiles)
    assert spec.as_of is not None
    snapshot = ingest(spec, spec.as_of, home, now=NOW, settings=settings_for(home, mirror=str(mirror)))
    assert [part.rows for part in snapshot.parts] == [68_211, 64_809, 72_044]
    validated = validate(spec, snapshot, home)
    assert validated.casts["PULocationID"] == "Int32, Int64 -> Int64"
    assert validated.casts["ehail_fee"] == "Float64, Null -> Float64"
    assert validated.rows_in == validated.rows_accepted + validated.rows_quarantined == 205_064


def test_progress_and_warnings_do_not_hide_a_left_out_file(
    home: Home, post: Path, caplog: pytest.LogCaptureFixture
) -> None:
    landing = home.landing("parcels")
    landing.mkdir(parents=True)
    (landing / "notes.txt").write_text(GOOD)
    with caplog.at_level(logging.WARNING):
        taken(home, post)
    assert "notes.txt is left out" in caplog.text


def test_table_and_landing_folder_are_taken_together_and_a_second_run_adds_what_is_new(
    home: Home, tmp_path: Path
) -> None:
    path = tmp_path / "post.db"
    spec = parcels()
    table = Table(url=f"sqlite:///{path}", name="parcels", since="id")
    spec = dataclasses.replace(
        spec, references=(), source=dataclasses.replace(spec.source, files=None, format=None, table=table)
    )

    def taken_now(later: int) -> Snapshot:
        now = NOW + timedelta(days=later)
        return ingest(spec, AS_OF, home, now=now, settings=settings_for(home))

    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE parcels (id INTEGER, sent TEXT, city INTEGER, kilos REAL, days REAL)")
        with pytest.raises(EmptySource, match=r"'parcels' has no row yet.*landing"):
            taken_now(0)
        database.execute("INSERT INTO parcels VALUES (1, '2024-01-01', 1, 2.5, 3), (2, '2024-01-02', 2, NULL, 4)")
        database.commit()
        first = taken_now(0)
        assert taken_now(1) == first
        database.execute("INSERT INTO parcels VALUES (3, '2024-01-03', 1, 1, 3)")
        database.commit()
    land(home, b_csv=(HEADER + "7,2024-01-05 10:00,1,1,2\n").encode())
    second = taken_now(2)
    assert [part.rows for part in second.parts] == [2, 1, 1]
    assert [part.origin for part in second.parts][-1] == "landing"
    assert (second.parts[0], second.parent) == (first.parts[0], first.fingerprint)
