"""The prediction service: one ASGI application.

``POST /v1/{pipeline}/predict``, ``POST /v1/{pipeline}/feedback``, ``GET /v1/models``,
``/reports/{pipeline}/{name}.html``, ``/livez``, ``/readyz``, ``/metrics``, ``/openapi.json`` and ``/docs``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
import polars as pl

from ferroflow.core.errors import ModelError
from serving import openapi, page, reports, requests
from serving.errors import Refused
from serving.http import Gone, Receive, Scope, Send, read_body, refuse, respond
from serving.journal import Journal, JournalFull
from serving.limits import Limits, Places
from serving.metrics import CONTENT_TYPE, Metrics
from serving.model import Answer, Model
from serving.records import log_rows
from serving.slots import Slots

logger = logging.getLogger(__name__)

_AGAIN = {"retry-after": "1"}
_ACTIONS = ("predict", "feedback")


@dataclass(frozen=True)
class Reply:
    """What a handler gives: JSON unless ``kind`` says otherwise."""

    body: bytes
    status: int = 200
    kind: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class App:
    """The application; ``start`` and ``stop`` belong to the server's own start and end."""

    def __init__(self, places: Places, limits: Limits) -> None:
        self.limits = limits
        self.metrics = Metrics()
        self.journal = Journal(places.home.predictions)
        self.slots = Slots(places, limits.poll_seconds, self._swapped)
        # The graph and Polars compute outside Python's lock; the loop stays free to take and send bytes.
        self._pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="predict")
        self._busy = 0
        self._pages: dict[str, Callable[[], Reply]] = {
            "/livez": lambda: _json({"live": True}),
            "/readyz": self._ready,
            "/metrics": self._metrics,
            "/v1/models": self._models,
            "/openapi.json": self._openapi,
            "/docs": lambda: Reply(page.HTML.encode(), kind="text/html; charset=utf-8", headers=page.HEADERS),
            "/": lambda: Reply(b"", 307, headers=(("location", "/docs"),)),
        }

    async def start(self) -> None:
        """Load models, begin to follow the registry and to write."""
        self.journal.start()
        await asyncio.to_thread(self.slots.start)

    async def stop(self) -> None:
        """Called when no request is left: what waits is written, files are closed."""
        await asyncio.to_thread(self.slots.stop)
        await asyncio.to_thread(self.journal.stop)
        self._pool.shutdown()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        begun = time.perf_counter()
        pipeline, route = "", "other"
        try:
            path, method = scope["path"], scope["method"]
            if path in self._pages:
                route = path
                reply = self._page(path, method)
            elif path.startswith(reports.PREFIX):
                route = "/reports"
                reply = await self._report(path, method)
            else:
                pipeline, route, handler = self._route(path, method)
                reply = await self._limited(handler, scope, receive, pipeline)
            headers = dict(reply.headers)
            await respond(send, reply.status, reply.body if method != "HEAD" else b"", kind=reply.kind, headers=headers)
            status = reply.status
        except Refused as error:
            status = error.status
            await refuse(receive, send, error)
        except Gone:
            status = 499
        except (Exception, pl.exceptions.PanicException) as error:  # recorded; the client learns nothing of the inside
            status = 500
            logger.exception("a request to %s failed: %s", route, type(error).__name__)
            await refuse(receive, send, Refused(500, "The service failed; its log says why."))
        self.metrics.requests.labels(pipeline, route, str(status)).inc()
        if pipeline:
            self.metrics.seconds.labels(pipeline).observe(time.perf_counter() - begun)

    def _page(self, path: str, method: str) -> Reply:
        _only_read(path, method)
        return self._pages[path]()

    async def _report(self, path: str, method: str) -> Reply:
        """A report's page, whether or not its pipeline is served now."""
        _only_read("a report", method)
        found = await asyncio.to_thread(reports.page_of, self.slots.places.home, path)
        if found is None:
            raise Refused(404, "There is no report of that name.")
        return Reply(found, kind=reports.KIND, headers=reports.HEADERS)

    def _route(self, path: str, method: str) -> tuple[str, str, _Handler]:
        """Pipeline, action and handler of ``/v1/{pipeline}/{action}``."""
        parts = path.split("/")
        if len(parts) != 4 or parts[:2] != ["", "v1"] or parts[3] not in _ACTIONS:
            raise Refused(404, "Nothing is here. See /docs.")
        if parts[2] not in self.slots.served():
            raise Refused(404, self._unknown(parts[2]))
        if method != "POST":
            raise Refused(405, f"{parts[3]} takes POST.", {"allow": "POST"})
        return parts[2], parts[3], self._predict if parts[3] == "predict" else self._feedback

    def _unknown(self, name: str) -> str:
        served = self.slots.served()
        known = f"Known: {', '.join(served)}." if served else "None is served yet: train one first."
        return f"No pipeline {name[:80]!r}. {known}"

    async def _limited(self, handler: _Handler, scope: Scope, receive: Receive, pipeline: str) -> Reply:
        """Read the body and handle it, unless too many requests are under way."""
        if self._busy >= self.limits.concurrent:
            raise Refused(503, f"More than {self.limits.concurrent} requests are under way. Come again.", _AGAIN)
        self._busy += 1
        try:
            body = await read_body(scope, receive, self.limits.body, self.limits.body_seconds)
            return await handler(pipeline, body)
        finally:
            self._busy -= 1

    async def _predict(self, pipeline: str, body: bytes) -> Reply:
        model = self._model(pipeline)
        reasons = self.slots.reasons(pipeline)
        now = datetime.now(UTC)
        loop = asyncio.get_running_loop()
        rows, answer, entries = await loop.run_in_executor(self._pool, self._compute, model, body, now, reasons)
        try:
            await self.journal.write(pipeline, entries)
        except JournalFull:
            raise Refused(503, "Too many predictions wait to be logged. Come again.", _AGAIN) from None
        except (OSError, sqlite3.Error):
            raise Refused(503, "The prediction log cannot be written, so nothing was predicted.", _AGAIN) from None
        reasons += answer.reasons
        self._count(pipeline, len(rows), answer)
        said = {
            "model": model.contract.model,
            "version": model.version,
            "prediction_ids": [entry["id"] for entry in entries],
            "predictions": [entry["prediction"] for entry in entries],
            "degraded": bool(reasons),
        }
        headers = (("x-ferroflow-degraded", "; ".join(reasons).replace("\n", " ")[:500]),) if reasons else ()
        return _json(said, headers=headers)

    def _compute(
        self, model: Model, body: bytes, now: datetime, reasons: tuple[str, ...]
    ) -> tuple[list[Any], Answer, list[dict[str, Any]]]:
        """From bytes to predictions, in a thread."""
        rows = requests.rows_of(body, self.limits.rows)
        frame = requests.typed(model.contract, rows)
        try:
            answer = model.answer(frame, now)
        except ModelError as error:
            logger.warning("%s: %s", model.contract.pipeline, str(error)[:300])
            raise Refused(422, "These values lead to no finite prediction.") from None
        return rows, answer, log_rows(model, rows, frame, answer, now, degraded=bool(reasons or answer.reasons))

    async def _feedback(self, pipeline: str, body: bytes) -> Reply:
        labels = requests.labels_of(self._model(pipeline).contract, body, 10 * self.limits.rows)
        log = self.journal.log(pipeline)
        try:
            accepted, unknown, repeated = await asyncio.to_thread(log.add_labels, labels, datetime.now(UTC))
        except (OSError, sqlite3.Error) as error:
            logger.error("labels of %s cannot be written: %s", pipeline, error)
            raise Refused(503, "The prediction log cannot be written; no label was kept.", _AGAIN) from None
        for outcome, count in (("accepted", accepted), ("unknown", len(unknown)), ("repeated", len(repeated))):
            self.metrics.labels.labels(pipeline, outcome).inc(count)
        return _json({"accepted": accepted, "unknown": unknown, "repeated": repeated})

    def _model(self, pipeline: str) -> Model:
        model = self.slots.model(pipeline)
        if model is None:
            raise Refused(404, self._unknown(pipeline))
        return model

    def _count(self, pipeline: str, rows: int, answer: Answer) -> None:
        self.metrics.rows.labels(pipeline).observe(rows)
        self.metrics.predictions.labels(pipeline).inc(rows)
        for why, counts in (("missing", answer.vectors.missing), ("stale", answer.vectors.stale)):
            for view, count in counts.items():
                self.metrics.features.labels(pipeline, view, why).inc(count)
        for view, event in answer.vectors.complete.items():
            if event is not None:
                self.metrics.complete.labels(pipeline, view).set(event / 1e6)
        for what, count in answer.cache.items():
            self.metrics.cache.labels(pipeline, what).set(count)

    def _swapped(self, pipeline: str, before: Model | None, now: Model) -> None:
        self.metrics.swaps.labels(pipeline).inc()
        if before is not None:
            self.metrics.version.labels(pipeline, before.version).set(0)
        self.metrics.version.labels(pipeline, now.version).set(1)

    def _metrics(self) -> Reply:
        for pipeline in self.slots.served():
            self.metrics.degraded.labels(pipeline).set(bool(self.slots.reasons(pipeline)))
        return Reply(self.metrics.text(), kind=CONTENT_TYPE)

    def _ready(self) -> Reply:
        """200 when every pipeline with a champion is answered for, and there is at least one."""
        told = {
            name: {"version": slot.current.version if slot.current else None, "reasons": self.slots.reasons(name)}
            for name, slot in sorted(self.slots.slots.items())
        }
        ready = bool(told) and all(slot.current is not None for slot in self.slots.slots.values())
        registry = self.slots.trouble or "answers"
        return _json({"ready": ready, "registry": registry, "pipelines": told}, status=200 if ready else 503)

    def _models(self) -> Reply:
        models = [self._described(name, model) for name, model in self.slots.served().items()]
        return _json({"models": models})

    def _described(self, pipeline: str, model: Model) -> dict[str, Any]:
        contract, reasons = model.contract, self.slots.reasons(pipeline)
        return {
            "pipeline": pipeline,
            "model": contract.model,
            "version": model.version,
            "fingerprint": contract.fingerprint,
            "source": model.source,
            "loaded_at": model.loaded_at.isoformat(),
            "degraded": bool(reasons),
            "reasons": reasons,
            "task": contract.task,
            "target": contract.target,
            "fields": [entry.model_dump(exclude_none=True) for entry in contract.fields],
        }

    def _openapi(self) -> Reply:
        contracts = {name: model.contract for name, model in self.slots.served().items()}
        return _json(openapi.document(contracts, self.limits))


_Handler = Callable[[str, bytes], Awaitable[Reply]]


def _only_read(what: str, method: str) -> None:
    if method not in ("GET", "HEAD"):
        raise Refused(405, f"{what} takes GET.", {"allow": "GET, HEAD"})


def _json(content: Any, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    return Reply(orjson.dumps(content), status, headers=headers)
