"""The parameters that flows share. Their descriptions in Prefect's form come from the flows' docstrings."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import Field

from ferroflow.adapters.home import Home
from ferroflow.adapters.predictions import PredictionLog
from ferroflow.adapters.settings import load_settings
from ferroflow.core.spec import PipelineSpec

Minutes = Annotated[float | None, Field(gt=0)]


Clock = Callable[[PipelineSpec, datetime], datetime]
"""``clock(spec, now)``: the moment of a run for which none was given."""


def start(spec: PipelineSpec, now: datetime) -> datetime:
    """The moment to train for: where a replay starts, else the present hour."""
    return utc(spec.as_of) if spec.as_of else _hour(now)


def clock(spec: PipelineSpec, now: datetime) -> datetime:
    """The moment to look at what serves: the present hour; in a replay, as far as the service was asked.

    A replay's clock begins at the spec's ``as_of``. It moves to the full hour after the latest event time in the
    prediction log; event times that are still to come are left out, as anybody may ask for them.
    """
    if spec.as_of is None:
        return _hour(now)
    log = PredictionLog(Home.of(load_settings()).predictions(spec.name))
    newest, begun = log.newest(now), utc(spec.as_of)
    return begun if newest is None or newest < begun else _hour(newest) + timedelta(hours=1)


def utc(moment: datetime) -> datetime:
    """A moment in UTC, which is meant where no offset is given."""
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _hour(moment: datetime) -> datetime:
    """The full hour before: the same command again within the hour resumes the same work."""
    return utc(moment).replace(minute=0, second=0, microsecond=0)


def budget(minutes: float | None) -> float | None:
    """Seconds for one search: what was asked for, else the settings', else None: what the pipeline says."""
    chosen = minutes or load_settings().minutes
    return None if chosen is None else chosen * 60
