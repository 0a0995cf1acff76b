"""The process: ``bentoml serve serving.service:Service --host 127.0.0.1 --port 3000``.

Our application answers outside BentoML's middleware, which costs more than these models do and would put its own
``/livez``, ``/readyz``, ``/metrics`` and documentation page (which loads a script from elsewhere) before ours.
BentoML keeps the process: workers, signals, draining, packing.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import bentoml
from _bentoml_sdk.service.factory import Service as _BentoService

from serving.app import App
from serving.http import Receive, Scope, Send
from serving.limits import load_limits, load_places, workers

logging.getLogger("serving").setLevel(logging.INFO)


_PARENT_SECONDS = 1.0


def _end_with_parent() -> None:
    """End this worker when its supervisor is gone: a killed supervisor would leave it on the port for ever.

    BentoML puts each worker in a process group of its own, so that killing the supervisor's group does not reach it.
    """
    parent = os.getppid()
    if Path(sys.argv[0]).parts[-2:] != ("worker", "service.py"):
        return  # not a supervised worker: whoever imports the service looks after it

    def watch() -> None:
        while os.getppid() == parent:
            threading.Event().wait(_PARENT_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


class _Outer:
    """Takes all HTTP requests; what is left (the server's start and end) goes to BentoML."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and Service.inner.app is not None:
            await Service.inner.app(scope, receive, send)
        else:
            await self._inner(scope, receive, send)


class _Direct(_BentoService):  # type: ignore[misc, type-arg, unused-ignore]
    """BentoML's service with our application around its own. Private to BentoML: pinned, and held by a test."""

    __slots__ = ()

    def to_asgi(self, *arguments: Any, **named: Any) -> Any:
        return _Outer(super().to_asgi(*arguments, **named))


@bentoml.service(
    name="ferroflow",
    workers=workers(),
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
    metrics={"enabled": False},
)
class Service:
    """Starts and ends the application with the process."""

    app: App | None = None

    @bentoml.on_startup
    async def begin(self) -> None:
        """Load the models before the first request."""
        _end_with_parent()
        application = App(load_places(), load_limits())
        await application.start()
        type(self).app = application

    @bentoml.on_shutdown
    async def end(self) -> None:
        """Write what waits; the server has drained its requests by then."""
        if (application := type(self).app) is not None:
            await application.stop()


Service.__class__ = _Direct
