"""Write ``prefect.yaml`` from the specs: ``python -m flows.deployments --write`` (``--check``: is it stale?).

Every flow gets a deployment for every pipeline: flow ``train``, deployment ``<pipeline>``. ``skew`` is left out where
nothing is computed between a request and the model.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from ferroflow.adapters import pipelines
from ferroflow.adapters.events import RETRAINED, resource
from ferroflow.adapters.prefect_api import POOL
from ferroflow.core.spec import PipelineSpec

_HEAD = "# Written by `make prefect` from pipelines/*/spec.py: change the specs, not this file.\n"
_ONE = {"limit": 1, "collision_strategy": "ENQUEUE"}  # CANCEL_NEW would lose an alarm for good
_SAID = {
    "ingest": "Read new files, put bad rows in quarantine, refresh the stored features.",
    "train": "From raw files to a version that serves, when every gate passes.",
    "monitor": "Judge inputs, drift and error of what serves; an alarm starts the retraining.",
    "skew": "Compare the model inputs that were logged with a point-in-time recomputation.",
    "retrain": "A challenger from recent rows, when the policy allows one.",
    "batch-predict": "A file or snapshot in, a file with predictions out.",
}


def project(specs: list[PipelineSpec], *, paused: bool = False) -> dict[str, Any]:
    """The content of ``prefect.yaml``; ``paused``: schedules are there but do not run."""
    deployments = [
        _deployment(spec, flow, paused) for spec in specs for flow in _SAID if flow != "skew" or spec.features
    ]
    return {"name": "ferroflow", "deployments": deployments}


def text(specs: list[PipelineSpec], *, paused: bool = False) -> str:
    """``prefect.yaml`` as it is written."""

    class Plain(yaml.SafeDumper):
        """Without anchors: each deployment can be read alone."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    return _HEAD + yaml.dump(project(specs, paused=paused), Dumper=Plain, sort_keys=False, width=110)


def _deployment(spec: PipelineSpec, flow: str, paused: bool) -> dict[str, Any]:
    module = flow.replace("-", "_")
    made: dict[str, Any] = {
        "name": spec.name,
        "description": f"{spec.description} {_SAID[flow]}",
        "tags": ["ferroflow", spec.name],
        # A module path: a file's path would put flows/ itself first on sys.path.
        "entrypoint": f"flows.{module}.{module}",
        "parameters": {"pipeline": spec.name},
        "work_pool": {"name": POOL},
    }
    cron = getattr(spec.schedules, module, None)
    if cron is not None:
        # Without a slug and "active" a second deployment forgets that somebody paused the schedule.
        made["schedules"] = [{"cron": cron, "timezone": "UTC", "slug": flow, "active": not paused}]
    if flow in ("train", "retrain"):
        made["concurrency_limit"] = _ONE
    if flow == "retrain":
        made["triggers"] = [_trigger(spec)]
    return made


def _trigger(spec: PipelineSpec) -> dict[str, Any]:
    """Every alarm that a retraining may mend is delivered; whether it leads to a retraining is the policy's to say."""
    return {
        "type": "event",
        "name": f"retrain-{spec.name}",
        "description": f"An alarm about {spec.name} starts its retraining.",
        "match": {"prefect.resource.id": resource(spec.name)},
        "expect": list(RETRAINED),
        "for_each": ["prefect.resource.id"],
        "posture": "Reactive",
        "threshold": 1,
        "within": 0,
        "parameters": {
            "pipeline": spec.name,
            "as_of": "{{ event.payload.as_of }}",
            "reason": "{{ event.payload.why }}",
        },
    }


def main(arguments: list[str] | None = None) -> int:
    """The command; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flows.deployments", description=(__doc__ or "").splitlines()[0])
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--write", action="store_true", help="write the file")
    task.add_argument("--check", action="store_true", help="fail when the file is stale")
    parser.add_argument("--file", type=Path, default=Path("prefect.yaml"), help="default: prefect.yaml")
    parser.add_argument("--paused", action="store_true", help="with schedules that do not run")
    asked = parser.parse_args(arguments)
    wanted = text([pipelines.load(name) for name in pipelines.names()], paused=asked.paused)
    if asked.write:
        asked.file.write_text(wanted)
        return 0
    if asked.file.exists() and asked.file.read_text() == wanted:
        return 0
    sys.stderr.write(f"{asked.file} is stale: run `make prefect`.\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
