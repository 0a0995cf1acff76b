"""``ferroflow up``, ``down`` and ``status``."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from ferroflow.adapters.home import Home
from ferroflow.adapters.processes import Running, Stack, end_abandoned_servers, recorded, signals_end
from ferroflow.adapters.settings import Settings

_SHOWS = {
    "prefect": "flows, runs and their artifacts",
    "worker": "runs every deployment",
    "mlflow": "trials and registered models",
    "service": "predictions; /docs describes the requests",
}


def up(settings: Settings) -> None:
    """Start what does not run yet, wait until it answers, and print the addresses.

    Raises:
        ServiceError: a server did not start; nothing is left running that was not running before.
    """
    console = Console()
    end_abandoned_servers(Home.of(settings))
    with console.status("starting") as status, signals_end():

        def tell(line: str) -> None:
            console.print(f"[dim]{line}[/dim]", highlight=False, soft_wrap=True)
            status.update("starting")

        Stack(settings, tell).start()
    console.print(_table(recorded(Home.of(settings))))
    console.print(f"State: {settings.home}   Logs: {Home.of(settings).logs}", highlight=False, soft_wrap=True)
    console.print("Stop it all: ferroflow down", highlight=False)


def down(settings: Settings) -> None:
    """Stop what ``up`` started, and what a crash left behind."""
    console = Console()
    Stack(settings, lambda line: console.print(f"[dim]{line}[/dim]", highlight=False, soft_wrap=True)).stop()
    end_abandoned_servers(Home.of(settings))
    console.print(f"Nothing of {settings.home} is running.", highlight=False, soft_wrap=True)


def status(settings: Settings, as_json: bool) -> None:
    """Print what runs, and which version of each pipeline serves."""
    home = Home.of(settings)
    servers, champions = recorded(home), _champions(settings)
    console = Console()
    if as_json:
        running = {name: {"address": server.address, "pid": server.pid} for name, server in servers.items()}
        console.print_json(data={"home": str(home.root), "running": running, "champions": champions})
        return
    console.print(_table(servers) if servers else "Nothing is running. Start it: ferroflow up", highlight=False)
    for pipeline, version in champions.items():
        console.print(f"{pipeline}: version {version} is champion", highlight=False)
    if not champions:
        console.print("No champion yet. Train one: ferroflow run PIPELINE", highlight=False)


def _champions(settings: Settings) -> dict[str, Any]:
    from ferroflow.adapters.champion import ChampionReader

    if settings.tracking_uri is None and not (Home.of(settings).mlflow / "mlflow.db").exists():
        return {}  # nothing was ever registered here
    reader = ChampionReader(settings.home, settings.tracking_uri)
    found = {name: reader.read(name) for name in reader.pipelines()}
    return {name: champion.version for name, champion in found.items() if champion is not None}


def _table(servers: dict[str, Running]) -> Table:
    table = Table("server", "address", "shows", "process", box=None, pad_edge=False, header_style="bold")
    for name in _SHOWS:
        if (server := servers.get(name)) is not None:
            table.add_row(name, server.address or "–", _SHOWS[name], str(server.pid))
    return table
