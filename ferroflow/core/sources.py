"""Where raw rows come from, and what may change about them: what ingestion reads of a pipeline's description."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

import polars as pl

from ferroflow.core.durations import duration
from ferroflow.core.errors import SpecError

Format = Literal["parquet", "csv", "tsv", "ndjson", "arrow", "excel"]
Policy = Literal["accept", "cast", "quarantine", "stop"]

_RESERVED = re.compile(
    r"_(row|problem|line|first)|_(raw|typed|cast|changed):.*|_(word|passes|warns|changed)\d+", re.DOTALL
)


def reserved(names: Iterable[str]) -> list[str]:
    """Those names, sorted, that no raw column may have: the validation has columns of its own under them."""
    return sorted({name for name in names if name.startswith("_") and _RESERVED.fullmatch(name)})


@dataclass(frozen=True)
class SourceFile:
    """One file of a source: its public address, and its path below a mirror (``FERROFLOW_MIRROR``)."""

    url: str
    mirror: str
    member: str | None = None  # the file inside, where the address gives a zip archive
    skip_rows: int = 0  # lines before the data or the header
    label: str = ""  # kept in the column ``source_label`` of the snapshot, when given

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.mirror.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class MonthlyFiles:
    """One file a month; ``url`` and ``mirror`` hold ``{year}`` and ``{month:02}``."""

    url: str
    mirror: str
    first: datetime

    def files(self, start: datetime, end: datetime) -> list[SourceFile]:
        """The files of all months that overlap ``[start, end)`` and are over at ``end``."""
        found = []
        year, month = max((self.first.year, self.first.month), (start.year, start.month))
        while (following := datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)) <= end + timedelta(days=1):
            names = {"year": year, "month": month}
            found.append(SourceFile(self.url.format(**names), self.mirror.format(**names)))
            year, month = following.year, following.month
        return found


@dataclass(frozen=True)
class FixedFiles:
    """Files that do not depend on the date."""

    entries: tuple[SourceFile, ...]

    def files(self, start: datetime, end: datetime) -> list[SourceFile]:
        """All of them."""
        return list(self.entries)


@dataclass(frozen=True, kw_only=True)
class Glob:
    """All files that match a pattern when the run begins, in the order of their names.

    ``pattern`` is a local path, or begins with ``s3://``, ``gs://`` or ``az://``; ``*`` and ``?`` match within one part
    of the path, ``**`` any number of parts. A relative path is looked for below the mirror first. With ``hive`` the
    parts ``name=value`` of a path become text columns of the rows.
    """

    pattern: str
    hive: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of a database.

    ``url`` begins with ``sqlite://``, ``postgresql://`` or ``mysql://``, or is ``env:NAME``: then the environment
    variable of that name holds it (passwords belong there). Exactly one of ``name`` (a table or view) and ``query``
    (one SELECT) says what is read.

    ``since`` is the incremental column, a number or a time that grows as rows are added or changed: a run reads the
    rows above the watermark, less the ``lookback`` (``"2d"`` for a time, ``"1000"`` for a number) for those that came
    late; rows that were taken before are not taken again. Without ``since`` the whole table is read by each run.
    """

    url: str
    name: str | None = None
    query: str | None = None
    since: str | None = None
    lookback: str | None = None

    def __post_init__(self) -> None:
        if (self.name is None) == (self.query is None):
            raise SpecError("Table(...) needs exactly one of name= (a table or view) and query= (one SELECT).")
        if self.lookback is not None and self.since is None:
            raise SpecError("Table(lookback=...) means nothing without since=, the incremental column.")


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Messages of a Redis stream, read by a consumer group in micro-batches, at least once.

    ``url`` begins with ``redis://`` or ``rediss://``, or is ``env:NAME``. A message's fields are the columns; with
    ``payload`` that field holds one JSON object instead, whose keys are the columns. A message is acknowledged when its
    batch was written and read back; one that was delivered ``tries`` times in vain goes to the stream ``<name>:dead``.
    """

    url: str
    name: str
    group: str = "ferroflow"
    payload: str | None = None
    batch: int = 10_000
    tries: int = 5


@dataclass(frozen=True, kw_only=True)
class Evolution:
    """What happens when a file's columns are not those of the schema.

    ``accept``: go on (an added column is left out of the accepted rows, a missing one is null, a re-typed one is
    cast). ``cast``: go on with each cell that survives the cast unchanged; the others are quarantined.
    ``quarantine``: all rows of that file are quarantined. ``stop``: the run ends with an error that shows the
    difference. ``renamed`` maps old names to the schema's. ``cast`` is for ``retyped`` alone, where it does what
    ``accept`` does: a column that is added or missing has no cell that could be cast.

    Raises:
        SpecError: a policy is not one of these words, or ``cast`` stands where nothing can be cast.
    """

    added: Policy = "accept"
    missing: Policy = "stop"
    retyped: Policy = "cast"
    renamed: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind in ("added", "missing", "retyped"):
            policy = getattr(self, kind)
            words = [word for word in get_args(Policy) if kind == "retyped" or word != "cast"]
            if policy not in words:
                raise SpecError(
                    f"Evolution({kind}={policy!r}) is no policy: write one of {', '.join(map(repr, words))}. Of the "
                    f"words 'accept', 'cast', 'quarantine' and 'stop', 'cast' is for retyped= only."
                )


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A small table joined by ``derive``: read whole, as text columns unless ``dtypes`` says otherwise."""

    name: str
    file: SourceFile
    dtypes: Mapping[str, pl.DataType | type[pl.DataType]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where raw rows come from.

    ``time`` names the event-time column of the *derived* rows (UTC after ``derive``); ``timezone`` is the wall clock
    its raw values are in. ``history`` bounds how far back of ``as_of`` files are fetched.
    ``simulator`` is ``module:function``, called with ``(file_name, seed)`` for a file or a reference;
    it returns a frame of the same raw schema: the off-line fallback.
    Exactly one of ``files``, ``table`` and ``stream`` is given. ``format`` is that of files whose name does not tell
    it.
    ``key`` names the columns of the schema that identify a row: of several rows with one key the last to come is
    accepted, the others are quarantined as superseded.
    """

    files: MonthlyFiles | FixedFiles | Glob | None = None
    table: Table | None = None
    stream: Stream | None = None
    format: Format | None = None
    time: str | None = None
    timezone: str = "UTC"
    history: str = "3650d"
    columns: tuple[str, ...] = ()  # of a CSV file without a header
    separator: str = ","
    null_values: tuple[str, ...] = ("",)
    sheet: str | None = None  # of an Excel file; None: its only one
    key: tuple[str, ...] = ()
    evolution: Evolution = Evolution()
    simulator: str | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("files", "table", "stream") if getattr(self, name) is not None]
        if len(given) != 1:
            raise SpecError(f"Source(...) needs exactly one of files=, table= and stream=; it has {given or 'none'}.")
        duration(self.history)
