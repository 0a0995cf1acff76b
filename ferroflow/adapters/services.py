"""The servers that make up a stack: their commands, variables, and how each says that it is ready."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path

from ferroflow.adapters.automations import HEARTBEAT_SECONDS
from ferroflow.adapters.home import Home
from ferroflow.adapters.prefect_api import POOL
from ferroflow.adapters.settings import Settings

LOOPBACK = "127.0.0.1"
ORDER = ("prefect", "worker", "mlflow", "service")


@dataclass(frozen=True)
class Command:
    """How a server is started; ``ready`` is the path that answers 200 once it works (None: see the worker's pool)."""

    name: str
    arguments: list[str]
    address: str
    ready: str | None
    variables: dict[str, str] = field(default_factory=dict)


def commands(settings: Settings, ports: dict[str, int]) -> dict[str, Command]:
    """The command of each server; ``ports`` for those that listen."""
    urls = {name: f"http://{LOOPBACK}:{port}" for name, port in ports.items()}
    made = (_prefect(settings, ports, urls), _worker(), _mlflow(settings, ports, urls), _service(settings, ports, urls))
    return {command.name: command for command in made}


def environment(settings: Settings, prefect: str | None) -> dict[str, str]:
    """Variables that a process needs to work in this home: ours, Prefect's, and everybody's telemetry off.

    ``prefect`` is the address of the running server; without one, flows start a temporary server of their own.
    """
    home = Home.of(settings)
    variables = {
        "FERROFLOW_HOME": str(home.root),
        "FERROFLOW_SEED": str(settings.seed),
        "FERROFLOW_SIMULATE": str(settings.simulate).lower(),
        "FERROFLOW_ONLINE_STORE": settings.online_store.get_secret_value(),
        "FERROFLOW_FEATURE_REGISTRY": settings.feature_registry.get_secret_value(),
        "PREFECT_HOME": str(home.prefect),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        "PREFECT_LOGGING_EXTRA_LOGGERS": "ferroflow,models",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "BENTOML_HOME": str(home.bentos),
        "BENTOML_DO_NOT_TRACK": "true",
        "FEAST_USAGE": "False",
        "MPLBACKEND": "Agg",
        "TZ": "UTC",
    }
    if settings.mirror is not None:
        mirror = settings.mirror
        variables["FERROFLOW_MIRROR"] = mirror if "://" in mirror else str(Path(mirror).expanduser().absolute())
    for name in ("tracking_uri", "pipelines", "minutes"):
        if (value := getattr(settings, name)) is not None:
            variables[f"FERROFLOW_{name.upper()}"] = str(value)
    if prefect is not None or settings.prefect_api_url is not None:
        variables["PREFECT_API_URL"] = settings.prefect_api_url or f"{prefect}/api"
    return variables


def project() -> Path:
    """The folder that holds the packages ``flows`` and ``serving``: servers are started in it."""
    found = importlib.util.find_spec("flows")
    if found is None or not found.submodule_search_locations:
        return Path.cwd()
    return Path(next(iter(found.submodule_search_locations))).parent


def free_ports(settings: Settings, names: set[str]) -> tuple[dict[str, int], list[str]]:
    """A free port for each server, the preferred one where it can be had; and a line for each that is taken."""
    wanted = {"prefect": settings.prefect_port, "mlflow": settings.mlflow_port, "service": settings.service_port}
    ports: dict[str, int] = {}
    told = []
    for name in sorted(names & wanted.keys()):
        ports[name] = wanted[name]
        if wanted[name] in list(ports.values())[:-1] or not _free(wanted[name]):
            ports[name] = any_port(set(ports.values()) | set(wanted.values()))
            told.append(f"Port {wanted[name]} is taken: {name} uses {ports[name]}. (Setting: {name}_port)")
    return ports, told


def _prefect(settings: Settings, ports: dict[str, int], urls: dict[str, str]) -> Command:
    home = Home.of(settings)
    variables = {
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home.prefect / 'prefect.db'}",
        # Otherwise the pages ask port 4200, whatever port the server was given.
        "PREFECT_UI_API_URL": f"{urls.get('prefect', '')}/api",
        # Its own copy of the pages: two servers of one installation would write the same folder.
        "PREFECT_UI_STATIC_DIRECTORY": str(home.prefect / "ui"),
    }
    port = str(ports.get("prefect", settings.prefect_port))
    arguments = [sys.executable, "-m", "prefect", "server", "start", "--host", LOOPBACK, "--port", port]
    return Command("prefect", arguments, urls.get("prefect", ""), "/api/health", variables)


def _worker() -> Command:
    arguments = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
    variables = {"PREFECT_WORKER_QUERY_SECONDS": "2"}
    return Command("worker", [*arguments, "--name", "ferroflow"], "", None, variables)


def _mlflow(settings: Settings, ports: dict[str, int], urls: dict[str, str]) -> Command:
    port = str(ports.get("mlflow", settings.mlflow_port))
    arguments = [sys.executable, "-m", "ferroflow.adapters.mlflow_server", port]
    variables = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return Command("mlflow", arguments, urls.get("mlflow", ""), "/health", variables)


def _service(settings: Settings, ports: dict[str, int], urls: dict[str, str]) -> Command:
    port = str(ports.get("service", settings.service_port))
    arguments = [sys.executable, "-m", "bentoml", "serve", "serving.service:Service", "--host", LOOPBACK]
    return Command("service", [*arguments, "--port", port], urls.get("service", ""), "/livez")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return os.name != "posix" or not _answers(port)


def _answers(port: int) -> bool:
    """Whether somebody listens on any address of this machine: binding to another one of them would succeed."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((LOOPBACK, port)) == 0


def any_port(taken: set[int]) -> int:
    """A free port of the system's choice that is not in ``taken``."""
    while True:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port
