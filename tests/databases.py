"""Databases for tests of the tables: real servers, one a module, and what the tests ask of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ferroflow.adapters.home import Home
from ferroflow.adapters.sources.batches import taken
from ferroflow.core.records import Part
from ferroflow.core.spec import PipelineSpec, Regression, Source, Table
from tests.engines import mariadb_server, postgres_server

NOW = datetime(2024, 5, 1, tzinfo=UTC)
ROOT = Path(__file__).resolve().parents[1]
Run = Callable[[str], Any]


def pipeline(table: Table) -> PipelineSpec:
    return PipelineSpec(
        name="shop",
        description="Orders.",
        source=Source(table=table),
        schema=object,  # raw parts know nothing of it
        inputs=("city",),
        target=Regression("days"),
    )


def take(home: Home, url: str, name: str | None = "orders", **table: Any) -> list[Part]:
    return taken(pipeline(Table(url=url, name=name, **table)), home, now=NOW)


def rows(home: Home, parts: list[Part]) -> list[tuple[Any, ...]]:
    """All rows of the parts without their numbers."""
    return [
        row
        for part in parts
        for row in pl.read_parquet(home.absolute(part.path)).drop("_row", r"^_p.*$", r"^_l.*$").rows()
    ]


def frame(home: Home, part: Part) -> pl.DataFrame:
    return pl.read_parquet(home.absolute(part.path))


@dataclass
class Database:
    """A database: its address, something that runs SQL, and how it calls things."""

    url: str
    run: Run
    kinds: dict[str, str]


def sqlite_file(path: Path) -> Database:
    """An SQLite database in a file."""

    def run(statements: str) -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(statements)

    kinds = {"int": "INTEGER", "float": "REAL", "decimal": "NUMERIC", "date": "TEXT", "time": "TEXT", "text": "TEXT"}
    return Database(f"sqlite:///{path}", run, kinds)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Database]:
    from adbc_driver_postgresql import dbapi

    with postgres_server() as url:

        def run(statements: str) -> None:
            with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
                for statement in filter(str.strip, statements.split(";")):
                    cursor.execute(statement)

        kinds = {"int": "bigint", "float": "real", "decimal": "numeric", "date": "date", "time": "timestamptz"}
        yield Database(url, run, {**kinds, "text": "text"})


@pytest.fixture(scope="module")
def mariadb() -> Iterator[Database]:
    with mariadb_server() as (url, sql):
        kinds = {"int": "bigint unsigned", "float": "float", "decimal": "decimal(40,20)", "date": "date"}
        yield Database(url, sql, {**kinds, "time": "datetime(6)", "text": "varchar(40)"})
