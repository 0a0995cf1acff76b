"""Replay over HTTP: real requests in time order, labels afterwards, and a load that keeps running during a swap."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import polars as pl

from ferroflow.core.spec import PipelineSpec

BATCH = 50  # rows a request: a small team's client sends several at once


@dataclass
class Replay:
    """A client of the prediction service that counts what it sends."""

    spec: PipelineSpec
    address: str
    requests: int = 0
    failed: int = 0
    rows: dict[str, str] = field(default_factory=dict)  # prediction id -> row id
    errors: list[str] = field(default_factory=list)

    def predict(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Ask for all rows, in order; gives ``row_id, prediction_id, prediction, version``."""
        answers: list[dict[str, Any]] = []
        with httpx.Client(base_url=self.address, timeout=30) as client:
            for batch in rows.iter_slices(BATCH):
                answers += self._ask(client, batch)
        schema = {"row_id": pl.String, "prediction_id": pl.String, "prediction": pl.Float64, "version": pl.String}
        found = pl.DataFrame(answers, schema=schema)
        self.rows.update(zip(found["prediction_id"], found["row_id"], strict=True))
        return found

    def _ask(self, client: httpx.Client, batch: pl.DataFrame) -> list[dict[str, Any]]:
        self.requests += 1
        try:
            answer = client.post(f"/v1/{self.spec.name}/predict", content=_body(self.spec, batch), headers=_JSON)
        except httpx.HTTPError as error:
            return self._fail(f"{type(error).__name__}: {error}")
        if answer.status_code != 200:
            return self._fail(f"{answer.status_code}: {answer.text[:300]}")
        body = answer.json()
        pairs = zip(batch["row_id"], body["prediction_ids"], body["predictions"], strict=True)
        return [
            {"row_id": row, "prediction_id": name, "prediction": value, "version": body["version"]}
            for row, name, value in pairs
        ]

    def _fail(self, why: str) -> list[dict[str, Any]]:
        self.failed += 1
        self.errors.append(why)
        return []

    def feedback(self, answers: pl.DataFrame, rows: pl.DataFrame) -> Counter[str]:
        """Send the labels of answered rows back; counts accepted, unknown and repeated ones."""
        told: Counter[str] = Counter()
        labels = answers.join(rows.select("row_id", pl.col(self.spec.target.column).alias("value")), on="row_id")
        with httpx.Client(base_url=self.address, timeout=30) as client:
            for batch in labels.select("prediction_id", "value").iter_slices(500):
                answer = client.post(f"/v1/{self.spec.name}/feedback", json={"labels": batch.to_dicts()})
                answer.raise_for_status()
                body = answer.json()
                told["accepted"] += body["accepted"]
                told["unknown"] += len(body["unknown"])
                told["repeated"] += len(body["repeated"])
        return told


_JSON = {"content-type": "application/json"}


def _body(spec: PipelineSpec, batch: pl.DataFrame) -> bytes:
    return orjson.dumps({"rows": batch.select(spec.inputs).to_dicts()}, option=orjson.OPT_UTC_Z)


class Load:
    """A thread that goes on asking until told to stop; counts requests, failures and the versions that answered."""

    def __init__(self, spec: PipelineSpec, address: str, rows: pl.DataFrame, pause: float = 0.02) -> None:
        self.requests = 0
        self.failed = 0
        self.errors: list[str] = []
        self.versions: Counter[str] = Counter()
        self._url = f"{address}/v1/{spec.name}/predict"
        self._bodies = [_body(spec, batch) for batch in rows.iter_slices(BATCH)]
        self._pause = pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)

    def _cycle(self) -> Iterator[bytes]:
        while not self._stop.is_set():
            yield from self._bodies

    def _run(self) -> None:
        with httpx.Client(timeout=30) as client:
            for body in self._cycle():
                if self._stop.wait(self._pause):
                    return
                self.requests += 1
                try:
                    answer = client.post(self._url, content=body, headers=_JSON)
                except httpx.HTTPError as error:
                    self._fail(f"{type(error).__name__}: {error}")
                    continue
                if answer.status_code == 200:
                    self.versions[answer.json()["version"]] += 1
                else:
                    self._fail(f"{answer.status_code}: {answer.text[:300]}")

    def _fail(self, why: str) -> None:
        self.failed += 1
        self.errors.append(why)


def wait_until_served(address: str, pipeline: str, version: str, deadline: float, clock: Any) -> bool:
    """Wait until that version answers; False when it does not before ``clock()`` passes ``deadline``."""
    with httpx.Client(base_url=address, timeout=10) as client:
        while clock() < deadline:
            try:
                body = client.get("/v1/models").json()
            except (httpx.HTTPError, ValueError):
                body = {}
            if _serves(body, pipeline) == version:
                return True
            threading.Event().wait(0.3)
    return False


def _serves(body: dict[str, Any], pipeline: str) -> str | None:
    for entry in body.get("models", []):
        if entry.get("pipeline") == pipeline:
            return str(entry.get("version"))
    return None
