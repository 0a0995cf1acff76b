from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ferroflow.adapters import processes, services
from ferroflow.adapters.home import Home
from ferroflow.adapters.processes import MARK, OWNER, Running, Stack, marked, recorded
from ferroflow.adapters.settings import Settings
from ferroflow.core.errors import ServiceError


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "home").mkdir()
    return Settings(home=tmp_path / "home", mirror=None)


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    process = a_process({})
    yield process
    process.kill()
    process.wait()


def a_process(variables: dict[str, str], code: str = "import time; time.sleep(60)") -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], env=os.environ | variables)


def a_book(home: Home, *servers: Running) -> None:
    listed = ",".join(f'"{server.name}":{server.model_dump_json()}' for server in servers)
    home.processes.write_text(f'{{"servers":{{{listed}}}}}')


def test_id_that_now_belongs_to_another_process_is_recognised_and_left_alone(
    settings: Settings, stranger: subprocess.Popen[bytes]
) -> None:
    home = Home(settings.home)
    began = psutil.Process(stranger.pid).create_time()
    a_book(home, Running(name="prefect", pid=stranger.pid, created=began - 5, address="http://127.0.0.1:1"))
    assert recorded(home) == {}
    Stack(settings).stop()
    assert stranger.poll() is None
    assert not home.processes.exists()


def test_recorded_server_with_its_start_time_is_ended(settings: Settings) -> None:
    server = a_process({})
    began = psutil.Process(server.pid).create_time()
    home = Home(settings.home)
    a_book(home, Running(name="service", pid=server.pid, created=began, address="http://127.0.0.1:1"))
    assert list(recorded(home)) == ["service"]
    Stack(settings).stop()
    server.wait(5)


def test_server_that_dies_while_it_is_stopped_does_not_stop_the_stop(settings: Settings) -> None:
    stack = Stack(settings)
    left = a_process({MARK: str(settings.home)})
    time.sleep(0.3)
    stack._stop(["worker", "service"])  # recorded a moment ago, and gone from the book by now
    stack._sweep(keep={"service"})
    left.wait(5)


def test_stop_ends_what_a_crash_left_and_no_process_of_another_home(settings: Settings, tmp_path: Path) -> None:
    left = a_process({MARK: str(settings.home)})
    foreign = a_process({MARK: str(tmp_path / "another")})
    try:
        time.sleep(0.3)  # until the interpreter runs with its own environment
        Stack(settings).stop()
        left.wait(5)
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()


def test_damaged_book_does_not_stop_the_stop(settings: Settings) -> None:
    left = a_process({MARK: str(settings.home)})
    Home(settings.home).processes.write_text('{"servers": {"pref')
    time.sleep(0.3)
    Stack(settings).stop()
    left.wait(5)


def test_temporary_server_is_ended_only_when_the_run_that_started_it_is_gone(settings: Settings) -> None:
    home = Home(settings.home)
    ours = {"FERROFLOW_HOME": str(home.root)}
    orphan = a_process(ours | {OWNER: "999999:1.0"})
    child = a_process(ours | {OWNER: processes.owner()})
    try:
        time.sleep(0.3)
        assert processes.end_abandoned_servers(home) == 1
        orphan.wait(5)
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


def test_taken_port_is_told_and_another_is_used(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        chosen = settings.model_copy(update={"prefect_port": port})
        ports, told = services.free_ports(chosen, {"prefect", "worker", "service"})
    assert ports["prefect"] != port
    assert ports["service"] != ports["prefect"]
    assert told == [f"Port {port} is taken: prefect uses {ports['prefect']}. (Setting: prefect_port)"]


def test_two_servers_that_prefer_one_port_get_two(settings: Settings) -> None:
    same = settings.model_copy(update={"mlflow_port": 43219, "service_port": 43219})
    ports, _ = services.free_ports(same, {"mlflow", "service"})
    assert len(set(ports.values())) == 2


def test_server_that_ends_while_it_starts_is_told_with_its_last_words_and_leaves_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [sys.executable, "-c", "import sys; sys.exit('no such database')"]
    broken = services.Command("mlflow", words, "http://127.0.0.1:9", "/health")
    asleep = services.Command("service", [sys.executable, "-c", "import time; time.sleep(60)"], "http://x", "/livez")
    monkeypatch.setattr(services, "commands", lambda *_: {"mlflow": broken, "service": asleep})
    with pytest.raises(ServiceError, match=r"mlflow ended while it started\. Look at .*no such database"):
        Stack(settings).start(("mlflow", "service"))
    assert recorded(Home(settings.home)) == {}
    assert marked(MARK, str(settings.home)) == []


def test_environment_hands_every_setting_on_and_turns_telemetry_off(settings: Settings, tmp_path: Path) -> None:
    given = settings.model_copy(update={"mirror": "data", "seed": 7, "simulate": True, "tracking_uri": "http://m"})
    variables = services.environment(given, "http://127.0.0.1:4200")
    assert variables["FERROFLOW_HOME"] == str(tmp_path / "home")
    assert variables["FERROFLOW_MIRROR"] == str(Path.cwd() / "data")
    assert (variables["FERROFLOW_SEED"], variables["FERROFLOW_SIMULATE"]) == ("7", "true")
    assert variables["FERROFLOW_TRACKING_URI"] == "http://m"
    assert variables["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    assert variables["DO_NOT_TRACK"] == "1"
    assert "PREFECT_API_URL" not in services.environment(given, None)
