"""``ferroflow datasets``: snapshots, and what became of their rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import typer

from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import read_record
from ferroflow.core.errors import NotFound
from ferroflow.core.records import Part, Record, Snapshot, Validated


def list_datasets(home: Home, pipeline: str | None, as_json: bool) -> None:
    """List snapshots, newest moment first, with the rows that were accepted and quarantined."""
    rows = [_line(snapshot, _latest(home, snapshot)) for name in known(home, pipeline) for snapshot in _all(home, name)]
    if as_json:
        tell(rows)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("pipeline", "snapshot", "as of"):
        table.add_column(column, no_wrap=True)
    for column in ("files", "rows", "accepted", "refused"):
        table.add_column(column, justify="right")
    for row in rows:
        moment = str(row["as_of"])[:16].replace("T", " ")
        table.add_row(row["pipeline"], row["fingerprint"], moment, *(number(row[name]) for name in _COUNTS))
    Console().print(table if rows else "No snapshot yet. Make one: ferroflow run PIPELINE")


def show_dataset(home: Home, pipeline: str, fingerprint: str, as_json: bool) -> None:
    """Show one snapshot: files with their checksums, raw types, and counts that reconcile.

    Raises:
        NotFound: no snapshot begins so, or several do.
    """
    snapshot = _find(home, pipeline, fingerprint)
    validated = _latest(home, snapshot)
    if as_json:
        tell(
            {"snapshot": snapshot.model_dump(mode="json"), "validated": validated and validated.model_dump(mode="json")}
        )
        return
    from rich.console import Console

    console = Console()
    console.print(f"[bold]{pipeline}[/bold] snapshot [bold]{snapshot.fingerprint}[/bold], {snapshot.rows:,} rows")
    console.print(_files(snapshot.parts))
    for name, path in snapshot.references.items():
        console.print(f"reference {name}: {path}")
    if validated is not None:
        console.print(
            f"{validated.rows_in:,} rows in = {validated.rows_accepted:,} accepted + "
            f"{validated.rows_quarantined:,} quarantined"
        )
        for column, cast in validated.casts.items():
            console.print(f"cast {column}: {cast}", markup=False)


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


def newest(home: Home, pipeline: str) -> Validated | None:
    """The validated rows of the latest moment (of several, the one that was written last)."""
    found = [(entry.as_of, path.stat().st_mtime, entry) for path, entry in _records(home, pipeline)]
    return max(found, key=lambda entry: entry[:2])[2] if found else None


def tell(content: Any) -> None:
    """Write JSON to the standard output, and nothing else."""
    typer.echo(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())


def number(value: int | None) -> str:
    """A count with thousands separators; a dash when there is none."""
    return "–" if value is None else f"{value:,}"


_COUNTS = ("files", "rows", "accepted", "quarantined")


def _line(snapshot: Snapshot, validated: Validated | None) -> dict[str, Any]:
    return {
        "pipeline": snapshot.pipeline,
        "fingerprint": snapshot.fingerprint,
        "as_of": snapshot.as_of.isoformat(),
        "files": len(snapshot.parts),
        "rows": snapshot.rows,
        "accepted": validated.rows_accepted if validated else None,
        "quarantined": validated.rows_quarantined if validated else None,
    }


def _files(parts: tuple[Part, ...]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("file", "origin", "rows", "SHA-256", "ingested (UTC)"):
        table.add_column(column, justify="right" if column == "rows" else "left", overflow="fold")
    for part in parts:
        at = part.ingested_at.strftime("%Y-%m-%d %H:%M")
        table.add_row(part.file, part.origin, f"{part.rows:,}", part.sha256[:12] + "…", at)
    return table


def _all(home: Home, pipeline: str) -> list[Snapshot]:
    paths = (home.data(pipeline) / "snapshots").glob("*.json")
    found = [snapshot for path in paths if (snapshot := read_record(path, Snapshot)) is not None]
    return sorted(found, key=lambda snapshot: snapshot.as_of, reverse=True)


def _records(home: Home, pipeline: str) -> list[tuple[Path, Validated]]:
    paths = (home.data(pipeline) / "validated").glob("*.json")
    return [(path, entry) for path in paths if (entry := read_record(path, Validated)) is not None]


def _latest(home: Home, record: Record) -> Validated | None:
    """The rows of this snapshot as they were validated last."""
    own = [(path.stat().st_mtime, entry) for path, entry in _records(home, record.pipeline)]
    own = [entry for entry in own if entry[1].parent == record.fingerprint]
    return max(own, key=lambda entry: entry[0])[1] if own else None


def _find(home: Home, pipeline: str, beginning: str) -> Snapshot:
    known(home, pipeline)
    every = _all(home, pipeline)
    found = [snapshot for snapshot in every if snapshot.fingerprint.startswith(beginning)]
    if len(found) == 1:
        return found[0]
    have = ", ".join(snapshot.fingerprint for snapshot in every) or "none"
    problem = f"{len(found)} snapshots of {pipeline!r} begin" if found else f"No snapshot of {pipeline!r} begins"
    raise NotFound(f"{problem} with {beginning!r}. There are: {have}. See them: ferroflow datasets list -p {pipeline}")
