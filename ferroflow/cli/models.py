"""``ferroflow models``: versions, the ledger, and the way back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from ferroflow.adapters.home import Home
from ferroflow.core.records import Deployment


def list_models(home: Home, pipeline: str | None, as_json: bool) -> None:
    """Print registered versions with their aliases and errors.

    Raises:
        UnknownPipeline: no pipeline of that name.
    """
    from ferroflow.adapters import pipelines, registry

    if pipeline is not None:
        pipelines.load(pipeline)
    rows: list[dict[str, Any]] = []
    for name in [pipeline] if pipeline else pipelines.names():
        pointed = registry.aliases(name, home)
        for entry in registry.versions(name, home) if pointed else []:
            named = sorted(alias for alias, number in pointed.items() if number == entry.version)
            rows.append({**entry.model_dump(mode="json"), "aliases": named})
    if as_json:
        _print_json(rows)
        return
    _table(
        ("pipeline", "version", "alias", "candidate", "model", "test error", "baseline"),
        [_line(row) for row in rows],
        "No model is registered yet. Make one with: ferroflow run PIPELINE",
    )


def history(home: Home, pipeline: str, as_json: bool) -> None:
    """Print the deployment ledger of a pipeline, and whether the champion's alias is where the ledger says.

    Raises:
        UnknownPipeline: no pipeline of that name.
    """
    from rich.console import Console

    from ferroflow.adapters import pipelines
    from ferroflow.adapters.ledger import Ledger

    pipelines.load(pipeline)
    lines = Ledger(home.ledger).history(pipeline)
    if as_json:
        _print_json([line.model_dump(mode="json") for line in lines])
        return
    _table(
        ("entry", "at (UTC)", "action", "version", "before", "why"),
        [
            [str(line.entry), f"{line.at:%Y-%m-%d %H:%M:%S}", line.action, line.version, line.previous or "–", line.why]
            for line in lines
        ],
        f"Nothing was promoted yet. Make a model with: ferroflow run {pipeline}",
    )
    if strayed := _strayed(home, pipeline, lines):
        Console().print(strayed, markup=False)


def _strayed(home: Home, pipeline: str, lines: list[Deployment]) -> str:
    """What to say of an alias that is not where the ledger says; "" when it is."""
    from ferroflow.adapters import registry
    from ferroflow.adapters.ledger import serving

    pointed, line = registry.aliases(pipeline, home).get(registry.CHAMPION), serving(lines)
    if pointed == (line and line.version):
        return ""
    where = f"version {pointed}" if pointed else "no version"
    return f"The champion's alias points to {where}, moved outside the ledger."


def rollback(home: Home, pipeline: str, why: str, as_json: bool) -> None:
    """Serve the version that served before the present one, and say so.

    Raises:
        UnknownPipeline: no pipeline of that name.
        NotFound: nothing served before.
        RegistryError: that version does not load.
    """
    from rich.console import Console

    from ferroflow.adapters import pipelines
    from ferroflow.stations import register

    pipelines.load(pipeline)
    line = register.rollback(pipeline, home, at=datetime.now(UTC), why=why)
    if as_json:
        _print_json(line.model_dump(mode="json"))
        return
    Console().print(f"{pipeline}: version {line.version} serves again (was {line.previous}): {line.why}", markup=False)


def _line(row: dict[str, Any]) -> list[str]:
    metrics = row["metrics"]
    metric = next((name for name in ("test_rmse", "test_log_loss") if name in metrics), None)
    error = f"{metrics[metric]:.4g} {metric.removeprefix('test_')}" if metric else "–"
    beside = metrics.get(f"baseline_{metric}")
    baseline = "–" if beside is None else f"{beside:.4g}"
    named = ", ".join(row["aliases"]) or "–"
    return [row["pipeline"], row["version"], named, row["candidate"], row["fingerprint"][:8], error, baseline]


def _table(head: tuple[str, ...], rows: list[list[str]], empty: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        Console().print(empty, markup=False)
        return
    table = Table(*head, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _print_json(content: Any) -> None:
    import sys

    sys.stdout.write(json.dumps(content, indent=1) + "\n")
