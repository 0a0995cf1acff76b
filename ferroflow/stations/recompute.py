"""Model inputs of logged predictions, made again from what was asked: as training makes them, not as the service does.

The request is read by the contract that it was read by. From there on nothing is shared with the service's look-up:
request features are the description's, and stored features are joined point in time from the offline store, as of
each row's clock and of the watermark that the service saw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import polars as pl

from ferroflow.adapters.contracts import feature_code
from ferroflow.adapters.feast.asof import View, join_as_of
from ferroflow.adapters.home import Home
from ferroflow.adapters.vectors import FIELD_TYPES, INPUT_TYPES
from ferroflow.core.cells import BadValue, cell
from ferroflow.core.contract import Field, ServingContract
from ferroflow.core.features import AVAILABLE_AT, StoredFeatures
from ferroflow.core.skew import WAITING, Column
from ferroflow.core.spec import PipelineSpec
from ferroflow.core.windows import WindowFeatures
from ferroflow.stations.features import request_inputs
from ferroflow.stations.offline import INGESTED_AT, removed

_UTC = pl.Datetime("us", "UTC")
_NEVER = datetime(1900, 1, 1, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LOST = "the offline store was never computed for what the online store had by then"
_UNTIL, _CLOCK, _SEEN, _INGESTED, _AT = "__until", "__clock", "__seen", "__ingested", "__at"
_WRITTEN, _LATE, _REMOVED = "__written", "__late", "__removed"


@dataclass(frozen=True)
class Recomputed:
    """Logged and recomputed model inputs of the lines that can be compared."""

    lines: pl.DataFrame  # of the prediction log, those that can be
    columns: tuple[Column, ...]
    excluded: Counter[str] = field(default_factory=Counter)  # reason -> lines


def recompute(
    spec: PipelineSpec,
    contract: ServingContract,
    lines: pl.DataFrame,
    home: Home,
    accepted: pl.DataFrame | None = None,
    until: datetime | None = None,
) -> Recomputed:
    """Make the model inputs of log lines again.

    Args:
        contract: of the version that answered these lines.
        accepted: accepted rows, one a line and in their order, to be used in place of the logged requests.
        until: the offline store has what was available by then; lines that saw later features are left out. None: it
            has all that they saw.
    """
    if (why := _objection(spec, contract)) is not None:
        return Recomputed(lines.clear(), (), Counter({why: lines.height}))
    vectors = [logged_object(text) for text in lines["features"]]
    asked, readable = _typed(contract, lines["inputs"]) if accepted is None else (accepted, [True] * lines.height)
    views = [view for view in spec.stored if any(name.startswith(view.full_name("")) for name in contract.inputs)]
    marks = [watermarks(lines["watermarks"], view.name) for view in views]
    reasons = _excluded(vectors, readable, dict(zip(views, marks, strict=True)), until)
    kept = pl.Series([reason is None for reason in reasons], dtype=pl.Boolean)
    excluded = Counter(reason for reason in reasons if reason is not None)
    rows, left = asked.filter(kept), lines.filter(kept)
    looked_up = {view: mark.filter(kept) for view, mark in zip(views, marks, strict=True)}
    again, extra = _made_again(spec, contract, rows, left["at"], looked_up, home)
    if unknown := [name for name in contract.inputs if name not in again]:
        why = f"the description makes no {', '.join(unknown)} any more"
        return Recomputed(lines.clear(), (), excluded + Counter({why: left.height}))
    logged = _fed(vectors, kept, contract)
    columns = (Column(name, logged[name], again[name], *extra.get(name, ())) for name in contract.inputs)
    return Recomputed(left, tuple(columns), excluded)


def watermarks(texts: pl.Series, view: str) -> pl.DataFrame:
    """What the log says of a view's watermark: ``told`` (whether at all), ``event`` and ``ingested`` (µs or null).

    A line says ``{view: [event, ingested]}``, an older one ``{view: event}``; null where the store was away.
    """
    distinct = texts.unique(maintain_order=True)
    found = [_mark(text, view) for text in distinct]
    known = pl.DataFrame(
        {"text": distinct, "told": [mark is not None for mark in found]}
        | {
            name: pl.Series([mark and mark[at] for mark in found], dtype=pl.Int64)
            for at, name in enumerate(("event", "ingested"))
        },
        schema_overrides={"told": pl.Boolean},
    )
    return texts.to_frame("text").join(known, on="text", how="left", maintain_order="left").drop("text")


def _mark(text: str, view: str) -> tuple[int | None, int | None] | None:
    marks = logged_object(text) or {}
    if view not in marks:
        return None
    mark = marks[view]
    if mark is None or isinstance(mark, int):
        return mark, None
    return (mark[0], mark[1]) if isinstance(mark, list) and len(mark) == 2 else None


def logged_object(text: str) -> dict[str, Any] | None:
    """A JSON object of the prediction log; None where it is damaged, or something else."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _objection(spec: PipelineSpec, contract: ServingContract) -> str | None:
    """Why the description of today cannot make the inputs of that model; None: it can."""
    try:
        code = feature_code(contract.request_features)
    except ImportError as error:
        return f"its request features are gone: {error}"
    if code != contract.feature_code or {entry.path for entry in spec.request} != set(contract.request_features):
        return "another feature code"
    asked = {entry.name for entry in contract.fields}
    if unasked := [name for name in spec.inputs if name not in asked]:
        return f"it was not asked for {', '.join(unasked)}"
    return None


def _excluded(
    vectors: Sequence[dict[str, Any] | None],
    readable: Sequence[bool],
    marks: Mapping[StoredFeatures, pl.DataFrame],
    until: datetime | None,
) -> list[str | None]:
    """Why each line cannot be compared; None where it can."""
    told = [mark["told"].to_list() for mark in marks.values()]
    ahead = _ahead(marks, until, len(vectors))
    reasons: list[str | None] = []
    for row, (vector, good) in enumerate(zip(vectors, readable, strict=True)):
        if vector is None or not good:
            reasons.append("its line in the log cannot be read by its contract")
        elif not all(entry[row] for entry in told):
            reasons.append("the log does not say until when the online store was complete")
        else:
            reasons.append(ahead[row])
    return reasons


def _ahead(marks: Mapping[StoredFeatures, pl.DataFrame], until: datetime | None, rows: int) -> list[str | None]:
    """Why lines saw features that the offline store does not have; None where it has them.

    Windows alone are pushed. What else was online came from the offline store, which then has lost it.
    """
    found: list[str | None] = [None] * rows
    if until is None:
        return found
    last = (until - _EPOCH) // timedelta(microseconds=1)
    for view, mark in marks.items():
        why = WAITING if isinstance(view, WindowFeatures) else _LOST
        for row in (mark["event"] > last).arg_true():
            found[row] = _LOST if found[row] == _LOST else why
    return found


def _typed(contract: ServingContract, texts: pl.Series) -> tuple[pl.DataFrame, list[bool]]:
    """Logged requests as the service read them, cleaned by the contract's rules, and which of them could be read."""
    rows = [logged_object(text) for text in texts]
    readable = [row is not None for row in rows]
    columns = []
    for entry in contract.fields:
        values = _cells(entry, rows, contract.null_values, readable)
        columns.append(pl.Series(entry.name, values, dtype=FIELD_TYPES[entry.type]))
    return pl.DataFrame(columns), readable


def _cells(
    entry: Field, rows: Sequence[Mapping[str, Any] | None], null_values: Sequence[str], readable: list[bool]
) -> list[Any]:
    """One field of all rows; a row whose cell is refused is marked in ``readable``."""
    known: dict[tuple[type, Any], Any] = {}  # zones and the like come again and again
    values: list[Any] = []
    for number, row in enumerate(rows):
        value = None if row is None else row.get(entry.name)
        try:
            key = (value.__class__, value or str(value))  # 0.0 and -0.0 are equal and not the same
            if key not in known:
                known[key] = cell(entry, value, null_values)
            values.append(known[key])
        except (BadValue, TypeError):  # a list or an object cannot be looked up, and is no cell either
            readable[number] = False
            values.append(None)
    return values


def _made_again(
    spec: PipelineSpec,
    contract: ServingContract,
    rows: pl.DataFrame,
    at: pl.Series,
    marks: Mapping[StoredFeatures, pl.DataFrame],
    home: Home,
) -> tuple[dict[str, pl.Series], dict[str, tuple[pl.Series, pl.Series, pl.Series]]]:
    """Model inputs by name, and for stored ones which rows could not be read, were written since, or came late."""
    found = {series.name: series for series in request_inputs(spec, rows)}
    extra = {}
    clock = rows[contract.time].cast(_UTC) if contract.time else at
    for view, mark in marks.items():
        clocked = rows.select(view.on).with_columns(
            clock.alias(_CLOCK), mark["event"].cast(_UTC).alias(_SEEN), mark["ingested"].alias(_INGESTED)
        )
        stored = pl.scan_parquet(home.offline(spec.name) / f"{view.name}.parquet")
        joined = point_in_time(view, clocked, stored, removed(spec, view, home))
        for name in joined.columns:
            if name in contract.inputs:
                found[name] = joined[name]
                extra[name] = (mark["event"].is_null(), joined[_WRITTEN], joined[_LATE])
    made = {
        name: found[name].cast(INPUT_TYPES[kind]).alias(name) for name, kind in contract.inputs.items() if name in found
    }
    return {name: series.fill_nan(None) if series.dtype.is_float() else series for name, series in made.items()}, extra


def point_in_time(
    view: StoredFeatures, rows: pl.DataFrame, stored: pl.LazyFrame, gone: pl.LazyFrame | None = None
) -> pl.DataFrame:
    """A view's features as of each row's clock and of the watermark it was looked up with.

    The latest stored row that is neither after the clock nor after the watermark, unless it is older than the
    time-to-live by the clock. Beside it: whether that row was written after it could have been read, or a later one
    could be read that was taken away since (``gone``: the online store keeps it until the entity has another), and
    whether the online store, which keeps each entity's newest row alone, had one of after the clock.
    """
    features = [name for name in stored.collect_schema() if name not in (view.entity, AVAILABLE_AT, INGESTED_AT)]
    names = {view.full_name(name): name for name in features}
    until = pl.when(pl.col(_SEEN).is_not_null()).then(pl.min_horizontal(_CLOCK, _SEEN)).fill_null(_NEVER)
    clocked = rows.with_columns(until.cast(_UTC).alias(_UNTIL), pl.col(_SEEN).fill_null(_NEVER))
    # What is older than the oldest clock's time-to-live has expired for every row.
    first, last = clocked.select(pl.col(_CLOCK).min() - view.ttl, pl.col(_SEEN).max().alias("last")).row(0)
    within = pl.col(AVAILABLE_AT).is_between(first, last) if first is not None else pl.lit(False)

    def joined(time: str, columns: Mapping[str, str], source: pl.LazyFrame = stored) -> pl.DataFrame:
        kept = View(source.filter(within), {view.on: view.entity}, columns, AVAILABLE_AT, created=INGESTED_AT)
        return join_as_of(clocked.select(view.on, time).lazy(), time, [kept]).drop(view.on, time).collect()

    ahead = clocked.select((pl.col(_SEEN) > pl.col(_CLOCK)).any()).item()
    nothing = pl.repeat(None, pl.len(), dtype=_UTC)
    found = [
        joined(_UNTIL, {**names, _AT: AVAILABLE_AT, _WRITTEN: INGESTED_AT}),
        joined(_SEEN, {_LATE: AVAILABLE_AT}) if ahead else clocked.select(nothing.alias(_LATE)),
        clocked.select(nothing.alias(_REMOVED)) if gone is None else joined(_SEEN, {_REMOVED: AVAILABLE_AT}, gone),
        clocked.select(_CLOCK, _INGESTED),
    ]
    fresh = pl.col(_CLOCK) - pl.col(_AT) <= view.ttl
    written = (fresh & (pl.col(_WRITTEN).dt.epoch("us") > pl.col(_INGESTED))).fill_null(False)
    reachable = (pl.col(_CLOCK) - pl.col(_REMOVED) <= view.ttl).fill_null(False)
    taken_away = reachable & (~fresh.fill_null(False) | (pl.col(_REMOVED) > pl.col(_AT)).fill_null(False))
    return pl.concat(found, how="horizontal").select(
        *(pl.when(fresh).then(name).alias(name) for name in names),
        (written | taken_away).alias(_WRITTEN),
        (pl.col(_LATE) > pl.col(_CLOCK)).fill_null(False).alias(_LATE),
    )


def _fed(vectors: Sequence[dict[str, Any] | None], kept: pl.Series, contract: ServingContract) -> dict[str, pl.Series]:
    """The logged vectors as columns of the inputs' types; what a vector does not name was not fed."""
    chosen = [vector for vector, good in zip(vectors, kept, strict=True) if good and vector is not None]
    return {
        name: pl.Series(name, [vector.get(name) for vector in chosen], dtype=INPUT_TYPES[kind], strict=False)
        for name, kind in contract.inputs.items()
    }
