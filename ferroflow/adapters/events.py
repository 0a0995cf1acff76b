"""Events, each about one pipeline: a wildcard would start every pipeline's retraining."""

from __future__ import annotations

from typing import Any, Literal

Event = Literal[
    "ferroflow.data.ingested",
    "ferroflow.features.materialized",
    "ferroflow.model.trained",
    "ferroflow.model.deployed",
    "ferroflow.model.stale",
    "ferroflow.drift.detected",
    "ferroflow.performance.degraded",
    "ferroflow.skew.detected",
]

# What a monitor report's alarm is called on the wire.
ALARMS: dict[str, Event] = {
    "skew": "ferroflow.skew.detected",
    "performance": "ferroflow.performance.degraded",
    "drift": "ferroflow.drift.detected",
    "staleness": "ferroflow.model.stale",
}

# The retrain deployments listen to these: another model would be fed the same wrong inputs.
RETRAINED: tuple[Event, ...] = tuple(event for alarm, event in ALARMS.items() if alarm != "skew")


def resource(pipeline: str) -> str:
    """The resource id of a pipeline's events."""
    return f"ferroflow.pipeline.{pipeline}"


def emit(event: Event, pipeline: str, payload: dict[str, Any]) -> None:
    """Send an event to the Prefect server of this process; ``payload`` is JSON-like."""
    from prefect.events import emit_event

    named = {"prefect.resource.id": resource(pipeline), "prefect.resource.name": pipeline}
    emit_event(event=event, resource=named, payload=payload)
