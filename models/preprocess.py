"""What is fitted before any model: category tables and target encodings, the same for every candidate.

A frame of model inputs becomes one float32 matrix (rows, width): numbers as they are (missing is NaN), then target
encodings, then a code for each category. Networks impute and scale in their own module, trees need neither.
``models.export`` writes the same computation as an ONNX graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict

from ferroflow.core.errors import SpecError
from ferroflow.core.spec import TargetEncoding

Kind = Literal["float", "int", "text"]
Floats = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]

OTHER = 0
"""The code of every category that training saw too rarely, or never."""

_FOLDS = 5
_RARE = 5  # categories with fewer rows (of some weight) share the code OTHER, so that it is trained too
_CELLS = 4_000_000  # of one encoding's table
_CODE_SMOOTHING = 20.0


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Categories(_Part):
    """One column's table: the code of ``keys[i]`` is ``i + 1``, in ascending order of the target's mean."""

    column: str
    kind: Literal["int", "text"]
    keys: tuple[int | str, ...]

    @property
    def size(self) -> int:
        """Number of codes, with OTHER."""
        return len(self.keys) + 1

    def codes(self, frame: pl.DataFrame) -> npt.NDArray[np.int64]:
        """The code of each row (rows,)."""
        if not self.keys:
            return np.full(frame.height, OTHER, dtype=np.int64)
        values = typed(frame, self.column, self.kind)
        found = values.replace_strict(list(self.keys), range(1, self.size), default=OTHER, return_dtype=pl.Int64)
        return found.to_numpy()


class Encoding(_Part):
    """One target encoding: the shrunken mean of each combination seen, ``prior`` for every other."""

    name: str
    columns: tuple[str, ...]
    sizes: tuple[int, ...]  # codes of each column
    cells: tuple[int, ...]
    means: tuple[float, ...]
    prior: float

    def table(self) -> Matrix:
        """All cells, float32; a combination's place is :func:`combined`."""
        table = np.full(int(np.prod(self.sizes)), self.prior, dtype=np.float32)
        table[list(self.cells)] = self.means
        return table


class Preprocessor(_Part):
    """Fitted tables. ``fills`` are medians for numbers that were never missing in training."""

    kinds: dict[str, Kind]  # of the inputs, in order
    numeric: tuple[str, ...]
    fills: dict[str, float]
    categories: tuple[Categories, ...]
    encodings: tuple[Encoding, ...]

    @property
    def width(self) -> int:
        """Columns of the matrix."""
        return len(self.numeric) + len(self.encodings) + len(self.categories)

    @property
    def names(self) -> tuple[str, ...]:
        """The matrix's columns."""
        encodings = (encoding.name for encoding in self.encodings)
        return (*self.numeric, *encodings, *(table.column for table in self.categories))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of codes of each category column; they are the last columns of the matrix."""
        return tuple(table.size for table in self.categories)

    def transform(self, frame: pl.DataFrame) -> Matrix:
        """The matrix (rows, width), C-ordered, for rows that took no part in fitting."""
        codes = {table.column: table.codes(frame) for table in self.categories}
        encoded = [encoding.table()[combined(encoding.columns, codes, self._size)] for encoding in self.encodings]
        return self._assemble(frame, encoded, codes)

    def _size(self, column: str) -> int:
        return next(table.size for table in self.categories if table.column == column)

    def _assemble(
        self, frame: pl.DataFrame, encoded: Sequence[npt.NDArray[Any]], codes: Mapping[str, npt.NDArray[np.int64]]
    ) -> Matrix:
        columns = [typed(frame, name, "float").to_numpy() for name in self.numeric]
        for place, name in enumerate(self.numeric):
            if name in self.fills:
                columns[place] = np.where(np.isnan(columns[place]), np.float32(self.fills[name]), columns[place])
        everything = [*columns, *encoded, *(codes[table.column] for table in self.categories)]
        matrix = np.empty((frame.height, self.width), dtype=np.float32)
        for place, values in enumerate(everything):
            matrix[:, place] = values
        return matrix


def fit(
    frame: pl.DataFrame,
    target: Floats,
    *,
    numeric: Sequence[str],
    categorical: Sequence[str],
    encodings: Sequence[TargetEncoding],
    weight: Floats | None = None,
    seed: int = 0,
) -> tuple[Preprocessor, Matrix]:
    """Fit on training rows; give the preprocessor and the training rows' own matrix.

    In that matrix an encoding is made without the row's own fold (5 seeded folds), so that no row sees its target.

    Raises:
        SpecError: an encoding is of a column that is no category, or its table would be too large.
    """
    weights = np.ones(frame.height) if weight is None else weight
    kinds = input_kinds(frame, numeric, categorical)
    tables = tuple(_categories(frame, column, kinds[column], target, weights) for column in categorical)
    codes = {table.column: table.codes(frame) for table in tables}
    sizes = {table.column: table.size for table in tables}
    folds = np.random.default_rng(seed).integers(0, _FOLDS, frame.height)
    fitted, encoded = [], []
    for wanted in encodings:
        _check(wanted, sizes)
        cells = combined(wanted.columns, codes, sizes.__getitem__)
        fitted.append(_encoding(wanted, [sizes[name] for name in wanted.columns], cells, target, weights))
        encoded.append(_out_of_fold(wanted, cells, target, weights, folds))
    preprocessor = Preprocessor(
        kinds=kinds,
        numeric=tuple(numeric),
        fills=_fills(frame, numeric),
        categories=tables,
        encodings=tuple(fitted),
    )
    return preprocessor, preprocessor._assemble(frame, encoded, codes)


def input_kinds(frame: pl.DataFrame, numeric: Sequence[str], categorical: Sequence[str]) -> dict[str, Kind]:
    """The kind of each model input: numbers first, then categories."""
    kinds: dict[str, Kind] = dict.fromkeys(numeric, "float")
    for column in categorical:
        text = frame.schema[column] in (pl.String, pl.Categorical, pl.Enum)
        kinds[column] = "text" if text else "int"
    return kinds


def typed(frame: pl.DataFrame, column: str, kind: Kind) -> pl.Series:
    """A column as the graph takes it: missing is NaN, -1 or the empty text."""
    values = frame[column]
    if kind == "text":
        return values.cast(pl.String).fill_null("")
    if kind == "int":
        return values.cast(pl.Int64).fill_null(-1)
    return values.cast(pl.Float32).fill_null(float("nan"))


def combined(columns: Sequence[str], codes: Mapping[str, npt.NDArray[np.int64]], size: Any) -> npt.NDArray[np.int64]:
    """One number for a combination of codes: ((a · size of b) + b) · size of c + c …"""
    cells = codes[columns[0]]
    for column in columns[1:]:
        cells = cells * size(column) + codes[column]
    return cells


def _check(wanted: TargetEncoding, sizes: Mapping[str, int]) -> None:
    for column in wanted.columns:
        if column not in sizes:
            raise SpecError(
                f"TargetEncoding{wanted.columns} needs {column!r} to be categorical; categorical are "
                f"{', '.join(sizes) or 'none'}. Add it to categorical= in the pipeline's spec.py."
            )
    cells = int(np.prod([sizes[column] for column in wanted.columns], dtype=np.float64))
    if cells > _CELLS:
        raise SpecError(
            f"TargetEncoding{wanted.columns} would need {cells:,} cells; the most is {_CELLS:,}. Use fewer columns."
        )


def _categories(frame: pl.DataFrame, column: str, kind: Kind, target: Floats, weight: Floats) -> Categories:
    values = pl.DataFrame({"key": typed(frame, column, kind), "w": weight, "wy": weight * target, "n": weight > 0})
    prior = float(np.average(target, weights=weight))
    shrunk = (pl.col("wy") + _CODE_SMOOTHING * prior) / (pl.col("w") + _CODE_SMOOTHING)
    groups = values.group_by("key").agg(pl.col("w", "wy", "n").sum()).filter(pl.col("n") >= _RARE)
    keys = groups.with_columns(shrunk.alias("mean")).sort("mean", "key")["key"].to_list()
    return Categories(column=column, kind="text" if kind == "text" else "int", keys=tuple(keys))


def _fills(frame: pl.DataFrame, numeric: Sequence[str]) -> dict[str, float]:
    found = {}
    for name in numeric:
        values = typed(frame, name, "float").to_numpy()
        if not np.isnan(values).any():
            found[name] = float(np.float32(np.median(values)))
    return found


def _shrunken(wanted: TargetEncoding, total: Floats, weight: Floats, prior: float) -> Floats:
    # Micci-Barreca 2001, with a constant number of pseudo-rows.
    mean: Floats = (total + wanted.smoothing * prior) / (weight + wanted.smoothing)
    return mean


def _encoding(
    wanted: TargetEncoding, sizes: Sequence[int], cells: npt.NDArray[np.int64], target: Floats, weight: Floats
) -> Encoding:
    seen, place = np.unique(cells, return_inverse=True)
    prior = float(np.average(target, weights=weight))
    means = _shrunken(wanted, np.bincount(place, weight * target), np.bincount(place, weight), prior)
    return Encoding(
        name=wanted.name,
        columns=wanted.columns,
        sizes=tuple(sizes),
        cells=tuple(seen.tolist()),
        means=tuple(means.astype(np.float32).tolist()),
        prior=float(np.float32(prior)),
    )


def _out_of_fold(
    wanted: TargetEncoding,
    cells: npt.NDArray[np.int64],
    target: Floats,
    weight: Floats,
    folds: npt.NDArray[np.int64],
) -> Floats:
    seen, place = np.unique(cells, return_inverse=True)
    result = np.empty(target.size)
    for fold in range(_FOLDS):
        inside, outside = folds == fold, folds != fold
        if not inside.any():
            continue
        kept = outside if outside.any() else inside  # a table of one row has no other fold
        prior = float(np.average(target[kept], weights=weight[kept]))
        total = np.bincount(place[kept], (weight * target)[kept], minlength=seen.size)
        count = np.bincount(place[kept], weight[kept], minlength=seen.size)
        result[inside] = _shrunken(wanted, total, count, prior)[place[inside]]
    return result
