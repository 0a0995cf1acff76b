from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ferroflow.adapters import registry
from ferroflow.adapters.champion import ChampionReader
from ferroflow.adapters.home import Home
from ferroflow.core.errors import RegistryError
from tests.garbage import GARBAGE, HEAD, answering
from tests.serving_toy import free_port

TAGS = {"ferroflow.package": "packages/toy/f1", "ferroflow.fingerprint": "f1", "ferroflow.reference": "r.parquet"}


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """``toy`` has a champion, ``young`` only a version."""
    home = Home(tmp_path_factory.mktemp("champion") / "home")
    client = registry.client(home)
    for name in ("toy", "young"):
        client.create_registered_model(name)
        client.create_model_version(name, "file:///somewhere", tags=TAGS)
    client.set_registered_model_alias("toy", "champion", "1")
    return home


@pytest.fixture(scope="module")
def server(used: Home) -> Iterator[str]:
    port = free_port()
    place = f"sqlite:///{used.mlflow / 'mlflow.db'}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", place, "--workers", "1"]
    with (used.root / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=used.root,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield _awaited(f"http://127.0.0.1:{port}", used.root / "log")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def _awaited(url: str, log: Path) -> str:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return url
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(log.read_text()[-2000:])


@pytest.mark.servers
def test_a_server_and_its_database_give_the_same_champion(used: Home, server: str) -> None:
    near, far = ChampionReader(used.root), ChampionReader(used.root, server, timeout=20)
    assert far.read("toy") == near.read("toy")
    assert far.read("toy") is not None
    assert (far.read("young"), near.read("young")) == (None, None)
    assert (far.read("nobody"), near.read("nobody")) == (None, None)
    assert far.pipelines() == near.pipelines() == ["toy"]


def test_a_registry_that_is_away_is_an_error_and_not_the_absence_of_a_champion(home: Home) -> None:
    with pytest.raises(RegistryError, match="does not answer"):
        ChampionReader(home.root, f"http://127.0.0.1:{free_port()}").read("toy")
    with pytest.raises(RegistryError, match="cannot be read"):
        ChampionReader(home.root).pipelines()
    with pytest.raises(RegistryError, match="FERROFLOW_TRACKING_URI"):
        ChampionReader(home.root, "postgresql://user:secret@host/db").read("toy")


@pytest.mark.parametrize("answer", GARBAGE)
def test_garbage_is_a_registry_that_is_away_and_nobody_learns_the_password(home: Home, answer: bytes) -> None:
    with answering(answer) as parrot:
        reader = ChampionReader(home.root, f"http://me:s3cret@127.0.0.1:{parrot.port}/?token=s3cret")
        for ask in (reader.pipelines, lambda: reader.read("toy")):
            with pytest.raises(RegistryError, match=f"http://127.0.0.1:{parrot.port}/") as told:
                ask()
            assert "s3cret" not in str(told.value)


def test_user_name_and_password_of_the_address_are_sent_as_basic_authorization(home: Home) -> None:
    with answering(HEAD + b"{}") as parrot:
        assert ChampionReader(home.root, f"http://me:s3%40cret@127.0.0.1:{parrot.port}").pipelines() == []
    assert b"Authorization: Basic bWU6czNAY3JldA==" in parrot.heard[-1]


def test_reading_the_champion_loads_no_mlflow(used: Home) -> None:
    code = (
        "import sys; from pathlib import Path; from ferroflow.adapters.champion import ChampionReader\n"
        f"assert ChampionReader(Path({str(used.root)!r})).read('toy').version == '1'\n"
        "print([name for name in ('mlflow', 'sqlalchemy', 'pandas', 'polars') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
