"""Against real databases: what an incremental read may neither lose nor double."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ferroflow.adapters.home import Home
from ferroflow.adapters.sources.batches import taken
from ferroflow.core.errors import DataError, SchemaError, SettingsError, SourceUnavailable, SpecError
from ferroflow.core.records import Part
from ferroflow.core.spec import Table
from tests.databases import NOW, ROOT, Database, mariadb, pipeline, postgres, rows, sqlite_file, take
from tests.engines import PASSWORD, QUOTED, free_port

__all__ = ["mariadb", "postgres"]  # fixtures


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """Each kind of database, with no table ``orders``."""
    found: Database
    found = sqlite_file(tmp_path / "shop.db") if request.param == "sqlite" else request.getfixturevalue(request.param)
    found.run("DROP TABLE IF EXISTS orders; DROP TABLE IF EXISTS odd")
    return found


# ---------------------------------------------------------------------------------------------------------- odd values


STEPS: dict[str, tuple[str, str, str, str | None, str]] = {
    # kind: first value, second, a late one in the look-back, look-back, what the watermark is then
    "int": ("5", "7", "4", "3", "7"),
    "float": ("0.1", "0.3", "0.2", None, "0.3"),
    "decimal": ("0.10000000000000000001", "0.10000000000000000002", "0.1", "0.5", "0.10000000000000000002"),
    "date": ("'2024-01-01'", "'2024-01-03'", "'2024-01-02'", "2d", "2024-01-03"),
    "time": ("'2024-01-01 10:00:00.5'", "'2024-01-01 12:00:00.25'", "'2024-01-01 11:00:00'", "90m", "2024-01-01"),
    "text": (
        "'2024-01-01T10:00:00Z'",
        "'2024-01-01T12:00:00Z'",
        "'2024-01-01T11:00:00Z'",
        "1h",
        "2024-01-01T12:00:00Z",
    ),
}


@pytest.mark.parametrize("kind", STEPS)
def test_each_row_is_taken_once_for_every_kind_of_incremental_column(home: Home, database: Database, kind: str) -> None:
    first, second, late, lookback, upto = STEPS[kind]
    if kind == "decimal" and database.url.startswith("sqlite"):  # it has 64-bit floats only
        first, second, late, lookback, upto = "1", "2.5", "2.25", "0.5", "2.5"
    database.run(f"CREATE TABLE orders (id INTEGER, changed {database.kinds[kind]})")
    table = {"since": "changed", "lookback": lookback}
    assert take(home, database.url, **table) == []
    database.run(f"INSERT INTO orders VALUES (1, {first}), (2, {first}), (3, NULL)")
    one = take(home, database.url, **table)
    assert take(home, database.url, **table) == one
    database.run(f"INSERT INTO orders VALUES (4, {second}), (5, {first}), (6, NULL)")
    two = take(home, database.url, **table)
    if lookback is not None:
        database.run(f"INSERT INTO orders VALUES (7, {late})")
    database.run(f"INSERT INTO orders VALUES (8, {second}), (8, {second})")
    three = take(home, database.url, **table)
    assert take(home, database.url, **table) == three
    assert three[:2] == two and two[:1] == one
    ids = [sorted(row[0] for row in rows(home, [part])) for part in three]
    expected = [8, 8] if lookback is None else [7, 8, 8]
    # Row 5 equals the first watermark and was committed late; 8 is there twice, and is two rows.
    assert ids == [[1, 2, 3], [4, 5, 6], expected]
    assert three[-1].upto is not None and three[-1].upto.startswith(upto)
    assert len({part.fingerprint for part in three}) == 3


def test_a_row_that_changed_is_a_new_row_and_one_beyond_the_lookback_is_not_looked_for(
    home: Home, database: Database
) -> None:
    database.run("CREATE TABLE orders (id INTEGER, changed INTEGER, paid INTEGER)")
    database.run("INSERT INTO orders VALUES (1, 10, 0), (2, 90, 0), (3, 100, 0)")
    take(home, database.url, since="changed", lookback="20")
    database.run("UPDATE orders SET paid = 1")
    assert rows(home, take(home, database.url, since="changed", lookback="20")[1:]) == [(2, 90, 1), (3, 100, 1)]


def test_a_column_added_empty_and_one_made_wider_make_no_row_new(home: Home, postgres: Database) -> None:
    postgres.run("DROP TABLE IF EXISTS orders; CREATE TABLE orders (id int2, changed int2)")
    postgres.run("INSERT INTO orders VALUES (1, 1), (2, 2)")
    one = take(home, postgres.url, since="changed", lookback="5")
    postgres.run("ALTER TABLE orders ADD COLUMN note text; ALTER TABLE orders ALTER id TYPE bigint")
    assert take(home, postgres.url, since="changed", lookback="5") == one
    postgres.run("INSERT INTO orders VALUES (3, 3, 'new')")
    two = take(home, postgres.url, since="changed", lookback="5")
    assert [part.columns for part in two] == [
        {"id": "Int16", "changed": "Int16"},
        {"id": "Int64", "changed": "Int16", "note": "String"},
    ]


def test_a_column_of_whole_numbers_that_gets_a_fraction_makes_no_row_new(home: Home, tmp_path: Path) -> None:
    database = sqlite_file(tmp_path / "shop.db")
    database.run("CREATE TABLE orders (id, changed); INSERT INTO orders VALUES (1, 1), (9007199254740991, 2)")
    one = take(home, database.url, since="changed", lookback="5")
    database.run("INSERT INTO orders VALUES (0.5, 2.5)")
    two = take(home, database.url, since="changed", lookback="5")
    assert two[:1] == one and rows(home, two[1:]) == [(0.5, 2.5)]


def test_rows_committed_while_a_run_reads_are_taken_by_the_next(home: Home, postgres: Database) -> None:
    postgres.run("DROP TABLE IF EXISTS orders; CREATE TABLE orders (id int8, changed int8)")
    postgres.run("INSERT INTO orders SELECT g, g FROM generate_series(1, 300000) g")
    spec = pipeline(Table(url=postgres.url, name="orders", since="changed"))
    told: list[int] = []

    def meanwhile(name: str, size: int, whole: int | None) -> None:
        if not told:
            postgres.run("INSERT INTO orders VALUES (0, 300000), (-1, 300001)")
        told.append(size)

    one = taken(spec, home, now=NOW, progress=meanwhile)
    assert [part.rows for part in one] == [300_000] and told == sorted(told)
    assert rows(home, taken(spec, home, now=NOW)[1:]) == [(0, 300_000), (-1, 300_001)]


def test_two_runs_at_once_take_each_row_once(home: Home, postgres: Database) -> None:
    postgres.run("DROP TABLE IF EXISTS orders; CREATE TABLE orders (id int8, changed int8)")
    postgres.run("INSERT INTO orders SELECT g, g FROM generate_series(1, 1000) g")
    found: list[list[Part]] = []
    runs = [threading.Thread(target=lambda: found.append(take(home, postgres.url, since="changed"))) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(found) == 3 and found[0] == found[1] == found[2]
    assert [part.rows for part in found[0]] == [1000]


def test_without_an_incremental_column_the_same_rows_are_the_same_part_in_whatever_order(
    home: Home, database: Database
) -> None:
    database.run("CREATE TABLE orders (id INTEGER, name VARCHAR(9))")
    database.run("INSERT INTO orders VALUES (1, 'a'), (2, NULL), (2, NULL)")
    one = take(home, database.url)
    database.run("DELETE FROM orders WHERE id = 1; INSERT INTO orders VALUES (1, 'a')")
    assert take(home, database.url) == one
    database.run("UPDATE orders SET name = 'b' WHERE id = 1")
    two = take(home, database.url)
    assert len(two) == 1 and two != one and home.absolute(one[0].path).is_file()
    home.absolute(two[0].path).unlink()  # retention may take what no snapshot holds: it can be read again
    again = take(home, database.url)
    assert again[0].fingerprint == two[0].fingerprint and home.absolute(again[0].path).is_file()
    database.run("DELETE FROM orders")
    assert take(home, database.url) == []


def test_a_query_is_read_like_a_table_and_can_change_nothing(home: Home, database: Database) -> None:
    database.run("CREATE TABLE orders (id INTEGER, changed INTEGER)")
    database.run("INSERT INTO orders VALUES (1, 1), (2, 2)")
    query = "SELECT id * 10 AS tens, changed FROM orders WHERE id > 0 -- all of them"
    assert rows(home, take(home, database.url, None, query=query, since="changed")) == [(10, 1), (20, 2)]
    for harm in ("DELETE FROM orders", "SELECT 1 AS a) AS q; DELETE FROM orders; --"):
        with pytest.raises(SpecError, match="cannot be read as described"):
            take(home, database.url, None, query=harm)
    assert rows(home, take(home, database.url, None, query=query, since="changed")) == [(10, 1), (20, 2)]


# ---------------------------------------------------------------------------------------------------------- what fails

KILLED = """
import os, signal, sys
from pathlib import Path
from ferroflow.adapters.home import Home
from ferroflow.adapters.sources import journal
from ferroflow.adapters.sources.batches import taken
from ferroflow.core.spec import Table
from tests.databases import NOW, pipeline
point, root, url = sys.argv[1:]
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
def after(work):
    def both(*given, **named):
        work(*given, **named)
        die()
    return both
if point == "read back":
    journal._read_back = die
elif point == "before record":
    journal.Journal.vouch = die
elif point == "between records":
    journal.write_record = after(journal.write_record)
elif point == "while writing":
    journal.write_raw = after(journal.write_raw)
else:
    journal.Journal.vouch = after(journal.Journal.vouch)
taken(pipeline(Table(url=url, name="orders", since="changed", lookback="1")), Home(Path(root)), now=NOW)
"""


@pytest.mark.parametrize("point", ["while writing", "read back", "before record", "between records", "after record"])
def test_a_run_killed_anywhere_is_completed_by_the_next(home: Home, tmp_path: Path, point: str) -> None:
    database = sqlite_file(tmp_path / "shop.db")
    database.run("CREATE TABLE orders (id INTEGER, changed INTEGER); INSERT INTO orders VALUES (1, 1), (2, 2)")
    take(home, database.url, since="changed", lookback="1")
    database.run("INSERT INTO orders VALUES (3, 2)")
    command = [sys.executable, "-c", KILLED, point, str(home.root), database.url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert done.returncode == -9, done.stderr
    database.run("INSERT INTO orders VALUES (4, 3)")
    parts = take(home, database.url, since="changed", lookback="1")
    assert sorted(rows(home, parts)) == [(1, 1), (2, 2), (3, 2), (4, 3)]
    kept = {path.name for path in (home.data("shop") / "parts").glob("[!.]*.parquet")}
    assert kept == {Path(part.path).name for part in parts}


def test_a_damaged_batch_is_told_and_never_read_again(home: Home, tmp_path: Path) -> None:
    database = sqlite_file(tmp_path / "shop.db")
    database.run("CREATE TABLE orders (id INTEGER, changed INTEGER); INSERT INTO orders VALUES (1, 1)")
    (part,) = take(home, database.url, since="changed")
    home.absolute(part.path).write_bytes(b"PAR1")
    with pytest.raises(DataError, match="Batch 1 of 'orders' is missing or damaged"):
        take(home, database.url, since="changed")


def test_a_password_is_in_no_error_no_log_and_no_part(
    home: Home, database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    database.run("CREATE TABLE orders (id INTEGER)")
    database.run("INSERT INTO orders VALUES (1)")
    monkeypatch.setenv("SHOP_DATABASE", database.url)
    said = [part.model_dump_json() for url in (database.url, "env:SHOP_DATABASE") for part in take(home, url)]
    address, _, port = database.url.rpartition(":")
    nobody = f"{address}:{free_port()}/shop" if port[0].isdigit() else f"{database.url}x"
    wrong = [nobody, *([database.url.replace("shop:", "shop:not-")] if "postgres" in address else [])]
    for url, name in [*((url, "orders") for url in wrong), (database.url, "nosuch")]:
        with pytest.raises((SourceUnavailable, SpecError)) as failed:
            take(home, url, name)
        said.append(str(failed.value))
        assert isinstance(failed.value, SpecError) == (name == "nosuch")
    for secret in (PASSWORD, QUOTED):
        assert secret not in " ".join(said) + caplog.text
    monkeypatch.delenv("SHOP_DATABASE")
    with pytest.raises(SettingsError, match="SHOP_DATABASE is not set"):
        take(home, "env:SHOP_DATABASE")


@pytest.mark.parametrize(
    ("column", "values", "problem"),
    [
        ("changed", "(1, 5), (2, 'five')", "integer and text"),
        ("changed", "(1, x'00')", "blob"),
        ("later", "(1, 5)", "no such column"),
    ],
)
def test_a_column_that_cannot_be_ordered_is_refused(
    home: Home, tmp_path: Path, column: str, values: str, problem: str
) -> None:
    database = sqlite_file(tmp_path / "shop.db")
    database.run(f"CREATE TABLE orders (id INTEGER, changed); INSERT INTO orders VALUES {values}")
    with pytest.raises((SchemaError, SpecError), match=problem):
        take(home, database.url, since=column)


def test_infinite_times_are_no_watermark(home: Home, postgres: Database) -> None:
    postgres.run("DROP TABLE IF EXISTS orders; CREATE TABLE orders (id int8, changed timestamp)")
    postgres.run("INSERT INTO orders VALUES (1, 'infinity')")
    with pytest.raises(SchemaError, match="infinity"):
        take(home, postgres.url, since="changed")


def test_a_name_is_a_name_whatever_is_in_it(home: Home, database: Database) -> None:
    quote = "`" if "mysql" in database.url else '"'
    name = "or\"d`ers' --"
    database.run(f"CREATE TABLE orders (id INTEGER, {quote}{name.replace(quote, quote * 2)}{quote} INTEGER)")
    database.run("INSERT INTO orders VALUES (1, 5)")
    assert rows(home, take(home, database.url, since=name)) == [(1, 5)]
    with pytest.raises(SpecError):
        take(home, database.url, name)
