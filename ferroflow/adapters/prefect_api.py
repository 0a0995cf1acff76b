"""The few calls to a Prefect server's REST API that need no Prefect client: it costs two seconds to import."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from ferroflow.core.errors import ServiceError

POOL = "ferroflow"
PATIENCE = 90.0
"""Seconds for an answer. On SQLite a Prefect server waits 60 s for the lock on its file, and often says 503 earlier."""
_GLANCE = 10.0  # seconds for an answer that is asked for again and again


class _Patient(httpx.HTTPTransport):
    """Asks again after 503, which a server on SQLite says while its file is locked by itself.

    All attempts together take as long as the request may wait for an answer.
    """

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The first answer other than 503; else the last."""
        limits = request.extensions["timeout"]
        deadline, pause = time.monotonic() + limits["read"], 0.1
        while True:
            left = max(deadline - time.monotonic(), 0.1)
            request.extensions = {**request.extensions, "timeout": {**limits, "read": left}}
            answer = super().handle_request(request)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() + pause > deadline:
                return answer
            answer.close()
            time.sleep(pause)
            pause = min(2 * pause, 2.0)


class PrefectApi:
    """A server's API at ``url`` (``http://127.0.0.1:4200/api``), which has ``patience`` seconds for each answer."""

    def __init__(self, url: str, patience: float = PATIENCE) -> None:
        self.url = url.rstrip("/")
        timeout = httpx.Timeout(patience, connect=5.0)
        self._client = httpx.Client(base_url=self.url, timeout=timeout, transport=_Patient())

    def make_pool(self) -> None:
        """Make the work pool, if it is not there. Its template comes from the first worker."""
        with self._told("make the work pool"):
            answer = self._client.post("/work_pools/", json={"name": POOL, "type": "process"})
            if answer.status_code != 409:
                answer.raise_for_status()

    def workers(self) -> list[str]:
        """The names of the workers that are online."""
        try:
            answer = self._client.post(f"/work_pools/{POOL}/workers/filter", json={}, timeout=_GLANCE)
        except httpx.HTTPError:
            return []
        if answer.status_code != 200:
            return []
        return [worker["name"] for worker in answer.json() if worker["status"] == "ONLINE"]

    def deployments(self) -> list[str]:
        """The deployments as ``flow/deployment``, sorted."""
        with self._told("list the deployments"):
            flows = {flow["id"]: flow["name"] for flow in self._post("/flows/filter", {})}
            found = self._post("/deployments/filter", {})
            return sorted(f"{flows[entry['flow_id']]}/{entry['name']}" for entry in found)

    def apply_automation(self, automation: dict[str, Any]) -> str:
        """Make an automation, or bring the one of that name to this form; gives its id."""
        with self._told(f"apply the automation {automation['name']!r}"):
            named = {"automations": {"name": {"any_": [automation["name"]]}}}
            known = self._post("/automations/filter", named)
            if known:
                self._client.put(f"/automations/{known[0]['id']}", json=automation).raise_for_status()
                return str(known[0]["id"])
            return str(self._post("/automations/", automation)["id"])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._client.post(path, json=body).raise_for_status().json()

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPStatusError as error:
            said = f"{error.response.status_code} {error.response.text[:300]}"
            raise ServiceError(f"Prefect at {self.url} would not {what}: {said}") from error
        except httpx.HTTPError as error:
            raise ServiceError(f"Prefect at {self.url} did not answer to {what}: {error}. Is it up?") from error
