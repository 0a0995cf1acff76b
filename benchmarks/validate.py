"""What it costs to split a million rows of 15 columns into accepted and quarantined ones, with every reason.

Four ways on the same typed frame, 0, 1 and 50 % of its rows bad: ours (``check_rows``), one Polars pass written by hand
for this very table, pandera's ``validate(lazy=True)`` whose failure cases are made into the same two tables, and
pandera's ``drop_invalid_rows``, which gives no reasons and is shown for its time only. The first three give the same:
the accepted rows, and of the others ``_row``, ``reasons`` (sorted) and ``raw`` (their cells as JSON text, as quarantine
keeps them); their verdicts are compared in every run. Ours takes the blanks off every text and looks whether it is
empty then; the pass by hand does so too, pandera's does not. Each measurement is a fresh process, the ways in turn.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

ROWS = 1_000_000
SHARES = {"clean": 0.0, "1%": 0.01, "50%": 0.5}
WAYS = ("ours", "by_hand", "pandera", "pandera_drop")
Split = tuple[pl.DataFrame, pl.DataFrame | None]
_CHILD = "import sys; from benchmarks.validate import child; child(*sys.argv[1:])"


def rides(share: float, rows: int = ROWS, seed: int = 7) -> pl.DataFrame:
    """Taxi rides of which ``share`` break at least one rule, in as many manners as there are rules: each is broken."""
    import numpy as np

    dice = np.random.default_rng(seed)
    start = dice.integers(1_672_531_200_000_000, 1_704_067_200_000_000, rows)
    frame = pl.DataFrame(
        {
            "_row": pl.Series(np.arange(1, rows + 1), dtype=pl.UInt32),
            "ride": dice.permutation(rows),
            "vendor": dice.choice([1, 2, 6], rows),
            "passengers": pl.Series(dice.integers(0, 7, rows)).set(pl.Series(dice.random(rows) < 0.03), None),
            "rate": dice.integers(1, 7, rows),
            "pickup": pl.Series(start).cast(pl.Datetime("us")),
            "dropoff": pl.Series(start + dice.integers(60, 7200, rows) * 1_000_000).cast(pl.Datetime("us")),
            "zone_from": dice.integers(1, 266, rows),
            "zone_to": dice.integers(1, 266, rows),
            "miles": dice.gamma(2.0, 2.0, rows).round(2),
            "fare": (3 + dice.gamma(2.0, 6.0, rows)).round(2),
            "tip": pl.Series(dice.gamma(1.0, 2.0, rows).round(2)).set(pl.Series(dice.random(rows) < 0.03), None),
            "total": (5 + dice.gamma(2.0, 8.0, rows)).round(2),
            "stored": dice.choice(["Y", "N"], rows, p=[0.02, 0.98]),
            "payment": dice.choice(["card", "cash", "dispute", "none"], rows),
            "plate": pl.Series(dice.integers(0, 10_000, rows)).cast(pl.String).str.zfill(4),
        }
    ).with_columns(plate="T" + pl.col("plate") + "C")
    return _spoilt(frame, dice.random(rows) < share, dice.integers(0, len(SPOIL), rows))


SPOIL: tuple[tuple[str, pl.Expr | str | float | None], ...] = (
    ("ride", 0),
    ("vendor", 3),
    ("vendor", None),
    ("passengers", -1),
    ("passengers", 99),
    ("rate", 0),
    ("rate", 7),
    ("rate", None),
    ("pickup", None),
    ("dropoff", None),
    ("dropoff", pl.col("pickup").dt.offset_by("-1h")),
    ("zone_from", 0),
    ("zone_from", 999),
    ("zone_to", 0),
    ("zone_to", 999),
    ("miles", 1e6),
    ("miles", -1.0),
    ("miles", None),
    ("fare", -5.0),
    ("fare", 1e6),
    ("tip", -1.0),
    ("total", -1.0),
    ("total", 1e6),
    ("stored", "?"),
    ("stored", None),
    ("payment", "barter"),
    ("plate", "no plate"),
    ("plate", None),
)


def _spoilt(frame: pl.DataFrame, bad: Any, manner: Any) -> pl.DataFrame:
    marked = frame.with_columns(bad=pl.Series(bad), manner=pl.Series(manner))
    for number, (column, value) in enumerate(SPOIL):
        # Each manner also happens together with another one: rows with two reasons.
        hit = pl.col("bad") & pl.col("manner").is_in([number, (number + 3) % len(SPOIL)])
        cell = value if isinstance(value, pl.Expr) else pl.lit(value, frame.schema[column])
        marked = marked.with_columns(pl.when(hit).then(cell).otherwise(pl.col(column)).alias(column))
    return marked.drop("bad", "manner")


def ride_schema(*, drop: bool = False) -> Any:
    """The table's pandera model."""
    import pandera.polars as pa
    from pandera.polars import Field

    class Ride(pa.DataFrameModel):
        ride: pl.Int64 = Field(unique=True)
        vendor: pl.Int64 = Field(isin=[1, 2, 6])
        passengers: pl.Int64 = Field(nullable=True, ge=0, le=9)
        rate: pl.Int64 = Field(ge=1, le=6)
        pickup: pl.Datetime("us")  # type: ignore[valid-type]
        dropoff: pl.Datetime("us")  # type: ignore[valid-type]
        zone_from: pl.Int64 = Field(ge=1, le=265)
        zone_to: pl.Int64 = Field(ge=1, le=265)
        miles: pl.Float64 = Field(ge=0, le=500)
        fare: pl.Float64 = Field(ge=0, le=1000)
        tip: pl.Float64 = Field(nullable=True, ge=0)
        total: pl.Float64 = Field(ge=0, le=2000)
        stored: pl.String = Field(isin=["Y", "N"])
        payment: pl.String = Field(isin=["card", "cash", "dispute", "none"])
        plate: pl.String = Field(str_matches=r"^T[0-9]{4}C$")

        class Config:
            drop_invalid_rows = drop

        @pa.dataframe_check
        def ends_after_it_began(cls, data: pa.PolarsData) -> pl.LazyFrame:
            return data.lazyframe.select(pl.col("dropoff") > pl.col("pickup"))

    return Ride


def ours(frame: pl.DataFrame) -> Split:
    """By the compiled schema."""
    from ferroflow.core.validation import check_rows

    checked = check_rows(frame, ride_schema())
    return checked.accepted, checked.quarantined


def by_hand(frame: pl.DataFrame) -> Split:
    """One pass for this table: a Boolean column a rule, their conjunction, and masks of the bad rows only."""
    between = {"passengers": (0, 9), "rate": (1, 6), "zone_from": (1, 265), "zone_to": (1, 265), "miles": (0, 500)}
    between |= {"fare": (0, 1000), "total": (0, 2000)}
    among = {"vendor": [1, 2, 6], "stored": ["Y", "N"], "payment": ["card", "cash", "dispute", "none"]}
    columns = frame.columns[1:]
    rules = {f"{c}: not_nullable": pl.col(c).is_not_null() for c in columns if c not in ("passengers", "tip")}
    for column, (low, high) in between.items():
        rules[f"{column}: greater_than_or_equal_to({low})"] = pl.col(column) >= low
        rules[f"{column}: less_than_or_equal_to({high})"] = pl.col(column) <= high
    rules["tip: greater_than_or_equal_to(0)"] = pl.col("tip") >= 0
    for column, values in among.items():
        rules[f"{column}: isin({values})"] = pl.col(column).is_in(values)
    rules["plate: str_matches('^T[0-9]{4}C$')"] = pl.col("plate").str.contains(r"^T[0-9]{4}C$")
    rules["ride: field_uniqueness"] = pl.col("ride").is_unique()
    rules["row: ends_after_it_began"] = pl.col("dropoff") > pl.col("pickup")
    reasons = list(rules)
    raw = frame
    frame = frame.with_columns(pl.col(pl.String).str.strip_chars()).with_columns(
        pl.when(pl.col(pl.String) == "").then(None).otherwise(pl.col(pl.String)).name.keep()
    )
    flags = frame.select(rule.fill_null(True).alias(str(bit)) for bit, rule in enumerate(rules.values()))
    good = flags.select(pl.all_horizontal(pl.all())).to_series()
    bad = raw.filter(~good)
    bits = [
        pl.when(str(bit)).then(pl.lit(0, pl.UInt64)).otherwise(pl.lit(1 << bit, pl.UInt64)) for bit in range(len(rules))
    ]
    masks = flags.filter(~good).select(mask=pl.sum_horizontal(bits))
    known = masks.unique()
    spelled = [sorted(reasons[bit] for bit in range(64) if mask >> bit & 1) for mask in known["mask"]]
    told = known.with_columns(reasons=pl.Series(spelled, dtype=pl.List(pl.String)))
    quarantined = bad.select(
        "_row",
        masks.join(told, on="mask", how="left", maintain_order="left")["reasons"],
        raw=pl.struct(columns).struct.json_encode(),
    )
    return frame.filter(good), quarantined


def pandera(frame: pl.DataFrame) -> Split:
    """By ``validate(lazy=True)``: its failure cases say which rows to take out, and why."""
    from pandera.config import ValidationDepth, config_context
    from pandera.errors import SchemaErrors

    columns = frame.columns[1:]
    try:
        with config_context(validation_depth=ValidationDepth.SCHEMA_AND_DATA):
            ride_schema().validate(frame.select(columns), lazy=True)
    except SchemaErrors as error:
        cases = error.failure_cases
    else:
        return frame, _none_quarantined()
    subject = pl.when(pl.col("schema_context") == "Column").then(pl.col("column")).otherwise(pl.lit("row"))
    reasons = (
        cases.select(pl.col("index").cast(pl.UInt32) + 1, reason=subject + ": " + pl.col("check"))
        .group_by("index")
        .agg(pl.col("reason").unique().sort().alias("reasons"))
        .rename({"index": "_row"})
    )
    accepted = frame.join(reasons, on="_row", how="anti", maintain_order="left")
    bad = frame.join(reasons, on="_row", how="inner", maintain_order="left")
    return accepted, bad.select("_row", "reasons", raw=pl.struct(columns).struct.json_encode())


def pandera_drop(frame: pl.DataFrame) -> Split:
    """By ``drop_invalid_rows``: the accepted rows only."""
    from pandera.config import ValidationDepth, config_context

    with config_context(validation_depth=ValidationDepth.SCHEMA_AND_DATA):
        return ride_schema(drop=True).validate(frame.select(frame.columns[1:]), lazy=True), None


def _none_quarantined() -> pl.DataFrame:
    return pl.DataFrame(schema={"_row": pl.UInt32, "reasons": pl.List(pl.String), "raw": pl.String})


# ----------------------------------------------------------------------------------------------------------- measuring


def child(way: str, path: str) -> None:
    """One measurement in a process of its own: split the file's rows once; print what it took and what came out."""
    from benchmarks.memory import peak_mb

    split: Callable[[pl.DataFrame], Split] = globals()[way]
    frame = pl.read_parquet(path)
    split(frame.head(2_000))  # imports and first uses
    before = peak_mb()
    wall, cpu = time.perf_counter(), time.process_time()
    accepted, quarantined = split(frame)
    figures = {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mb": peak_mb(),
        "before_mb": before,
        "accepted": accepted.height,
        "verdicts": _digest(accepted, quarantined),
    }
    print("FIGURES " + json.dumps(figures))


def _digest(accepted: pl.DataFrame, quarantined: pl.DataFrame | None) -> str:
    """Of the accepted rows, and of each other row's reasons and raw text."""
    if quarantined is None:
        return ""
    told = quarantined.sort("_row").select(
        pl.concat_str(pl.col("_row"), pl.col("reasons").list.join("|"), "raw", separator="|")
    )
    digest = hashlib.sha256("\n".join(told.to_series()).encode())
    digest.update(accepted.sort("_row").write_csv().encode())
    return digest.hexdigest()


def measure(*, pipeline: str | None = None, rounds: int = 3) -> dict[str, Any]:
    """Medians for each share of bad rows and each way, and whether the limits hold."""
    figures: dict[str, Any] = {"rows": ROWS, "columns": 15, "rounds": rounds}
    equal = True
    with tempfile.TemporaryDirectory() as folder:
        for name, share in SHARES.items():
            path = Path(folder) / "rides.parquet"
            rides(share).write_parquet(path)
            runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
            for _ in range(rounds):
                for way in WAYS:
                    runs[way].append(_run(way, path))
            equal &= len({run["verdicts"] for way in WAYS[:3] for run in runs[way]}) == 1
            figures[name] = {way: _medians(runs[way]) for way in WAYS}
            figures[name]["rows_quarantined"] = ROWS - runs["ours"][0]["accepted"]
            figures[name] |= _ratios(runs)
    figures["verdicts_equal"] = equal
    figures["passed"] = (
        equal
        and all(figures[name]["ours_over_by_hand"] <= 1.1 for name in SHARES)
        and figures["1%"]["pandera_over_ours"] >= 1.5
        and figures["50%"]["pandera_over_ours"] >= 2.8
    )
    return figures


def _run(way: str, path: Path) -> dict[str, Any]:
    told = subprocess.run([sys.executable, "-c", _CHILD, way, str(path)], capture_output=True, text=True, check=False)
    line = next((line for line in told.stdout.splitlines() if line.startswith("FIGURES ")), None)
    if line is None:
        raise RuntimeError(f"{way} gave no figures: {told.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(line.removeprefix("FIGURES "))
    return found


def _medians(runs: list[dict[str, Any]]) -> dict[str, float]:
    names = ("seconds", "cpu_seconds", "peak_mb", "before_mb")
    return {name: round(statistics.median(run[name] for run in runs), 3) for name in names}


def _ratios(runs: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Medians of the ratios within a round: the machine's other work weighs on both sides alike."""

    def ratio(above: str, below: str, what: str) -> float:
        pairs = zip(runs[above], runs[below], strict=True)
        return round(statistics.median(one[what] / other[what] for one, other in pairs), 3)

    return {
        "ours_over_by_hand": ratio("ours", "by_hand", "seconds"),
        "ours_over_by_hand_cpu": ratio("ours", "by_hand", "cpu_seconds"),
        "pandera_over_ours": ratio("pandera", "ours", "seconds"),
        "pandera_over_ours_cpu": ratio("pandera", "ours", "cpu_seconds"),
    }
