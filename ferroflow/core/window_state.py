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
            DataError: a value is too great to be counted exactly, ``until`` has no time zone, or an entity is of
                another type than those before and cannot be made one of theirs.
        """
        partials = self._partials(events)
        taken = partials if self.watermark is None else partials.filter(pl.col(AT) >= self.watermark - self.late)
        refused = partials.height - taken.height
        told_until = None if until is None else microseconds(until)
        seen = [moment for moment in (self.watermark, _item(taken, pl.col(AT).max()), told_until) if moment is not None]
        watermark = max(seen, default=None)
        rows, changed = self._after(*self._alike(taken), watermark)
        self.rows, self.watermark, self.too_late = rows, watermark, self.too_late + refused
        if refused:
            logger.warning("%s: left out %d events that came too late", self.view.name, refused)
        return changed

    def _partials(self, events: pl.DataFrame) -> pl.DataFrame:
        """Each event as a row to merge. Where there is none its types mean nothing: an empty CSV is all text."""
        window = self.view.window
        read = {column for part in window.parts.values() for column in part.row.meta.root_names()} - {AT}
        if events.is_empty() and {window.by, window.time, *read} <= set(events.columns):
            kinds = {name: part.kind for name, part in window.parts.items()}
            return pl.DataFrame(schema={window.entity: events.schema[window.by], AT: pl.Int64, **kinds})
        with told(self.view.name):
            return window.partials(events.lazy()).collect()

    def _alike(self, taken: pl.DataFrame) -> tuple[pl.DataFrame | None, pl.DataFrame]:
        """The rows kept so far and the new ones, with keys of one type: a side without rows brings none.

        Only the key's type depends on the events; all parts are integers that the aggregates made.
        """
        kept, entity = self.rows, self.view.window.entity
        if kept is None or kept.schema[entity] == taken.schema[entity]:
            return kept, taken
        if taken.is_empty():
            return kept, kept.clear()
        if kept.is_empty():
            return taken.clear(), taken
        return kept, taken.with_columns(_key(taken[entity], kept.schema[entity], self.view))

    def _after(
        self, known: pl.DataFrame | None, taken: pl.DataFrame, watermark: int | None
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The rows to keep of what is known and of these events, and the windows that they changed."""
        window = self.view.window
        entity, span, merges = window.entity, window.span, window.merges
        together = span.condensed(taken.lazy(), entity, merges).with_columns(_flag(1))
        if known is not None:
            together = pl.concat([known.lazy().with_columns(_flag(0)), together])
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
        rows, key = self.rows, None if self.rows is None else str(self.rows.schema[self.view.window.entity])
        if rows is not None and key not in _KEYS:
            if not rows.is_empty():
                raise DataError(
                    f"Entity {self.view.entity!r} of {self.view.name!r} is {key}; make a whole number or a text of it."
                )
            rows = key = None  # nothing came yet: the first rows say what their key is
        return json.dumps(
            {
                "view": self.view.name,
                "definition": _definition(self.view),
                "late": self.late,
                "watermark": self.watermark,
                "too_late": self.too_late,
                "key": key,
                "rows": None if rows is None else rows.to_dict(as_series=False),
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


def _key(given: pl.Series, kind: pl.DataType, view: WindowFeatures) -> pl.Series:
    """The entities as values of that type, each of them the same one afterwards.

    Raises:
        DataError: one is not: 7.5 is no whole number, and the text "007" is another one than "7".
    """
    plain = given.cast(pl.String) if _is_text(given.dtype) else given  # a category would be cast to its number
    fits = plain.dtype.is_numeric() or _is_text(plain.dtype)
    if _is_text(kind):
        fits = plain.dtype.is_integer() or _is_text(plain.dtype)  # 7.0 would become the text "7.0"
    try:
        made = plain.cast(kind, strict=False)
        same = made.is_not_null() & made.cast(plain.dtype, strict=False).eq_missing(plain)
    except pl.exceptions.PolarsError:  # no value of the one type is one of the other
        fits, made = False, plain
    if fits and same.all():
        return made
    value = plain.filter(~same)[0] if fits else plain[0]
    raise DataError(
        f"Entity {view.entity!r} of {view.name!r} was {kind} so far and is {given.dtype} now; {value!r} cannot be made "
        f"{kind}. Push events whose {view.window.by!r} is {kind}."
    )


def _is_text(kind: pl.DataType) -> bool:
    return isinstance(kind, pl.String | pl.Categorical | pl.Enum)


def _item(frame: pl.DataFrame, expression: pl.Expr) -> int | None:
    found: int | None = frame.select(expression).item()
    return found


def _flag(value: int) -> pl.Expr:
    return pl.lit(value, dtype=pl.Int64).alias(_NEW)
