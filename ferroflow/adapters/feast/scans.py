"""Where stored rows lie: a Parquet file, a folder of them (also by partitions), a pattern, or the like on S3."""

from __future__ import annotations

import glob
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from feast.data_format import ParquetFormat
from feast.infra.offline_stores.file_source import FileSource

from ferroflow.core.errors import DataError, SpecError

_REMOTE = ("s3://", "gs://", "gcs://", "az://", "abfs://", "abfss://")


class AbsentError(DataError):
    """Nothing is at a place; what is there and cannot be read is another error."""


@dataclass(frozen=True)
class Place:
    """An address of Parquet files.

    Attributes:
        address: a path, or an address of an object store; both may be a file, a folder or a pattern (``*``, ``**``).
        options: what the object store needs beside the environment's ``AWS_…`` variables.
    """

    address: str
    options: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def remote(self) -> bool:
        """Whether it lies in an object store."""
        return self.address.startswith(_REMOTE)

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.address if self.remote else Path(self.address).name

    @property
    def _pattern(self) -> bool:
        return glob.has_magic(self.address) and (self.remote or not Path(self.address).exists())

    def scan(self, guard: str | None = None) -> pl.LazyFrame:
        """All rows, lazily; folders in the order of their files' paths, partitions as columns.

        The place's own path gives no columns, whatever its folders are called. The first file decides on columns and
        types: others may have narrower numbers and times of other units and zones, and further columns, which are left
        out. But where the first file has no ``guard``, a file with further columns is an error when the rows are read:
        one of these may be the guard, and to leave it out would let its rows be used too early.

        Raises:
            AbsentError: nothing is there.
            DataError: what is there is no Parquet file, or cannot be reached.
        """
        target, many = self._target()
        above = self._above() if many else frozenset()
        rows = self._scan(target, many, many, guard)
        if above.isdisjoint(rows.collect_schema()):
            return rows
        plain = self._scan(target, many, False, guard)
        stored = plain.collect_schema()
        if set(rows.collect_schema()) <= {*stored, *above}:
            return plain
        if both := sorted(above.intersection(stored)):  # Polars would put the path's value over the file's
            raise DataError(
                f"{self.name} has partitions, and the columns {both} of its files are also named by the folders that "
                f"it lies in. Move it, or rename the columns."
            )
        return rows.drop(above, strict=False)

    def _scan(self, target: str, many: bool, hive: bool, guard: str | None) -> pl.LazyFrame:
        def scanned(fine: bool, surplus: bool) -> pl.LazyFrame:
            return pl.scan_parquet(
                target,
                glob=many,
                hive_partitioning=hive,
                storage_options=self.options or None,
                cast_options=_widening(fine),
                extra_columns="ignore" if surplus else "raise",
            )

        try:
            rows = scanned(True, guard is None)
            first = rows.collect_schema()
            wanted = _fine(first), guard is None or guard in first
            if many and wanted != (True, guard is None):
                rows = scanned(*wanted)
        except FileNotFoundError as error:
            raise self._missing() from error
        except OSError as error:
            raise DataError(f"{self.name} cannot be read: {error}") from error
        except pl.exceptions.PolarsError as error:
            if "expanded paths were empty" in str(error):
                raise self._missing() from error
            raise DataError(f"{self.name} cannot be read as Parquet: {error}") from error
        return rows

    def _above(self) -> frozenset[str]:
        """Columns that Polars would make of the folders of the address itself, as far as no pattern begins."""
        names = []
        for part in self.address.split("/"):
            if self._pattern and glob.has_magic(part):
                break
            if part.count("=") == 1:
                names.append(unquote(part.partition("=")[0]))
        return frozenset(names)

    def add(self, table: pa.Table, view: str) -> None:
        """Add rows to a folder: one more file in it, whole or not at all.

        It is named by the moment of writing: of what is added here, the last written is the last read.

        Raises:
            SpecError: the place is a single file, a pattern, or a folder of partitions.
        """
        single = self.address.endswith(".parquet") if self.remote else Path(self.address).is_file()
        if single or self._pattern:
            raise SpecError(
                f"View {view!r} keeps its rows in {self.name}, a single file or a pattern; only a source that is a "
                f"folder can be added to. Name a folder in its FileSource."
            )
        if not self.remote and any("=" in path.name for path in Path(self.address).glob("*") if path.is_dir()):
            raise SpecError(f"View {view!r} keeps its rows in partitions of {self.name}. Write them there yourself.")
        # Files are read in the order of their names; this word comes after those that other writers use.
        name = f"written-{time.time_ns():020d}-{uuid.uuid4().hex}.parquet"
        Place(f"{self.address.rstrip('/')}/{name}", self.options).write(table)

    def write(self, table: pa.Table) -> None:
        """Write one file; readers see none of it or all of it, and it survives a loss of power."""
        if self.remote:
            frame = pl.DataFrame(pl.from_arrow(table))
            frame.write_parquet(self.address, storage_options=self.options or None)
            return
        path = Path(self.address)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("wb") as file:
                pq.write_table(table, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        with _opened(path.parent) as folder:
            os.fsync(folder)

    def exists(self) -> bool:
        """Whether something is there already.

        Raises:
            DataError: it is remote, and cannot be told: the store does not answer, or what is there is no Parquet.
        """
        if not self.remote:
            return Path(self.address).exists()
        try:
            self.scan()
        except AbsentError:
            return False
        return True

    def _target(self) -> tuple[str, bool]:
        if self._pattern:
            return self.address, True
        if self.remote:
            single = self.address.endswith(".parquet")
            return (self.address if single else f"{self.address.rstrip('/')}/**/*.parquet"), not single
        path = Path(self.address)
        if not path.exists():
            raise self._missing()
        return (f"{glob.escape(str(path))}/**/*.parquet", True) if path.is_dir() else (str(path), False)

    def _missing(self) -> AbsentError:
        if self._pattern or self.address.endswith(".parquet"):  # as all views of Ferroflow's own
            return AbsentError(
                f"The offline store has no {self.name}. Refresh the features first: run the train or ingest flow; or, "
                f"if the source is your own, write its file."
            )
        return AbsentError(
            f"The offline store has no {self.name}, or no Parquet file is in it. Feast's write_to_offline_store and "
            f"push compare rows with files that are there already; write the first file with "
            f"PolarsOfflineStore.offline_write_batch(store.config, view, table, None)."
        )


def place(source: Any, repo_path: Any) -> Place:
    """Where a Feast source's rows lie; relative paths begin in Feast's repository.

    Raises:
        SpecError: no ``FileSource``, or one of another format than Parquet.
    """
    if not isinstance(source, FileSource):
        raise SpecError(
            f"The source {getattr(source, 'name', source)!r} is no FileSource; this store reads files only."
        )
    if not isinstance(source.file_format, ParquetFormat | None):
        raise SpecError(f"The source {source.name!r} is {type(source.file_format).__name__}; this store reads Parquet.")
    return at(source.path, source.s3_endpoint_override, repo_path)


def stored_names(source: Any) -> dict[str, str]:
    """Name in Feast -> stored column."""
    return {mapped: column for column, mapped in (source.field_mapping or {}).items()}


def at(uri: str, endpoint: str | None, repo_path: Any) -> Place:
    """A path or an address, with the endpoint of an S3 server other than Amazon's."""
    address = str(FileSource.get_uri_for_file_path(repo_path, uri.removeprefix("file://")))
    options = {}
    if address.startswith("s3://") and endpoint:
        options = {"aws_endpoint_url": endpoint}
        if endpoint.startswith("http://"):
            options["aws_allow_http"] = "true"
    return Place(address, options)


def _fine(kinds: pl.Schema) -> bool:
    """Whether all times are as fine as those that the joins look at, which are microseconds."""
    return all(kind.time_unit != "ms" for kind in kinds.values() if isinstance(kind, pl.Datetime))


def _widening(fine: bool) -> pl.ScanCastOptions:
    """What files may be cast by: nothing is lost that a join looks at.

    Nanoseconds may become microseconds, but no milliseconds, which would make a time earlier.
    """
    times: list[Literal["millisecond-upcast", "microsecond-upcast", "convert-timezone", "nanosecond-downcast"]]
    times = ["millisecond-upcast", "microsecond-upcast", "convert-timezone"]
    if fine:
        times.append("nanosecond-downcast")
    return pl.ScanCastOptions(integer_cast="upcast", float_cast="upcast", datetime_cast=times)


def checked(rows: pl.LazyFrame, columns: Sequence[str], owner: str, where: Place) -> pl.LazyFrame:
    """The rows as they are, if they have the columns.

    Raises:
        DataError: a column is missing.
    """
    kinds = rows.collect_schema()
    absent = [column for column in columns if column not in kinds]
    if absent:
        raise DataError(
            f"{owner} needs {', '.join(map(repr, absent))}, which {where.name} does not have. It has "
            f"{', '.join(map(repr, kinds))}. Correct the view or its source, or write the file anew."
        )
    return rows


def timed(rows: pl.LazyFrame, column: str, owner: str, where: Place) -> pl.LazyFrame:
    """The rows as they are, if each has an event time: one without is in no span, and would be left out silently.

    Raises:
        DataError: rows without one, by their number.
    """
    empty = rows.filter(pl.col(column).is_null()).select(pl.len()).collect().item()
    if empty:
        raise DataError(
            f"{owner} has {empty} rows without {column!r}, their event time, in {where.name}. Give them one, or take "
            f"them out of the files."
        )
    return rows


def arrow_types(rows: pl.LazyFrame) -> pa.Schema:
    """The rows' columns and types as Feast takes them: texts as ``string``."""
    schema = pl.DataFrame(schema=rows.collect_schema()).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    plain = {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}
    return pa.schema([(kind.name, plain.get(kind.type, kind.type)) for kind in schema])


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)
