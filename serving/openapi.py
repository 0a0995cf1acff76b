"""The OpenAPI 3.1 document, typed for each pipeline by its contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ferroflow.core.contract import Field, ServingContract
from serving import reports
from serving.limits import Limits
from serving.model import example

_TYPES = {"number": "number", "integer": "integer", "text": "string", "time": "string"}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message"],
            "properties": {
                "message": {"type": "string", "description": "What was expected, what came, and the way out."},
                "row": {"type": "integer", "description": "Position of the row that is wrong."},
                "field": {"type": "string"},
                "value": {"description": "What came."},
            },
        }
    },
}
_REFUSALS = {
    "400": "The body is no JSON.",
    "404": "No such pipeline; the message lists those there are.",
    "413": "The body or the number of rows is too large.",
    "422": "A row is not what the contract says.",
    "503": "Too busy, or the prediction log cannot be written: nothing was predicted. Come again.",
}


def document(contracts: Mapping[str, ServingContract], limits: Limits) -> dict[str, Any]:
    """The description of everything the service answers now."""
    schemas: dict[str, Any] = {"Error": _ERROR, "Prediction": _answer(), "Feedback": _feedback_answer()}
    paths: dict[str, Any] = {}
    for name, contract in contracts.items():
        schemas[f"{name}.Row"] = _row(contract)
        paths[f"/v1/{name}/predict"] = {"post": _predict(name, contract, limits)}
        paths[f"/v1/{name}/feedback"] = {"post": _feedback(name, contract, limits)}
    paths |= {
        "/v1/models": {"get": _get("What answers for each pipeline.", "service")},
        "/reports/{pipeline}/{file}": {"get": _report()},
        "/livez": {"get": _get("The process is alive.", "service")},
        "/readyz": {"get": _get("Every champion is loaded; otherwise 503, with the reasons.", "service")},
        "/metrics": {"get": _get("Prometheus' text format.", "service", "text/plain")},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ferroflow predictions",
            "version": "1",
            "description": "Each pipeline's champion answers here; a prediction is logged before it is acknowledged.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _predict(name: str, contract: ServingContract, limits: Limits) -> dict[str, Any]:
    what = f"the probability of {contract.positive!r}" if contract.task == "classification" else contract.target
    row = {entry.name: example(entry) for entry in contract.fields}
    rows = {
        "type": "array",
        "minItems": 1,
        "maxItems": limits.rows,
        "items": {"$ref": f"#/components/schemas/{name}.Row"},
    }
    return {
        "tags": [name],
        "operationId": f"predict_{name}",
        "summary": f"Predict {what}.",
        "requestBody": _body({"rows": rows}, {"rows": [row]}),
        "responses": _responses("Prediction"),
    }


def _feedback(name: str, contract: ServingContract, limits: Limits) -> dict[str, Any]:
    value: dict[str, Any] = {"type": "number", "description": f"The true {contract.target}."}
    shown: Any = 12.5
    if contract.task == "classification":
        value = {
            "anyOf": [{"enum": [*(contract.classes or [contract.positive])]}, {"enum": [0, 1]}],
            "description": f"The class, or 1 for {contract.positive!r} and 0 for the other.",
        }
        shown = contract.positive
    entry = {
        "type": "object",
        "additionalProperties": False,
        "required": ["prediction_id", "value"],
        "properties": {"prediction_id": {"type": "string"}, "value": value},
    }
    labels = {"type": "array", "maxItems": 10 * limits.rows, "items": entry}
    return {
        "tags": [name],
        "operationId": f"feedback_{name}",
        "summary": f"Tell what {contract.target} turned out to be.",
        "requestBody": _body({"labels": labels}, {"labels": [{"prediction_id": "0190…", "value": shown}]}),
        "responses": _responses("Feedback"),
    }


def _report() -> dict[str, Any]:
    """Evidently's page, named as a monitoring report names it."""
    names = {"pipeline": reports.NAME, "file": rf"{reports.NAME}\.html"}
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": f"^{pattern}$"}}
        for name, pattern in names.items()
    ]
    found = _get("The page of a monitoring report.", "service", "text/html")
    error = {"$ref": "#/components/schemas/Error"}
    found["responses"]["404"] = _response("There is no report of that name.", error)
    return found | {"parameters": parameters}


def _row(contract: ServingContract) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [entry.name for entry in contract.fields if not entry.optional],
        "properties": {entry.name: _field(entry) for entry in contract.fields},
    }


def _field(entry: Field) -> dict[str, Any]:
    kind = _TYPES[entry.type]
    missing = entry.nullable or entry.optional
    found: dict[str, Any] = {"type": [kind, "null"] if missing else kind, "examples": [example(entry)]}
    if entry.description:
        found["description"] = entry.description
    if entry.cleaning:
        return found  # its bounds hold for what cleaning makes of a value, not for what is sent
    if entry.type == "time":
        found["format"] = "date-time"
    else:
        found |= {} if entry.minimum is None else {"minimum": entry.minimum}
        found |= {} if entry.maximum is None else {"maximum": entry.maximum}
    if entry.choices is not None:
        found["enum"] = [*entry.choices, *([None] if entry.nullable else [])]
    return found


def _answer() -> dict[str, Any]:
    strings = {"type": "array", "items": {"type": "string"}}
    properties = {
        "model": {"type": "string"},
        "version": {"type": "string", "description": "Of the registry."},
        "prediction_ids": {**strings, "description": "One a row; name them in feedback."},
        "predictions": {"type": "array", "items": {"type": "number"}},
        "degraded": {"type": "boolean", "description": "True: see the header x-ferroflow-degraded and /readyz."},
    }
    return {"type": "object", "required": list(properties), "properties": properties}


def _feedback_answer() -> dict[str, Any]:
    strings = {"type": "array", "items": {"type": "string"}}
    properties = {
        "accepted": {"type": "integer"},
        "unknown": {**strings, "description": "Ids that are in no log."},
        "repeated": {**strings, "description": "Ids that had a label already; the first one stays."},
    }
    return {"type": "object", "required": list(properties), "properties": properties}


def _body(properties: dict[str, Any], shown: dict[str, Any]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }
    return {"required": True, "content": {"application/json": {"schema": schema, "example": shown}}}


def _responses(name: str) -> dict[str, Any]:
    found: dict[str, Any] = {"200": _response("Answered.", {"$ref": f"#/components/schemas/{name}"})}
    error = {"$ref": "#/components/schemas/Error"}
    return found | {status: _response(text, error) for status, text in _REFUSALS.items()}


def _response(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _get(summary: str, tag: str, kind: str = "application/json") -> dict[str, Any]:
    return {"tags": [tag], "summary": summary, "responses": {"200": {"description": "OK", "content": {kind: {}}}}}
