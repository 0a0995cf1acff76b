"""A server that says the same bytes to everybody, whatever was asked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
GARBAGE = (
    b"220 mail.example ESMTP\r\n",  # another protocol: BadStatusLine
    b"",  # RemoteDisconnected
    HEAD + b"<html>",
    HEAD + b"[]",
    HEAD + b"3",
    HEAD + b'{"registered_models": [{"aliases": [{"alias": "champion"}]}], "model_version": {}}',
    HEAD + b'{"registered_models": 3, "model_version": []}',
    b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n[]",
    b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{",  # cut off
)


@dataclass
class Parrot:
    """Where it listens, and what it heard."""

    port: int
    heard: list[bytes] = field(default_factory=list)


@contextmanager
def answering(answer: bytes) -> Iterator[Parrot]:
    """Say ``answer`` to every connection while the block runs."""
    with socket.create_server(("127.0.0.1", 0)) as place:
        parrot = Parrot(place.getsockname()[1])

        def run() -> None:
            while True:
                try:
                    line, _ = place.accept()
                except OSError:  # closed: the block is over
                    return
                with line:
                    parrot.heard.append(line.recv(65_536))
                    if parrot.heard[-1]:
                        line.sendall(answer)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield parrot
        place.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=10)
