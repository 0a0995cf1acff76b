"""Files that have columns and no row: an empty day is a part, and none is unreadable."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from ferroflow.adapters.home import Home
from ferroflow.adapters.sources.files import ReadOptions, read_raw
from ferroflow.core.errors import EmptySource
from ferroflow.core.sources import Glob
from ferroflow.stations.ingest import ingest
from ferroflow.stations.quality import assess
from ferroflow.stations.validate import validate
from tests.parcels import AS_OF, GOOD, HEADER, NOW, a_mirror, parcels, settings_for


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow", "excel"])
def test_file_with_a_header_and_no_row_is_a_table_without_a_row(tmp_path: Path, kind) -> None:
    path, target = tmp_path / "x.xlsx", tmp_path / "rows.parquet"
    frame = pl.DataFrame({"a": ["1"], "b": [2.0]})[:0]
    write = {
        "csv": frame.write_csv,
        "parquet": frame.write_parquet,
        "arrow": frame.write_ipc,
        "excel": frame.write_excel,
    }
    write[kind](path)
    raw = read_raw(path, ReadOptions(kind), "x", target)
    assert (raw.rows, list(raw.columns), pl.read_parquet(target).height) == (0, ["a", "b"], 0)


def test_empty_day_is_a_part_beside_others_and_alone_an_empty_source(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    mirror = a_mirror(tmp_path / "mirror")
    days = tmp_path / "days"
    days.mkdir()
    (days / "1.csv").write_text(HEADER)
    (days / "README.md").write_text("not a day")
    spec = parcels()
    spec = replace(spec, source=replace(spec.source, files=Glob(pattern=str(days / "*")), format=None))
    settings = settings_for(home, mirror=str(mirror))
    with pytest.raises(EmptySource, match="holds a row"):
        ingest(spec, AS_OF, home, now=NOW, settings=settings)
    (days / "2.csv").write_text(HEADER + GOOD)
    (days / "3.csv").write_text("")
    snapshot = ingest(spec, AS_OF, home, now=NOW, settings=settings)
    assert [part.rows for part in snapshot.parts] == [0, 2]
    assert [file.file for file in snapshot.unreadable] == ["3.csv"]
    found = validate(spec, snapshot, home)
    assert (found.rows_in, found.rows_accepted) == (2, 2)
    assert not assess(spec, snapshot, found, AS_OF, home).passed  # one unreadable file, 0 allowed
