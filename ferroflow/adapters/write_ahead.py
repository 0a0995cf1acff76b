"""SQLite's write-ahead log."""

from __future__ import annotations

import sqlite3
import time


def log_ahead(connection: sqlite3.Connection, seconds: float = 30.0) -> None:
    """Switch a file to write-ahead logging, so that readers and a writer do not wait for each other.

    While another connection makes the file, SQLite refuses the switch at once, whatever the connection's timeout: this
    asks again for so many seconds.

    Raises:
        sqlite3.OperationalError: the file is locked for longer, or cannot be written.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
