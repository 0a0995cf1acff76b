"""``ferroflow quarantine``: rows that were refused, with their reasons and raw values."""

from __future__ import annotations

from typing import Any

import orjson
import polars as pl

from ferroflow.adapters.home import Home
from ferroflow.cli.datasets import known, newest, number, tell


def list_quarantine(home: Home, pipeline: str | None, as_json: bool) -> None:
    """Count refused rows by reason, over the latest validated rows of each pipeline; a row may have several reasons."""
    found = [entry for name in known(home, pipeline) if (entry := newest(home, name)) is not None]
    if as_json:
        tell(
            [
                {
                    "pipeline": entry.pipeline,
                    "validated": entry.fingerprint,
                    "rows_in": entry.rows_in,
                    "rows_accepted": entry.rows_accepted,
                    "rows_quarantined": entry.rows_quarantined,
                    "reasons": entry.reasons,
                }
                for entry in found
            ]
        )
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("pipeline")
    table.add_column("reason")
    table.add_column("rows", justify="right")
    for entry in found:
        for reason, rows in sorted(entry.reasons.items(), key=lambda item: -item[1]):
            table.add_row(entry.pipeline, reason, number(rows))
    console = Console()
    console.print(table if found else "Nothing was validated yet. Begin with: ferroflow run PIPELINE")
    for entry in found:
        console.print(
            f"{entry.pipeline}: {entry.rows_in:,} rows in = {entry.rows_accepted:,} accepted + "
            f"{entry.rows_quarantined:,} quarantined"
        )


def show_quarantine(home: Home, pipeline: str, reason: str | None, limit: int, as_json: bool) -> None:
    """Show at most ``limit`` refused rows with their raw values, only those with ``reason`` in one of their reasons."""
    known(home, pipeline)
    validated = newest(home, pipeline)
    rows = _rows([home.absolute(path).as_posix() for path in validated.quarantined] if validated else [], reason, limit)
    for row in rows:
        row["raw"] = orjson.loads(row["raw"])
    if as_json:
        tell(rows)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"Refused rows of {pipeline}", show_lines=True)
    for column in ("file", "row", "reasons", "raw values"):
        table.add_column(column, justify="right" if column == "row" else "left", overflow="fold")
    for row in rows:
        raw = ", ".join(f"{name}={value}" for name, value in row["raw"].items() if value is not None)
        table.add_row(Text(row["file"]), str(row["row"]), Text("\n".join(row["reasons"])), Text(raw))
    Console().print(table if rows else f"No refused row of {pipeline!r}" + (f" with {reason!r}." if reason else "."))


def _rows(paths: list[str], reason: str | None, limit: int) -> list[dict[str, Any]]:
    if not paths:
        return []
    rows = pl.scan_parquet(paths)
    if reason:
        told = pl.col("reasons").list.join("\n").str.contains(reason, literal=True)
        rows = rows.filter(told)
    return rows.head(limit).collect().to_dicts()
