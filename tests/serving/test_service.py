"""The running service, over HTTP: what it answers, and what it refuses."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from ferroflow.adapters.predictions import PredictionLog
from tests.serving_toy import NOON, ROW, Server

pytestmark = pytest.mark.servers


def refused(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, Any] = answer.json()["error"]
    assert error["message"]
    return error


def test_answer_has_exactly_the_promised_keys_and_stored_features_are_looked_up(server: Server) -> None:
    answer = server.predict(ROW)
    assert answer.status_code == 200
    assert list(answer.json()) == ["model", "version", "prediction_ids", "predictions", "degraded"]
    assert answer.json()["predictions"] == [100 + 2 * 2.5 + 12 + 20]
    assert answer.json()["degraded"] is False
    assert answer.json()["version"] == "1"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({**ROW, "zone": 2}, "older than its time-to-live"),
        ({**ROW, "zone": 3}, "unknown entity"),
        ({**ROW, "asked_at": "2023-03-01T12:59:59+01:00"}, "available only after the event time"),
    ],
)
def test_stored_value_outside_its_time_to_live_counts_as_missing(server: Server, row: dict[str, Any], why: str) -> None:
    hour = 11 if "+01:00" in row["asked_at"] else 12
    assert server.predict(row).json()["predictions"] == [100 + 2 * 2.5 + hour + 10], why


def test_prediction_is_in_the_log_with_the_vector_the_model_was_fed(server: Server) -> None:
    [name] = server.predict({**ROW, "distance": 0.1}).json()["prediction_ids"]
    row = PredictionLog(server.home.predictions("toy")).get(name)
    assert row is not None
    assert json.loads(row["inputs"]) == {**ROW, "distance": 0.1}
    features = json.loads(row["features"])
    assert list(features) == ["zone", "distance", "colour", "hour", "zone_hour__mean"]
    assert features["distance"] == pytest.approx(0.1, rel=1e-7)
    assert features["distance"] != 0.1, "the graph's own float32 value is logged"
    assert row["event_time"].isoformat() == "2023-03-01T12:30:00+00:00"
    assert json.loads(row["watermarks"]) == {"zone_hour": [int(NOON.timestamp() * 1e6), None]}


def test_ids_sort_by_time(server: Server) -> None:
    names = [server.predict(ROW).json()["prediction_ids"][0] for _ in range(5)]
    assert len({*names}) == 5
    assert [name[:12] for name in names] == sorted(name[:12] for name in names)


WITHOUT = {name: value for name, value in ROW.items() if name != "distance"}


@pytest.mark.parametrize(
    ("rows", "field"),
    [
        ([{**ROW, "zone": 999}], "zone"),
        ([WITHOUT], "distance"),
        ([{**ROW, "tip": 3}], "tip"),
        ([{**ROW, "distance": "2.5"}], "distance"),
        ([{**ROW, "distance": True}], "distance"),
        ([{**ROW, "distance": None}], "distance"),
        ([{**ROW, "distance": 1e39}], "distance"),
        ([{**ROW, "distance": -1}], "distance"),
        ([{**ROW, "distance": [1]}], "distance"),
        ([{**ROW, "zone": 1.5}], "zone"),
        ([{**ROW, "zone": 10**30}], "zone"),
        ([{**ROW, "colour": "blue"}], "colour"),
        ([{**ROW, "colour": 7}], "colour"),
        ([{**ROW, "asked_at": "yesterday"}], "asked_at"),
        ([{**ROW, "asked_at": 1677672000}], "asked_at"),
        ([{**ROW, "asked_at": "0001-01-01T00:00:00+14:00"}], "asked_at"),
        ([{**ROW, "asked_at": "2023-02-30T00:00:00"}], "asked_at"),
    ],
)
def test_wrong_cell_is_refused_with_its_row_and_field(server: Server, rows: list[Any], field: str) -> None:
    good = {**ROW, "distance": 7.25}
    error = refused(server.predict(good, *rows), 422)
    assert (error["row"], error["field"]) == (1, field)
    assert "7.25" not in json.dumps(error), "other rows' values are nobody's business"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"rows", 400),
        (b'{"rows": [{"distance": NaN}]}', 400),
        (b'{"rows": [{"distance": Infinity}]}', 400),
        (b'{"rows": [\xff]}', 400),
        (b"[" * 5_000, 400),
        (b"[]", 422),
        (b"null", 422),
        (b'{"rows": []}', 422),
        (b'{"rows": {}}', 422),
        (b'{"rows": [1]}', 422),
        (b'{"rows": [{}], "more": 1}', 422),
        (json.dumps({"rows": [ROW]}).replace("2.5", "1e400").encode(), 400),
        (json.dumps({"rows": [ROW] * 1_001}).encode(), 413),
    ],
)
def test_body_of_another_form_is_refused(server: Server, body: bytes, status: int) -> None:
    refused(httpx.post(f"{server.url}/v1/toy/predict", content=body), status)


def test_finite_number_that_overflows_inside_the_model_is_the_clients_error(server: Server) -> None:
    refused(server.predict({**ROW, "distance": 3.3e38}), 422)


def test_unknown_pipeline_is_told_the_known_ones(server: Server) -> None:
    assert "toy" in refused(server.predict(ROW, pipeline="taxy"), 404)["message"]


@pytest.mark.parametrize("path", ["/v1/toy/predict", "/v1/toy/feedback"])
def test_wrong_method_is_told_the_right_one(server: Server, path: str) -> None:
    answer = httpx.get(server.url + path)
    refused(answer, 405)
    assert answer.headers["allow"] == "POST"


def test_fifty_megabytes_are_refused_and_the_client_reads_why(server: Server) -> None:
    body = b'{"rows": [' + b" " * 50_000_000
    error = refused(httpx.post(f"{server.url}/v1/toy/predict", content=body, timeout=30), 413)
    assert "1048576" in error["message"]


def test_fifty_megabytes_in_pieces_of_unknown_number_are_refused(server: Server) -> None:
    pieces = (b" " * 1_000_000 for _ in range(50))
    refused(httpx.post(f"{server.url}/v1/toy/predict", content=pieces, timeout=30), 413)


def test_announced_size_is_refused_before_it_is_sent(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as line:
        line.sendall(b"POST /v1/toy/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 52428800\r\n\r\n")
        assert line.recv(100).startswith(b"HTTP/1.1 413")


def test_labels_come_back_once_and_unknown_ids_are_told(server: Server) -> None:
    first, second = server.predict(ROW, ROW).json()["prediction_ids"]

    def told(*labels: tuple[str, Any]) -> httpx.Response:
        entries = [{"prediction_id": name, "value": value} for name, value in labels]
        return httpx.post(f"{server.url}/v1/toy/feedback", json={"labels": entries})

    assert told((first, 12.5), ("nobody", 1)).json() == {"accepted": 1, "unknown": ["nobody"], "repeated": []}
    assert told((first, 99), (second, 1)).json() == {"accepted": 1, "unknown": [], "repeated": [first]}
    row = PredictionLog(server.home.predictions("toy")).get(first)
    assert row is not None and row["label"] == 12.5
    assert refused(told((first, "12")), 422)["field"] == "value"
    assert refused(told((first, None)), 422)["field"] == "value"


def test_probes_models_and_metrics_are_ours(server: Server) -> None:
    assert httpx.get(f"{server.url}/livez").json() == {"live": True}
    assert httpx.get(f"{server.url}/readyz").json()["pipelines"] == {"toy": {"version": "1", "reasons": []}}
    [model] = httpx.get(f"{server.url}/v1/models").json()["models"]
    assert (model["pipeline"], model["version"], model["degraded"]) == ("toy", "1", False)
    server.predict(ROW)
    text = httpx.get(f"{server.url}/metrics").text
    assert re.search(r'ferroflow_requests_total\{pipeline="toy",route="predict",status="200"\} \d', text)
    [complete] = re.findall(r'ferroflow_features_complete_until_seconds\{pipeline="toy",view="zone_hour"\} (\S+)', text)
    assert float(complete) == NOON.timestamp()
    assert "no-such-path" not in httpx.get(f"{server.url}/no-such-path").text + text


def test_openapi_is_typed_by_the_contract_and_its_own_example_is_answered(server: Server) -> None:
    document = httpx.get(f"{server.url}/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    row = document["components"]["schemas"]["toy.Row"]
    assert row["properties"]["zone"] == {
        "type": "integer",
        "examples": [133],
        "description": "Taxi zone.",
        "minimum": 1.0,
        "maximum": 265.0,
    }
    media = document["paths"]["/v1/toy/predict"]["post"]["requestBody"]["content"]["application/json"]
    whole = Draft202012Validator({**media["schema"], "components": document["components"]})
    whole.validate(media["example"])
    assert not whole.is_valid({"rows": [{**ROW, "zone": "1"}]})
    answer = httpx.post(f"{server.url}/v1/toy/predict", json=media["example"])
    Draft202012Validator(document["components"]["schemas"]["Prediction"]).validate(answer.json())


@pytest.fixture(scope="module")
def report(server: Server) -> str:
    """A report's page, with secrets around it."""
    folder = server.home.reports("toy")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "2023-04-01T0400-ab12.html").write_text("<script>1</script>")
    (folder / ".hidden.html").write_text("secret")
    (folder / "data.json").write_text("secret")
    (folder.parent / "outside.html").write_text("secret")
    (folder / "link.html").symlink_to(folder.parent / "outside.html")
    (folder / "folder.html").mkdir(exist_ok=True)
    return "/reports/toy/2023-04-01T0400-ab12.html"


def test_report_page_is_shown_without_an_origin(server: Server, report: str) -> None:
    answer = httpx.get(server.url + report)
    assert (answer.status_code, answer.text) == (200, "<script>1</script>")
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"] == "sandbox allow-scripts"
    assert answer.headers["x-content-type-options"] == "nosniff"
    head = httpx.head(server.url + report)
    assert (head.status_code, head.content) == (200, b"")
    assert refused(httpx.post(server.url + report), 405)
    [operation] = httpx.get(f"{server.url}/openapi.json").json()["paths"]["/reports/{pipeline}/{file}"].values()
    assert [entry["name"] for entry in operation["parameters"]] == ["pipeline", "file"]


@pytest.mark.parametrize(
    "path",
    [
        "/reports/toy/none.html",
        "/reports/toy/data.json",
        "/reports/toy/.hidden.html",
        "/reports/toy/link.html",
        "/reports/toy/folder.html",
        "/reports/../reports/outside.html",
        "/reports/./outside.html",
        "/reports/toy/../outside.html",
        "/reports/toy/..%2foutside.html",
        "/reports/toy/%2e%2e/outside.html",
        "/reports/toy/..%5coutside.html",
        "/reports/toy//outside.html",
        "/reports//outside.html",
        "/reports/%2e%2e/outside.html",
        "/reports/outside.html",
        "/reports/toy/2023-04-01T0400-ab12.html%00",
        "/reports/toy/2023-04-01T0400-ab12.html%0a",
        "/reports/toy/" + "a" * 3_000 + ".html",
        "/reports/",
    ],
)
def test_no_path_leads_out_of_the_reports(server: Server, report: str, path: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as line:  # no client tidies the path up
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: line.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 404"), answer[:200]
    assert b"secret" not in answer


def test_documentation_page_loads_nothing_from_outside(server: Server) -> None:
    answer = httpx.get(f"{server.url}/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.search(r"(src|href)=\"(https?:)?//", answer.text)
