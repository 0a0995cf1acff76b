"""The story that ``make demo`` tells with taxi trips: April's days, held back; a shifted mix; a slower city."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl

from ferroflow.core.demonstration import Demonstration
from pipelines.taxi.derive import TIMEZONE
from pipelines.taxi.scenarios import busy_zones, days, shift_mix, slow_down
from pipelines.taxi.spec import pipeline

_FIRST = date(2023, 4, 1)
_BUSY, _SLOW = 0.5, 0.6  # shares of all pick-ups


def midnight(day: int) -> datetime:
    """The UTC instant at which New York's day ``day`` (0: the first replayed) begins."""
    local = datetime.combine(_FIRST + timedelta(days=day), datetime.min.time(), ZoneInfo(TIMEZONE))
    return local.astimezone(UTC)


def cut(trips: pl.DataFrame, first: int, count: int) -> list[pl.DataFrame]:
    """``count`` days of raw trips from day ``first`` on."""
    return days(trips, _FIRST + timedelta(days=first), count)


def harmless(day: pl.DataFrame, held_back: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Pick-ups move away from the busiest zones: the others become three times as frequent."""
    busy = set(busy_zones(held_back, _BUSY))
    others = [zone for zone in held_back["PULocationID"].unique().to_list() if zone not in busy]
    return shift_mix(day, others, 3.0, seed)


def harm(day: pl.DataFrame, held_back: pl.DataFrame) -> pl.DataFrame:
    """Trips from the busiest zones take 40 % longer."""
    return slow_down(day, busy_zones(held_back, _SLOW), 1.4)


demonstration = Demonstration(
    held_back=pipeline.source.files.files(midnight(0), midnight(30))[0],
    start=midnight(0),
    cut=cut,
    midnight=midnight,
    harmless=harmless,
    harm=harm,
    told_harmless="The mix of zones shifts: pick-ups outside the busiest zones become three times as frequent. "
    "How long a trip takes, given where it goes, stays as it was.",
    told_harm="From now on trips from the busiest zones (about 60 % of all) take 40 % longer.",
    unit="minutes",
)
