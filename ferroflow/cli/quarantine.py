"""``ferroflow quarantine``: rows that were refused, with their reasons and raw values; mended, replayed, forgotten."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import typer

from ferroflow.adapters import pipelines
from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import atomic_bytes
from ferroflow.cli.datasets import confirm, known, number, plain, print_whole, tell
from ferroflow.core.durations import duration
from ferroflow.core.errors import NotFound, UsageError
from ferroflow.core.records import Snapshot, Validated
from ferroflow.stations import expiry, fixing, versions
from ferroflow.stations.checked import kind_of
from ferroflow.stations.replay import Replayed, judged_last, known_verdicts, newest_snapshot, refused, replay

_EXAMPLES = 2
_SHOWN = 20
_MOST_TOLD = 100  # characters of an example's raw values


def list_quarantine(home: Home, pipeline: str | None, as_json: bool) -> None:
    """Count refused rows by reason, over the newest snapshot of each pipeline; a row may have several reasons.

    Each reason has examples, and files that make no table are told with their size and reason.
    """
    snapshots = [newest_snapshot(name, home) for name in known(home, pipeline) if versions.history(name, home)]
    every = [(snapshot, known_verdicts(snapshot, home)) for snapshot in snapshots]
    if as_json:
        tell([_counted(home, snapshot, entry) for snapshot, entry in every])
        return
    found = [entry for _, entry in every if entry is not None]
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("pipeline", no_wrap=True)
    table.add_column("reason", overflow="fold")
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("for example", overflow="fold")
    for entry in found:
        examples = _examples(home, entry)
        for reason, rows in sorted(entry.reasons.items(), key=lambda item: -item[1]):
            example = next(iter(examples.get(reason, [])), None)
            told = f"{example['file']} row {example['row']}: {_cells(example['raw'])[:_MOST_TOLD]}" if example else ""
            table.add_row(entry.pipeline, Text(plain(reason)), number(rows), Text(plain(told)))
    console = Console()
    if found:
        print_whole(console, table)
    else:
        console.print("Nothing was validated yet. Begin with: ferroflow run PIPELINE")
    for snapshot, verdicts in every:
        for file in snapshot.unreadable:
            line = f"{snapshot.pipeline}: unreadable: {file.file} ({file.size:,} bytes): {file.reason}"
            console.print(plain(line), markup=False)
        if verdicts is None:
            console.print(f"{snapshot.pipeline}: snapshot {snapshot.fingerprint} was not validated yet")
            continue
        console.print(
            f"{verdicts.pipeline}: {verdicts.rows_in:,} rows in = {verdicts.rows_accepted:,} accepted + "
            f"{verdicts.rows_quarantined:,} quarantined"
        )


def show_quarantine(
    home: Home, pipeline: str, reason: str | None, limit: int | None, as_json: bool, csv: Path | None = None
) -> None:
    """Show refused rows with their raw values, only those with ``reason`` in one of their reasons.

    With ``csv`` they go to that file, all of them unless there is a limit, to be edited and given to ``fix --from``.
    """
    known(home, pipeline)
    if csv is not None:
        _write_csv(home, pipeline, reason, limit, csv, as_json)
        return
    rows = _rows(home, _judged(home, pipeline), reason, limit or _SHOWN)
    for row in rows:
        row["raw"] = orjson.loads(row["raw"])
    if as_json:
        tell(rows)
        return
    for row in rows:
        typer.echo(plain(f"{row['row_id']}  ({row['file']}, row {row['row']})"))
        typer.echo("".join(f"  {plain(told)}\n" for told in (*row["reasons"], _cells(row["raw"]))))
    if not rows:
        typer.echo(f"No refused row of {pipeline!r}" + (f" with {reason!r}." if reason else "."))


def fix_quarantine(
    home: Home,
    pipeline: str,
    rows: list[str],
    reason: str | None,
    sets: list[str],
    maps: list[str],
    line: str | None,
    edited: Path | None,
    why: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Record corrections of refused rows; ``replay`` brings them to bear.

    Raises:
        UsageError: rows and values are given in no way that can be, or a value is not of its column's type.
        NotFound: no such row or column.
    """
    known(home, pipeline)
    spec = pipelines.load(pipeline)
    if edited is not None:
        if rows or reason or sets or maps or line is not None:
            raise UsageError("--from says rows and values: leave --row, --reason, --set, --map and --line out.")
        changes = fixing.changes_in(spec, home, edited)
    else:
        wanted = _wanted(rows, reason, sets, maps, line)
        if reason is not None:
            rows = fixing.refused_rows(spec, home, reason=reason)["row_id"].to_list()
            if not rows:
                raise NotFound(f"No refused row of {pipeline!r} has {reason!r} in a reason.")
        changes = fixing.changes_of(spec, home, rows, wanted)
    now = datetime.now(UTC)
    if dry_run:
        would = fixing.rehearse(spec, home, changes, why=why, made_at=now)
        _tell_rehearsal(pipeline, len(changes), would, as_json)
        return
    correction = fixing.fix(spec, home, changes, why=why, made_at=now)
    recorded = len(correction.rows) if correction else 0
    if as_json:
        name = correction.fingerprint if correction else None
        tell({"pipeline": pipeline, "correction": name, "rows": recorded, "row_ids": sorted(changes)[:_SHOWN]})
        return
    if correction is None:
        typer.echo("Nothing to record: these rows hold these values already.")
        return
    typer.echo(f"Recorded: {recorded:,} rows of {pipeline} corrected (correction {correction.fingerprint}).")
    typer.echo(f"Next: ferroflow quarantine replay {pipeline}")


def replay_quarantine(home: Home, pipeline: str, dry_run: bool, as_json: bool) -> None:
    """Validate the newest snapshot's rows under the present corrections and schema, as a new snapshot."""
    known(home, pipeline)
    spec = pipelines.load(pipeline)
    now = datetime.now(UTC)
    done = fixing.rehearse(spec, home, {}, why="", made_at=now) if dry_run else replay(spec, home, now=now)
    if as_json:
        tell({"pipeline": pipeline, "dry_run": dry_run, **asdict(done)})
        return
    would = "would be " if dry_run else ""
    typer.echo(f"{pipeline}: snapshot {done.snapshot}" + (f", made of {done.parent}" if done.parent else ""))
    typer.echo(f"{done.moved:,} rows {would}accepted that were refused")
    for text, rows in done.newly_refused.items():
        typer.echo(f"{rows:,} rows {would}refused that were accepted: {plain(text)}")
    for text, rows in done.still_refused.items():
        typer.echo(f"{rows:,} rows still refused: {plain(text)}")
    typer.echo(
        f"{done.rows_in:,} rows in = {done.rows_accepted:,} accepted + {done.rows_quarantined:,} quarantined"
        + ("" if dry_run else f"\nNext: ferroflow run {pipeline}")
    )


def prune_quarantine(home: Home, pipeline: str, older_than: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove the raw values of old refused rows for good; rows, counts and reasons stay.

    Raises:
        UsageError: nobody is there to be asked, and ``yes`` was not given.
    """
    known(home, pipeline)
    age, now = duration(older_than), datetime.now(UTC)
    plan = expiry.expire(pipeline, home, older_than=age, now=now, dry_run=True)
    rows = sum(plan.rows.values())
    if not dry_run:
        if (rows or plan.unreadable) and not yes:
            confirm(f"Remove the raw values of {rows:,} refused rows and {len(plan.unreadable)} unreadable files?")
        plan = expiry.expire(pipeline, home, older_than=age, now=now, dry_run=False)
    if as_json:
        tell(asdict(plan) | {"pipeline": pipeline, "dry_run": dry_run})
        return
    went = "would be removed" if dry_run else "were removed"
    for file, count in plan.rows.items():
        typer.echo(f"{plain(file)}: the raw values of {count:,} refused rows {went}")
    for file in plan.unreadable:
        typer.echo(f"{plain(file)}: its bytes {went}")
    if not plan.rows and not plan.unreadable:
        typer.echo(f"Nothing of {pipeline} is older than {older_than}.")


# -------------------------------------------------------------------------------------------------------------- reading


def _judged(home: Home, pipeline: str) -> Validated:
    """The verdicts on the newest snapshot, whose rows are fixed and replayed too."""
    snapshot = newest_snapshot(pipeline, home)
    return known_verdicts(snapshot, home) or judged_last(pipelines.load(pipeline), snapshot, home)


def _counted(home: Home, snapshot: Snapshot, entry: Validated | None) -> dict[str, Any]:
    """What ``--json`` tells; the counts of a snapshot that was not validated yet are null."""
    return {
        "pipeline": snapshot.pipeline,
        "snapshot": snapshot.fingerprint,
        "validated": entry and entry.fingerprint,
        "rows_in": snapshot.rows,
        "rows_accepted": entry and entry.rows_accepted,
        "rows_quarantined": entry and entry.rows_quarantined,
        "reasons": entry.reasons if entry else {},
        "examples": _examples(home, entry) if entry else {},
        "unreadable": [
            {"file": one.file, "size": one.size, "reason": one.reason, "seen_at": one.seen_at.isoformat()}
            for one in snapshot.unreadable
        ],
    }


def _examples(home: Home, entry: Validated) -> dict[str, list[dict[str, Any]]]:
    """Reason -> a row or two with it."""
    if not entry.rows_quarantined:
        return {}
    rows = refused(entry, home).explode("reasons").with_columns(kind_of(pl.col("reasons")).alias("kind"))
    some = pl.struct("row_id", "file", "row", "raw").head(_EXAMPLES).alias("rows")
    found = rows.group_by("kind").agg(some).collect(engine="streaming")
    return {
        kind: [row | {"raw": orjson.loads(row["raw"])} for row in sorted(some, key=lambda row: row["row_id"])]
        for kind, some in found.iter_rows()
    }


def _rows(home: Home, validated: Validated, reason: str | None, limit: int) -> list[dict[str, Any]]:
    return fixing.with_reason(refused(validated, home), reason).head(limit).collect().to_dicts()


def _cells(raw: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in raw.items() if value is not None)


def _write_csv(home: Home, pipeline: str, reason: str | None, limit: int | None, csv: Path, as_json: bool) -> None:
    spec = pipelines.load(pipeline)
    names = fixing.refused_rows(spec, home, reason=reason, limit=limit)["row_id"]
    rows = fixing.raw_rows(spec, home, names, masked=True)
    cells = [pl.col(name).map_elements(fixing.guarded, pl.String) for name in rows.columns if name != "row_id"]
    atomic_bytes(csv.absolute(), rows.with_columns(cells).write_csv().encode())
    if as_json:
        tell({"pipeline": pipeline, "file": str(csv), "rows": rows.height})
        return
    typer.echo(f"{rows.height:,} rows are in {csv}. Edit their cells (not row_id), then:")
    typer.echo(f"ferroflow quarantine fix {pipeline} --from {csv}")


# --------------------------------------------------------------------------------------------------------------- fixing


def _wanted(rows: list[str], reason: str | None, sets: list[str], maps: list[str], line: str | None) -> fixing.Fix:
    if bool(rows) == (reason is not None):
        raise UsageError("Say which rows: --row ROW_ID (several times), or --reason TEXT, or --from FILE.")
    if not sets and not maps and line is None:
        raise UsageError("Say what they become: --set COLUMN=VALUE, --map COLUMN:OLD=NEW, or --line for one row.")
    if line is not None and len(rows) != 1:
        raise UsageError("--line is the whole line of one row: give one --row with it.")
    return fixing.Fix(dict(map(_set, sets)), tuple(map(_map, maps)), line)


def _set(text: str) -> tuple[str, str | None]:
    column, equals, value = text.partition("=")
    if not equals or not column:
        raise UsageError(f"--set {text!r} is not COLUMN=VALUE. An empty VALUE makes the cell missing.")
    return column, value or None


def _map(text: str) -> tuple[str, str, str | None]:
    column, colon, change = text.partition(":")
    old, equals, new = change.partition("=")
    if not colon or not equals or not column:
        raise UsageError(f"--map {text!r} is not COLUMN:OLD=NEW. An empty NEW makes the cell missing.")
    return column, old, new or None


def _tell_rehearsal(pipeline: str, rows: int, would: Replayed, as_json: bool) -> None:
    if as_json:
        told = {"changes": rows, "accepted": would.moved, "row_ids": would.moved_rows, "refused": would.newly_refused}
        tell({"pipeline": pipeline, "dry_run": True} | told)
        return
    typer.echo(f"{rows:,} rows of {pipeline} would be changed; after a replay {would.moved:,} rows would be accepted")
    for name in would.moved_rows:
        typer.echo(f"  {name}")
    for text, count in would.newly_refused.items():
        typer.echo(f"{count:,} rows would be refused that are accepted now: {plain(text)}")
