"""``ferroflow run``: the flow ``train`` in this process, with its progress on the screen."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.table import Table

from ferroflow.adapters import pipelines, run_log, services
from ferroflow.adapters.home import Home
from ferroflow.adapters.processes import OWNER, addresses, end_abandoned_servers, owner
from ferroflow.adapters.settings import Settings
from ferroflow.adapters.sources.connections import shown
from ferroflow.adapters.sources.globs import matched
from ferroflow.core.durations import duration
from ferroflow.core.errors import UsageError
from ferroflow.core.spec import ByColumn, FixedFiles, Holdout, MonthlyFiles, PipelineSpec
from ferroflow.core.splits import windows
from ferroflow.stations.ingest import simulated_file

if TYPE_CHECKING:
    from flows.run import RunReport


def run_pipeline(
    settings: Settings, name: str, as_of: datetime | None, minutes: float | None, dry_run: bool, as_json: bool
) -> None:
    """Take a pipeline from its files to a version that serves, or say what would be done.

    A model that a gate rejects is an answer and no failure: the exit code stays 0, and the report says
    ``promoted: false`` with the reasons.

    Raises:
        UnknownPipeline: no pipeline of that name.
        UsageError: it is to be simulated and has no simulator.
    """
    spec = pipelines.load(name)
    if settings.simulate and spec.source.simulator is None:
        raise UsageError(
            f"Pipeline {name!r} has no simulator. Leave --simulate (FERROFLOW_SIMULATE) out: files then come from "
            "FERROFLOW_MIRROR and their public addresses. Or name a simulator in its Source."
        )
    if dry_run:
        _print_plan(plan(settings, spec, as_of, minutes), as_json)
        return
    end_abandoned_servers(Home.of(settings))
    prepare(settings)
    console = Console(stderr=True)
    if not as_json and "PREFECT_API_URL" not in os.environ:
        console.print("[dim]starting a temporary Prefect server: `ferroflow up` would keep one[/dim]", highlight=False)
    with run_log.on_screen(console, quiet=as_json):
        from flows.train import train

        report = train(pipeline=name, as_of=as_of, minutes=minutes)
    if as_json:
        sys.stdout.write(report.model_dump_json(indent=2) + "\n")
    else:
        _print_report(report, settings)


def prepare(settings: Settings) -> None:
    """Set the variables that Prefect and the stations read; to be called before Prefect is imported.

    The server of a running ``up`` is used; without one, Prefect starts a temporary server.
    """
    home = Home.of(settings)
    home.prefect.mkdir(parents=True, exist_ok=True)
    os.environ.update(services.environment(settings, addresses(home).get("prefect")))
    os.environ[OWNER] = owner()
    # Our own lines take the place of Prefect's on the screen; its pages show both.
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"


# ------------------------------------------------------------------------------------------------------------ dry run
def plan(settings: Settings, spec: PipelineSpec, as_of: datetime | None, minutes: float | None) -> dict[str, Any]:
    """What a run would read, split and search."""
    from flows.parameters import budget, start

    moment = as_of or start(spec, datetime.now(UTC))
    seconds = budget(minutes)
    return {
        "pipeline": spec.name,
        "as_of": moment.isoformat(),
        "home": str(settings.home),
        "files": _wanted(settings, spec, moment - duration(spec.source.history), moment),
        "references": [_origin(settings, entry.file.mirror, entry.file.url) for entry in spec.references],
        "landing": sorted(path.name for path in Home.of(settings).landing(spec.name).glob("*.*")),
        "split": _windows(spec, moment),
        "features": [entry.name for entry in spec.stored] + [entry.name for entry in spec.request],
        "candidates": [candidate.name for candidate in spec.candidates] + ["baseline"],
        "trials": spec.tuning.trials,
        "seconds": spec.tuning.seconds if seconds is None else seconds,
        "gates": [gate.name for gate in spec.gates],
    }


def _wanted(settings: Settings, spec: PipelineSpec, start: datetime, end: datetime) -> list[dict[str, str]]:
    """The source's files (those that match a pattern now), its table or its stream."""
    source = spec.source
    if isinstance(source.files, MonthlyFiles | FixedFiles):
        return [_origin(settings, file.mirror, file.url) for file in source.files.files(start, end)]
    if settings.simulate:
        return [{"file": simulated_file(spec).name, "from": "simulator"}]
    if source.files is not None:
        return [{"file": match.name, "from": match.address} for match in matched(source.files, settings)]
    if source.table is not None:
        return [{"file": source.table.name or source.table.query or "", "from": shown(source.table.url)}]
    return [{"file": source.stream.name, "from": shown(source.stream.url)}] if source.stream else []


def _origin(settings: Settings, mirror: str, url: str) -> dict[str, str]:
    if settings.simulate:
        return {"file": mirror.rsplit("/", 1)[-1], "from": "simulator"}
    if settings.mirror is None:
        return {"file": mirror.rsplit("/", 1)[-1], "from": url}
    if "://" in settings.mirror:
        return {"file": mirror.rsplit("/", 1)[-1], "from": f"{settings.mirror.rstrip('/')}/{mirror}"}
    path = Path(settings.mirror) / mirror
    return {"file": path.name, "from": str(path) if path.exists() else url}


def _windows(spec: PipelineSpec, moment: datetime) -> dict[str, str]:
    split = spec.split
    if isinstance(split, ByColumn):
        return {
            "test": f"{split.column} = {split.test}",
            "validation": f"{split.validation:.0%} of the other rows",
            "train": "the rest",
        }
    if isinstance(split, Holdout):
        return {
            "test": f"{split.test:.0%} of the rows",
            "validation": f"{split.validation:.0%} of the rows",
            "train": "the rest",
        }
    zone = ZoneInfo(spec.source.timezone)
    found = windows(split, moment, spec.source.timezone)
    return {part: f"{_told(start, zone)} … {_told(end, zone)}" for part, (start, end) in found.items()}


def _told(moment: datetime | None, zone: ZoneInfo) -> str:
    if moment is None:
        return "all before"
    local = moment.astimezone(zone)
    return f"{local:%Y-%m-%d %H:%M}" if (local.hour, local.minute) != (0, 0) else f"{local:%Y-%m-%d}"


def _print_plan(planned: dict[str, Any], as_json: bool) -> None:
    console = Console()
    if as_json:
        console.print_json(data=planned)
        return
    table = Table(title=f"Nothing is done. A run of {planned['pipeline']} would do this:", show_header=False)
    for name, value in planned.items():
        if isinstance(value, dict):
            value = "\n".join(f"{part}: {told}" for part, told in value.items())
        elif isinstance(value, list):
            value = "\n".join(f"{v['file']} ← {v['from']}" if isinstance(v, dict) else str(v) for v in value) or "–"
        table.add_row(name, str(value))
    console.print(table)


def _print_report(report: RunReport, settings: Settings) -> None:
    console = Console()
    rows = report.rows
    console.print(
        f"\n{rows['in']:,} rows in = {rows['accepted']:,} accepted + {rows['quarantined']:,} quarantined",
        highlight=False,
    )
    console.print(f"quality of the data: {report.data_quality:.3f} of 1", highlight=False)
    metrics = list(report.leaderboard[0].metrics) if report.leaderboard else []
    table = Table("candidate", *metrics, "trials", "seconds", title="Leaderboard (validation rows)")
    for line in report.leaderboard:
        values = [f"{line.metrics.get(metric, float('nan')):.4f}" for metric in metrics]
        table.add_row(line.candidate, *values, str(line.trials), f"{line.seconds:.0f}")
    console.print(table)
    for name, value in report.quality.items():
        console.print(f"{name:32} {value:.4f}", highlight=False)
    for gate in report.verdict.gates if report.verdict else ():
        console.print(
            f"{'[green]✓' if gate.passed else '[red]✗'}[/] {gate.gate}: {gate.reason}", highlight=False, soft_wrap=True
        )
    end = "champion: it serves now" if report.promoted else "not promoted"
    console.print(f"[bold]{report.pipeline} version {report.version} is {end}[/bold]", highlight=False)
    console.print(f"Look at it: ferroflow up --home {settings.home}", highlight=False, soft_wrap=True)
