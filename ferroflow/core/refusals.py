"""Why rows are refused: bit masks become lists of reasons, and raw cells become text, for those rows only.

Rows have few different sets of reasons: each distinct mask is spelled out once and joined, which is a hundred times
faster than a list made row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from ferroflow.core.casting import Cast
from ferroflow.core.columns import LINE, PROBLEM, ROW

FIRST = "_first"
"""``_row`` of the row that this one repeats; its own where it repeats none."""
RAW = "_raw:"
"""Before the name of a raw column: its cell as it came."""
MASK = "***"
_BITS = 64


def words(flags: Sequence[str | None]) -> list[pl.Expr]:
    """Bit masks (``_word0``, …; UInt64) of the rules that a row fails.

    Args:
        flags: for each rule the Boolean column that is true where a row *passes*; None: nobody fails it here.
    """
    masks = []
    for start in range(0, max(len(flags), 1), _BITS):
        bits = [
            pl.when(flag).then(pl.lit(0, pl.UInt64)).otherwise(pl.lit(1 << bit, pl.UInt64))
            for bit, flag in enumerate(flags[start : start + _BITS])
            if flag is not None
        ]
        mask = pl.sum_horizontal(bits) if bits else pl.lit(0, pl.UInt64)
        masks.append(mask.alias(f"_word{start // _BITS}"))
    return masks


@dataclass(frozen=True)
class Explanation:
    """What the masks mean: bit ``i`` is ``casts[i]``, and the bits after those are ``rules``."""

    casts: tuple[Cast, ...]
    rules: tuple[str, ...]
    raw: tuple[str, ...]  # names of the raw columns
    personal: frozenset[str] = frozenset()

    def told(self, refused: pl.DataFrame) -> pl.DataFrame:
        """``_row``, ``reasons`` (sorted, each once) and ``raw`` (JSON text) of refused rows, in their order."""
        return refused.select(ROW, self._reasons(refused), self._raw_text(refused))

    def _reasons(self, refused: pl.DataFrame) -> pl.Series:
        reasons = self._of_rules(refused)
        cells = self._of_cells(refused)
        if cells.is_empty():
            return reasons
        own = refused.select(ROW).join(cells, on=ROW, how="left", maintain_order="left")["own"]
        return pl.select(pl.coalesce(own, reasons).alias("reasons")).to_series()

    def _of_rules(self, refused: pl.DataFrame) -> pl.Series:
        masks = refused.select(pl.col("^_word[0-9]+$"))
        known = masks.unique()
        spelled = [self._spelled(row) for row in known.iter_rows()]
        reasons = known.with_columns(pl.Series("reasons", spelled, dtype=pl.List(pl.String)))
        return masks.join(reasons, on=masks.columns, how="left", maintain_order="left")["reasons"]

    def _spelled(self, masks: tuple[int, ...]) -> list[str]:
        mask = sum(word << (_BITS * place) for place, word in enumerate(masks)) >> len(self.casts)
        return sorted({reason for bit, reason in enumerate(self.rules) if mask >> bit & 1})

    def _of_cells(self, refused: pl.DataFrame) -> pl.DataFrame:
        """``_row`` and ``own`` of the rows that never met a rule: broken lines, lost cells, duplicates."""
        found = [pl.DataFrame(schema={ROW: pl.UInt32, "reason": pl.String})]
        if PROBLEM in refused.columns:
            broken = refused.filter(pl.col(PROBLEM).is_not_null())
            found.append(broken.select(ROW, reason=pl.lit("line: ") + pl.col(PROBLEM)))
        for bit, cast in enumerate(self.casts):
            lost = refused.filter((pl.col(f"_word{bit // _BITS}") & (1 << bit % _BITS)) != 0)
            reason = cast.reason(pl.col(RAW + cast.name), masked=cast.name in self.personal)
            found.append(lost.select(ROW, reason.alias("reason")))
        if FIRST in refused.columns:
            again = refused.filter(pl.col(FIRST) != pl.col(ROW))
            number = pl.col(FIRST).cast(pl.String)
            found.append(again.select(ROW, reason=pl.lit("row: duplicate of row ") + number))
        return pl.concat(found).group_by(ROW).agg(pl.col("reason").unique().sort().alias("own"))

    def _raw_text(self, refused: pl.DataFrame) -> pl.Series:
        """The cells as JSON text, or the line where there are no cells."""
        cells = [self._tellable(refused[RAW + name].alias(name)) for name in self.raw]
        text = pl.DataFrame(cells).select(pl.struct(pl.all()).struct.json_encode().alias("raw")).to_series()
        if LINE not in refused.columns:
            return text
        line = pl.lit(MASK) if self.personal else pl.col(LINE)
        whole = pl.when(pl.col(LINE).is_not_null()).then(pl.struct(line.alias("line")).struct.json_encode())
        return refused.select(whole.otherwise(text).alias("raw")).to_series()

    def _tellable(self, cells: pl.Series) -> pl.Series:
        """Cells that JSON can hold: bytes as hexadecimal digits; numbers as text where one is infinite or NaN."""
        if cells.name in self.personal:
            return pl.select(pl.when(cells.is_not_null()).then(pl.lit(MASK)).alias(cells.name)).to_series()
        if cells.dtype == pl.Binary:
            return cells.bin.encode("hex")
        if cells.dtype.is_float() and not cells.is_finite().fill_null(True).all():
            return cells.cast(pl.String)
        return cells
