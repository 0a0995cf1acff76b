"""Automations that belong to no deployment: they cannot stand in ``prefect.yaml``, so they are applied by API."""

from __future__ import annotations

from typing import Any

HEARTBEAT_SECONDS = 30
_RUN = "prefect.flow-run"
_SILENT_AFTER = 3.0 * HEARTBEAT_SECONDS  # one lost heartbeat must not kill a run


def heartbeat() -> dict[str, Any]:
    """Mark a run as crashed when its heartbeat stops: else it keeps its concurrency slot for ever."""
    ends = ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended", "AwaitingRetry")
    return {
        "name": "ferroflow-heartbeat",
        "description": f"A run silent for {_SILENT_AFTER:.0f} s has lost its process; it gives its slot back.",
        "enabled": True,
        "trigger": {
            "type": "event",
            "posture": "Proactive",
            "match": {"prefect.resource.id": [f"{_RUN}.*"]},
            "for_each": ["prefect.resource.id"],
            "after": [f"{_RUN}.heartbeat"],
            "expect": [f"{_RUN}.heartbeat", *(f"{_RUN}.{end}" for end in ends)],
            "threshold": 1,
            "within": _SILENT_AFTER,
        },
        "actions": [
            {
                "type": "change-flow-run-state",
                "state": "CRASHED",
                "message": f"No heartbeat for {_SILENT_AFTER:.0f} s: the process is gone. Start it again; "
                "finished stations are not repeated.",
            }
        ],
    }
