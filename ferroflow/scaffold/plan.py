"""All that a generated pipeline says, decided from its file."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import polars as pl

from ferroflow.core.errors import DataError, UsageError
from ferroflow.core.spec import ByTime
from ferroflow.core.splits import by_time, windows
from ferroflow.scaffold.ask import Ask, Question
from ferroflow.scaffold.checks import Cell, cells_of
from ferroflow.scaffold.layout import Layout
from ferroflow.scaffold.moments import EVENT_AT, Moment, earliest, moment_of, moments
from ferroflow.scaffold.roles import FEW, Roles, roles_of
from ferroflow.scaffold.target import Target, target_of
from ferroflow.scaffold.typed import Table

NO_TIME = "none"
_READABLE = 0.98
_TEST, _VALIDATION = 0.15, 0.15
_FEWEST_SHARE = 0.02
_SKEWED = 3.0
_MOST_SLICES = 10
_SLICE_SHARE = 0.02
_BETTER = 0.02


@dataclass(frozen=True)
class Clock:
    """The event time, the windows of a split by it, and when the data end."""

    moment: Moment
    first: datetime
    end: datetime
    validation: str
    test: str
    train: str
    has_hours: bool
    replay: bool

    @property
    def days(self) -> float:
        """How long the data are."""
        return (self.end - self.first) / timedelta(days=1)


@dataclass(frozen=True)
class Plan:
    """One pipeline, decided; ``left_out`` of the columns says why."""

    name: str
    layout: Layout
    null_values: tuple[str, ...]
    rows: int
    cells: dict[str, Cell]
    strange: dict[str, str]
    personal: dict[str, str]
    roles: Roles
    target: Target
    clock: Clock | None
    entity: str | None
    skewed: tuple[str, ...]
    baseline: tuple[str, ...]
    slices: str | None

    @property
    def left_out(self) -> dict[str, str]:
        """Columns that the model does not see, and why."""
        return {**self.roles.left_out, **self.roles.known_with, **self.strange}


@dataclass(frozen=True)
class Asked:
    """The columns that were named; ``time`` may be "none": there is none. None: it is looked for, or not wanted."""

    target: str
    time: str | None = None
    entity: str | None = None
    positive: str | None = None


def plan(name: str, layout: Layout, table: Table, asked: Asked, *, now: datetime, ask: Ask) -> Plan:
    """Decide what the pipeline says.

    Args:
        name: of the pipeline.
        layout: how the file is read.
        table: its rows.
        asked: what the columns are for, as far as somebody said so.
        now: data that end before are a replay of the past.
        ask: asked where the file does not say it.

    Raises:
        UsageError: a column is not there or cannot be what it is asked to be.
        DataError: too few rows, or no column is left to learn from.
    """
    goal = target_of(table, asked.target, asked.positive, ask)
    known = table.frame.filter(pl.col(goal.column).is_not_null())
    others = [column for column in table.types if column != goal.column]
    _check_columns(others, asked)
    personal = {name: what for name, what in table.personal.items() if name in others}
    found = moments(known, [name for name in others if name not in personal])
    clock = _clock(known, _chosen(known, found, asked.time, ask), now, told=asked.time is not None)
    if asked.entity is not None and clock is None:
        raise UsageError(f"--entity {asked.entity!r} needs a time: what was known of it when? Give --time.")
    roles = _roles(known, others, goal, found, personal, clock, asked.entity)
    if not roles.inputs:
        why = "; ".join(f"{column}: {said}" for column, said in {**roles.left_out, **roles.known_with}.items())
        raise DataError(
            f"No column of {layout.path.name} is left to learn {goal.column!r} from. {why or 'It has no other.'}"
        )
    telling = _telling(known, roles, goal)
    return Plan(
        name=name,
        layout=layout,
        null_values=table.null_values,
        rows=table.rows,
        cells=_cells(table, goal, roles, clock),
        strange=table.strange,
        personal=personal,
        roles=roles,
        target=goal,
        clock=clock,
        entity=asked.entity,
        skewed=tuple(column for column in roles.inputs if column not in roles.categorical and _skewed(known[column])),
        baseline=_baseline(known, telling, goal),
        slices=next((column for column in telling if _slices(known[column])), None),
    )


def _roles(
    frame: pl.DataFrame,
    others: list[str],
    target: Target,
    found: list[Moment],
    personal: dict[str, str],
    clock: Clock | None,
    entity: str | None,
) -> Roles:
    later = {moment.column: "another time: it may be known only afterwards" for moment in found}
    later |= {name: f"{what}: personal" for name, what in personal.items() if name != entity}
    later |= _growing(frame, clock, [column for column in others if column not in later])
    taken = clock.moment.column if clock else ""
    later.pop(taken, None)
    roles = roles_of(frame, [column for column in others if column != taken and column not in later], target, entity)
    return replace(roles, left_out={**roles.left_out, **later})


def _growing(frame: pl.DataFrame, clock: Clock | None, columns: list[str]) -> dict[str, str]:
    """Numbers that only grow as time goes by: what comes next lies outside all that was learnt."""
    if clock is None:
        return {}
    numbers = [name for name in columns if frame[name].dtype.is_numeric() and frame[name].n_unique() > 1]
    ordered = frame.sort(clock.moment.expression(), maintain_order=True).select(numbers)
    return {
        name: "it only grows with time, as the time itself does"
        for name in numbers
        if not ordered[name].null_count() and ordered[name].is_sorted()
    }


def _cells(table: Table, target: Target, roles: Roles, clock: Clock | None) -> dict[str, Cell]:
    """The schema's columns; of those that the model does not see only the type is judged."""
    cells = cells_of(table, {target.column, *roles.inputs})
    if clock:
        time = clock.moment.column
        cells[time] = replace(cells[time], said="When it happened, as the file writes it.")
    for name in table.personal:
        kept = {key: value for key, value in cells[name].checks.items() if key == "nullable"}
        cells[name] = replace(cells[name], checks=kept, said="Personal: no value of it is shown.")
    learnt = cells[target.column]
    checks = {name: value for name, value in learnt.checks.items() if name == "nullable"}
    if target.regression:  # a prediction is no whole number, and a new record is no mistake
        checks |= {name: 0 for name, value in learnt.checks.items() if (name, value) == ("ge", 0)}
        cells[target.column] = replace(learnt, type=pl.Float64(), checks=checks)
    elif learnt.type != pl.Boolean:
        cells[target.column] = replace(learnt, checks={**checks, "isin": list(target.classes)})
    return cells


def _check_columns(others: list[str], asked: Asked) -> None:
    for option, column in (("--time", asked.time), ("--entity", asked.entity)):
        if column == asked.target:
            raise UsageError(f"{option} {column!r} is the target: it is not known when a prediction is asked for.")
        if column is not None and column not in others and not (option == "--time" and column == NO_TIME):
            raise UsageError(f"There is no column {column!r} for {option}. These came: {', '.join(others[:40])}.")
    if asked.entity is not None and asked.time == asked.entity:
        raise UsageError(f"--entity {asked.entity!r} is the time already. Name the column of what the rows are about.")


# ------------------------------------------------------------------------------------------------------------- the time


def _chosen(frame: pl.DataFrame, found: list[Moment], time: str | None, ask: Ask) -> Moment | None:
    if time is not None and time in frame.columns:
        moment = moment_of(frame, time, told=True)
        if moment is None:
            some = ", ".join(map(repr, frame[time].drop_nulls().cast(pl.String).unique().sort().head(3)))
            raise UsageError(f"{time!r} is no time that can be read: {some}. Give another --time, or --time {NO_TIME}.")
        return moment
    if time == NO_TIME or not found:
        return None
    first = earliest(frame, found)
    if len(found) == 1:
        return first
    choices = (*(moment.column for moment in found), NO_TIME)
    question = Question("Which column says when a row happened?", "--time", choices, first.column)
    answer = ask(question)
    return next((moment for moment in found if moment.column == answer), None)


def _clock(frame: pl.DataFrame, moment: Moment | None, now: datetime, *, told: bool) -> Clock | None:
    """The windows of a split by time; None where the time cannot split (an error where a person named it)."""
    if moment is None:
        return None
    moment = replace(moment, name=next(name for name in EVENT_AT if name not in frame.columns))
    times = frame.select(moment.expression().dt.cast_time_unit("us").alias("at"))["at"]
    why = None
    if times.null_count() > (1 - _READABLE) * len(times):
        why = f"only {1 - times.null_count() / len(times):.0%} of its cells are a time"
    else:
        clock = _windows(moment, times.drop_nulls().sort(), now)
        if clock is not None:
            return clock
        why = f"its {times.n_unique()} moments do not split into times to train, to tune and to judge"
    if told:
        raise UsageError(f"{moment.column!r} cannot split the rows: {why}. Give another --time, or --time {NO_TIME}.")
    return None


def _windows(moment: Moment, times: pl.Series, now: datetime) -> Clock | None:
    first, last = times[len(times) // 200], times[-1]  # a few rows may be dated long ago, by mistake
    late = times[int(len(times) * (1 - _TEST))]
    unit, sign = _unit(last - late)
    end = _ceiling(last + timedelta(microseconds=1), unit)
    test = math.ceil((end - late) / unit)
    middle = end - test * unit
    validation = math.ceil(
        max((middle - times[int(len(times) * (1 - _TEST - _VALIDATION))]) / unit, 1),
    )
    train = max(math.ceil((middle - validation * unit - first) / unit), 1)
    told = [f"{count}{sign}" for count in (validation, test, train)]
    parts = by_time(times.to_frame("at").lazy(), "at", windows(ByTime(validation=told[0], test=told[1]), end, "UTC"))
    counts = [part.collect().height for part in parts.values()]
    if min(counts) < max(1, _FEWEST_SHARE * len(times)):
        return None
    hours = bool((times.dt.truncate("1d") != times).any())
    replay = not (timedelta() <= now - last <= timedelta(days=1))
    return Clock(moment, first, end, told[0], told[1], told[2], hours, replay)


def _unit(span: timedelta) -> tuple[timedelta, str]:
    for unit, sign in ((timedelta(days=1), "d"), (timedelta(hours=1), "h"), (timedelta(minutes=1), "m")):
        if span >= 2 * unit:
            return unit, sign
    return timedelta(seconds=1), "s"


def _ceiling(moment: datetime, unit: timedelta) -> datetime:
    start = datetime(1970, 1, 1, tzinfo=UTC)
    return start - ((start - moment) // unit) * unit


# ----------------------------------------------------------------------------------------------- what tells most of it


def _telling(frame: pl.DataFrame, roles: Roles, target: Target) -> list[str]:
    """Columns with few values, the most telling first."""
    few = [name for name in roles.inputs if name in roles.categorical or _is_few(frame[name])]
    return sorted(few, key=lambda name: _explained(frame, (name,), target), reverse=True)


def _is_few(cells: pl.Series) -> bool:
    return cells.dtype.is_integer() and cells.drop_nulls().n_unique() <= FEW


def _explained(frame: pl.DataFrame, by: tuple[str, ...], target: Target) -> float:
    """How much of the target's variance the means of one half of the rows explain in the other half."""
    rows = frame.select(*by, target.answer(frame).alias("__answer")).with_row_index("__row")
    even, odd = rows.filter(pl.col("__row") % 2 == 0), rows.filter(pl.col("__row") % 2 == 1)
    means = even.group_by(by).agg(pl.col("__answer").mean().alias("__mean"))
    judged = odd.join(means, on=list(by), how="left", nulls_equal=True)
    missed = pl.col("__answer") - pl.col("__mean").fill_null(even["__answer"].mean())
    share = judged.select(1 - (missed**2).mean() / pl.col("__answer").var()).item()
    return float(share) if share is not None and math.isfinite(share) else 0.0


def _baseline(frame: pl.DataFrame, telling: list[str], target: Target) -> tuple[str, ...]:
    """The column, or the two, whose groups' means are the best naive answer."""
    if not telling or _explained(frame, (telling[0],), target) <= 0:
        return ()
    one = (telling[0],)
    pairs = [(telling[0], other) for other in telling[1:10]]
    best = max(pairs, key=lambda pair: _explained(frame, pair, target), default=one)
    return best if _explained(frame, best, target) > _explained(frame, one, target) + _BETTER else one


def _slices(cells: pl.Series) -> bool:
    """Whether a column makes a few groups that are all large enough to be judged."""
    counts = cells.value_counts()["count"]
    return 2 <= len(counts) <= _MOST_SLICES and bool((counts >= _SLICE_SHARE * len(cells)).all())


def _skewed(cells: pl.Series) -> bool:
    if not cells.dtype.is_numeric() or cells.drop_nulls().n_unique() <= FEW or cells.min() < 0:  # type: ignore[operator]
        return False
    return (cells.skew() or 0.0) > _SKEWED
