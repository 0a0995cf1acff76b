"""Streaming updates: events of a window's view are pushed, and the rows they change are online at once.

What a view's windows can still need of earlier events is kept in a file beside the offline store, together with the
place in the stream up to which events are in it. It begins with events that a batch has put online already; a window
that began before all of them is not pushed. The online rows are written first and the file after them, so a push that
was killed is pushed again, and one that is pushed twice counts once. Pushed rows are written as created in 1970: of one
moment, what a materialization made of all accepted rows holds against what was pushed, whenever it ingested them.
"""

from __future__ import annotations

from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from pydantic import BaseModel, ConfigDict

from ferroflow.adapters.home import Home
from ferroflow.adapters.locks import locked
from ferroflow.adapters.storage import parse_record, write_record
from ferroflow.core.durations import duration
from ferroflow.core.errors import DataError, NotFound, SpecError, UsageError
from ferroflow.core.features import AVAILABLE_AT
from ferroflow.core.spans import TimeSpan
from ferroflow.core.spec import PipelineSpec
from ferroflow.core.window_state import WindowState
from ferroflow.core.windows import WindowFeatures, microseconds
from ferroflow.stations.offline import INGESTED_AT

if TYPE_CHECKING:
    from feast import FeatureStore

    from ferroflow.adapters.feast.plan import ReadPlan
    from ferroflow.adapters.feast.rows import Watermark

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
    whole: int | None  # microseconds since 1970: windows that are available from then on hold all their events
    told: int | None = None  # how far the view is complete, as the online store was told last


class Pusher:
    """Takes events of one view in, for as long as a stream goes on; several processes take turns.

    Args:
        view: the name of a view of windows.

    Raises:
        NotFound: the pipeline has no such windows.
    """

    def __init__(self, spec: PipelineSpec, view: str, home: Home) -> None:
        self.spec = spec
        self.windows = _windows(spec, view)
        self.home = home
        self.file = _file(home, spec, view)

    def begin(
        self,
        events: pl.DataFrame,
        *,
        place: int,
        until: datetime | None = None,
        since: datetime | None = None,
        late: str = "0s",
    ) -> None:
        """Take the events in that the windows to come still need; nothing is written online.

        Args:
            events: of one window's length at least, up to what the last batch put online; of windows of n events the
                last n of each entity. None where the stream begins with the first event of all.
            place: of the last of these events in the stream.
            until: up to which moment these are all events; None: the last one's.
            since: and from which moment on; None: the first one's, or ``until`` where there is none. Windows that began
                earlier are never pushed. It means nothing for windows of n events.
            late: how late an event may come.

        Raises:
            UsageError: the windows were begun already; or there is neither an event nor a moment to begin with.
            DataError: events lack a column or cannot be counted.
        """
        with locked(self.file):
            if self.file.exists():
                raise UsageError(
                    f"The windows {self.windows.name!r} were begun already. Push to them, or forget() them."
                )
            state = WindowState(self.windows, late=duration(late))
            state.push(events, until=until)
            whole = _whole(self.windows, events, since or until if events.is_empty() else since)
            write_record(self.file, _Kept(place=place, state=state.to_json(), whole=whole))

    def push(self, events: pl.DataFrame, *, place: int, until: datetime | None = None) -> Pushed:
        """Take events into the windows, and put the latest whole window of each entity that they changed online.

        Args:
            events: accepted rows, in any order.
            place: of the last of these events in the stream; a push at or before the place that is kept does nothing.
            until: moves the windows' watermark to this moment, whether or not an event came.

        Raises:
            NotFound: the windows were never begun, or forgotten.
            SpecError: the view's definition is another one than that of the kept state.
            DataError: events lack a column or cannot be counted; the kept state is damaged.
        """
        with locked(self.file):
            kept = _read(self.file, self.windows)
            if place <= kept.place:
                return Pushed(place=kept.place, rows=0, too_late=0)
            state = WindowState.from_json(self.windows, kept.state)
            before = state.too_late
            changed = state.push(events, until=until)
            if kept.whole is not None:
                changed = changed.filter(pl.col(AVAILABLE_AT).dt.epoch("us") >= kept.whole)
            latest = changed.sort(AVAILABLE_AT, maintain_order=True).unique(self.windows.entity, keep="last")
            reached = state.watermark
            if reached is not None and kept.whole is not None and reached < kept.whole:
                reached = None
            told = self._write(latest, reached, kept.told)
            write_record(self.file, kept.model_copy(update={"place": place, "state": state.to_json(), "told": told}))
        return Pushed(place=place, rows=latest.height, too_late=state.too_late - before)

    def forget(self) -> None:
        """Drop what is kept, so that the windows can begin anew: after their definition changed."""
        with locked(self.file):
            self.file.unlink(missing_ok=True)

    def _write(self, latest: pl.DataFrame, watermark: int | None, told: int | None) -> int | None:
        """The rows, and then how far they reach; a value that is newer stays.

        A store that has forgotten what it was told was emptied, or is another one: it lacks what was pushed before,
        which the next batch brings. Until then it is told nothing.
        """
        from ferroflow.adapters.feast.marks import advance
        from ferroflow.adapters.feast.store import write_online

        if not latest.is_empty():
            made = latest.with_columns(pl.lit(_EPOCH).dt.cast_time_unit("us").alias(INGESTED_AT))
            write_online(self._feast, self.windows.name, made)
        if watermark is None or (told is not None and self._mark() is None):
            return told
        advance(self._plan, self.windows.name, watermark)
        return watermark

    def _mark(self) -> Watermark | None:
        from ferroflow.adapters.feast.marks import watermark_of
        from ferroflow.adapters.feast.reader import open_rows

        with closing(open_rows(self._plan)) as rows:
            return watermark_of(rows, self.windows.name)

    @cached_property
    def _feast(self) -> FeatureStore:
        from ferroflow.adapters.feast.store import store_to_write

        return store_to_write(self.home, self.spec)

    @cached_property
    def _plan(self) -> ReadPlan:
        from ferroflow.adapters.feast.store import online_plan

        return online_plan(self.spec, self.home)


def pushes_go_on(spec: PipelineSpec, view: str, home: Home) -> bool:
    """Whether events are pushed to a view as it is now defined: then what was pushed is no older definition's."""
    windows = {part.name: part for part in spec.stored if isinstance(part, WindowFeatures)}.get(view)
    if windows is None:
        return False
    with suppress(NotFound, SpecError, DataError):
        WindowState.from_json(windows, _read(_file(home, spec, view), windows).state)
        return True
    return False


def _file(home: Home, spec: PipelineSpec, view: str) -> Path:
    return home.offline(spec.name) / "pushed" / f"{view}.json"


def _windows(spec: PipelineSpec, view: str) -> WindowFeatures:
    known = {part.name: part for part in spec.stored if isinstance(part, WindowFeatures)}
    if view not in known:
        raise NotFound(
            f"Pipeline {spec.name!r} has no windows {view!r} to push to. It has: {', '.join(known) or 'none'}."
        )
    return known[view]


def _whole(windows: WindowFeatures, events: pl.DataFrame, since: datetime | None) -> int | None:
    """From which moment on windows hold all their events; None: all of them do."""
    span = windows.window.span
    if not isinstance(span, TimeSpan):
        return None
    if since is not None:
        return microseconds(since) + span.last
    first = events.select(pl.col(windows.window.time).dt.epoch("us").min()).item()
    if first is None:
        raise UsageError(
            f"Nothing says since when all events of {windows.name!r} are told. Begin with since=, a moment."
        )
    return int(first) + span.last


def _read(file: Path, windows: WindowFeatures) -> _Kept:
    try:
        return parse_record(file.read_bytes(), _Kept)
    except FileNotFoundError:
        raise NotFound(
            f"The windows {windows.name!r} were not begun. Give Pusher.begin() the events of one window's length."
        ) from None
    except ValueError as error:
        raise DataError(
            f"The pushed state {file.name} of {windows.name!r} is damaged: {error}. Remove the file, and begin again "
            "with the events of one window's length."
        ) from error
