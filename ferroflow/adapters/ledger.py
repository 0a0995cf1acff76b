"""The deployment ledger: what served when, and why. One SQLite file that only grows; its triggers refuse anything else.

A line is named by what caused it, so the same cause told twice (a command repeated after a crash) is one line.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ferroflow.core.errors import RegistryError
from ferroflow.core.fingerprint import fingerprint
from ferroflow.core.records import Deployment

Action = Literal["promoted", "rejected", "rolled back"]

_TABLE = """
CREATE TABLE IF NOT EXISTS deployments (
  entry INTEGER PRIMARY KEY AUTOINCREMENT,
  pipeline TEXT NOT NULL, version TEXT NOT NULL, previous TEXT, action TEXT NOT NULL, model TEXT,
  cause TEXT NOT NULL UNIQUE, at_us INTEGER NOT NULL, why TEXT NOT NULL
)"""
# INSERT OR REPLACE would delete without asking the delete trigger: the insert trigger refuses it.
_TRIGGERS = tuple(
    f"CREATE TRIGGER IF NOT EXISTS {name} BEFORE {event} ON deployments {when} "
    "BEGIN SELECT RAISE(ABORT, 'the deployment ledger is append-only'); END"
    for name, event, when in (
        ("no_update", "UPDATE", ""),
        ("no_delete", "DELETE", ""),
        (
            "no_replace",
            "INSERT",
            "WHEN EXISTS (SELECT 1 FROM deployments WHERE cause = NEW.cause OR entry = NEW.entry)",
        ),
    )
)
_INSERT = (
    "INSERT INTO deployments (pipeline, version, previous, action, model, cause, at_us, why) VALUES (?,?,?,?,?,?,?,?)"
)
_COLUMNS = "entry, pipeline, version, previous, action, model, cause, at_us, why"


class Ledger:
    """The lines of all pipelines; the file is made by the first one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(
        self,
        pipeline: str,
        version: str,
        action: Action,
        *,
        model: str | None,
        previous: str | None,
        cause: str,
        at: datetime,
        why: str,
    ) -> Deployment:
        """Add a line, or give the one that (pipeline, version, action, cause) already has; on the disk on return.

        Args:
            model: fingerprint of the version's model.
            cause: fingerprint of the verdict, or another name of what led to it.
            at: UTC-aware.

        Raises:
            RegistryError: the file cannot be written.
        """
        name = fingerprint(pipeline, version, action, cause)
        values = (pipeline, version, previous, action, model, name, _microseconds(at), why)
        with self._open() as file:
            file.execute("BEGIN IMMEDIATE")
            found = file.execute(f"SELECT {_COLUMNS} FROM deployments WHERE cause = ?", (name,)).fetchone()
            if found is None:
                file.execute(_INSERT, values)
                found = file.execute(f"SELECT {_COLUMNS} FROM deployments WHERE cause = ?", (name,)).fetchone()
            file.execute("COMMIT")
        return _deployment(found)

    def history(self, pipeline: str) -> list[Deployment]:
        """All lines of a pipeline, oldest first.

        Raises:
            RegistryError: the file cannot be read.
        """
        if not self.path.exists():
            return []
        with self._open() as file:
            sql = f"SELECT {_COLUMNS} FROM deployments WHERE pipeline = ? ORDER BY entry"
            return [_deployment(row) for row in file.execute(sql, (pipeline,))]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            try:
                file.execute("PRAGMA synchronous = FULL")
                for statement in (_TABLE, *_TRIGGERS):
                    file.execute(statement)
                yield file
            finally:
                file.close()
        except sqlite3.Error as error:
            raise RegistryError(f"The deployment ledger {self.path} cannot be used: {error}") from error


def serving(lines: list[Deployment]) -> Deployment | None:
    """The line by which a version serves now; None when none was ever promoted."""
    stack = _stack(lines)
    return stack[-1] if stack else None


def before(lines: list[Deployment]) -> Deployment | None:
    """The line that a rollback returns to: of the last version served before the present one."""
    stack = _stack(lines)
    return next((line for line in reversed(stack[:-1]) if line.version != stack[-1].version), None)


def _stack(lines: list[Deployment]) -> list[Deployment]:
    """Lines of versions that served, without those that were rolled back."""
    stack: list[Deployment] = []
    for line in lines:
        if line.action == "promoted":
            stack.append(line)
        elif line.action == "rolled back":
            while stack and stack[-1].version != line.version:
                stack.pop()
            stack = [*stack[:-1], line]
    return stack


def _microseconds(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000)


def _deployment(row: tuple[Any, ...]) -> Deployment:
    entry, pipeline, version, previous, action, model, cause, at_us, why = row
    at = datetime.fromtimestamp(at_us // 1_000_000, UTC).replace(microsecond=at_us % 1_000_000)
    return Deployment(
        pipeline=pipeline,
        fingerprint=cause,
        parent=model,
        entry=entry,
        version=version,
        previous=previous,
        action=action,
        at=at,
        why=why,
    )
