"""What a pipeline brings along for ``make demo``: a file held back, cut into days, and two changes to its world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from ferroflow.core.spec import SourceFile


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """A story on a pipeline's own raw data, told day by day from ``start`` (a UTC instant, a local midnight).

    Attributes:
        held_back: the file whose rows no training sees before they are replayed.
        start: the first replayed day's midnight; training is as of this moment.
        cut: ``cut(rows, first_day_index, count)`` gives that many days of raw rows, by local event date.
        midnight: ``midnight(index)`` is the UTC instant at which day ``index`` begins.
        harmless: ``harmless(day, held_back, seed)`` changes the inputs' mix, never the target given the inputs.
        harm: ``harm(day, held_back)`` changes the target given the inputs.
        days: how many days are quiet, harmless, harmful before the retraining, and harmful after it.
    """

    held_back: SourceFile
    start: datetime
    cut: Callable[[pl.DataFrame, int, int], list[pl.DataFrame]]
    midnight: Callable[[int], datetime]
    harmless: Callable[[pl.DataFrame, pl.DataFrame, int], pl.DataFrame]
    harm: Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]
    told_harmless: str
    told_harm: str
    days: tuple[int, int, int, int] = (2, 2, 2, 1)
    unit: str = ""
