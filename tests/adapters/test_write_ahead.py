"""A file that another connection is making: SQLite refuses the switch at once, however long one would wait."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ferroflow.adapters.write_ahead import log_ahead


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that is about to write the first rows of a file."""
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None, check_same_thread=False)) as connection:
        connection.execute("CREATE TABLE rows (number INTEGER)")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("SELECT * FROM rows").fetchall()
        yield connection


def test_it_is_waited_for(tmp_path: Path, maker: sqlite3.Connection) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db", timeout=30)) as other:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("PRAGMA journal_mode = WAL")
        threading.Timer(0.3, maker.execute, ["COMMIT"]).start()
        log_ahead(other)
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_one_that_stays_locked_is_an_error_in_the_end(tmp_path: Path, maker: sqlite3.Connection) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db", timeout=30)) as other:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            log_ahead(other, seconds=0.2)
        maker.execute("ROLLBACK")
        log_ahead(other)
