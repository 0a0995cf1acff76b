"""What the cells of a raw column are: numbers, truths, texts or moments, and which texts mean that nothing is known."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from ferroflow.core.cleaning import BLANKS
from ferroflow.core.validation import LINE, PROBLEM, ROW
from ferroflow.scaffold.personal import personal_of

SAMPLE = 200_000
"""So many rows are looked at; bounds are those of all rows."""
RESERVED = ("row_id", "source_label", "ingested_at", "event_timestamp", "available_at", "weight")
"""Names that the stations give to columns of their own."""

_MEANS_NOTHING = ("?", "N/A", "n/a", "#N/A", "null", "NULL", "nan", "NaN", "<NA>")
_NOTHING_AMONG_NUMBERS = ("NA", "na", "None", "none", "NONE", "-", "--", ".", "missing", "unknown")
"""Elsewhere these may be values: NA is Namibia."""
_BAD_IN_COLUMN = 0.02
"""A column of numbers may have so many cells that are none: they are for quarantine, not for a weaker type."""
_BAD_ROWS = 0.025


@dataclass(frozen=True)
class Table:
    """A raw file with its cells' meaning.

    ``raw`` is the raw part (lazy), ``sample`` rows of it as they came; ``frame`` the same rows in the types of
    ``types``, without those that make no row. ``types`` are the schema's; columns of other kinds are in ``strange``.
    ``personal`` columns are about a person, and say what they hold.
    """

    raw: pl.LazyFrame
    sample: pl.DataFrame
    frame: pl.DataFrame
    types: dict[str, pl.DataType]
    strange: dict[str, str]
    null_values: tuple[str, ...]
    rows: int
    personal: dict[str, str]

    @property
    def sampled(self) -> bool:
        """Whether there are more rows than those that were looked at."""
        return self.sample.height < self.rows

    def all_rows(self) -> pl.LazyFrame:
        """Every row in the schema's types; a cell that is not of its type is null."""
        return read_as(_whole(self.raw), self.types, self.null_values)

    def missing(self) -> dict[str, bool]:
        """Whether a column has a missing cell in any row; a cell that is not of its type is there."""
        rows = _whole(self.raw)
        kinds = rows.collect_schema()
        found = rows.select(_missing(name, kinds[name], self.null_values).any() for name in self.types).collect()
        return {name: bool(value) for name, value in found.row(0, named=True).items()}


def _missing(name: str, kind: pl.DataType, null_values: tuple[str, ...]) -> pl.Expr:
    cell = pl.col(name)
    if kind == pl.String:
        return cell.is_null() | cell.str.strip_chars(BLANKS).is_in(list(null_values))
    return cell.is_null() | cell.is_nan() if kind.is_float() else cell.is_null()


def table_of(raw: pl.LazyFrame, rows: int, seed: int = 0) -> Table:
    """Find the type of each column of a raw part of ``rows`` rows, from a seeded sample."""
    sample = _sample(raw, rows, seed)
    cells = _stripped(_whole(sample.lazy()).collect())
    given = [name for name in cells.columns if name not in (ROW, PROBLEM, LINE)]
    types: dict[str, pl.DataType] = {}
    strange: dict[str, str] = {}
    nothing = [text for text in _MEANS_NOTHING if _occurs(cells, text)]
    personal = personal_of(cells.select(given))
    for name in given:
        if name in RESERVED:
            strange[name] = "the stations give this name to a column of their own"
        elif (kind := _kind(cells[name], nothing)) is None:
            strange[name] = f"of type {cells[name].dtype}, which no model takes"
        else:  # a phone number is no quantity
            types[name] = pl.String() if name in personal and cells[name].dtype == pl.String else kind
    _weaken(cells, types, nothing)
    numbers = [name for name, kind in types.items() if kind.is_numeric() and cells[name].dtype == pl.String]
    nothing += [text for text in _NOTHING_AMONG_NUMBERS if any((cells[name] == text).any() for name in numbers)]
    null_values = ("", *nothing)
    frame = read_as(cells.lazy(), types, null_values).collect()
    return Table(raw, sample, frame, types, strange, null_values, rows, personal)


def read_as(rows: pl.LazyFrame, types: dict[str, pl.DataType], null_values: tuple[str, ...]) -> pl.LazyFrame:
    """Columns of raw rows in the types given; what is not of its type is null, and so are NaN and infinity."""
    raw = rows.collect_schema()
    return rows.select(_read(name, raw[name], kind, null_values) for name, kind in types.items())


def _read(name: str, raw: pl.DataType, kind: pl.DataType, null_values: tuple[str, ...]) -> pl.Expr:
    cell = pl.col(name)
    if raw == pl.String:
        cell = cell.str.strip_chars(BLANKS)
        cell = pl.when(~cell.is_in(list(null_values))).then(cell)
        if kind == pl.Boolean:
            return (cell.str.to_lowercase() == "true").alias(name)
    cell = cell.cast(kind, strict=False)
    return (pl.when(cell.is_finite()).then(cell) if kind.is_float() else cell).alias(name)


def _sample(raw: pl.LazyFrame, rows: int, seed: int) -> pl.DataFrame:
    if rows <= SAMPLE:
        return raw.collect()
    share = -(-rows // SAMPLE)
    return raw.filter(pl.col(ROW).hash(seed) % share == 0).collect()


def _whole(raw: pl.LazyFrame) -> pl.LazyFrame:
    """Without the lines that make no row."""
    if PROBLEM not in raw.collect_schema():
        return raw
    return raw.filter(pl.col(PROBLEM).is_null())


def _stripped(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col(pl.String).str.strip_chars(BLANKS))


def _occurs(cells: pl.DataFrame, text: str) -> bool:
    return any((cells[name] == text).any() for name, kind in cells.schema.items() if kind == pl.String)


def _kind(cells: pl.Series, nothing: list[str]) -> pl.DataType | None:
    """The schema's type of a column; None: none that a model takes."""
    kind = cells.dtype
    if kind == pl.String:
        return _kind_of_texts(cells, nothing)
    if kind.is_integer():
        fits = cells.cast(pl.Int64, strict=False).null_count() == cells.null_count()
        return pl.Int64() if fits else None
    if kind.is_numeric():
        return pl.Float64()
    if kind in (pl.Categorical, pl.Enum, pl.Null):
        return pl.String()
    if kind == pl.Datetime:
        return pl.Datetime("us", "UTC" if getattr(kind, "time_zone", None) else None)
    return kind if kind in (pl.Boolean, pl.Date) else None


def _kind_of_texts(cells: pl.Series, nothing: list[str]) -> pl.DataType:
    texts = cells.filter(cells.is_not_null() & (cells != "") & ~cells.is_in(nothing))
    present = texts.filter(~texts.is_in(list(_NOTHING_AMONG_NUMBERS)))
    if set(texts.str.to_lowercase().unique().head(3)) in ({"true", "false"}, {"true"}, {"false"}):
        return pl.Boolean()
    bad = ~_numeric(present)
    if present.is_empty() or bad.mean() > _BAD_IN_COLUMN or _leading_zeros(present):  # type: ignore[operator]
        return pl.String()
    numbers = present.filter(~bad)
    return pl.Int64() if numbers.cast(pl.Int64, strict=False).is_not_null().all() else pl.Float64()


def _numeric(texts: pl.Series) -> pl.Series:
    return texts.cast(pl.Float64, strict=False).is_finite().fill_null(False)


def _leading_zeros(texts: pl.Series) -> bool:
    """Codes, such as postal ones: as numbers they would lose their zeros."""
    return bool(texts.str.contains(r"^0\d").any())


def _weaken(cells: pl.DataFrame, types: dict[str, pl.DataType], nothing: list[str]) -> None:
    """Together the cells that are no numbers may cost few rows: the worst columns become texts until they do."""
    bad = {}
    allowed = ["", *nothing, *_NOTHING_AMONG_NUMBERS]
    for name, kind in types.items():
        if kind.is_numeric() and cells[name].dtype == pl.String:
            known = cells[name].is_not_null() & ~cells[name].is_in(allowed)
            lost = known & cells[name].cast(kind, strict=False).is_null()
            bad[name] = lost | (known & ~_numeric(cells[name]))
    while sum(mask.any() for mask in bad.values()) and _share(bad) > _BAD_ROWS:
        worst = max(bad, key=lambda name: bad[name].sum())
        types[worst] = pl.String()
        del bad[worst]


def _share(bad: dict[str, pl.Series]) -> float:
    return float(pl.DataFrame(list(bad.values())).select(pl.any_horizontal(pl.all()).mean()).item() or 0.0)
