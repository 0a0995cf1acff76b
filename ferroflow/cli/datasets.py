"""``ferroflow datasets``: snapshots, and what became of their rows."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import typer

from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import atomic_parquet
from ferroflow.core.durations import duration
from ferroflow.core.errors import DataError, NotFound, UsageError
from ferroflow.core.records import ColumnDrift, Part, Snapshot
from ferroflow.stations import retention, versions

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What a terminal obeys instead of showing it, and what turns the order of letters around."""


def list_datasets(home: Home, pipeline: str | None, as_json: bool) -> None:
    """List snapshots, newest moment first, with the rows that were accepted and quarantined."""
    rows = [_line(entry, home) for name in known(home, pipeline) for entry in reversed(versions.history(name, home))]
    if as_json:
        tell(rows)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("pipeline", "snapshot", "as of", "made (UTC)"):
        table.add_column(column, no_wrap=column in ("pipeline", "snapshot"), overflow="fold")
    for column in ("files", "rows", "accepted", "refused"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        moment = str(row["as_of"])[:16].replace("T", " ")
        made = row["made_at"][:16].replace("T", " ")
        table.add_row(row["pipeline"], row["fingerprint"], moment, made, *(number(row[name]) for name in _COUNTS))
    console = Console()
    if rows:
        print_whole(console, table)
    else:
        console.print("No snapshot yet. Make one: ferroflow run PIPELINE")


def show_dataset(home: Home, pipeline: str, fingerprint: str, as_json: bool) -> None:
    """Show one snapshot: files with their checksums, raw types, and counts that reconcile.

    Raises:
        NotFound: no snapshot begins so, or several do.
    """
    known(home, pipeline)
    snapshot = versions.find(pipeline, fingerprint, home)
    validated = versions.validated(snapshot, home)
    models = versions.trained_on(pipeline, home).get(snapshot.fingerprint, [])
    if as_json:
        checked = validated and validated.model_dump(mode="json")
        tell({"snapshot": snapshot.model_dump(mode="json"), "validated": checked, "models": models})
        return
    from rich.console import Console

    console = Console()
    console.print(f"[bold]{pipeline}[/bold] snapshot [bold]{snapshot.fingerprint}[/bold], {snapshot.rows:,} rows")
    print_whole(console, _files(snapshot.parts))
    if snapshot.made_at is not None:
        console.print(f"made {_minute(snapshot.made_at)} UTC, after {snapshot.parent or 'none'}")
    if snapshot.corrections:
        console.print(f"corrections {snapshot.corrections} are laid over its rows")
    for file in snapshot.unreadable:
        console.print(plain(f"unreadable: {file.file} ({file.size:,} bytes): {file.reason}"), markup=False)
    for name in snapshot.repeated:
        console.print(plain(f"taken once: {name} holds the bytes of another file"), markup=False)
    for name, path in snapshot.references.items():
        console.print(plain(f"reference {name}: {path}"), markup=False)
    console.print(f"models trained on it: {', '.join(f'version {one}' for one in models) or 'none'}")
    if validated is not None:
        console.print(
            f"{validated.rows_in:,} rows in = {validated.rows_accepted:,} accepted + "
            f"{validated.rows_quarantined:,} quarantined"
        )
        for column, cast in validated.casts.items():
            console.print(plain(f"cast {column}: {cast}"), markup=False)


def diff_datasets(home: Home, pipeline: str, old: str | None, new: str, as_json: bool) -> None:
    """Show what differs between two snapshots: files, raw columns, refusals, and distributions of accepted rows.

    Without ``old`` the snapshot before ``new`` is meant.

    Raises:
        NotFound: no snapshot begins so, several do, or there is none before.
    """
    known(home, pipeline)
    after = versions.find(pipeline, new, home)
    before = versions.find(pipeline, old or _parent(after), home)
    found = versions.difference(before, after, home)
    if as_json:
        tell(asdict(found) | {"columns": [column.model_dump(mode="json") for column in found.columns]})
        return
    from rich.console import Console

    console = Console()
    console.print(f"[bold]{pipeline}[/bold] {found.old} -> [bold]{found.new}[/bold]")
    console.print(f"rows {number(found.rows[0])} -> {number(found.rows[1])}, ", end="")
    console.print(f"accepted {number(found.accepted[0])} -> {number(found.accepted[1])}")
    for line in (*found.files, *found.schema):
        console.print(plain(line), markup=False)
    for reason, (first, second) in found.reasons.items():
        console.print(plain(f"refused {reason}: {first:,} -> {second:,}"), markup=False)
    print_whole(console, _drifts(found.columns))


def dataset_as_of(home: Home, pipeline: str, moment: datetime, out: Path | None, as_json: bool) -> None:
    """Tell which snapshot was the newest at a moment; with ``out``, write its accepted rows there as Parquet.

    Raises:
        NotFound: there was none yet, or its rows were never validated.
    """
    known(home, pipeline)
    snapshot = versions.current(pipeline, moment, home)
    validated = versions.validated(snapshot, home)
    if out is not None:
        if validated is None:
            raise NotFound(f"Snapshot {snapshot.fingerprint} was never validated: it has no accepted rows to write.")
        atomic_parquet(out, versions.accepted(validated, home))
    rows = validated.rows_accepted if validated else None
    if as_json:
        made = snapshot.made_at and snapshot.made_at.isoformat()
        told = {"pipeline": pipeline, "snapshot": snapshot.fingerprint, "made_at": made, "accepted": rows}
        tell(told | {"out": out and str(out)})
        return
    wrote = f"; {number(rows)} accepted rows are in {out}" if out else f", {number(rows)} accepted rows"
    typer.echo(f"{pipeline} at {_minute(moment)} UTC: snapshot {snapshot.fingerprint}{wrote}")


def prune_datasets(
    home: Home, pipeline: str, keep: int, older_than: str | None, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Remove old snapshots and what was made of them; what a registered model needs stays.

    Raises:
        UsageError: nobody is there to be asked, and ``yes`` was not given.
    """
    known(home, pipeline)
    age = duration(older_than) if older_than else None
    now = datetime.now(UTC)
    plan = retention.prune(pipeline, home, keep=keep, older_than=age, now=now, dry_run=True)
    if not dry_run and plan.files:
        if not yes:
            confirm(f"Remove {len(plan.removed)} snapshots of {pipeline} ({plan.files} files, {plan.bytes:,} bytes)?")
        plan = retention.prune(pipeline, home, keep=keep, older_than=age, now=now, dry_run=False)
    if as_json:
        tell(asdict(plan) | {"dry_run": dry_run})
        return
    for name, why in plan.kept.items():
        typer.echo(f"keep   {name}  {why}")
    for name in plan.removed:
        typer.echo(f"{'would remove' if dry_run else 'removed'} {name}")
    typer.echo(f"{plan.files} files, {plan.bytes:,} bytes{' would go' if dry_run else ' went'}")


def verify_datasets(home: Home, pipeline: str | None, as_json: bool) -> None:
    """Read every file that has a digest or a seal and compare.

    Raises:
        DataError: a file is missing or not what was written.
    """
    found = {name: versions.verify(name, home) for name in known(home, pipeline)}
    if as_json:
        lines = [
            {"pipeline": name, "files": files, "damaged": [asdict(one) for one in damaged]}
            for name, (files, damaged) in found.items()
        ]
        tell(lines)
    damages = [(name, one) for name, (_, damaged) in found.items() for one in damaged]
    for name, (files, damaged) in found.items():
        if not as_json:
            typer.echo(f"{name}: {files} files read, {len(damaged)} damaged")
    if damages:
        listed = "; ".join(f"{one.path} {one.problem}" for _, one in damages)
        names = " and ".join(sorted({f"ferroflow run {name}" for name, _ in damages}))
        raise DataError(f"{listed}. What can be made again from its source is made by: {names}")


def confirm(question: str) -> None:
    """Ask before something is removed for good.

    Raises:
        UsageError: there is no terminal to ask at, or the answer is no.
    """
    if not sys.stdin.isatty():
        raise UsageError(f"{question} There is nobody to ask: give --yes, or --dry-run to look first.")
    if not typer.confirm(question):
        raise UsageError("Nothing was removed.")


def known(home: Home, pipeline: str | None) -> list[str]:
    """The pipelines that have data here, or the one that is asked for.

    Raises:
        NotFound: the one that is asked for has none.
    """
    root = home.data("any").parent
    names = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if pipeline is None:
        return names
    if pipeline not in names:
        raise NotFound(
            f"No data of pipeline {pipeline!r} in {home.root}. There is some of: {', '.join(names) or 'none'}. "
            f"Make some: ferroflow run {pipeline}"
        )
    return [pipeline]


def tell(content: Any) -> None:
    """Write JSON to the standard output, and nothing else."""
    typer.echo(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())


def plain(text: str) -> str:
    """Text of the data as a terminal may show it: control characters are told by their number, as in ``\\x1b``."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def print_whole(console: Any, table: Any) -> None:
    """Print a table whose names and numbers are not cut: as wide as it is where nobody looks at a terminal."""
    from rich.measure import Measurement

    least, most = Measurement.get(console, console.options.update(width=100_000), table)
    console.width = max(console.width, least if console.is_terminal else most)
    console.print(table, crop=False)


def number(value: int | None) -> str:
    """A count with thousands separators; a dash when there is none."""
    return "–" if value is None else f"{value:,}"


_COUNTS = ("files", "rows", "accepted", "quarantined")


def _line(kept: versions.Kept, home: Home) -> dict[str, Any]:
    snapshot = kept.snapshot
    validated = versions.validated(snapshot, home)
    return {
        "pipeline": snapshot.pipeline,
        "fingerprint": snapshot.fingerprint,
        "as_of": snapshot.as_of.isoformat(),
        "made_at": (snapshot.made_at or kept.since).isoformat(),
        "parent": snapshot.parent,
        "files": len(snapshot.parts),
        "rows": snapshot.rows,
        "accepted": validated.rows_accepted if validated else None,
        "quarantined": validated.rows_quarantined if validated else None,
    }


def _parent(snapshot: Snapshot) -> str:
    if snapshot.parent is None:
        raise NotFound(f"Snapshot {snapshot.fingerprint} is the first of {snapshot.pipeline!r}: name two to compare.")
    return snapshot.parent


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


def _drifts(columns: tuple[ColumnDrift, ...]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("column", no_wrap=True)
    table.add_column("PSI", justify="right", no_wrap=True)
    table.add_column("of the accepted rows", overflow="fold")
    for column in columns:
        told = re.sub(r", needs ([\d.]+)", r", moved from \1 on", column.reason)
        table.add_row(Text(plain(column.column)), f"{column.psi:.3f}", Text(plain(told)))
    return table


def _files(parts: tuple[Part, ...]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("file", "origin", "rows", "SHA-256", "ingested (UTC)"):
        table.add_column(
            column,
            justify="right" if column == "rows" else "left",
            overflow="fold",
            no_wrap=column in ("rows", "SHA-256"),
        )
    for part in parts:
        at = part.ingested_at.strftime("%Y-%m-%d %H:%M")
        table.add_row(Text(plain(part.file)), part.origin, f"{part.rows:,}", part.sha256[:12] + "…", at)
    return table
