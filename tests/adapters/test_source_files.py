import gzip
import io
import os
import resource
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from ferroflow.adapters.sources import compressed
from ferroflow.adapters.sources.files import ReadOptions, format_of, read_frame, read_raw
from ferroflow.core.errors import EmptySource, UnreadableFile
from ferroflow.core.sources import Format
from ferroflow.core.validation import ROW
from tests.mutations import frame

ROOT = Path(__file__).parents[2]
CSV = ReadOptions("csv")


def a_file(folder: Path, data: bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("name", "otherwise", "expected"),
    [
        ("a.csv", None, "csv"),
        ("A.TSV", None, "tsv"),
        ("a.csv.gz", "parquet", "csv"),
        ("a.jsonl.zst", None, "ndjson"),
        ("a.json", None, "ndjson"),
        ("a.parquet", "csv", "parquet"),
        ("a.feather", None, "arrow"),
        ("a.xlsx", None, "excel"),
        ("adult.data", "csv", "csv"),
        ("notes.txt", None, None),
        ("a.parquet.gz", None, None),
        ("gz", None, None),
    ],
)
def test_the_ending_of_a_name_tells_its_format(name: str, otherwise: Format | None, expected: str | None) -> None:
    assert format_of(name, otherwise) == expected


def _packed(data: bytes, packing: str) -> bytes:
    import pyarrow as pa

    return data if packing == "plain" else pa.compress(data, codec=packing, asbytes=True)


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
@pytest.mark.parametrize(
    ("kind", "data"), [("csv", b"a,b\n1,2\n"), ("tsv", b"a\tb\n1\t2\n"), ("ndjson", b'{"a":1,"b":2}\n')]
)
def test_packed_text_is_read_as_it_is_unpacked_whatever_its_name(
    tmp_path: Path, kind: Format, data: bytes, packing: str
) -> None:
    path = a_file(tmp_path, _packed(data, packing) + _packed(data.replace(b"1", b"3"), packing))
    header = [] if kind == "ndjson" else ["a"]  # the second stream begins with it again
    assert read_frame(path, ReadOptions(kind), "x")["a"].to_list() == ["1", *header, "3"]


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
@pytest.mark.parametrize("kind", ["csv", "ndjson"])
def test_packed_file_that_is_cut_off_or_followed_by_something_is_unreadable_whole(
    tmp_path: Path, kind: Format, packing: str
) -> None:
    data = b"".join(b'{"a":%d}\n' % row if kind == "ndjson" else b"%d,x\n" % row for row in range(50_000))
    whole = _packed(data, packing)
    options = ReadOptions(kind, ("a", "b"))
    assert read_raw(a_file(tmp_path, whole), options, "x", tmp_path / "rows").rows == 50_000
    (tmp_path / "rows").unlink()
    for damaged in (whole[:-3], whole[: len(whole) // 2], whole[:7], whole + b"junk that is no second stream"):
        with pytest.raises(UnreadableFile, match="x is no readable"):
            read_raw(a_file(tmp_path, damaged), options, "x", tmp_path / "rows")
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "nothing half written is left"


def test_gzip_whose_checksum_is_wrong_is_unreadable(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(b"a\n1\n" * 100))
    whole[-6] ^= 1
    with pytest.raises(UnreadableFile, match="incorrect data check"):
        read_frame(a_file(tmp_path, bytes(whole)), CSV, "x")


def test_file_that_unpacks_without_end_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "FREE_UNPACKED", 1 << 20)
    monkeypatch.setattr(compressed, "MAX_RATIO", 100)
    bomb = gzip.compress(b"1\n" * 5_000_000)
    with pytest.raises(UnreadableFile, match=r"unpacks to more than 1,[0-9,]+ bytes"):
        read_frame(a_file(tmp_path, bomb), ReadOptions("csv", ("a",)), "bomb.csv.gz")


def _arrow_file(rows: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    rows.write_ipc(file, compression="zstd")
    return file.getvalue()


def _arrow_stream(rows: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    rows.write_ipc_stream(file)
    return file.getvalue()


def _parquet(rows: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    rows.write_parquet(file, row_group_size=50)
    return file.getvalue()


COLUMNAR = [("parquet", _parquet), ("arrow", _arrow_file), ("arrow", _arrow_stream)]


@pytest.mark.parametrize(("kind", "write"), COLUMNAR)
def test_columnar_file_keeps_its_types_its_order_and_nested_columns(tmp_path: Path, kind, write) -> None:
    rows = frame().with_columns(
        enum=pl.Series(["a", "b"] * 60, dtype=pl.Enum(["b", "a"])),
        tz=pl.col("d").dt.replace_time_zone("Europe/Oslo", ambiguous="earliest", non_existent="null"),
        array=pl.Series([[1, 2]] * 120, dtype=pl.Array(pl.Int16, 2)),
        none=pl.lit(None),
        decimal=pl.lit("1.50").cast(pl.Decimal(10, 2)),
        f32=pl.col("f").cast(pl.Float32),
    )
    target = tmp_path / "rows.parquet"
    raw = read_raw(a_file(tmp_path, write(rows)), ReadOptions(kind), "x", target)
    found = pl.read_parquet(target)
    assert found[ROW].to_list() == list(range(1, 121))
    assert found.drop(ROW).schema == rows.schema
    assert found.drop(ROW).equals(rows)
    assert raw.columns == {name: str(dtype) for name, dtype in rows.schema.items()}


@pytest.mark.parametrize(("kind", "write"), COLUMNAR)
def test_columnar_file_without_a_row_is_empty_and_one_with_our_names_is_refused(tmp_path: Path, kind, write) -> None:
    with pytest.raises(EmptySource, match="x holds no row"):
        read_frame(a_file(tmp_path, write(frame(0))), ReadOptions(kind), "x")
    with pytest.raises(UnreadableFile, match="kept for Ferroflow: _problem"):
        read_frame(a_file(tmp_path, write(pl.DataFrame({"_problem": [1]}))), ReadOptions(kind), "x")


@pytest.mark.parametrize(
    "name", ["_first", "_raw:a", "_typed:a", "_cast:a", "_changed:0", "_word0", "_passes1", "_warns2"]
)
def test_column_with_a_name_that_validation_uses_is_refused_when_it_is_read(tmp_path: Path, name: str) -> None:
    rows = pl.DataFrame({"a": ["1"], name: ["2"]})
    files: list[tuple[Format, bytes]] = [("csv", rows.write_csv().encode()), ("parquet", _parquet(rows))]
    for kind, data in files:
        with pytest.raises(UnreadableFile, match=f"kept for Ferroflow: {name}"):
            read_frame(a_file(tmp_path, data), ReadOptions(kind), "x")
    like = rows.rename({name: f"{name}s"} if name == "_first" else {name: name.replace("_", "__", 1)})
    assert read_frame(a_file(tmp_path, _parquet(like)), ReadOptions("parquet"), "x").drop(ROW).equals(like)


@pytest.mark.parametrize("name", ["*", "^a.*$"])
def test_column_whose_name_is_a_pattern_makes_no_table(tmp_path: Path, name: str) -> None:
    rows = pl.DataFrame({"a": ["1"], name: ["2"]})
    files: list[tuple[Format, bytes]] = [("csv", rows.write_csv().encode()), ("parquet", _parquet(rows))]
    for kind, data in files:
        with pytest.raises(UnreadableFile, match="which would mean several columns"):
            read_frame(a_file(tmp_path, data), ReadOptions(kind), "x")


@pytest.mark.parametrize("kind", ["parquet", "arrow", "csv", "ndjson", "excel"])
def test_file_without_a_byte_makes_no_table(tmp_path: Path, kind: Format) -> None:
    with pytest.raises((EmptySource, UnreadableFile), match="nothing "):
        read_frame(a_file(tmp_path, b""), ReadOptions(kind), "nothing")


def test_broken_files_are_named_with_their_first_bytes_and_the_way_out(tmp_path: Path) -> None:
    good = _parquet(frame())
    for data in (b"<html>no</html>", good[:-30], b"PAR1" + b"\x07" * 50 + b"PAR1", good[:-8] + b"\xff" * 4 + b"PAR1"):
        with pytest.raises(UnreadableFile, match=r"it\.parquet is no readable Parquet file: .*begins with b'.*Fetch"):
            read_frame(a_file(tmp_path, data), ReadOptions("parquet"), "it.parquet")
    with pytest.raises(UnreadableFile, match="Feather version 1"):
        read_frame(a_file(tmp_path, b"FEA1" + b"\0" * 50), ReadOptions("arrow"), "it.feather")


def test_failing_machine_is_no_broken_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_frame(tmp_path / "missing", CSV, "x")
    path = a_file(tmp_path, b"".join(b"%d,%d\n" % (row, row * 7919 % 100_003) for row in range(300_000)))
    for kind in ("csv", "parquet"):
        if kind == "parquet":
            pl.read_csv(path, has_header=False).write_parquet(path)
        code = (
            "import sys; from pathlib import Path; from ferroflow.adapters.sources.files import *\n"
            f"read_raw(Path({str(path)!r}), ReadOptions({kind!r}, ('a', 'b')), 'x', Path('rows'))"
        )

        def a_small_disk() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            preexec_fn=a_small_disk,
            check=False,
        )
        assert done.returncode == 1
        assert "OSError" in done.stderr.splitlines()[-1] and "too large" in done.stderr.splitlines()[-1]


def test_progress_tells_the_rows_so_far(tmp_path: Path) -> None:
    told: list[int] = []
    rows = pl.DataFrame({"x": range(300_000), "when": [datetime(2024, 1, 1)] * 300_000})
    read_raw(a_file(tmp_path, _parquet(rows)), ReadOptions("parquet"), "x", tmp_path / "rows", told.append)
    assert told == sorted(told) and told[-1] == 300_000 and len(told) > 1
