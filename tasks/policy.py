"""What all tasks have in common: how results are kept, when to try again, and how reused work is shown.

No cache of Prefect's stands between runs. Each station names its output by the fingerprint of what goes in and checks
that the files are there, so it alone can tell whether a result still holds; a second cache would one day hand out a
record whose files are gone. What a station had already done ends as a state of its own, ``Reused``. Within one run
Prefect's default policy (inputs, code and run) keeps results as JSON, for `prefect flow-run retry`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.client.schemas.objects import TaskRun
from prefect.exceptions import MissingContextError
from prefect.states import Completed, State

from ferroflow.adapters import pipelines
from ferroflow.adapters.home import Home
from ferroflow.adapters.settings import load_settings
from ferroflow.core.errors import DataError, RegistryError, ServiceError, SourceUnavailable, UsageError
from ferroflow.core.records import (
    Decision,
    Evaluation,
    FeatureTable,
    MonitorReport,
    Quality,
    Record,
    SkewReport,
    Snapshot,
    Split,
    TrainedModel,
    Validated,
)

# Where a station's record lies below the pipeline's data.
_FOLDERS: dict[type[Record], str] = {
    Snapshot: "snapshots",
    Validated: "validated",
    Quality: "quality",
    FeatureTable: "tables",
    Split: "splits",
    TrainedModel: "models",
    Evaluation: "evaluations",
    SkewReport: "skew",
    MonitorReport: "reports",
    Decision: "decisions",
}

KEPT: dict[str, Any] = {"persist_result": True, "result_serializer": "json"}


def _may_pass(task: Any, run: TaskRun, state: State[Any]) -> bool:
    """Whether the same call may succeed later: the outside failed, not what was asked for."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, UsageError) or (isinstance(error, DataError) and not isinstance(error, SourceUnavailable)):
        return False
    return isinstance(error, (SourceUnavailable, RegistryError, ServiceError, OSError))


# Stations that reach outside: files over the network, the registry.
OUTSIDE: dict[str, Any] = {
    **KEPT,
    "retries": 3,
    "retry_delay_seconds": [1, 3, 8],
    "retry_condition_fn": _may_pass,
}


def home() -> Home:
    """The home folder of this run."""
    return Home.of(load_settings())


def carry_out(station: Callable[..., Any], pipeline: str, *arguments: Any, **options: Any) -> Any:
    """Call ``station(spec, *arguments, home, **options)``.

    Returns:
        Its record; inside a state ``Reused`` when the record was there before the call.
    """
    folder = home()
    before = _files(folder, pipeline)
    record = station(pipelines.load(pipeline), *arguments, folder, **options)
    if isinstance(record, Record) and _was_there(record, folder, before):
        return Completed(name="Reused", message="the same input was seen before", data=record)
    return record


def judge_by(judgement: Callable[..., Any], pipeline: str, *arguments: Any) -> Any:
    """Call ``judgement(spec, *arguments)``: pure, so there is nothing to reuse."""
    return judgement(pipelines.load(pipeline), *arguments)


def record_of(result: Any) -> Any:
    """What ``carry_out`` gave, without the state around it."""
    return result.data if isinstance(result, State) else result


def say(text: str, *values: object) -> None:
    """A line in the run's log (in the program's own, outside a run)."""
    _logger().info(text, *values)


def warn(text: str, *values: object) -> None:
    """The same, as a warning."""
    _logger().warning(text, *values)


def _logger() -> Any:
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger(__name__)


def _files(folder: Home, pipeline: str) -> dict[Path, int]:
    """The files of all records, each with its inode: one that is written anew gets another."""
    places = [folder.data(pipeline) / kind for kind in _FOLDERS.values()]
    found = [path for place in places for path in (*place.glob("*.json"), *place.glob("*/manifest.json"))]
    return {path: path.stat().st_ino for path in found}


def _was_there(record: Record, folder: Home, before: dict[Path, int]) -> bool:
    """Whether the record's own file is the one that was there before."""
    if (kind := _FOLDERS.get(type(record))) is None:
        return False
    place = folder.data(record.pipeline) / kind
    for path in (place / f"{record.fingerprint}.json", place / record.fingerprint / "manifest.json"):
        if path.exists():
            return before.get(path) == path.stat().st_ino
    return False
