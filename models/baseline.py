"""The naive answer every model has to beat: a mean for each group, the overall mean for groups never seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict

from ferroflow.core.errors import SpecError
from models.preprocess import Kind, typed

FILE = "baseline.json"


class GroupMeans(BaseModel):
    """Means of the target by the values of some model inputs; kept as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kinds: dict[str, Kind]  # of the grouping columns, in order
    groups: tuple[tuple[str, ...], ...]  # the columns' values as text
    means: tuple[float, ...]
    overall: float

    def predict(self, frame: pl.DataFrame) -> npt.NDArray[np.float64]:
        """One value for each row (rows,): in the target's units, or the positive class's share."""
        if not self.kinds:
            return np.full(frame.height, self.overall)
        keys = _keys(frame, self.kinds)
        table = pl.DataFrame(list(self.groups), schema=dict.fromkeys(self.kinds, pl.String), orient="row")
        table = table.with_columns(pl.Series("mean", self.means, dtype=pl.Float64))
        found = keys.join(table, on=list(self.kinds), how="left", maintain_order="left")
        return found["mean"].fill_null(self.overall).to_numpy()

    def save(self, folder: Path) -> None:
        """Write ``baseline.json``."""
        (folder / FILE).write_text(self.model_dump_json())

    @classmethod
    def load(cls, folder: Path) -> GroupMeans:
        """Read what :meth:`save` wrote."""
        return cls.model_validate_json((folder / FILE).read_bytes())


def fit(
    frame: pl.DataFrame,
    target: npt.NDArray[np.float64],
    *,
    by: Sequence[str],
    kinds: dict[str, Kind],
    weight: npt.NDArray[np.float64] | None = None,
) -> GroupMeans:
    """Means of the training rows' target (rows,).

    Raises:
        SpecError: a column of ``by`` is no model input.
    """
    unknown = [column for column in by if column not in kinds]
    if unknown:
        raise SpecError(f"Baseline(by=...) names {', '.join(unknown)}, which is no model input: {', '.join(kinds)}.")
    weights = np.ones(frame.height) if weight is None else weight
    chosen = {column: kinds[column] for column in by}
    overall = float(np.average(target, weights=weights))
    if not by:
        return GroupMeans(kinds={}, groups=(), means=(), overall=overall)
    rows = _keys(frame, chosen).with_columns(pl.Series("w", weights), pl.Series("wy", weights * target))
    groups = rows.group_by(list(chosen)).agg(pl.col("w", "wy").sum()).filter(pl.col("w") > 0).sort(list(chosen))
    return GroupMeans(
        kinds=chosen,
        groups=tuple(groups.select(list(chosen)).iter_rows()),
        means=tuple((groups["wy"] / groups["w"]).to_list()),
        overall=overall,
    )


def _keys(frame: pl.DataFrame, kinds: dict[str, Kind]) -> pl.DataFrame:
    return pl.DataFrame([typed(frame, column, kind).cast(pl.String) for column, kind in kinds.items()])
