"""Against real databases: odd values, cell by cell."""

from __future__ import annotations

import math
import sqlite3
import struct
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from ferroflow.adapters.home import Home
from ferroflow.core.errors import SpecError
from tests.databases import Database, frame, mariadb, postgres, take

__all__ = ["mariadb", "postgres"]  # fixtures


def test_sqlite_keeps_every_cell_whatever_its_column_says(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE odd (i INTEGER, r REAL, n NUMERIC, big NUMERIC, mix, t TEXT, b BLOB, e)")
        connection.executemany(
            "INSERT INTO odd VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
            [
                (-(2**63), 0.1, 5, 2**60 + 1, 5, 'q"\n\t é 😀 \0', b"\x00\xff"),
                (2**63 - 1, 5e-324, 0.5, 0.1, 0.1, "", b""),
                (None, -math.inf, None, None, "five", None, None),
            ],
        )
        connection.commit()
    (part,) = take(home, f"sqlite:///{path}", "odd")
    table = frame(home, part)
    assert table.drop("_row", "_problem", "_line").rows() == [
        (-(2**63), 0.1, 5.0, str(2**60 + 1), "5", 'q"\n\t é 😀 \0', b"\x00\xff", None),
        (2**63 - 1, 5e-324, 0.5, "0.1", "0.1", "", b"", None),
        (None, -math.inf, None, None, "five", None, None, None),
    ]
    kinds = {"i": "Int64", "r": "Float64", "n": "Float64", "big": "String", "mix": "String", "t": "String"}
    assert part.columns == {**kinds, "b": "Binary", "e": "String"}


def test_a_sqlite_row_without_lossless_cells_is_kept_as_a_line_with_its_problem(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE odd (id INTEGER, t TEXT)")
        connection.execute("INSERT INTO odd VALUES (1, 'fine'), (2, x'00ff'), (3, CAST(x'e9' AS TEXT))")
        connection.commit()
    (part,) = take(home, f"sqlite:///{path}", "odd")
    assert frame(home, part).rows() == [
        (1, 1, "fine", None, None),
        (2, None, None, "bytes among text in t", '{"id": 2, "t": {"hex": "00ff"}}'),
        (3, None, None, "text that is no UTF-8 in t", '{"id": 3, "t": {"hex": "e9"}}'),
    ]


POSTGRES = {
    # type: (literal, what the part holds)
    "bool": ("true", True),
    "int2": ("-32768", -32768),
    "int8": ("9223372036854775807", 2**63 - 1),
    "float4": ("0.1", struct.unpack("f", struct.pack("f", 0.1))[0]),
    "float8": ("'-Infinity'", -math.inf),
    "numeric": (
        "12345678901234567890.123456789012345678901234567890",
        "12345678901234567890.123456789012345678901234567890",
    ),
    "numeric(10,2)": ("1.5", "1.50"),
    "text": ("E'q\"\\n\\t é 😀 '", 'q"\n\t é 😀 '),
    "char(4)": ("'ab'", "ab  "),
    "bytea": ("'\\x00ff'", b"\x00\xff"),
    "date": ("'2024-02-29'", date(2024, 2, 29)),
    "timestamp": ("'2024-01-01 10:00:00.123456'", datetime(2024, 1, 1, 10, 0, 0, 123456)),
    "timestamptz": ("'2024-01-01 10:00:00.123456+05'", datetime(2024, 1, 1, 5, 0, 0, 123456, tzinfo=UTC)),
    "time": ("'24:00:00'", "24:00:00"),
    "timetz": ("'10:00:00.5+02'", "10:00:00.5+02"),
    "interval": ("'1 mon 2 days 3.5 s'", "1 mon 2 days 00:00:03.5"),
    "uuid": ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    "json": ("'{\"a\":  1.00}'", '{"a":  1.00}'),
    "jsonb": ("'{\"a\":  1.00}'", '{"a": 1.00}'),
    "int[]": ("'{1,null,2}'", "{1,NULL,2}"),
    "text[]": ("'{\"a,b\",null}'", '{"a,b",NULL}'),
    "inet": ("'10.0.0.1/8'", "10.0.0.1/8"),
    "oid": ("4294967295", "4294967295"),
    "bit(3)": ("B'101'", "101"),
    "int4range": ("'[1,5)'", "[1,5)"),
}
ODD_TIMES = {
    "date": ("'infinity'", "infinity"),
    "timestamp": ("'0044-03-15 10:00:00 BC'", "0044-03-15 10:00:00 BC"),
    "timestamptz": ("'-infinity'", "-infinity"),
    "numeric": ("'NaN'", "NaN"),
}


@pytest.mark.parametrize("values", [POSTGRES, ODD_TIMES], ids=["usual", "odd"])
def test_postgres_keeps_every_cell(home: Home, postgres: Database, values: dict[str, tuple[str, Any]]) -> None:
    columns = ", ".join(f'"{kind}" {kind}' for kind in values)
    postgres.run(f"DROP TABLE IF EXISTS odd; CREATE TABLE odd ({columns})")
    postgres.run(f"INSERT INTO odd VALUES ({', '.join(literal for literal, _ in values.values())})")
    postgres.run("INSERT INTO odd DEFAULT VALUES")
    (part,) = take(home, postgres.url, "public.odd")
    first, second = frame(home, part).drop("_row").rows(named=True)
    assert first == {kind: value for kind, (_, value) in values.items()}
    assert set(second.values()) == {None}


MARIADB = {
    "tinyint(1)": ("-128", -128),
    "smallint unsigned": ("65535", 65535),
    "int unsigned": ("4294967295", 4294967295),
    "bigint": ("-9223372036854775808", -(2**63)),
    "bigint unsigned": ("18446744073709551615", 2**64 - 1),
    "float": ("16777216", 16777216.0),
    "double": ("0.1", 0.1),
    "decimal(65,30)": ("12345678901234567890123456789012345.5", f"12345678901234567890123456789012345.5{'0' * 29}"),
    "bit(10)": ("b'1010'", b"\x00\x0a"),
    "year": ("2024", 2024),
    "date": ("'2024-02-29'", date(2024, 2, 29)),
    "datetime(6)": ("'2024-01-01 10:00:00.123456'", datetime(2024, 1, 1, 10, 0, 0, 123456)),
    "timestamp(6) null": ("'2024-01-01 10:00:00.123456'", datetime(2024, 1, 1, 5, 0, 0, 123456)),
    "time(6)": ("'-838:59:59.5'", "-838:59:59.500000"),
    "char(5)": ("'ab'", "ab"),
    "varchar(50)": ("'q\\\"\\n é 😀 '", 'q"\n é 😀 '),
    "varchar(9) character set latin1": ("'é'", "é"),
    "blob": ("x'00ff'", b"\x00\xff"),
    "enum('a','b')": ("'b'", "b"),
    "set('a','b')": ("'a,b'", "a,b"),
    "json": ("'{\"a\":  1.00}'", '{"a":  1.00}'),
}
ODD_DAYS = {
    "date": ("'0000-00-00'", "0000-00-00"),
    "datetime": ("'2024-00-10'", "2024-00-10 00:00:00"),
    "timestamp null": ("'0000-00-00'", "0000-00-00 00:00:00"),
}


@pytest.mark.parametrize("values", [MARIADB, ODD_DAYS], ids=["usual", "odd"])
def test_mariadb_keeps_every_cell(home: Home, mariadb: Database, values: dict[str, tuple[str, Any]]) -> None:
    columns = ", ".join(f"`{kind}` {kind}" for kind in values)
    literals = ", ".join(literal for literal, _ in values.values())
    mariadb.run(
        f"DROP TABLE IF EXISTS odd; CREATE TABLE odd ({columns}); SET sql_mode = '', time_zone = '+05:00'; "
        f"INSERT INTO odd VALUES ({literals}); INSERT INTO odd VALUES ({', '.join(['NULL'] * len(values))})"
    )
    (part,) = take(home, mariadb.url, "odd")
    first, second = frame(home, part).drop("_row").rows(named=True)
    assert first == {kind: value for kind, (_, value) in values.items()}
    assert set(second.values()) == {None}


def test_a_type_that_cannot_be_told_is_refused_with_a_way_out(home: Home, mariadb: Database) -> None:
    mariadb.run("DROP TABLE IF EXISTS odd; CREATE TABLE odd (place point)")
    with pytest.raises(SpecError, match="ST_AsText"):
        take(home, mariadb.url, "odd")


# --------------------------------------------------------------------------------------------------------- incremental
