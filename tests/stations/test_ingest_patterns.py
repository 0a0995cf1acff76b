"""Files by a pattern or a path, and what a process killed among them leaves."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import parse_record
from ferroflow.core.errors import DataError, EmptySource, SourceUnavailable, SpecError
from ferroflow.core.fingerprint import fingerprint
from ferroflow.core.records import Part
from ferroflow.core.spec import FixedFiles, Glob, PipelineSpec, SourceFile
from ferroflow.stations.ingest import ingest
from tests.parcels import AS_OF, GOOD, HEADER, NOW, a_mirror, parcels, settings_for
from tests.stations.test_ingest import BAD, ROOT, land, taken


@pytest.fixture
def post(tmp_path: Path) -> Path:
    return a_mirror(tmp_path / "mirror")


def by_pattern(pattern: str, **glob: Any) -> PipelineSpec:
    spec = parcels()
    return dataclasses.replace(spec, source=dataclasses.replace(spec.source, files=Glob(pattern=pattern, **glob)))


def test_pattern_is_looked_for_in_the_mirror_first_and_then_in_the_current_folder(
    home: Home, post: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = a_mirror(tmp_path / "here", more=HEADER + GOOD.replace("2.5", "9")) / "post"
    monkeypatch.chdir(tmp_path / "here")
    (here / "deep").mkdir()
    (here / "deep" / "b.csv").write_text(HEADER + GOOD.replace("2.5", "3"))
    (here / ".half.csv").write_text("half a")
    (here / "deep" / "z[1].csv").write_text(HEADER + GOOD.replace("2.5", "4"))

    def found(pattern: str) -> list[tuple[str, str, str]]:
        spec = dataclasses.replace(by_pattern(pattern), references=())
        fresh = Home(home.root / fingerprint(pattern))  # bytes that were read before keep the name they had
        return [(part.file, part.origin, part.address) for part in taken(fresh, post, spec).parts]

    assert found("post/parc*.csv") == [("parcels.csv", "mirror", str(post / "post" / "parcels.csv"))]
    assert [name for name, _, _ in found("post/**/?*.csv")] == ["cities.csv", "parcels.csv"]
    assert found("post/*/b.csv") == [("deep/b.csv", "local", f"{here}/deep/b.csv")]
    assert [name for name, _, _ in found(f"{tmp_path}/here/post/**")] == [
        "cities.csv",
        "deep/b.csv",
        "deep/z[1].csv",
        "more.csv",
        "parcels.csv",
    ]
    assert [name for name, _, _ in found(f"{here}/deep/z[1].csv")] == ["z[1].csv"]
    with pytest.raises(EmptySource, match=r"No file matches 'none/\*\.csv' \('parcels'\)"):
        found("none/*.csv")
    with pytest.raises(SpecError, match=r"only folders and s3://.* can be listed.*FixedFiles"):
        found("https://127.0.0.1:9/*.csv")


def test_file_of_a_pattern_may_change_and_is_a_new_part(home: Home, post: Path) -> None:
    spec = by_pattern("post/parcels*")
    first = taken(home, post, spec)
    with (post / "post" / "parcels.csv").open("a") as file:
        file.write("7,2024-01-05 10:00,1,1,2\n")
    second = taken(home, post, spec)
    assert [part.rows for part in (*first.parts, *second.parts)] == [2, 3]


def test_hive_folders_of_a_pattern_become_columns_and_a_column_of_the_file_stays(home: Home, tmp_path: Path) -> None:
    post = a_mirror(tmp_path / "mirror")
    for city, own in (("1", "1"), ("2", "9")):
        folder = post / "t" / f"city={city}" / "year=2024"
        folder.mkdir(parents=True)
        (folder / "a.csv").write_text(f"id,year\n1,{own}\n")
    snapshot = taken(home, post, by_pattern("t/**/*.csv", hive=True))
    raw = [pl.read_parquet(home.absolute(part.path)) for part in snapshot.parts]
    assert pl.concat(raw).select("id", "year", "city").rows() == [("1", "1", "1"), ("1", "9", "2")]
    assert snapshot.parts[0].columns == dict.fromkeys(["id", "year", "city"], "String")


def test_same_bytes_in_two_hive_folders_are_two_parts(home: Home, tmp_path: Path) -> None:
    post = a_mirror(tmp_path / "mirror")
    for city in ("1", "2"):
        (post / "t" / f"city={city}").mkdir(parents=True)
        (post / "t" / f"city={city}" / "a.csv").write_text("id\n1\n")
    assert taken(home, post, by_pattern("t/*/a.csv", hive=True)).rows == 2
    assert taken(home, post, by_pattern("t/*/a.csv")).rows == 1


def test_fixed_file_may_be_a_path_and_must_stay_as_it_was(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "own.data"
    path.write_text(HEADER + GOOD)
    spec = parcels()
    entries = FixedFiles((SourceFile(str(path), "own.data"),))
    spec = dataclasses.replace(spec, references=(), source=dataclasses.replace(spec.source, files=entries))
    settings = settings_for(home)
    (part,) = ingest(spec, AS_OF, home, now=NOW, settings=settings).parts
    assert (part.origin, part.address) == ("local", str(path))
    path.write_text(HEADER)
    with pytest.raises(DataError, match=r"own\.data has SHA-256"):
        ingest(spec, AS_OF, home, now=NOW, settings=settings)
    path.unlink()
    with pytest.raises(SourceUnavailable, match=r"own\.data is no file"):
        ingest(spec, AS_OF, home, now=NOW, settings=settings)
    unnamed = dataclasses.replace(spec, source=dataclasses.replace(spec.source, format=None))
    path.write_text(HEADER + GOOD)
    with pytest.raises(SpecError, match=r"'own\.data' does not tell the file's format\. Set format="):
        ingest(unnamed, AS_OF, home, now=NOW, settings=settings)


_KILLED_AT_INGEST = """
import os, signal, sys
from pathlib import Path
from ferroflow.adapters.home import Home
from ferroflow.stations.ingest import ingest
from tests.parcels import AS_OF, NOW, settings_for
from tests.stations.test_ingest_patterns import by_pattern

moves, real = int(sys.argv[3]), Path.replace
def replace(self, target):
    global moves
    moves -= 1
    if moves == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)
Path.replace = replace
home = Home(Path(sys.argv[1]))
spec = by_pattern("t/**/*.csv", hive=True)
ingest(spec, AS_OF, home, now=NOW, settings=settings_for(home, mirror=sys.argv[2]))
"""


@pytest.mark.parametrize("move", range(1, 12))
def test_kill_leaves_no_half_part_verdict_or_snapshot(home: Home, tmp_path: Path, move: int) -> None:
    """Part, its wider form with the folders' columns, its record; bytes, verdict; reference, its record; snapshot."""
    post = a_mirror(tmp_path / "mirror")
    (post / "t" / "city=1").mkdir(parents=True)
    (post / "t" / "city=1" / "a.csv").write_text("id\n1\n")
    for place in (home, calm := Home(tmp_path / "calm")):
        land(place, bad_parquet=BAD)
    command = [sys.executable, "-c", _KILLED_AT_INGEST, str(home.root), str(post), str(move)]
    done = subprocess.run(command, cwd=ROOT, check=False)
    assert done.returncode == (-9 if move < 11 else 0)  # eleven: more than there are
    for path in (home.data("parcels") / "parts").glob("[!.]*.json"):
        part = parse_record(path.read_bytes(), Part)
        assert hashlib.sha256(home.absolute(part.path).read_bytes()).hexdigest() == part.digest
    spec = by_pattern("t/**/*.csv", hive=True)
    wanted = taken(calm, post, spec)
    again = taken(home, post, spec)
    told = {"unreadable": (), "parts": ()}
    assert again.model_copy(update=told) == wanted.model_copy(update=told)
    assert [part.digest for part in again.parts] == [part.digest for part in wanted.parts]
    assert [file.sha256 for file in again.unreadable] == [hashlib.sha256(BAD).hexdigest()]
