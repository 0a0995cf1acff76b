"""Streaming updates: events of a window's view are pushed, and the rows they change are online at once.

What a view's windows can still need of earlier events is kept in a file beside the offline store, together with the
place in the stream up to which events are in it. The online rows are written first and the file after them, so a push
that was killed is pushed again, and one that is pushed twice counts once. Of one moment, what a materialization made
of all accepted rows holds against what was pushed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from pydantic import BaseModel, ConfigDict

from ferroflow.adapters.home import Home
from ferroflow.adapters.locks import locked
from ferroflow.adapters.storage import parse_record, write_record
from ferroflow.core.durations import duration
from ferroflow.core.errors import DataError, NotFound
from ferroflow.core.features import AVAILABLE_AT
from ferroflow.core.spec import PipelineSpec
from ferroflow.core.window_state import WindowState
from ferroflow.core.windows import WindowFeatures
from ferroflow.stations.offline import INGESTED_AT

if TYPE_CHECKING:
    from feast import FeatureStore

    from ferroflow.adapters.feast.plan import ReadPlan


class Pushed(BaseModel):
    """What a push did."""

    model_config = ConfigDict(frozen=True)

    place: int  # in the stream: events up to it are in the windows
    rows: int  # online rows that were written; 0 also when the place had been pushed before
    too_late: int  # events that this push left out


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True)

    place: int
    state: str


class Pusher:
    """Takes events of one view in, for as long as a stream goes on; several processes take turns.

    Args:
        view: the name of a view of windows.
        late: how late an event may come; told by the first push of a view.

    Raises:
        NotFound: the pipeline has no such windows.
    """

    def __init__(self, spec: PipelineSpec, view: str, home: Home, *, late: str = "0s") -> None:
        self.spec = spec
        self.windows = _windows(spec, view)
        self.home = home
        self.late = duration(late)
        self.file = home.offline(spec.name) / "pushed" / f"{view}.json"

    def push(self, events: pl.DataFrame, *, place: int, until: datetime | None = None) -> Pushed:
        """Take events into the windows, and put the latest window of each entity that they changed online.

        Args:
            events: accepted rows, in any order.
            place: of the last of these events in the stream; a push at or before the place that is kept does nothing.
            until: moves the windows' watermark to this moment, whether or not an event came.

        Raises:
            SpecError: the view's definition is another one than that of the kept state.
            DataError: events lack a column or cannot be counted; the kept state is damaged.
        """
        with locked(self.file):
            kept, state = _read(self.file, self.windows, self.late)
            if kept is not None and place <= kept.place:
                return Pushed(place=kept.place, rows=0, too_late=0)
            before = state.too_late
            changed = state.push(events, until=until)
            latest = changed.sort(AVAILABLE_AT, maintain_order=True).unique(self.windows.entity, keep="last")
            self._write(latest, state.watermark)
            write_record(self.file, _Kept(place=place, state=state.to_json()))
        return Pushed(place=place, rows=latest.height, too_late=state.too_late - before)

    def forget(self) -> None:
        """Begin the windows anew with the next push: after their definition changed."""
        with locked(self.file):
            self.file.unlink(missing_ok=True)

    def _write(self, latest: pl.DataFrame, watermark: int | None) -> None:
        """The rows, and then how far they reach; a value that is newer stays."""
        from ferroflow.adapters.feast.marks import advance
        from ferroflow.adapters.feast.store import write_online

        if not latest.is_empty():
            # As created at its own moment: of one moment, what a batch made of all events replaces what was pushed.
            made = latest.with_columns(pl.col(AVAILABLE_AT).alias(INGESTED_AT))
            write_online(self._feast, self.windows.name, made)
        if watermark is not None:
            advance(self._plan, self.windows.name, watermark)

    @cached_property
    def _feast(self) -> FeatureStore:
        from ferroflow.adapters.feast.store import store

        return store(self.home, [self.spec])

    @cached_property
    def _plan(self) -> ReadPlan:
        from ferroflow.adapters.feast.store import online_plan

        return online_plan(self.spec, self.home)


def _windows(spec: PipelineSpec, view: str) -> WindowFeatures:
    known = {part.name: part for part in spec.stored if isinstance(part, WindowFeatures)}
    if view not in known:
        raise NotFound(
            f"Pipeline {spec.name!r} has no windows {view!r} to push to. It has: {', '.join(known) or 'none'}."
        )
    return known[view]


def _read(file: Path, windows: WindowFeatures, late: timedelta) -> tuple[_Kept | None, WindowState]:
    try:
        kept = parse_record(file.read_bytes(), _Kept)
    except FileNotFoundError:
        return None, WindowState(windows, late=late)
    except ValueError as error:
        raise DataError(
            f"The pushed state {file.name} of {windows.name!r} is damaged: {error}. Remove the file, and push the "
            "events of one window's length again."
        ) from error
    return kept, WindowState.from_json(windows, kept.state)
