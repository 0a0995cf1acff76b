"""The parameters that flows share. Their descriptions in Prefect's form come from the flows' docstrings."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

from ferroflow.adapters.settings import load_settings
from ferroflow.core.spec import PipelineSpec

Minutes = Annotated[float | None, Field(gt=0)]


def moment(spec: PipelineSpec, as_of: datetime | None, now: datetime) -> datetime:
    """The moment of a run in UTC: what was asked for, else the pipeline's own, else now."""
    chosen = as_of or spec.as_of or now
    return chosen.astimezone(UTC) if chosen.tzinfo else chosen.replace(tzinfo=UTC)


def budget(minutes: float | None) -> float | None:
    """Seconds for one search: what was asked for, else the settings', else None: what the pipeline says."""
    chosen = minutes or load_settings().minutes
    return None if chosen is None else chosen * 60
