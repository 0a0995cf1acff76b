"""Swaps, kills and absences: what the service promises when things around it break."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import closing

import httpx
import psutil
import pytest

from ferroflow.adapters.predictions import PredictionLog
from tests.serving_toy import ROW, Server, package, promote, registry

pytestmark = pytest.mark.servers


class Hammer:
    """Threads that ask until told to stop, and keep what they were told."""

    def __init__(self, server: Server, threads: int = 3) -> None:
        self.server = server
        self.acknowledged: list[str] = []
        self.answers: Counter[tuple[str, float]] = Counter()
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Hammer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=30)

    def _run(self) -> None:
        with httpx.Client(base_url=self.server.url, timeout=10) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post("/v1/toy/predict", json={"rows": [ROW, ROW]})
                except httpx.HTTPError as error:
                    self.failures.append(type(error).__name__)
                    return
                if answer.status_code != 200:
                    self.failures.append(answer.text)
                    continue
                said = answer.json()
                self.acknowledged += said["prediction_ids"]
                for prediction in said["predictions"]:
                    self.answers[said["version"], prediction] += 1


def until(claim: object, seconds: float = 10.0) -> None:
    assert callable(claim)
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def version(server: Server) -> str:
    return str(server.predict(ROW).json()["version"])


def test_swap_under_load_fails_no_request_and_every_answer_is_of_one_version(own: Server) -> None:
    own.start()
    with Hammer(own) as hammer:
        for number in (1, 2, 3, 4):
            promote(own.home, number)
            until(lambda wanted=str(number): wanted in {name for name, _ in list(hammer.answers)})
    assert hammer.failures == []
    assert all(prediction == 37 + 100 * int(name) for name, prediction in hammer.answers)


def test_killed_under_load_every_acknowledged_prediction_is_logged_once_and_a_restart_works(own: Server) -> None:
    own.start()
    with Hammer(own) as hammer:
        until(lambda: len(hammer.acknowledged) > 40)
        own.kill()
        until(lambda: len(hammer.failures) == 3)  # each thread was cut off in the middle of its work
    logged = Counter(PredictionLog(own.home.predictions("toy")).read()["id"])
    assert set(hammer.acknowledged) <= set(logged)
    assert max(logged.values()) == 1
    own.start()
    assert server_answers(own)


def test_killed_supervisor_takes_its_worker_along(own: Server) -> None:
    own.start()
    assert own.process is not None
    workers = psutil.Process(own.process.pid).children(recursive=True)
    assert workers
    own.process.kill()
    own.process.wait(timeout=10)
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []


def server_answers(server: Server) -> bool:
    return server.predict(ROW).status_code == 200


def test_version_that_does_not_load_leaves_the_old_one_in_place_and_says_so(own: Server) -> None:
    own.start()
    fingerprint = package(own.home, 2)
    (own.home.packages("toy") / fingerprint / "model.onnx").write_bytes(b"no model")
    graph = own.home.packages("toy") / fingerprint / "model.onnx"
    with closing(registry(own.home)) as connection:
        for key, value in (("package", f"packages/toy/{fingerprint}"), ("fingerprint", fingerprint)):
            row = (f"ferroflow.{key}", value, "toy", 2)
            connection.execute("INSERT OR REPLACE INTO model_version_tags VALUES (?, ?, ?, ?)", row)
        connection.execute("UPDATE registered_model_aliases SET version = 2")
    until(lambda: "did not load" in httpx.get(f"{own.url}/readyz").text)
    assert graph.read_bytes() == b"no model"
    answer = own.predict(ROW)
    assert (answer.json()["version"], answer.json()["degraded"]) == ("1", True)
    assert "version 2 did not load" in answer.headers["x-ferroflow-degraded"]


def test_new_version_is_served_with_the_features_it_was_trained_with(own: Server) -> None:
    own.start()
    assert own.predict(ROW).json()["predictions"] == [100 + 5 + 12 + 20]
    features = own.home.root.parent / "more" / "toy" / "features.py"
    features.write_text(features.read_text().replace(".alias", ".mul(1000).alias"))
    promote(own.home, 2)
    until(lambda: version(own) == "2")
    answer = own.predict(ROW)
    assert answer.json()["predictions"] == [200 + 5 + 12_000 + 20]
    assert answer.json()["degraded"] is False


def test_registry_and_online_store_away_at_the_start_the_last_good_model_answers_degraded(own: Server) -> None:
    own.start()
    assert version(own) == "1"
    until(lambda: (own.home.last_good("toy") / "current").exists())
    own.stop()
    (own.home.mlflow / "mlflow.db").rename(own.home.root / "away.db")
    for path in own.home.online("toy").parent.iterdir():
        path.unlink()
    own.start()
    answer = own.predict(ROW)
    assert answer.json()["predictions"] == [100 + 5 + 12 + 10]
    assert answer.json()["degraded"] is True
    assert "last good" in answer.headers["x-ferroflow-degraded"]
    assert "online store away" in answer.headers["x-ferroflow-degraded"]
    (own.home.root / "away.db").rename(own.home.mlflow / "mlflow.db")
    until(lambda: httpx.get(f"{own.url}/v1/models").json()["models"][0]["degraded"] is False)


def test_log_that_cannot_be_written_acknowledges_nothing(own: Server) -> None:
    own.home.predictions("toy").parent.mkdir(parents=True)
    own.home.predictions("toy").mkdir()
    own.start()
    answer = own.predict(ROW)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert "predictions" not in answer.json()


def test_bundle_answers_alone_and_labelled(own: Server) -> None:
    bundle = own.home.root.parent / "bundle"
    fingerprint = package(own.home, 7)
    (own.home.packages("toy") / fingerprint).rename(own.home.root.parent / "packed")
    bundle.mkdir()
    (own.home.root.parent / "packed").rename(bundle / "toy")
    own.home.online("toy").rename(bundle / "toy" / "online.db")
    own.extra = {"FERROFLOW_BUNDLE": str(bundle), "FERROFLOW_HOME": str(own.home.root.parent / "nothing")}
    own.start()
    answer = own.predict(ROW)
    assert answer.json()["predictions"] == [700 + 5 + 12 + 20]
    assert answer.json()["degraded"] is True
    assert "bundle" in answer.headers["x-ferroflow-degraded"]


def test_more_requests_than_allowed_are_told_to_come_again(own: Server) -> None:
    own.extra = {"FERROFLOW_SERVICE_CONCURRENT": "1"}
    own.start()

    def slow() -> object:
        yield b'{"rows": '
        time.sleep(1.5)
        yield b"[]}"

    waiting = threading.Thread(target=lambda: httpx.post(f"{own.url}/v1/toy/predict", content=slow(), timeout=30))
    waiting.start()
    time.sleep(0.5)
    answer = own.predict(ROW)
    waiting.join()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert own.predict(ROW).status_code == 200
