"""Real servers for tests: Redis, PostgreSQL and MariaDB, each on a free port of loopback, in a folder of its own.

A server whose program is missing skips the tests that need it, with the Debian package to install.
"""

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
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest

PASSWORD = "tr0ub4dor&3"
"""Of the user ``shop`` of PostgreSQL and MariaDB: in addresses it is written ``tr0ub4dor%263``."""
QUOTED = "tr0ub4dor%263"
_WAIT = 60.0


@contextmanager
def redis_server(port: int | None = None, kept: Path | None = None) -> Iterator[int]:
    """Run Redis; give its port. With a folder ``kept`` it writes each command there, and reads them when it starts."""
    program = _program("redis-server", "redis-server")
    port = port or free_port()
    with _folder(None) as folder:
        options = ["--port", port, "--bind", "127.0.0.1", "--dir", kept or folder, "--save", ""]
        options += ["--appendonly", "yes" if kept else "no", "--appendfsync", "always"]
        with _running([program, *options], folder, lambda: _says(port, b"PING\r\n", b"+PONG")):
            yield port


@contextmanager
def postgres_server(certificate: tuple[Path, Path] | None = None) -> Iterator[str]:
    """Run PostgreSQL; give the address of its database ``shop``, owned by the user ``shop`` with its password.

    With a certificate and its key it also speaks TLS.
    """
    program = Path(_program("postgres", "postgresql")).resolve()  # its own tools lie beside it
    user = _unprivileged("postgres")
    port = free_port()
    with _folder(user) as folder:
        secret = folder / "password"
        secret.write_text(PASSWORD)
        _own(secret, user)
        initdb = [program.with_name("initdb"), "-D", folder / "data", "-U", "shop", "-A", "scram-sha-256"]
        _done([*initdb, "--pwfile", secret, "-E", "UTF8", "--locale", "C.UTF-8", "--no-sync"], folder, user)
        options = ["-D", folder / "data", "-p", port, "-h", "127.0.0.1", "-k", folder, "-F"]
        if certificate is not None:
            shown, key = [shutil.copy(path, folder) for path in certificate]
            _own(Path(key), user)
            options += ["-c", "ssl=on", "-c", f"ssl_cert_file={shown}", "-c", f"ssl_key_file={key}"]
        command = [program, *options]
        environment = {"PGPASSWORD": PASSWORD}

        def psql(database: str, statement: str) -> bool:
            client = [program.with_name("psql"), "-h", "127.0.0.1", "-p", port, "-U", "shop", "-d", database]
            return _succeeds([*client, "-c", statement], folder, environment)

        with _running(command, folder, lambda: psql("postgres", "SELECT 1"), user):
            assert psql("postgres", "CREATE DATABASE shop")
            yield f"postgresql://shop:{QUOTED}@127.0.0.1:{port}/shop"


@contextmanager
def redis_over_tls(certificate: Path, key: Path) -> Iterator[int]:
    """Run a Redis that shows a certificate; give the port on which it speaks TLS alone."""
    program = _program("redis-server", "redis-server")
    port, plain = free_port(), free_port()
    with _folder(None) as folder:
        options = ["--bind", "127.0.0.1", "--dir", folder, "--save", "", "--port", plain, "--tls-port", port]
        options += ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-auth-clients", "no"]
        with _running([program, *options], folder, lambda: _says(plain, b"PING\r\n", b"+PONG")):
            yield port


def certificate_of_loopback(folder: Path) -> tuple[Path, Path]:
    """Write a certificate of 127.0.0.1, signed by itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    places = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
    made = made.add_extension(places, critical=False).add_extension(x509.BasicConstraints(True, None), critical=True)
    folder.mkdir()
    certificate, secret = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    secret.chmod(0o600)
    return certificate, secret


@contextmanager
def mariadb_server() -> Iterator[tuple[str, Callable[[str], str]]]:
    """Run MariaDB; give the address of its database ``shop`` as user ``shop``, and a client that runs SQL as root."""
    program = _program("mariadbd", "mariadb-server")
    client = _program("mariadb", "mariadb-client")
    user = _unprivileged("mysql")
    port = free_port()
    with _folder(user) as folder:
        data, place = folder / "data", folder / "s.sock"
        install = [_program("mariadb-install-db", "mariadb-server"), "--no-defaults", f"--datadir={data}"]
        _done([*install, "--auth-root-authentication-method=normal", "--skip-test-db"], folder, user)
        options = [f"--datadir={data}", f"--port={port}", "--bind-address=127.0.0.1", f"--socket={place}"]
        options += [f"--pid-file={folder / 'pid'}", "--innodb-flush-log-at-trx-commit=0", "--skip-log-bin"]

        def sql(statements: str) -> str:
            command = [client, "--no-defaults", f"--socket={place}", "-u", "root", "--default-character-set=utf8mb4"]
            return _done([*command, "-N", "-e", statements], folder)

        def answers() -> bool:
            return _succeeds([client, "--no-defaults", f"--socket={place}", "-u", "root", "-e", "SELECT 1"], folder)

        with _running([program, "--no-defaults", *options], folder, answers, user):
            sql(
                "CREATE DATABASE shop CHARACTER SET utf8mb4; "
                f"CREATE USER shop@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON shop.* TO shop@'127.0.0.1'"
            )
            yield f"mysql://shop:{QUOTED}@127.0.0.1:{port}/shop", lambda text: sql(f"USE shop; {text}")


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _program(name: str, package: str) -> str:
    """The path of a program; the newest one where Debian keeps several versions."""
    kept = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin") or (str(kept[-1]) if kept else None)
    if found is None:
        pytest.skip(f"{name} is missing: apt-get install {package}")
    return found


def _unprivileged(name: str) -> str | None:
    """The user a server runs as: databases refuse root; None: whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return name if name in known else "nobody"


@contextmanager
def _folder(user: str | None) -> Iterator[Path]:
    """A short folder (a socket's path has few characters) that ``user`` owns, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="ff", dir="/tmp"))
    try:
        _own(folder, user)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _own(path: Path, user: str | None) -> None:
    if user is not None:
        shutil.chown(path, user)


@contextmanager
def _running(
    command: Sequence[object], folder: Path, ready: Callable[[], bool], user: str | None = None
) -> Iterator[None]:
    """Run a server until the block ends; it is asked every tenth of a second whether it is ready."""
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [str(word) for word in command], stdout=log, stderr=subprocess.STDOUT, cwd=folder, user=user
        )
    try:
        until = time.monotonic() + _WAIT
        while not ready():
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command[0]} did not start:\n{(folder / 'log').read_text()[-3000:]}")
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _done(command: Sequence[object], folder: Path, user: str | None = None) -> str:
    done = subprocess.run([str(word) for word in command], cwd=folder, user=user, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _succeeds(command: Sequence[object], folder: Path, environment: dict[str, str] | None = None) -> bool:
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, capture_output=True, env=os.environ | (environment or {})
    )
    return done.returncode == 0


def _says(port: int, ask: bytes, answer: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(ask)
            return connection.recv(64).startswith(answer)
    except OSError:
        return False
