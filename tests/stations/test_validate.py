from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pandera.polars as pa
import polars as pl
import pytest
from pandera.polars import Field

from ferroflow.adapters.home import Home
from ferroflow.core.errors import SchemaError, SpecError, UnreadableFile
from ferroflow.core.records import Snapshot, Validated
from ferroflow.core.spec import Clip, Default, Evolution, FixedFiles, PipelineSpec, SourceFile
from ferroflow.stations.ingest import ingest
from ferroflow.stations.validate import validate
from tests.parcels import AS_OF, GOOD, HEADER, NOW, Parcel, a_mirror, derive, parcels, settings_for

DIRTY = (
    HEADER
    + GOOD
    + "3,2024-01-03 10:00,1,-1,3\n"  # a weight below zero
    + "4,2024-01-03 10:00,9,1,3\n"  # a city that no reference knows
    + "five,yesterday,1,1,3\n"  # two cells of no such type
    + "6,2024-01-03 10:00,1,1\n"  # a cell is missing
    + "1,2024-01-03 10:00,1,1,99\n"  # the first row's id again, and too many days
)


def snapshot_of(home: Home, post: Path, spec: PipelineSpec | None = None) -> Snapshot:
    return ingest(spec or parcels(), AS_OF, home, now=NOW, settings=settings_for(home, mirror=str(post)))


def tables(home: Home, validated: Validated) -> tuple[pl.DataFrame, pl.DataFrame]:
    accepted = pl.read_parquet([home.absolute(path) for path in validated.accepted])
    return accepted, pl.read_parquet([home.absolute(path) for path in validated.quarantined])


def test_every_row_is_accepted_or_quarantined_with_its_reasons_and_raw_cells(home: Home, tmp_path: Path) -> None:
    validated = validate(parcels(), snapshot_of(home, a_mirror(tmp_path / "m", parcels=DIRTY)), home)
    accepted, quarantined = tables(home, validated)
    assert (validated.rows_in, validated.rows_accepted, validated.rows_quarantined) == (7, 1, 6)
    assert accepted["id"].to_list() == [2]
    assert quarantined.select("row", "reasons").rows() == [
        (2, ["id: field_uniqueness"]),
        (4, ["kilos: greater_than(0)"]),
        (5, ["country: not_nullable"]),
        (6, ["id: not a Int64: 'five'", "sent: not a Datetime: 'yesterday'"]),
        (7, ["line: 4 cells instead of 5"]),
        (8, ["days: less_than_or_equal_to(30)", "id: field_uniqueness"]),
    ]
    assert quarantined["raw"][4] == '{"line":"6,2024-01-03 10:00,1,1"}'
    assert set(quarantined["file"]) == {"parcels.csv"}
    assert validated.reasons["id: field_uniqueness"] == 2
    assert validated.reasons["id: not a Int64"] == 1


def test_accepted_rows_hold_the_schemas_columns_their_id_and_when_they_came(home: Home, tmp_path: Path) -> None:
    snapshot = snapshot_of(home, a_mirror(tmp_path / "m"))
    accepted, _ = tables(home, validate(parcels(), snapshot, home))
    assert accepted.columns == ["id", "sent", "city", "kilos", "days", "sent_at", "country", "row_id", "ingested_at"]
    assert accepted["row_id"].to_list() == [f"{snapshot.parts[0].fingerprint}:{line}" for line in (2, 3)]
    assert accepted.schema["sent_at"] == pl.Datetime("us", "UTC")
    assert accepted["ingested_at"].unique().to_list() == [NOW]


def test_validating_twice_writes_nothing_and_a_damaged_file_is_made_again(home: Home, tmp_path: Path) -> None:
    snapshot = snapshot_of(home, a_mirror(tmp_path / "m", parcels=DIRTY))
    first = validate(parcels(), snapshot, home)
    path = home.absolute(first.accepted[0])
    before, data = path.stat().st_mtime_ns, path.read_bytes()
    assert validate(parcels(), snapshot, home) == first
    assert path.stat().st_mtime_ns == before
    path.write_bytes(data[:-9])
    assert validate(parcels(), snapshot, home) == first
    assert path.read_bytes() == data


def test_part_that_was_checked_before_is_not_checked_again_when_a_file_is_added(home: Home, tmp_path: Path) -> None:
    post = a_mirror(tmp_path / "m")
    first = validate(parcels(), snapshot_of(home, post), home)
    landing = home.landing("parcels")
    landing.mkdir(parents=True)
    (landing / "more.csv").write_text(HEADER + "7,2024-01-05 10:00,1,1,2\n")
    second = validate(parcels(), snapshot_of(home, post), home)
    assert second.accepted[0] == first.accepted[0]
    assert (second.fingerprint != first.fingerprint, second.rows_accepted) == (True, 3)


def test_another_schema_judges_the_same_part_anew(home: Home, tmp_path: Path) -> None:
    class Strict(pa.DataFrameModel):
        id: pl.Int64
        days: pl.Float64 = Field(le=3)

    snapshot = snapshot_of(home, a_mirror(tmp_path / "m"))
    strict = dataclasses.replace(parcels(), schema=Strict, derive=None)
    assert validate(parcels(), snapshot, home).rows_accepted == 2
    assert validate(strict, snapshot, home).rows_accepted == 1


def test_missing_column_names_file_column_and_what_came(home: Home, tmp_path: Path) -> None:
    snapshot = snapshot_of(home, a_mirror(tmp_path / "m", parcels="id,sent,city,kilos\n1,2024-01-01,1,1\n"))
    with pytest.raises(SchemaError, match=r"parcels\.csv \(parcels\): .*: - days\. These came: id, sent, city, kilos"):
        validate(parcels(), snapshot, home)


def test_part_that_vanished_after_ingestion_is_told(home: Home, tmp_path: Path) -> None:
    snapshot = snapshot_of(home, a_mirror(tmp_path / "m"))
    home.absolute(snapshot.parts[0].path).unlink()
    with pytest.raises(UnreadableFile, match=r"is missing or damaged\. Ingest again"):
        validate(parcels(), snapshot, home)


def test_label_of_a_file_is_kept_with_its_rows_and_landed_rows_say_so(home: Home, tmp_path: Path) -> None:
    post = a_mirror(tmp_path / "m")
    spec = parcels()
    labelled = FixedFiles((SourceFile("http://127.0.0.1:9/x", "post/parcels.csv", label="old"),))
    spec = dataclasses.replace(spec, source=dataclasses.replace(spec.source, files=labelled))
    landing = home.landing("parcels")
    landing.mkdir(parents=True)
    (landing / "more.csv").write_text(HEADER + "7,2024-01-05 10:00,1,1,2\n")
    accepted, _ = tables(home, validate(spec, snapshot_of(home, post, spec), home))
    assert accepted["source_label"].to_list() == ["old", "old", "landing"]


# ---------------------------------------------------------------------------------------------------------------- keys


def keyed(**source: object) -> PipelineSpec:
    spec = parcels(files=("parcels.csv", "more.csv"), key=("id",), **source)
    return dataclasses.replace(spec, schema=Repeated)


class Repeated(Parcel):
    """A parcel whose id may come again."""

    id: pl.Int64 = Field(nullable=True)


def test_last_row_of_a_key_is_accepted_and_the_others_name_it(home: Home, tmp_path: Path) -> None:
    more = HEADER + "2,2024-02-01,1,5,5\n,2024-02-01,1,6,6\n,2024-02-01,1,7,7\n9,2024-02-01,1,8,8\n9,2024-02-01,1,9,9\n"
    snapshot = snapshot_of(home, a_mirror(tmp_path / "m", more=more), keyed())
    first, second = (part.fingerprint for part in snapshot.parts)
    validated = validate(keyed(), snapshot, home)
    accepted, quarantined = tables(home, validated)
    assert accepted["row_id"].to_list() == [f"{first}:2", *(f"{second}:{line}" for line in (2, 3, 4, 6))]
    assert quarantined.select("row_id", pl.col("reasons").list.first(), "raw").rows() == [
        (
            f"{first}:3",
            f"row: superseded by {second}:2",
            '{"id":"2","sent":"2024-01-02 11:00","city":"2","kilos":"","days":"4"}',
        ),
        (
            f"{second}:5",
            f"row: superseded by {second}:6",
            '{"id":"9","sent":"2024-02-01","city":"1","kilos":"8","days":"8"}',
        ),
    ]
    assert validated.reasons == {"row: superseded": 2}
    assert (validated.rows_in, validated.rows_accepted, validated.rows_quarantined) == (7, 5, 2)
    assert validate(keyed(), snapshot, home) == validated


def test_refused_row_supersedes_none_and_a_part_without_superseded_rows_keeps_its_files(
    home: Home, tmp_path: Path
) -> None:
    post = a_mirror(tmp_path / "m", more=HEADER + "2,2024-02-01,1,-5,5\n")
    plain = dataclasses.replace(keyed(), source=dataclasses.replace(keyed().source, key=()))
    snapshot = snapshot_of(home, post, plain)
    assert validate(keyed(), snapshot, home).accepted == validate(plain, snapshot, home).accepted


def test_key_that_is_not_in_the_schema_is_told(home: Home, tmp_path: Path) -> None:
    post = a_mirror(tmp_path / "m", more=HEADER + GOOD)
    spec = dataclasses.replace(keyed(), source=dataclasses.replace(keyed().source, key=("number",)))
    with pytest.raises(SpecError, match="names number: not in the schema"):
        validate(spec, snapshot_of(home, post, spec), home)


@pytest.mark.parametrize("order", [("parcels.csv", "more.csv"), ("more.csv", "parcels.csv")])
def test_unique_value_that_is_in_two_files_is_refused_in_both(
    home: Home, tmp_path: Path, order: tuple[str, ...]
) -> None:
    post = a_mirror(tmp_path / "m", more=HEADER + "2,2024-02-01,1,5,5\n7,2024-02-01,1,6,6\n")
    spec = parcels(files=order)
    snapshot = snapshot_of(home, post, spec)
    alone = {part.file: f"{part.fingerprint}:" for part in snapshot.parts}
    validated = validate(spec, snapshot, home)
    accepted, quarantined = tables(home, validated)
    assert set(accepted["row_id"]) == {alone["parcels.csv"] + "2", alone["more.csv"] + "3"}
    assert sorted(quarantined.select("row_id", pl.col("reasons").list.join("; "), "raw").rows()) == sorted(
        [
            (
                alone["parcels.csv"] + "3",
                "id: field_uniqueness",
                '{"id":"2","sent":"2024-01-02 11:00","city":"2","kilos":"","days":"4"}',
            ),
            (
                alone["more.csv"] + "2",
                "id: field_uniqueness",
                '{"id":"2","sent":"2024-02-01","city":"1","kilos":"5","days":"5"}',
            ),
        ]
    )
    assert validated.reasons == {"id: field_uniqueness": 2}
    assert (validated.rows_in, validated.rows_accepted, validated.rows_quarantined) == (4, 2, 2)
    assert validate(spec, snapshot, home) == validated


def test_unique_sets_hold_over_files_and_missing_values_of_a_column_are_no_duplicates(
    home: Home, tmp_path: Path
) -> None:
    class Together(pa.DataFrameModel):
        id: pl.Int64 = Field(nullable=True, unique=True)
        city: pl.Int64
        kilos: pl.Float64 = Field(nullable=True)

        class Config:
            unique = ["city", "kilos"]  # noqa: RUF012

    texts = ["1,,1,,3\n,,1,2,3\n3,,1,9,3\n", "1,,1,,3\n,,2,2,3\n4,,1,2,3\n"]
    post = a_mirror(tmp_path / "m", parcels=HEADER + texts[0], more=HEADER + texts[1])
    spec = dataclasses.replace(parcels(files=("parcels.csv", "more.csv")), schema=Together, derive=None)
    accepted, quarantined = tables(home, validate(spec, snapshot_of(home, post, spec), home))
    assert accepted.select("id", "city", "kilos").rows() == [(3, 1, 9.0), (None, 2, 2.0)]
    both = ["id: field_uniqueness", "row: multiple_fields_uniqueness"]
    assert quarantined.select("row", "reasons").rows() == [(2, both), (3, both[1:]), (2, both), (4, both[1:])]


def test_key_is_resolved_before_uniqueness_so_the_last_row_of_a_key_stays(home: Home, tmp_path: Path) -> None:
    post = a_mirror(tmp_path / "m", more=HEADER + "2,2024-02-01,1,5,5\n")
    spec = parcels(files=("parcels.csv", "more.csv"), key=("id",))
    validated = validate(spec, snapshot_of(home, post, spec), home)
    assert (validated.rows_accepted, validated.reasons) == (2, {"row: superseded": 1})


# ---------------------------------------------------------------------------------------------- what verdicts depend on

JUDGED = """
import sys
from pathlib import Path
import dataclasses
from schema import Small, derive
from ferroflow.adapters.home import Home
from ferroflow.stations.ingest import ingest
from ferroflow.stations.validate import validate
from tests.parcels import AS_OF, NOW, parcels, settings_for
home = Home(Path(sys.argv[1]))
spec = dataclasses.replace(parcels(), schema=Small, derive=derive)
snapshot = ingest(spec, AS_OF, home, now=NOW, settings=settings_for(home, mirror=sys.argv[2]))
validated = validate(spec, snapshot, home)
print(validated.rows_accepted, validated.accepted[0])
"""
SCHEMA = """
from base import Base
class Small(Base):
    pass
def derive(rows, references):
    from near import shift
    return rows.with_columns(days=shift(rows))
"""
BASE = """
import pandera.polars as pa, polars as pl, limits
class Base(pa.DataFrameModel):
    id: pl.Int64
    days: pl.Float64
    @pa.check("days")
    def few(cls, data): return data.lazyframe.select(pl.col(data.key) < limits.MOST)
"""


def test_edit_of_any_file_that_verdicts_come_from_judges_anew_and_of_another_one_does_not(
    home: Home, tmp_path: Path
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    near = "import polars as pl\nfrom far import BY\ndef shift(rows): return pl.col('days').cast(pl.Float64) + BY\n"
    files = {"schema": SCHEMA, "base": BASE, "limits": "MOST = 4", "near": near, "far": "BY = 0", "other": "A = 1"}
    for name, text in files.items():
        (code / f"{name}.py").write_text(text)
    mirror = str(a_mirror(tmp_path / "m"))

    def judged() -> list[str]:
        words = [sys.executable, "-B", "-c", JUDGED, str(home.root), mirror]
        paths = os.pathsep.join((str(code), str(Path(__file__).parents[2])))
        done = subprocess.run(words, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    first = judged()
    assert first[0] == "1"  # of 3 and 4 days
    (code / "other.py").write_text("A = 2")
    assert judged() == first
    (code / "limits.py").write_text("MOST = 5")
    assert judged()[0] == "2"
    (code / "far.py").write_text("BY = 1")
    assert judged()[0] == "1"
    (code / "base.py").write_text(BASE.replace("< limits.MOST", "< 0"))
    assert judged()[0] == "0"


# ---------------------------------------------------------------------------------------------------- evolution, derive


def evolving(**policy: object) -> PipelineSpec:
    return parcels(files=("parcels.csv", "more.csv"), evolution=Evolution(**policy))


def test_renamed_and_missing_columns_are_taken_as_the_policy_says(home: Home, tmp_path: Path) -> None:
    post = a_mirror(tmp_path / "m", more="number,sent,city,days,note\n7,2024-01-05 10:00,1,2,\n8,2024-01-05,1,x,y\n")
    spec = evolving(renamed={"number": "id"}, missing="accept")
    accepted, quarantined = tables(home, validate(spec, snapshot_of(home, post, spec), home))
    assert accepted.select("id", "kilos", "country").rows()[-1] == (7, None, "IS")
    assert quarantined["raw"].to_list() == ['{"id":"8","sent":"2024-01-05","city":"1","days":"x","note":"y"}']


def test_file_whose_columns_are_not_wanted_is_refused_row_by_row(home: Home, tmp_path: Path) -> None:
    post = a_mirror(tmp_path / "m", more="id,sent,city,kilos,days,note\n7,2024-01-05 10:00,1,1,2,x\n8\n")
    spec = evolving(added="quarantine")
    validated = validate(spec, snapshot_of(home, post, spec), home)
    _, quarantined = tables(home, validated)
    assert quarantined["reasons"].to_list() == [
        ["file: columns: + note (String)"],
        ["file: columns: + note (String)", "line: 1 cells instead of 6"],
    ]
    assert validated.rows_accepted == 2


def test_difference_that_stops_names_the_file(home: Home, tmp_path: Path) -> None:
    post = a_mirror(tmp_path / "m", more="id,sent,city,kilos,days,note\n7,2024-01-05 10:00,1,1,2,x\n")
    spec = evolving(added="stop")
    with pytest.raises(SchemaError, match=r"more\.csv \(parcels\): .*\+ note \(String\)"):
        validate(spec, snapshot_of(home, post, spec), home)


def test_rows_that_derive_reorders_are_written_in_their_own_order(home: Home, tmp_path: Path) -> None:
    dirty = a_mirror(tmp_path / "m", parcels=DIRTY)
    snapshot = snapshot_of(home, dirty)
    backwards = dataclasses.replace(parcels(), derive=lambda rows, known: derive(rows, known).reverse())
    for one, other in zip(
        tables(home, validate(backwards, snapshot, home)),
        tables(home, validate(parcels(), snapshot, home)),
        strict=True,
    ):
        assert one.equals(other)


def test_derive_that_loses_a_row_stops_everything_and_names_the_file(home: Home, tmp_path: Path) -> None:
    snapshot = snapshot_of(home, a_mirror(tmp_path / "m"))
    losing = dataclasses.replace(parcels(), derive=lambda rows, known: derive(rows, known).filter(pl.col("id") > 1))
    with pytest.raises(SpecError, match=r"parcels\.csv \(parcels\): derive made 1 rows of 2"):
        validate(losing, snapshot, home)


def test_cleaned_cells_and_warnings_are_summed_over_the_parts(home: Home, tmp_path: Path) -> None:
    class Warning(Parcel):
        days: pl.Float64 = Field(le=3, raise_warning=True)

    post = a_mirror(tmp_path / "m", more=HEADER + "9,2024-01-05 10:00,1,-1,9\n")
    spec = dataclasses.replace(
        parcels(files=("parcels.csv", "more.csv")),
        schema=Warning,
        cleaning=(Clip(column="kilos", low=0.5), Default("kilos", 1.0)),
    )
    validated = validate(spec, snapshot_of(home, post, spec), home)
    assert (validated.rows_accepted, validated.warnings) == (3, {"days: less_than_or_equal_to(3)": 2})
    assert validated.cleaned == {"kilos: clip": 1, "kilos: default": 1}


def test_flipped_byte_of_a_raw_part_is_told_and_never_validated(home: Home, tmp_path: Path) -> None:
    snapshot = snapshot_of(home, a_mirror(tmp_path / "m"))
    path = home.absolute(snapshot.parts[0].path)
    data = path.read_bytes()
    path.write_bytes(data[:60] + bytes([data[60] ^ 1]) + data[61:])
    with pytest.raises(UnreadableFile, match=r"damaged\. Ingest again"):
        validate(parcels(), snapshot, home)


def test_manifest_with_another_count_is_not_believed(home: Home, tmp_path: Path) -> None:
    snapshot = snapshot_of(home, a_mirror(tmp_path / "m"))
    first = validate(parcels(), snapshot, home)
    path = home.absolute(first.accepted[0]).parent / "manifest.json"
    path.write_text(path.read_text().replace('"rows_accepted": 2', '"rows_accepted": 1'))
    assert validate(parcels(), snapshot, home) == first


@pytest.mark.parametrize(("name", "rows", "missing"), [("income", 48_842, 6_465), ("bikes", 17_379, 0)])
def test_clean_real_files_lose_no_row(home: Home, mirror: Path, name: str, rows: int, missing: int) -> None:
    from ferroflow.adapters.pipelines import load

    spec = load(name)
    validated = validate(spec, snapshot_of(home, mirror, spec), home)
    accepted, _ = tables(home, validated)
    assert (validated.rows_in, validated.rows_accepted) == (rows, rows)
    assert sum(accepted.null_count().row(0)) == missing
