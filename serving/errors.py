"""What the service refuses, as the client is told: a status and one JSON object, never a traceback."""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """A request that cannot be answered.

    Args:
        status: the HTTP status.
        message: what was expected, what came, and the way out.
        headers: further response headers.
        detail: where it is wrong: ``row``, ``field``, ``value``.
    """

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None, **detail: Any) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        self.body: dict[str, Any] = {"error": {**detail, "message": message}}
