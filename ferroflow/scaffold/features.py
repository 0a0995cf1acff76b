"""Features of a generated pipeline: the calendar, skewed numbers on a logarithmic scale, an entity's last weeks."""

from __future__ import annotations

from dataclasses import dataclass

from ferroflow.scaffold.code import identifiers, laid, literal, several
from ferroflow.scaffold.plan import Clock, Plan


@dataclass(frozen=True)
class Features:
    """The functions of ``features.py``, and its text."""

    names: tuple[str, ...]
    text: str


def features_of(plan: Plan) -> Features:
    """Write the functions that fit the plan; none where it has neither a time nor a skewed number."""
    functions: dict[str, list[str]] = {}
    if plan.clock:
        functions["calendar"] = _calendar(plan, plan.clock)
    if plan.skewed:
        functions["scales"] = _scales(plan)
    stored = _stored(plan, plan.clock) if plan.clock and plan.entity is not None else None
    if stored:
        functions[stored[0]] = stored[1]
    lines = [line for function in functions.values() for line in ("", "", *function)]
    head = _head(plan, stored is not None, [name for name in functions if name in ("calendar", "scales")])
    return Features(tuple(functions), "\n".join([*head, *lines, ""]))


def _head(plan: Plan, stored: bool, requests: list[str]) -> list[str]:
    names = [*(["AVAILABLE_AT"] if stored else []), *(["request"] if requests else []), *(["stored"] if stored else [])]
    lines = ['"""Features of a row: pure Polars, computed alike in training and in the service."""', ""]
    lines += ["from __future__ import annotations", "", "from collections.abc import Sequence"]
    if plan.clock:
        lines.append(f"from datetime import UTC, datetime{', timedelta' if stored else ''}")
    lines += ["", "import polars as pl", "", f"from ferroflow.core.features import {', '.join(names)}"]
    if plan.clock:
        first = plan.clock.first
        lines += ["", f"_FIRST_DAY = datetime({first.year}, {first.month}, {first.day}, tzinfo=UTC)"]
    return lines


def _calendar(plan: Plan, clock: Clock) -> list[str]:
    parts = {"day": "(at - pl.lit(_FIRST_DAY)).dt.total_hours().cast(pl.Float64) * (1 / 24)"}
    if clock.days > 60:
        parts["month"] = "at.dt.month().cast(pl.Float64)"
    if clock.days >= 14:
        parts["weekday"] = "at.dt.weekday().cast(pl.Float64)"
    hourly = clock.has_hours and clock.days >= 2
    if hourly:
        parts["hour"] = "at.dt.hour().cast(pl.Float64)"
    if hourly and clock.days >= 14:
        parts["hour_of_week"] = "at.dt.weekday().cast(pl.Float64) * 24 + at.dt.hour().cast(pl.Float64)"
    made = []
    for name, code in parts.items():
        alias = literal(_free(f"event_{name}", plan))
        made.append(f"({code}).alias({alias})" if " " in code else f"{code}.alias({alias})")
    return [
        "@request",
        "def calendar() -> Sequence[pl.Expr]:",
        '    """Where the moment lies, and the days gone by since the first."""',
        f"    at = pl.col({literal(clock.moment.derived)})",
        *_returned(made),
    ]


def _scales(plan: Plan) -> list[str]:
    made = [
        f"pl.col({literal(name)}).cast(pl.Float64).log1p().alias({literal(_free(f'log_{name}', plan))})"
        for name in plan.skewed
    ]
    return [
        "@request",
        "def scales() -> Sequence[pl.Expr]:",
        '    """Numbers with a few very large ones, on a logarithmic scale."""',
        *_returned(made),
    ]


def _returned(made: list[str]) -> list[str]:
    return laid("return ", several(made, "[]"), "", 4)


def _stored(plan: Plan, clock: Clock) -> tuple[str, list[str]]:
    span, count = ("week", 7) if clock.days >= 60 else ("day", 1)
    entity, target = str(plan.entity), plan.target
    plain = identifiers([entity])[entity].lower()
    name = f"{plain}_{span}"
    cell = f"pl.col({literal(target.column)})"
    value = cell if target.regression else f"({cell}.cast(pl.String) == {literal(target.positive)})"
    key = literal(entity) if plain == entity else f"pl.col({literal(entity)}).alias({literal(plain)})"
    return name, [
        f"@stored(entity={literal(plain)}, on={literal(entity)}, ttl={literal(f'{2 * count}d')})",
        f"def {name}(rows: pl.LazyFrame) -> pl.LazyFrame:",
        f'    """The mean target of one {plain} in the {span} that ends at ``available_at``."""',
        f"    {span} = timedelta(days={count})",
        f"    end = (pl.col({literal(clock.moment.derived)}).dt.truncate({span}) + {span}).alias(AVAILABLE_AT)",
        f'    mean = {value}.cast(pl.Float64).mean().alias("mean_target")',
        f"    return rows.filter({cell}.is_not_null()).group_by({key}, end).agg(mean)",
    ]


def _free(name: str, plan: Plan) -> str:
    while name in plan.cells:
        name += "_"
    return name
