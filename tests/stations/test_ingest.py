from __future__ import annotations

import logging
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from ferroflow.adapters.home import Home
from ferroflow.core.errors import EmptySource, SourceUnavailable, UnreadableFile
from ferroflow.core.records import Snapshot
from ferroflow.core.spec import MonthlyFiles, PipelineSpec
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


def test_empty_or_unreadable_file_stops_the_run_by_name(home: Home, tmp_path: Path) -> None:
    with pytest.raises(EmptySource, match=r"parcels\.csv holds no row"):
        taken(home, a_mirror(tmp_path / "empty", parcels=HEADER))
    landing = home.landing("parcels")
    landing.mkdir(parents=True)
    (landing / "bad.parquet").write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(UnreadableFile, match=r"bad\.parquet is no readable Parquet file.*landing"):
        taken(home, a_mirror(tmp_path / "good"))


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
