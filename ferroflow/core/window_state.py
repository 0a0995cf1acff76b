"""Streaming updates of window features: what a window may still need is kept, and each push gives the rows it changed.

The watermark is the latest moment that was seen or told. An event may be late by an allowance behind it; the windows
it changes are given again, and replace what was given before for the same entity and moment.
"""

from __future__ import annotations

import hashlib
import json
import logging
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from ferroflow.core.aggregates import AT
from ferroflow.core.errors import DataError, SpecError
from ferroflow.core.features import AVAILABLE_AT
from ferroflow.core.windows import WindowFeatures, microseconds, told

logger = logging.getLogger(__name__)

_NEW = "__new"
_KEYS = {
    str(kind()): kind
    for kind in (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.String)
}


class WindowState:
    """What the windows of ``view`` can still need of the events so far: bounded by the window and the allowance.

    Windows of time keep a row for each entity and bucket of the grid, as far back as a window and ``late`` reach;
    windows of n events keep the events within ``late``, and n - 1 earlier ones of each entity.
    """

    def __init__(self, view: WindowFeatures, *, late: timedelta) -> None:
        self.view = view
        self.late = late // timedelta(microseconds=1)
        self.watermark: int | None = None  # microseconds since 1970
        self.too_late = 0  # events left out so far
        self.rows: pl.DataFrame | None = None  # partial aggregates

    def push(self, events: pl.DataFrame, *, until: datetime | None = None) -> pl.DataFrame:
        """Take events in, and give each window up to the watermark that they made or changed.

        After a failed push the state is as before it. An event counts as often as it is pushed: keep the place in the
        stream together with the state.

        Args:
            events: in any order. How late one is counts from the watermark before this push; those beyond the
                allowance are left out, counted in ``too_late`` and told in the log.
            until: moves the watermark to this moment, whether or not an event came.

        Returns:
            Entity, ``available_at`` and features, sorted by both. The last row given for an entity and moment holds.

        Raises:
            SchemaError: a column is missing.
            DataError: a value is too great to be counted exactly, or ``until`` has no time zone.
        """
        with told(self.view.name):
            partials = self.view.window.partials(events.lazy()).collect()
        taken = partials if self.watermark is None else partials.filter(pl.col(AT) >= self.watermark - self.late)
        refused = partials.height - taken.height
        told_until = None if until is None else microseconds(until)
        seen = [moment for moment in (self.watermark, _item(taken, pl.col(AT).max()), told_until) if moment is not None]
        watermark = max(seen, default=None)
        rows, changed = self._after(taken, watermark)
        self.rows, self.watermark, self.too_late = rows, watermark, self.too_late + refused
        if refused:
            logger.warning("%s: left out %d events that came too late", self.view.name, refused)
        return changed

    def _after(self, taken: pl.DataFrame, watermark: int | None) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The rows to keep after these events, and the windows that they changed."""
        window = self.view.window
        entity, span, merges = window.entity, window.span, window.merges
        together = span.condensed(taken.lazy(), entity, merges).with_columns(_flag(1))
        if self.rows is not None:
            together = pl.concat([self.rows.lazy().with_columns(_flag(0)), together], how="vertical_relaxed")
        if watermark is None:  # nothing came yet
            return taken, window.values(taken.lazy()).collect()
        moments = [moment for moment in (self.watermark, _item(taken, pl.col(AT).min())) if moment is not None]
        found = span.windows(together, entity, {**merges, _NEW: "max"}, after=min(moments, default=None))
        fresh = pl.col(_NEW) == 1
        if self.watermark is not None:
            fresh |= pl.col(AT) > self.watermark  # the watermark has come past its end
        changed = window.values(found.filter(fresh & (pl.col(AT) <= watermark))).sort(entity, AVAILABLE_AT)
        kept = span.condensed(together.drop(_NEW), entity, merges)
        rows, rows_changed = pl.collect_all([span.needed(kept, entity, watermark - self.late), changed])
        return rows, rows_changed

    # ------------------------------------------------------------------------------------------------- kept on a disk

    def to_json(self) -> str:
        """The state as text; ``from_json`` continues it.

        Raises:
            DataError: the entity is neither a whole number nor a text.
        """
        rows = None if self.rows is None else self.rows.to_dict(as_series=False)
        key = None if self.rows is None else str(self.rows.schema[self.view.window.entity])
        if key is not None and key not in _KEYS:
            raise DataError(
                f"Entity {self.view.entity!r} of {self.view.name!r} is {key}; make a whole number or a text of it."
            )
        return json.dumps(
            {
                "view": self.view.name,
                "definition": _definition(self.view),
                "late": self.late,
                "watermark": self.watermark,
                "too_late": self.too_late,
                "key": key,
                "rows": rows,
            }
        )

    @classmethod
    def from_json(cls, view: WindowFeatures, text: str) -> WindowState:
        """Read a state that ``to_json`` wrote for the same definition.

        Raises:
            DataError: the text is no whole state.
            SpecError: it was made by another definition: its sums mean something else.
        """
        try:
            saved: dict[str, Any] = json.loads(text)
            _refuse_other(view, saved["definition"])
            state = cls(view, late=timedelta(microseconds=saved["late"]))
            state.watermark, state.too_late = saved["watermark"], saved["too_late"]
            if saved["rows"] is not None:
                kinds = {name: part.kind for name, part in view.window.parts.items()}
                schema = {view.window.entity: _KEYS[saved["key"]], AT: pl.Int64, **kinds}
                state.rows = pl.DataFrame(saved["rows"], schema=schema)
        except (ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
            raise DataError(f"This is no whole state of {view.name!r}: {error!r}. Push its events again.") from error
        return state


def _refuse_other(view: WindowFeatures, definition: dict[str, Any]) -> None:
    wanted = _definition(view)
    if definition != wanted:
        other = [name for name in {**definition, **wanted} if definition.get(name) != wanted.get(name)]
        raise SpecError(
            f"This state of {view.name!r} was made by another definition: {', '.join(other)} differ. "
            f"Start with {view.name}.state() and push the events of one window's length to it."
        )


def _definition(view: WindowFeatures) -> dict[str, Any]:
    """What the kept numbers mean: the window, and of each part the digest of its expression as Polars serialises it.

    Another version of Polars may serialise otherwise: then the state is refused rather than misread.
    """
    window = view.window
    return {
        "window": [window.entity, window.by, window.time, repr(window.span)],
        **{
            name: [part.merge, hashlib.sha256(part.row.meta.serialize()).hexdigest()]
            for name, part in window.parts.items()
        },
    }


def _item(frame: pl.DataFrame, expression: pl.Expr) -> int | None:
    found: int | None = frame.select(expression).item()
    return found


def _flag(value: int) -> pl.Expr:
    return pl.lit(value, dtype=pl.Int64).alias(_NEW)
