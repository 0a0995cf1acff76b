"""Redis and PostgreSQL for the length of a block, each in a folder of its own, from Debian's packages."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_WAIT = 60.0
_USER = "feast"


@contextmanager
def redis_url() -> Iterator[str]:
    """Run Redis without persistence; give its address."""
    import redis

    program, port = _program("redis-server", "redis-server"), _free_port()
    with _folder(None) as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        with _running(command, folder, None, redis.Redis(port=port).ping):
            yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def postgres_url() -> Iterator[str]:
    """Run PostgreSQL as it is installed; give the address of a database of its own."""
    import psycopg

    program, port, user = Path(_program("postgres", "postgresql")).resolve(), _free_port(), _unprivileged()
    with _folder(user) as folder:
        data = str(folder / "data")
        made = [str(program.with_name("initdb")), "-D", data, "-U", _USER, "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(made, cwd=folder, user=user, check=True, capture_output=True)
        url = f"postgresql://{_USER}@127.0.0.1:{port}/postgres"
        command = [str(program), "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", str(folder)]
        with _running(command, folder, user, lambda: psycopg.connect(url, connect_timeout=2).close()):
            yield url


def _program(name: str, package: str) -> str:
    kept = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(kept[-1]) if kept else None)
    if found is None:
        raise RuntimeError(f"{name} is missing: apt-get install {package}")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _unprivileged() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    return "postgres" if "postgres" in {entry.pw_name for entry in pwd.getpwall()} else "nobody"


@contextmanager
def _folder(user: str | None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ffb", dir="/tmp"))  # short: a socket's path has few characters
    try:
        if user is not None:
            shutil.chown(folder, user)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(command: Sequence[str], folder: Path, user: str | None, asked: Callable[[], object]) -> Iterator[None]:
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, user=user, stdout=log, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + _WAIT
        while not _answers(asked):
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command[0]} did not start:\n{(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _answers(asked: Callable[[], object]) -> bool:
    import psycopg
    import redis

    try:
        asked()
    except (redis.RedisError, psycopg.Error, OSError):
        return False
    return True
