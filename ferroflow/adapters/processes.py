"""Start, watch and stop the servers of one home folder.

Every process is started with ``FERROFLOW_STACK=<home>`` in its environment. That mark, and not a process id (which the
system gives again to somebody else), tells what is ours: ``stop`` ends marked processes and no other.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from ferroflow.adapters import services as catalogue
from ferroflow.adapters.automations import heartbeat
from ferroflow.adapters.home import Home
from ferroflow.adapters.locks import locked
from ferroflow.adapters.prefect_api import PrefectApi
from ferroflow.adapters.services import Command
from ferroflow.adapters.settings import Settings
from ferroflow.core.errors import ServiceError

logger = logging.getLogger(__name__)

MARK = "FERROFLOW_STACK"
OWNER = "FERROFLOW_OWNER"
_PATIENCE = 150.0  # seconds for a server to answer
_GRACE = 10.0  # seconds between asking a process to end and ending it


class Running(BaseModel):
    """A server that was started: its process, and since when, as ids are given again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    pid: int
    created: float  # seconds since the epoch, as the system says
    address: str

    def process(self) -> psutil.Process | None:
        """The process, unless it has ended (or its id now belongs to another)."""
        return _living(self.pid, self.created)


class _Book(BaseModel):
    servers: dict[str, Running] = {}


def recorded(home: Home) -> dict[str, Running]:
    """The servers of a home that are alive, by name."""
    try:
        book = _Book.model_validate_json(home.processes.read_bytes())
    except FileNotFoundError:
        return {}
    except ValidationError:
        logger.warning("%s is damaged: its servers are found by their mark", home.processes)
        return {}
    return {name: server for name, server in book.servers.items() if server.process() is not None}


def addresses(home: Home) -> dict[str, str]:
    """Name -> address of the servers of a home that are alive (the worker has none: "")."""
    return {name: server.address for name, server in recorded(home).items()}


@dataclass
class Stack:
    """The servers of ``settings.home``. ``tell`` hears each step as a line of text."""

    settings: Settings
    tell: Callable[[str], None] = logger.info

    @property
    def home(self) -> Home:
        """The home folder."""
        return Home.of(self.settings)

    @property
    def addresses(self) -> dict[str, str]:
        """Name -> address of the servers that are alive (the worker has none: "")."""
        return addresses(self.home)

    def environment(self) -> dict[str, str]:
        """Variables for processes and flows that are to work with this stack."""
        return catalogue.environment(self.settings, self.addresses.get("prefect"))

    def start(self, services: Sequence[str] = catalogue.ORDER, *, schedules: bool = True) -> None:
        """Start those of ``services`` that do not run yet, and wait until all answer.

        Args:
            services: some of prefect, worker, mlflow, service.
            schedules: whether the deployments' schedules are active.

        Raises:
            ServiceError: a server did not answer; what was started by this call is stopped again.
        """
        self.home.logs.mkdir(parents=True, exist_ok=True)
        with locked(self.home.processes):
            alive = recorded(self.home)
            self._sweep(keep=set(alive))
            missing = [name for name in catalogue.ORDER if name in services and name not in alive]
            if not missing:
                return
            try:
                self._start(missing, schedules)
            except BaseException:  # an interrupt too must leave nothing behind
                self._stop([name for name in recorded(self.home) if name in missing])
                self._sweep(keep=set(alive))
                raise

    def stop(self) -> None:
        """Stop everything that carries this home's mark: the worker first, then the servers."""
        if not self.home.root.exists():
            return
        with locked(self.home.processes):
            self._stop(list(recorded(self.home)))
            self._sweep(keep=set())
            self.home.processes.unlink(missing_ok=True)

    # ---------------------------------------------------------------------------------------------------------- start
    def _start(self, missing: list[str], schedules: bool) -> None:
        ports, told = catalogue.free_ports(self.settings, set(missing))
        for line in told:
            self.tell(line)
        commands = catalogue.commands(self.settings, ports)
        deployments = self._write_deployments(schedules) if "worker" in missing else None
        for name in missing:
            if name != "worker":
                self._spawn(commands[name])
        if deployments is not None:
            self._await(commands["prefect"], "prefect")
            self._deploy(commands["worker"], deployments)
        for name in missing:
            if name != "worker":
                self._await(commands[name], name)
                self.tell(f"{name} answers at {self.addresses[name]}")

    def _write_deployments(self, schedules: bool) -> subprocess.Popen[bytes]:
        """Write this home's ``prefect.yaml`` while the server starts."""
        arguments = [sys.executable, "-m", "flows.deployments", "--write", "--file", str(self._deployments)]
        return self._run("deployments", [*arguments] if schedules else [*arguments, "--paused"])

    @property
    def _deployments(self) -> Path:
        return self.home.root / "prefect.yaml"

    def _deploy(self, worker: Command, written: subprocess.Popen[bytes]) -> None:
        api = PrefectApi(self.environment()["PREFECT_API_URL"])
        try:
            api.make_pool()
            self._spawn(worker)
            self._ended(written, "deployments")
            arguments = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file"]
            self._ended(self._run("deploy", [*arguments, str(self._deployments)]), "deploy")
            api.apply_automation(heartbeat())
            self._until(lambda: bool(api.workers()), "worker")
            self.tell(f"worker is ready, with {len(api.deployments())} deployments")
        finally:
            api.close()

    def _run(self, name: str, arguments: list[str], **variables: str) -> subprocess.Popen[bytes]:
        marked = {MARK: str(self.home.root), "PATH": _path()}
        with (self.home.logs / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                arguments,
                cwd=catalogue.project(),
                env=os.environ | self.environment() | variables | marked,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _spawn(self, command: Command) -> None:
        started = self._run(command.name, command.arguments, **command.variables)
        created = psutil.Process(started.pid).create_time()
        server = Running(name=command.name, pid=started.pid, created=created, address=command.address)
        self._write({**recorded(self.home), command.name: server})

    def _write(self, servers: dict[str, Running]) -> None:
        temporary = self.home.processes.with_suffix(".tmp")
        temporary.write_text(_Book(servers=servers).model_dump_json(indent=1))
        temporary.replace(self.home.processes)

    def _await(self, command: Command, name: str) -> None:
        import httpx

        address = self.addresses.get(name) or self.settings.prefect_api_url or command.address

        def answers() -> bool:
            try:
                return httpx.get(f"{address}{command.ready}", timeout=2).status_code == 200
            except httpx.HTTPError:
                return False

        self._until(answers, name)

    def _until(self, ready: Callable[[], bool], name: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not ready():
            if name not in self.addresses:
                raise ServiceError(f"{name} ended while it started. {self._last_words(name)}")
            if time.monotonic() > deadline:
                raise ServiceError(f"{name} did not answer within {_PATIENCE:.0f} s. {self._last_words(name)}")
            time.sleep(0.2)

    def _ended(self, process: subprocess.Popen[bytes], name: str) -> None:
        try:
            code = process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            raise ServiceError(f"{name} did not end within {_PATIENCE:.0f} s. {self._last_words(name)}") from None
        if code != 0:
            raise ServiceError(f"{name} failed with exit code {code}. {self._last_words(name)}")

    def _last_words(self, name: str) -> str:
        path = self.home.logs / f"{name}.log"
        lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()][-5:]
        return f"Look at {path}; it ends: {' | '.join(lines)}"

    # ----------------------------------------------------------------------------------------------------------- stop
    def _stop(self, names: list[str]) -> None:
        servers = recorded(self.home)
        # A worker that is told to end together with its server has been seen to survive: it goes first, alone.
        for group in ([name for name in names if name == "worker"], [name for name in names if name != "worker"]):
            processes = [process for name in group if name in servers and (process := servers[name].process())]
            if processes:
                self.tell(f"stopping {', '.join(sorted(group))}")
            _end([child for process in processes for child in _tree(process)], ask=processes)
        self._write({name: server for name, server in servers.items() if name not in names})

    def _sweep(self, keep: set[str]) -> None:
        """End marked processes that belong to no recorded server: what a crash left behind."""
        servers = recorded(self.home)
        kept = {os.getpid()}
        for name in keep:
            if name in servers and (process := servers[name].process()) is not None:
                kept |= {child.pid for child in _tree(process)}
        lost = [process for process in marked(MARK, str(self.home.root)) if process.pid not in kept]
        if lost:
            self.tell(f"ending {len(lost)} processes that a crash left behind")
            _end(lost, ask=lost)


def end_abandoned_servers(home: Home) -> int:
    """End temporary Prefect servers whose flow was killed: they would go on for many minutes. Gives how many."""
    ours = [process for process in marked("FERROFLOW_HOME", str(home.root)) if _abandoned(process)]
    _end(ours, ask=ours)
    return len(ours)


def owner() -> str:
    """What a command puts in ``FERROFLOW_OWNER``, so that its children can be told from abandoned ones."""
    return f"{os.getpid()}:{psutil.Process().create_time()}"


def marked(variable: str, value: str) -> list[psutil.Process]:
    """Processes of this user, this one excepted, whose environment has ``variable=value``."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(variable) == value:
                found.append(process)
        except (psutil.Error, OSError):
            continue  # another user's, or gone by now
    return found


@contextmanager
def signals_end() -> Iterator[None]:
    """Within this block SIGTERM ends the program as Ctrl-C does: through every ``finally``."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _abandoned(process: psutil.Process) -> bool:
    try:
        pid, _, created = process.environ().get(OWNER, "").partition(":")
    except (psutil.Error, OSError):
        return False
    return bool(pid) and _living(int(pid), float(created)) is None


def _living(pid: int, created: float) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        # The system rounds a start time to its clock tick.
        same = abs(process.create_time() - created) < 0.02
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def _tree(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return [process]


def _end(processes: list[psutil.Process], ask: list[psutil.Process]) -> None:
    """Ask some to end, wait for all, then kill those that are left."""
    for process in ask:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(processes, timeout=_GRACE)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=_GRACE)


def _path() -> str:
    """This environment's scripts first: servers start others by name."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
